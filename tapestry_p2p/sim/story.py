"""One seed, one story: faults at random, then healing, then what must hold.

A story that never reached a branch proves nothing about it: ``unexercised`` names what a set of
stories left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from tapestry_p2p.sim.chaos import STORM, Chaos
from tapestry_p2p.sim.cluster import Cluster, Plan

STORM_S, HEAL_S, SETTLE_S = 60.0, 40.0, 60.0
CONSENSUS_MAX = 0.5  # of the average's norm; 0.05 to 0.25 in calm runs of this size
DISTANCE_MAX = 0.3  # of the way from genesis to the optimum
MUST_HAPPEN = (
    "crashed_between_effects",
    "rolled_back",
    "lost_copies",
    "partition",
    "lost",
    "doubled",
    "overtook",
    "dialled_both_ways",
    "dial_failed",
    "FetchKeyframe",
    "fetch_missing",
    "fetch_timeout",
    "OwnHead",
    "resumed",
    "Advanced",
    "mixed",
)


@dataclass(frozen=True)
class Outcome:
    """How a story ended: its trace, what it exercised, what it broke."""

    seed: int
    trace: str
    counts: Counter[str]
    broken: tuple[str, ...]


def tell(seed: int) -> Outcome:
    """Run the story of one seed."""
    cluster = Cluster(Plan(seed=seed, honest=4, d=16, round_s=0.7, weather=STORM))
    Chaos(cluster, STORM_S)
    cluster.run(STORM_S + 5.0)
    cluster.heal()
    cluster.run(HEAL_S)
    broken = _wrong_vectors(cluster)
    cluster.hush()
    cluster.run(SETTLE_S)
    broken += cluster.differing_copies()
    broken += [f"{name} signed one seq twice" for name in cluster.doubly_signed()]
    if cluster.blamed():
        broken.append(f"honest members blamed one another {cluster.blamed()} times")
    return Outcome(seed, cluster.world.trace, cluster.world.counts, tuple(broken))


def _wrong_vectors(cluster: Cluster) -> list[str]:
    apart, away = cluster.consensus_distance(), cluster.distance()
    wrong = []
    if not apart < CONSENSUS_MAX:
        wrong.append(f"consensus distance {apart:.3f} after healing")
    if not away < DISTANCE_MAX:
        wrong.append(f"distance to the optimum {away:.3f} after healing")
    return wrong


def unexercised(outcomes: Iterable[Outcome]) -> list[str]:
    """What none of the stories made happen."""
    total: Counter[str] = Counter()
    for outcome in outcomes:
        total += outcome.counts
    return [what for what in MUST_HAPPEN if not total[what]]
