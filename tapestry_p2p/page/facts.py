"""What the daemon answers, turned into what the page shows: codes and numbers, hardly any words.

Pure functions. Words are the catalogue's (static/words.json), in the reader's language; whatever
others chose goes through names.clean. An answer of another shape than expected gives blanks, never
an exception: the page outlives the daemon's version.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tapestry_p2p.errors import NO_DAEMON, TIMEOUT, TapestryError
from tapestry_p2p.page.names import alike, clean, mixed_scripts, short

NEIGHBOURS_MAX = 256  # shown; far more than a member follows
DETAIL_CHARS_MAX = 300
LANGUAGES_MAX, CLAIMS_MAX, STEPS_MAX = 64, 17, 1024
MODELS = ("alone", "together", "sovereign")
PAUSES = frozenset({"operator", "hours", "battery", "load", "disk"})

Answer = Mapping[str, Any]


# ---- what it does --------------------------------------------------------------------------------


def situation(status: Answer) -> dict[str, Any]:
    """``code``: what the catalogue explains; ``detail``: the daemon's own words, if they add."""
    state = str(status.get("state", ""))
    word, _, rest = state.partition(": ")
    if status.get("fault") or word == "degraded":
        return {"code": "degraded", "detail": clean(status.get("fault"), DETAIL_CHARS_MAX)}
    if word == "stopped":
        return {"code": "stopped", "detail": clean(rest, DETAIL_CHARS_MAX)}
    if word == "finished":
        return {"code": "finished"}
    if paused := _map(status.get("paused")):
        code = next((each for each in sorted(paused) if each in PAUSES), "other")
        code = "operator" if "operator" in paused else code
        words = ", ".join(clean(text, 100) for text in paused.values())
        return {"code": f"paused_{code}", "detail": "" if code == "operator" else words}
    if word.startswith("asking"):
        return {"code": "asking"}
    if word.startswith("trainer"):
        failure = _map(status.get("trainer")).get("last_failure")
        return {"code": "restarting", "detail": clean(failure, DETAIL_CHARS_MAX)}
    if word != "training":
        return {"code": "starting"}
    return {"code": _training(status)}


def _training(status: Answer) -> str:
    if not whole(status.get("peers")):
        return "alone"
    if not status.get("mixing"):
        return "too_few"
    authors = _map(status.get("mixed")).get("authors")
    return "together" if authors else "not_mixed"


def failed(error: TapestryError) -> dict[str, Any]:
    """The situation when the daemon does not answer."""
    code = {NO_DAEMON: "no_daemon", TIMEOUT: "slow"}.get(error.exit_code, "no_answer")
    return {"code": code, "detail": "" if code == "no_daemon" else clean(error.message, 300)}


def member(status: Answer) -> dict[str, Any]:
    """Who this member is and what it has done, in numbers."""
    trainer = _map(status.get("trainer"))
    return {
        "name": clean(status.get("name")),
        "short": short(status.get("id")),
        "network": clean(status.get("network")),
        "network_short": clean(status.get("network_id"), 128)[:8],
        "version": clean(status.get("version")),
        "round": whole(status.get("round")),
        "rounds": whole(status.get("rounds")),
        "peers": whole(status.get("peers")),
        "members": whole(status.get("members")),
        "mixed": len(_rows(_map(status.get("mixed")).get("authors"))),
        "live": whole(status.get("live")),
        "tolerate": whole(status.get("tolerate")),
        "paused_by_you": "operator" in _map(status.get("paused")),
        "isolated": status.get("trainer_isolated") is True,
        "trainer": trainer.get("running") is True,
        "loss": real(trainer.get("loss")),
        "steps": whole(trainer.get("steps")),
        "bytes_sent": whole(status.get("bytes_sent")),
        "bytes_received": whole(status.get("bytes_received")),
        "uptime_s": whole(status.get("uptime_s")),
    }


# ---- neighbours ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Cuts:
    """How often each neighbour was mixed and how often cut, since this page started."""

    seen: dict[str, list[int]] = field(default_factory=dict)  # id -> [mixed, cut]
    _last: object = None

    def note(self, status: Answer) -> None:
        """Count one mixing, unless it was counted already."""
        mixed = _map(status.get("mixed"))
        if mixed == self._last:
            return
        self._last = mixed
        for row in _rows(mixed.get("authors")):
            influence = real(row.get("coefficient"))
            if influence is None or (
                len(self.seen) >= 4 * NEIGHBOURS_MAX and _id(row) not in self.seen
            ):
                continue
            counts = self.seen.setdefault(_id(row), [0, 0])
            counts[0] += 1
            counts[1] += influence < 1

    def share(self, peer_id: str) -> float | None:
        """Of its mixings, the share in which its pull was cut."""
        mixed, cut = self.seen.get(peer_id, (0, 0))
        return cut / mixed if mixed else None


def neighbours(answer: Answer, status: Answer, cuts: Cuts) -> dict[str, Any]:
    """The other members, those that matter most first; ``more``: how many are not shown."""
    rows = [row for row in _rows(answer.get("peers")) if _id(row)]
    ours = _id(status)
    named = [(_id(row), str(row.get("name", ""))) for row in rows]
    twins = alike([(ours, str(status.get("name", ""))), *named])
    shown = [_neighbour(row, twins.get(_id(row), []), ours, cuts) for row in rows]
    shown.sort(key=lambda row: (ORDER.index(row["verdict"]), row["name"].casefold(), row["short"]))
    return {"rows": shown[:NEIGHBOURS_MAX], "more": max(0, len(shown) - NEIGHBOURS_MAX)}


ORDER = ["cut", "full", "unmixed", "not_yet", "probation", "away"]


def _neighbour(row: Answer, twins: list[str], ours: str, cuts: Cuts) -> dict[str, Any]:
    languages = row.get("languages")
    return {
        "name": clean(row.get("name")),
        "short": short(row.get("id")),
        "alike": [short(twin) for twin in twins[:4]],
        "like_you": ours in twins,
        "mixed": bool(mixed_scripts(str(row.get("name", "")))),
        "languages": [clean(x, 16) for x in languages[:8]] if isinstance(languages, list) else [],
        "connected": row.get("connected") is True,
        "verdict": _verdict(row),
        "probation": whole(row.get("probation")),
        "influence": real(row.get("coefficient")),
        "distance": real(row.get("distance")),
        "cut_share": cuts.share(_id(row)),
        "round": whole(row.get("round")),
    }


def _verdict(row: Answer) -> str:
    """How it is treated, as `tapestry peers` words it."""
    influence = real(row.get("coefficient"))
    if row.get("probation") and influence is None:
        return "probation"
    if row.get("weight_zero"):
        return "unmixed"
    if influence is None:
        return "not_yet" if row.get("connected") else "away"
    return "full" if influence >= 1 else "cut"


# ---- what it gains -------------------------------------------------------------------------------


def gain(status: Answer, answer: Answer) -> dict[str, Any]:
    """The three models' curves, [own steps, figure], what they are worth now, and the gains."""
    measured, curves = _map(status.get("gain")), _map(answer.get("curves"))
    return {
        "unit": clean(measured.get("unit"), 16),
        "curves": {name: _points(curves.get(name)) for name in MODELS},
        "now": {name: real(_map(measured.get(name)).get("value")) for name in MODELS},
        "gains": {name: real(measured.get(f"gain_{name}")) for name in MODELS[1:]},
        "apart": real(measured.get("sovereign_distance")),
        "failed": measured.get("failed") is True,
    }


def _points(value: object) -> list[list[float]]:
    found = value[:STEPS_MAX] if isinstance(value, list) else []
    points = [[real(x) for x in row] for row in found if isinstance(row, list) and len(row) == 2]
    return [[x, y] for x, y in points if x is not None and y is not None]


def languages(status: Answer) -> dict[str, Any]:
    """What members claim of their models by language, as the daemon ordered it."""
    return {"rows": [_language(row) for row in _rows(status.get("languages"))[:LANGUAGES_MAX]]}


def _language(row: Answer) -> dict[str, Any]:
    claims = _rows(row.get("claims"))[:CLAIMS_MAX]
    return {
        "language": clean(row.get("language"), 32),
        "members": whole(row.get("members")),
        **{name: real(row.get(name)) for name in MODELS},
        "claims": [
            {
                "name": clean(claim.get("name")),
                "short": short(claim.get("id")),
                "counted": claim.get("counted") is True,
                **{name: real(claim.get(name)) for name in MODELS},
            }
            for claim in claims
        ],
    }


# ---- reading what may be anything ----------------------------------------------------------------


def whole(value: object) -> int:
    """A whole number of at least 0; anything else is 0."""
    return int(value) if isinstance(value, int | float) and 0 <= value < 2**63 else 0


def real(value: object) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e300 and math.isfinite(value) else None


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _rows(value: object) -> list[Mapping[str, Any]]:
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list) else []


def _id(row: Answer) -> str:
    found = row.get("id")
    return found if isinstance(found, str) and len(found) <= 128 else ""
