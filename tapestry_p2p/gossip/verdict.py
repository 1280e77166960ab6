"""What we think of a foreign message: one of three verdicts, each with a counted reason.

ACCEPT, IGNORE (no blame), REJECT (blame). Knows nothing of messages. Reasons come from this
program's own fixed vocabulary, never from a peer's bytes, so no peer can make the tables grow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from functools import cache


class Verdict(Enum):
    """Whose fault: nobody's (ACCEPT), the world's (IGNORE), the sender's (REJECT)."""

    ACCEPT = "accept"
    IGNORE = "ignore"
    REJECT = "reject"


@dataclass(frozen=True)
class Judgement:
    """One verdict and the reason it is counted under."""

    verdict: Verdict
    reason: str


@cache
def accept(reason: str) -> Judgement:
    """The message did something."""
    return Judgement(Verdict.ACCEPT, reason)


@cache
def ignore(reason: str) -> Judgement:
    """The message did nothing, and nobody is to blame: late, doubled, or not ours to use."""
    return Judgement(Verdict.IGNORE, reason)


def reject(reason: str) -> Judgement:
    """The sender broke a rule that it could have checked itself."""
    return Judgement(Verdict.REJECT, reason)


@dataclass
class Tally:
    """How often each verdict was given for each reason."""

    counts: dict[Verdict, dict[str, int]] = field(
        default_factory=lambda: {verdict: {} for verdict in Verdict}
    )

    def add(self, judgement: Judgement) -> None:
        """Count one judgement."""
        table = self.counts[judgement.verdict]
        table[judgement.reason] = table.get(judgement.reason, 0) + 1

    def total(self, verdict: Verdict) -> int:
        """How many judgements had this verdict."""
        return sum(self.counts[verdict].values())

    def table(self) -> dict[str, dict[str, int]]:
        """``{"accept": {reason: n}, "ignore": ..., "reject": ...}``, a copy."""
        return {verdict.value: dict(sorted(self.counts[verdict].items())) for verdict in Verdict}
