"""Crashes, lost disks, cuts, loss, reordering; then healing, and all agree bit for bit."""

import pytest

from tapestry_p2p.sim.story import Outcome, tell, unexercised

SEEDS = range(1, 7)


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return [tell(seed) for seed in SEEDS]


def test_every_story_ends_well(outcomes: list[Outcome]) -> None:
    assert {outcome.seed: outcome.broken for outcome in outcomes if outcome.broken} == {}


def test_the_stories_exercise_what_they_are_told_for(outcomes: list[Outcome]) -> None:
    assert unexercised(outcomes) == []
    assert unexercised([]) != []


def test_same_seed_same_trace(outcomes: list[Outcome]) -> None:
    assert tell(SEEDS[0]).trace == outcomes[0].trace
    assert len({outcome.trace for outcome in outcomes}) == len(outcomes)
