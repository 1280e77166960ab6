"""One seed, one story: options drawn, faults at random, then healing, then what must hold.

The options are known before the first event, so that whoever runs a story can print them first. A
fault that was drawn and never happened breaks the story: a run that did not reach a branch proves
nothing about it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from random import Random

from tapestry_p2p.mix.loom import LoomSettings
from tapestry_p2p.sim.chaos import EXERCISES, STORM, STRIKES, Chaos, unexercised
from tapestry_p2p.sim.cluster import Cluster, Plan
from tapestry_p2p.sim.rounds import Pace
from tapestry_p2p.sim.villains import DEEDS

STORM_S, HEAL_S, SETTLE_S = 60.0, 40.0, 60.0
STORMS_MAX = 3  # a storm goes on until every kind of fault has happened, but not for ever
ROUND_S = 0.7
CONSENSUS_MAX = 0.5  # of the average's norm; 0.05 to 0.25 in calm runs of this size
DISTANCE_MAX = 0.3  # of the way from genesis to the optimum
ATTACKS = ("mirror", "sign_flip", "alie+", "nan", "gaussian")


@dataclass(frozen=True)
class Script:
    """What was drawn for one seed: the plan, and the kinds of fault it promises."""

    plan: Plan
    kinds: tuple[str, ...]

    def __str__(self) -> str:
        plan, weather = self.plan, self.plan.weather
        hostile = f" + {plan.byzantine} x {plan.attack}" if plan.byzantine else ""
        slow = "".join(f", m{n} {times:g} times slower" for n, times in plan.slower.items())
        late = "".join(f", m{n} late by {second:.0f} s" for n, second in plan.late.items())
        return (
            f"seed {plan.seed}: {plan.honest} members{hostile}, d {plan.d}, {plan.loom.codec},"
            f" {plan.loom.rule} f {plan.loom.f}{slow}{late}, loss {weather.loss:.2f},"
            f" double {weather.double:.2f}; faults: {', '.join(self.kinds)}"
        )


@dataclass(frozen=True)
class Outcome:
    """How a story ended: its trace, what it exercised, what it broke or left out."""

    script: Script
    trace: str
    bits: str
    counts: Counter[str]
    broken: tuple[str, ...]


def draw(seed: int) -> Script:
    """The options of one seed."""
    random = Random(seed)
    kinds = {kind for kind in STRIKES if random.random() < 0.6}
    honest = random.randint(4, 6)
    villain = random.choice(["", *DEEDS, *ATTACKS])
    honest = max(honest, 5) if villain else honest
    weather = replace(STORM, reorder=False, loss=0.0, double=0.0)
    if random.random() < 0.7:
        kinds.add("lose_frames")
        weather = replace(weather, loss=random.uniform(0.03, 0.15))
    if random.random() < 0.5:
        kinds.add("double_frames")
        weather = replace(weather, double=random.uniform(0.02, 0.1))
    if random.random() < 0.5:
        kinds.add("reorder_frames")
        weather = replace(weather, reorder=True)
    plan = Plan(
        seed=seed, honest=honest, byzantine=int(bool(villain)), attack=villain or "mirror",
        d=random.choice([16, 300]), pace=Pace(round_s=ROUND_S), weather=weather,
        loom=LoomSettings(codec=random.choice(["2bit", "int8", "fp32"]), f=int(bool(villain))),
    )  # fmt: skip
    if villain in EXERCISES:
        kinds.add(villain)
    return Script(*_uneven(plan, kinds, random))


def _uneven(plan: Plan, kinds: set[str], random: Random) -> tuple[Plan, tuple[str, ...]]:
    """Some members are late or slow, some links bring frames in batches."""
    if random.random() < 0.4:
        kinds.add("join_late")
        plan = replace(plan, late={plan.honest - 1: random.uniform(20.0, 30.0)})
    if random.random() < 0.4:
        kinds.add("slow_members")
        plan = replace(plan, slower={1: random.choice([2.0, 4.0, 8.0])})
    if random.random() < 0.3:
        kinds.add("batch_links")
        plan = replace(plan, batched={(0, 1): 4})
    return plan, tuple(kind for kind in EXERCISES if kind in kinds)


def tell(script: Script) -> Outcome:
    """Run a story."""
    cluster = Cluster(script.plan)
    chaos = Chaos(cluster, STORM_S, [kind for kind in script.kinds if kind in STRIKES])
    cluster.run(STORM_S)
    while chaos.missing() and cluster.world.now < STORMS_MAX * STORM_S:
        cluster.run(5.0)
    chaos.calm = True
    cluster.heal()
    cluster.run(HEAL_S)
    broken = _wrong_vectors(cluster)
    cluster.hush()
    cluster.run(SETTLE_S)
    broken += cluster.differing_copies() + cluster.wrongly_barred()
    broken += [f"{name} signed one seq twice" for name in cluster.doubly_signed()]
    if cluster.blamed() and not cluster.villains:
        broken.append(f"honest members blamed one another {cluster.blamed()} times")
    world = cluster.world
    broken += [f"never happened: {what}" for what in unexercised(script.kinds, world.counts)]
    return Outcome(script, world.trace, cluster.bits(), world.counts, tuple(broken))


def _wrong_vectors(cluster: Cluster) -> list[str]:
    apart, away = cluster.consensus_distance(), cluster.distance()
    wrong = []
    if not apart < CONSENSUS_MAX:
        wrong.append(f"consensus distance {apart:.3f} after healing")
    if not away < DISTANCE_MAX:
        wrong.append(f"distance to the optimum {away:.3f} after healing")
    return wrong
