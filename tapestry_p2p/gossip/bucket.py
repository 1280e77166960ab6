"""A token bucket: a rate with some savings. Time is handed in; knows nothing of what it limits."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Bucket:
    """``rate`` tokens per second, at most ``burst`` saved up; full at the start."""

    rate: float
    burst: float
    level: float = field(init=False)
    at: float = 0.0

    def __post_init__(self) -> None:
        self.level = self.burst

    def has(self, amount: float, at: float) -> bool:
        """Whether ``amount`` could be taken now."""
        filled = self.level + max(0.0, at - self.at) * self.rate
        return amount <= min(self.burst, filled)

    def take(self, amount: float, at: float) -> bool:
        """Take ``amount`` if it is there."""
        if at > self.at:
            filled = self.level + (at - self.at) * self.rate
            self.level = filled if filled < self.burst else self.burst
            self.at = at
        if amount > self.level:
            return False
        self.level -= amount
        return True
