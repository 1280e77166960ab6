"""Members that are away for weeks, one of them or all: whoever comes back goes on, none forks."""

import pytest

from tapestry_p2p.sim.cluster import Cluster, Plan

WEEKS_3 = 21 * 86_400.0


def settle(cluster: Cluster) -> None:
    """Nobody publishes any more; copies are equal, nobody forked, nobody is to blame."""
    cluster.hush()
    cluster.run(30.0)
    assert cluster.differing_copies() == []
    assert cluster.doubly_signed() == []
    assert cluster.blamed() == 0


@pytest.mark.parametrize("seed", [61, 62])
def test_everybody_is_away_for_weeks_and_then_they_go_on(seed: int) -> None:
    cluster = Cluster(Plan(seed=seed, honest=4, d=16))
    cluster.run(30.0)
    before = cluster.distance()
    rounds = [member.rounds for member in cluster.members]
    for member in cluster.members:
        member.crash()
    for n, member in enumerate(cluster.members):  # one after the other, over a minute
        cluster.world.after(WEEKS_3 + 15.0 * n, member.start)
    cluster.run(WEEKS_3 + 120.0)
    assert all(member.is_up() for member in cluster.members)
    assert cluster.distance() < max(0.1, before)
    assert all(m.rounds > r + 20 for m, r in zip(cluster.members, rounds, strict=True))
    settle(cluster)


def test_one_is_away_for_weeks_and_finds_back() -> None:
    """The others are killed at once after it and started with it, so weeks cost nothing here."""
    cluster = Cluster(Plan(seed=64, honest=4, d=16))
    cluster.run(20.0)
    away = cluster.members[2]
    away.crash()
    cluster.run(60.0)  # far beyond the ring: it comes back to copies that only keyframes lead on
    for member in cluster.members:
        if member is not away:
            member.crash()
    for member in cluster.members:
        cluster.world.after(WEEKS_3, member.start)
    cluster.run(WEEKS_3 + 60.0)
    assert cluster.world.counts["keyframe"] > 0
    assert cluster.distance(2) < 0.2
    settle(cluster)
