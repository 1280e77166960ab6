"""Virtual time, the one source of chance, and what happened: counts by name and a trace hash.

The same seed gives the same trace, on any machine and any Python: a trace line holds the time,
names and whole numbers. No number that vector arithmetic made may stand in it, for its last bits
depend on the BLAS; the type of ``note`` says so. Knows nothing of networks or members.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from random import Random
from typing import Any

LINES = 4096  # hashed at a time


class World:
    """A queue of actions in virtual time. Equal times happen in the order they were asked for."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.now = 0.0
        self.counts: Counter[str] = Counter()
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        self._lines: list[tuple[float, str, tuple[str | int, ...]]] = [(0.0, "seed", (seed,))]
        self._trace = sha256()

    def after(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        """Do ``action(*arguments)`` in ``seconds`` of virtual time."""
        self.at(self.now + seconds, action, *arguments)

    def at(self, moment: float, action: Callable[..., None], *arguments: Any) -> None:
        """Do ``action(*arguments)`` when it is ``moment``."""
        self._order += 1
        heapq.heappush(self._queue, (moment, self._order, action, arguments))

    def run(self, until: float) -> None:
        """Let time pass up to ``until`` seconds."""
        queue, pop = self._queue, heapq.heappop
        while queue and queue[0][0] <= until:
            self.now, _, action, arguments = pop(queue)
            action(*arguments)
        self.now = max(self.now, until)

    def note(self, what: str, *details: str | int) -> None:
        """Count what happened, and take it into the trace."""
        self.counts[what] += 1
        self._lines.append((self.now, what, details))
        if len(self._lines) >= LINES:
            self._hash_lines()

    def _hash_lines(self) -> None:
        self._trace.update(repr(self._lines).encode())
        self._lines.clear()

    @property
    def trace(self) -> str:
        """Hash of everything noted so far."""
        self._hash_lines()
        return self._trace.hexdigest()

    def spread(self, low: float, high: float) -> float:
        """A number drawn evenly from low to high."""
        return low + (high - low) * self.random.random()
