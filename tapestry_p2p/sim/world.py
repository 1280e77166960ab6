"""Virtual time, the one source of chance, and what happened: counts by name and a trace hash.

The same seed gives the same trace. Knows nothing of networks or members.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from random import Random


class World:
    """A queue of actions in virtual time."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.now = 0.0
        self.counts: Counter[str] = Counter()
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._trace = sha256(str(seed).encode())

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do ``action`` in ``seconds`` of virtual time."""
        self._order += 1
        heapq.heappush(self._queue, (self.now + seconds, self._order, action))

    def run(self, until: float) -> None:
        """Let time pass up to ``until`` seconds."""
        while self._queue and self._queue[0][0] <= until:
            self.now, _, action = heapq.heappop(self._queue)
            action()
        self.now = max(self.now, until)

    def note(self, what: str, *details: object) -> None:
        """Count what happened, and take it into the trace."""
        self.counts[what] += 1
        self._trace.update(repr((round(self.now, 9), what, details)).encode())

    @property
    def trace(self) -> str:
        """Hash of everything noted so far."""
        return self._trace.hexdigest()

    def spread(self, low: float, high: float) -> float:
        """A number drawn evenly from low to high."""
        return low + (high - low) * self.random.random()
