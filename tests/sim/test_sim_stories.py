"""Crashes, torn writes, lost disks, cuts, loss, liars; then healing, and all agree bit for bit."""

import pytest

from tapestry_p2p.sim.chaos import EXERCISES, STRIKES, Chaos, unexercised
from tapestry_p2p.sim.cluster import Cluster, Plan
from tapestry_p2p.sim.story import Outcome, draw, tell

SEEDS = range(1, 9)


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return [tell(draw(seed)) for seed in SEEDS]


def test_every_story_ends_well(outcomes: list[Outcome]) -> None:
    assert {str(outcome.script): outcome.broken for outcome in outcomes if outcome.broken} == {}


def test_the_stories_together_reach_every_kind_of_fault_of_the_world(
    outcomes: list[Outcome],
) -> None:
    drawn = {kind for outcome in outcomes for kind in outcome.script.kinds}
    assert drawn >= set(STRIKES)


def test_same_seed_same_trace_same_bits(outcomes: list[Outcome]) -> None:
    again = tell(draw(SEEDS[0]))
    assert (again.trace, again.bits) == (outcomes[0].trace, outcomes[0].bits)
    assert len({outcome.trace for outcome in outcomes}) == len(outcomes)


def test_a_fault_that_was_drawn_and_never_happened_breaks_the_story() -> None:
    cluster = Cluster(Plan(seed=1, honest=3, d=8))
    cluster.run(5.0)
    assert unexercised(["kill"], cluster.world.counts) == ["kill: crashed", "kill: restarted"]
    for kind in EXERCISES:
        assert unexercised([kind], cluster.world.counts), f"{kind} happens without being drawn"


@pytest.mark.parametrize("kind", STRIKES)
def test_each_kind_of_fault_alone_happens_and_heals(kind: str) -> None:
    cluster = Cluster(Plan(seed=5, honest=4, d=8))
    cluster.run(10.0)
    chaos = Chaos(cluster, 30.0, [kind])
    cluster.run(90.0)
    assert chaos.missing() == []
    chaos.calm = True
    cluster.heal()
    cluster.run(20.0)
    assert cluster.distance() < 0.2
    cluster.hush()
    cluster.run(40.0)
    assert cluster.differing_copies() == []
    assert cluster.doubly_signed() == []
    assert cluster.blamed() == 0
