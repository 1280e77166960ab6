"""One plan run from end to end, with measurements on the way: what `tapestry simulate` shows.

Rounds under faults, then healing, then silence in which every copy must become equal. Returns plain
data, ready for JSON; prints and draws nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tapestry_p2p.sim.chaos import Churn, unexercised
from tapestry_p2p.sim.cluster import Cluster, Plan
from tapestry_p2p.sim.quadratics import Quadratics
from tapestry_p2p.sim.training import Learner
from tapestry_p2p.sim.villains import DEEDS

HEAL_ROUNDS = 20  # of good weather, with everybody there; then these must hold
SETTLE_S = 60.0  # without a new entry, in which all copies must become equal
CONSENSUS_MAX = 0.5  # of the average's norm
DISTANCE_MAX = 0.3  # of the way from genesis to the optimum; quadratics only

Progress = Callable[[dict[str, Any]], None]

# what a run may have reached -> the counts that say so
EXERCISE: dict[str, tuple[str, ...]] = {
    "delivered": ("delivered",),
    "lost": ("lost",),
    "doubled": ("doubled",),
    "reordered": ("reordered",),
    "lost on dead links": ("lost_on_dead_link",),
    "partitioned": ("partitioned", "partitioned_one_way"),
    "crashed": ("crashed", "power_cut"),
    "writes torn": ("torn_write",),
    "restarted": ("restarted",),
    "rolled back": ("rolled_back",),
    "resumed": ("resumed",),
    "joined late": ("joined_late",),
    "left": ("left",),
    "fork proofs": ("fork_proof",),
    "keyframes": ("keyframe",),
    "gaps asked": ("gap_asked",),
    "entries published": ("published",),
    "entries applied": ("applied",),
    "fetches failed": ("fetch_missing", "fetch_timeout", "fetch_unreachable", "fetch_root"),
    "bad contents": ("fetch_content",),
    "peers dropped": ("dropped",),
    "rounds mixed": ("mixed",),
    "news mixed": ("mixed_news",),
}


@dataclass(frozen=True)
class Trial:
    """A plan and for how long. ``churn``: share of the members that go down in 60 rounds."""

    plan: Plan
    rounds: int
    churn: float = 0.0
    points: int = 30  # of a curve
    must_converge: bool = False  # a certified rule on a task whose optimum is known

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of fault that the plan promises."""
        plan = self.plan
        promised = {
            "lose_frames": plan.weather.loss > 0,
            "churn": self.churn > 0,
            "slow_members": any(times != 1.0 for times in plan.slower.values()),
            plan.attack: plan.byzantine > 0 and plan.attack in DEEDS,
        }
        return tuple(kind for kind, drawn in promised.items() if drawn)

    @property
    def end(self) -> int:
        """Rounds in all."""
        return self.rounds + (HEAL_ROUNDS if self.is_faulty else 0)

    @property
    def is_faulty(self) -> bool:
        """Whether there is anything to heal."""
        return self.plan.weather.loss > 0 or self.churn > 0


def exercise(counts: Counter[str]) -> dict[str, int]:
    """What a run reached, in words."""
    return {name: sum(counts[what] for what in whats) for name, whats in EXERCISE.items()}


def experiment(
    trial: Trial, learner: Learner | None = None, progress: Progress = lambda _: None
) -> dict[str, Any]:
    """Run a trial. ``progress`` gets every point of the curve.

    ``curve`` holds rounds of a member at full speed, the consensus distance, every measure of the
    honest average and of each honest member; ``broken`` what did not hold (nothing should).
    """
    cluster = Cluster(trial.plan, learner)
    Churn(cluster, trial.churn, trial.rounds)
    curve = [_point(cluster, 0)]
    end = trial.end
    for done in sorted({*range(0, end, max(1, end // trial.points)), trial.rounds, end} - {0}):
        cluster.run((done - curve[-1]["round"]) * trial.plan.pace.round_s)
        curve.append(_point(cluster, done))
        progress(curve[-1])
        if done == trial.rounds and trial.is_faulty:
            cluster.heal()
    broken = _far_apart(cluster, trial) if end >= HEAL_ROUNDS else []
    broken += _settle(cluster, trial)
    return {
        "seed": trial.plan.seed,
        "rounds": trial.rounds,
        "healed_at": trial.rounds if trial.is_faulty else None,
        "rounds_done": [member.rounds for member in cluster.honest],
        "curve": curve,
        "exercise": exercise(cluster.world.counts),
        "drawn": list(trial.kinds),
        "verdicts": {name: dict(sorted(c.items())) for name, c in cluster.verdicts().items()},
        "trace": cluster.world.trace,
        "bits": cluster.bits(),
        "broken": broken,
    }


def _point(cluster: Cluster, done: int) -> dict[str, Any]:
    models = np.concatenate([cluster.mean()[None], cluster.models()])
    measures = cluster.learner.evaluate(models)
    return {
        "round": done,
        "consensus_distance": cluster.consensus_distance(),
        "mean": {name: float(values[0]) for name, values in measures.items()},
        "members": {name: [float(v) for v in values[1:]] for name, values in measures.items()},
    }


def _far_apart(cluster: Cluster, trial: Trial) -> list[str]:
    """Whether the members converged, where that is promised."""
    if not trial.must_converge or not trial.plan.pace.mixes:
        return []
    wrong = []
    apart = cluster.consensus_distance()
    if not apart < CONSENSUS_MAX:
        wrong.append(f"consensus distance {apart:.3f}, not below {CONSENSUS_MAX}")
    if isinstance(cluster.learner, Quadratics) and not cluster.distance() < DISTANCE_MAX:
        wrong.append(f"distance to the optimum {cluster.distance():.3f}, not below {DISTANCE_MAX}")
    return wrong


def _settle(cluster: Cluster, trial: Trial) -> list[str]:
    """What is wrong once nobody publishes any more."""
    cluster.hush()
    cluster.run(SETTLE_S)
    wrong = cluster.wrongly_barred() + cluster.differing_copies()
    wrong += [f"{name} signed one seq twice" for name in cluster.doubly_signed()]
    counts = cluster.world.counts
    return wrong + [f"never happened: {what}" for what in unexercised(trial.kinds, counts)]
