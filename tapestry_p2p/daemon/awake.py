"""Time that we were awake: a machine that slept, or a process that was stopped, missed nothing.

The protocol's deadlines (who is silent, who is gone, what expires) run on the seconds in which we
could have heard something. Otherwise three hours of sleep would end every membership at once. Pure:
told the time whenever there is one to tell, at least four times a second while we are awake.
"""

GAP_S = 10.0  # between two looks; a busy machine makes one of seconds


class Awake:
    """Turns the shell's monotonic seconds into seconds awake. Never goes back."""

    def __init__(self) -> None:
        self.slept_s = 0.0
        self._seen: float | None = None
        self._last = float("-inf")

    def look(self, now: float) -> bool:
        """It is ``now``; whether we have slept since the last look."""
        gap = 0.0 if self._seen is None else now - self._seen
        self._seen = now
        if gap > GAP_S:
            self.slept_s += gap
        return gap > GAP_S

    def at(self, time: float) -> float:
        """A shell's time, by what was slept until the last look."""
        self._last = max(self._last, time - self.slept_s)
        return self._last
