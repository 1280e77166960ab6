"""Keeps node and trainer below the memory that their operator allows: watched, paused, begun anew.

Knows resident bytes and a ceiling. No resource limit does it: JAX reserves far more address space
than it uses, so RLIMIT_AS would refuse it at once, and what the system kills dies within a step.
Above the ceiling the trainer saves and ends, which frees most of it, and begins again a while
later, each time longer; so what grows slowly is kept below it. A peak between two looks is unseen:
who needs a hard wall sets MemoryMax= in the unit (docs/operations.md).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from tapestry_p2p.daemon.pauses import MEMORY, Pauses
from tapestry_p2p.daemon.quantities import format_size

LOOK_S = 2.0
LOOKS = 3  # in a row above the ceiling: a copy that is being made is no growth
WAITS_S = (30.0, 120.0, 600.0, 3600.0)
CALM_S = 3600.0  # so long below it and the waits begin anew


@dataclass
class Ceiling:
    """Judges what is used, look by look. ``most``: bytes of both processes; 0: no ceiling."""

    most: float
    _above: int = 0  # looks in a row
    _times: int = 0
    _until: float = field(default=0.0)  # of the pause
    _last_at: float = float("-inf")
    _words: str = ""

    def judge(self, node: float, trainer: float, now: float) -> str:
        """Why the trainer must not run now, in words; empty if it may."""
        if not self.most:
            return ""
        if node > self.most:
            return f"the node alone takes {format_size(node)} of the {self._allowed}"
        if now < self._until:
            return self._words
        self._above = self._above + 1 if node + trainer > self.most else 0
        if self._above < LOOKS:
            return ""
        self._above = 0
        self._times = self._times + 1 if now - self._last_at < CALM_S + self._wait else 1
        self._last_at, self._until = now, now + self._wait
        used = format_size(node + trainer)
        self._words = (
            f"node and trainer took {used} of the {self._allowed};"
            f" the trainer begins again after {self._wait:.0f} s"
        )
        return self._words

    @property
    def _allowed(self) -> str:
        return f"{format_size(self.most)} that budget.memory allows"

    @property
    def _wait(self) -> float:
        return WAITS_S[min(max(self._times, 1), len(WAITS_S)) - 1]


async def watch_memory(
    pauses: Pauses, ceiling: Ceiling, used: Callable[[], tuple[float, float]]
) -> None:
    """Look again and again; until cancelled. ``used``: bytes of node and of trainer."""
    while ceiling.most:
        pauses.say(MEMORY, ceiling.judge(*used(), trio.current_time()))
        await trio.sleep(LOOK_S)
