"""The figure of each hostile program's row, from what it counted and what the four nodes say.

RELIABILITY in numbers: every program has one figure that must stay at or below its bound. Knows
statuses and tallies; runs nothing. A new program needs a line here (tests/benches holds that).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Status = dict[str, Any]

HONEST_LINKS = 3  # of each of the four to the others
SOCKETS_MAX = 32 + HONEST_LINKS + 1  # strangers, members, one that is just being let in
VERIFIES_MAX = 8  # per peer and ten minutes
BLAMES_MAX = 8  # per peer and ten minutes: after that it is barred
MEMBERS_MAX = 256
JOINING_ROWS = 6  # a stream for each of four identities, the link of one, and of its first question


@dataclass
class Seen:
    """What was seen of one attack: statuses of the four nodes, one list of four for each look."""

    did: dict[str, int]  # by the program, against all four together
    before: list[Status]
    during: list[list[Status]]
    after: list[Status]
    strangers: list[dict[str, Any]]  # afterwards: rows of ``peers`` that are none of the four


@dataclass(frozen=True)
class Figure:
    """What is counted, and how much of it there may be."""

    what: str
    of: Callable[[Seen], float]
    bound: float


def _did(key: str) -> Callable[[Seen], float]:
    return lambda seen: float(seen.did.get(key, 0))


def _most(of: Callable[[Status], float]) -> Callable[[Seen], float]:
    return lambda seen: max(of(status) for look in [*seen.during, seen.after] for status in look)


def _grown(of: Callable[[Status], float]) -> Callable[[Seen], float]:
    def grown(seen: Seen) -> float:
        pairs = zip(seen.before, seen.after, strict=True)
        return max(of(after) - of(before) for before, after in pairs)

    return grown


def _rows(status: Status) -> float:
    tables = status["tables"]
    return float(tables["streams"] + tables["members"] + tables["links"])


def _rows_by_words(seen: Seen) -> float:
    """Rows beyond those of its identities, which joined as any stranger may."""
    return max(0.0, _grown(_rows)(seen) - JOINING_ROWS)


def _rejected(status: Status, reason: str) -> float:
    return float(status["verdicts"]["reject"].get(reason, 0))


def _links_lost(seen: Seen) -> float:
    return float(sum(max(0, HONEST_LINKS - status["following"]) for status in seen.after))


def _without_proof(seen: Seen) -> float:
    pairs = zip(seen.before, seen.after, strict=True)
    return float(sum(a["tables"]["proofs"] <= b["tables"]["proofs"] for b, a in pairs))


def _mixed(seen: Seen) -> float:
    return float(sum(bool(row["coefficient"]) for row in seen.strangers))


ENDURED = Figure("connections that outlived it", _did("endured"), 0)
BARRED = Figure(
    "connections to a node before it is barred", lambda seen: seen.did.get("connected", 0) / 4, 10
)
FORKED = Figure("nodes without a proof of it", _without_proof, 0)
LINKS = Figure("links of the honest that it cost", _links_lost, 0)
MIXED = Figure("its copies in a mix", _mixed, 0)
NEW_ROWS = Figure("table rows beyond those of its four names", _rows_by_words, 0)

FIGURES: dict[str, Figure] = {
    "plaintext_impostor": Figure("offers that were accepted", _did("accepted"), 0),
    "idle_flood": Figure("sockets held at most", _most(lambda s: s["sockets"]), SOCKETS_MAX),
    "reconnector": Figure("sockets that stayed", _grown(lambda s: s["sockets"]), 0),
    "window_overrun": ENDURED,
    "syn_flood": ENDURED,
    "slow_reader": Figure("tasks that stayed", _grown(lambda s: s["tasks"]), 6),
    "garbage_streamer": BARRED,
    "oversize": ENDURED,
    "bad_signature_flood": Figure(
        "signatures verified", _grown(lambda s: _rejected(s, "signature")), VERIFIES_MAX
    ),
    "replayer": NEW_ROWS,
    "stale_sender": NEW_ROWS,
    "bombs": BARRED,
    "table_poisoner": Figure(
        "members known at most", _most(lambda s: s["tables"]["members"]), MEMBERS_MAX
    ),
    "sybil_swarm": LINKS,
    "grinder": LINKS,
    "wrong_network": ENDURED,
    "forker": FORKED,
    "selective_publisher": FORKED,
    "withholder": LINKS,
    "late_publisher": LINKS,
    "nan_sender": MIXED,
    "wrong_schema": MIXED,
}
