"""The report of a testnet: what was measured, put together as DIR/report.json.

Pure arithmetic over what members and judges said; the models' distance is taken from the stored
vectors after the nodes have ended.
"""

import math
from typing import Any

import numpy as np

from tapestry_p2p.cli.testnet.arms import Scores
from tapestry_p2p.cli.testnet.cluster import Member
from tapestry_p2p.cli.testnet.homes import Prepared
from tapestry_p2p.cli.testnet.plan import Plan
from tapestry_p2p.daemon.store import Store

METRICS = ("bits_per_byte", "bits_per_char", "accuracy")


def member_rows(
    members: list[Member],
    scores: dict[str, dict[str, Scores]],
    equal: dict[str, bool],
) -> list[dict[str, Any]]:
    """One row per member. ``scores``: arm -> peer id -> scores."""
    return [_row(member, scores, equal) for member in members]


def _row(
    member: Member, scores: dict[str, dict[str, Scores]], equal: dict[str, bool]
) -> dict[str, Any]:
    home, status = member.home, member.status
    trainer = status.get("trainer", {})
    row: dict[str, Any] = {
        "id": home.peer_id,
        "name": home.name,
        "language": home.language,
        "byzantine": home.byzantine,
        "rounds": status.get("round", 0),
        "exit_code": member.exit_code,
        "restarts": member.restarts,
        "entries_published": int(member.tally("entries_published")),
        "payload_bytes_sent": int(member.tally("payload_bytes_sent")),
        "keyframe_bytes_sent": int(member.tally("keyframe_bytes_sent")),
        "bytes_sent": int(member.tally("bytes_sent")),
        "bytes_received": int(member.tally("bytes_received")),
        "copies_equal": equal.get(home.peer_id, False),
        "trainer_isolated": bool(status.get("trainer_isolated", False)),
        "verdicts": {k: sum(v.values()) for k, v in status.get("verdicts", {}).items()},
        "verdict_reasons": status.get("verdicts", {}),
        "node_rss_mb": member.peak_mb("node"),
        "trainer_rss_mb": member.peak_mb("trainer"),
        "node_cpu_s": round(member.tally("cpu_s"), 2),
        "trainer_busy_share": _share(trainer.get("busy_s", 0.0), trainer.get("seconds", 0.0)),
    }
    if not home.byzantine:
        for metric in METRICS:
            row[metric] = {
                arm: found[home.peer_id][metric][home.language]
                for arm, found in scores.items()
                if found[home.peer_id].get(metric)
            }
    return row


def _share(part: float, whole: float) -> float:
    return round(part / whole, 4) if whole > 0 else 0.0


def all_languages(scores: dict[str, dict[str, Scores]], central: Scores | None) -> dict[str, float]:
    """Mean bits per byte over honest members' models and all honest languages, by arm."""
    found = {
        arm: float(np.mean([np.mean(list(s["bits_per_byte"].values())) for s in by_peer.values()]))
        for arm, by_peer in scores.items()
        if arm in ("alone", "together")
    }
    if central is not None:
        found["central"] = float(np.mean(list(central["bits_per_byte"].values())))
    return found


def consensus_distance(prepared: Prepared) -> float:
    """Honest members' mean distance to their average, relative to its norm. Nodes must be gone."""
    vectors = []
    for home in prepared.homes:
        if home.byzantine:
            continue
        store = Store(home.paths.state / "store", prepared.manifest.streams.ring)
        try:
            state = store.load_own()
        finally:
            store.close()
        if state is not None and len(state.x):
            vectors.append(state.x.astype(np.float64))
    if len(vectors) < 2:
        return math.nan
    mean = np.mean(vectors, axis=0)
    return float(np.mean([np.linalg.norm(v - mean) for v in vectors]) / np.linalg.norm(mean))


def bytes_per_parameter_per_round(plan: Plan, prepared: Prepared, members: list[Member]) -> float:
    """Own headers and payloads of differences, over parameters and rounds; honest members."""
    d = prepared.manifest.schema.parameters
    shares = [
        m.tally("entry_bytes") / (d * m.status["round"])
        for m in members
        if not m.home.byzantine and m.status.get("round")
    ]
    return float(np.mean(shares)) if shares else math.nan


def wire_efficiency(members: list[Member]) -> float:
    """Entry and chunk bytes sent, over all bytes sent on the sockets; honest members."""
    honest = [m for m in members if not m.home.byzantine]
    sent = sum(m.tally("bytes_sent") for m in honest)
    return sum(m.tally("useful_bytes_sent") for m in honest) / sent if sent else math.nan
