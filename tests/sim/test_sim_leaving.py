"""A member leaves a network in bad weather and comes back: nobody mixes it meanwhile."""

import pytest

from tapestry_p2p.sim.chaos import STORM
from tapestry_p2p.sim.cluster import Cluster, Plan


def _goodbyes(cluster: Cluster) -> int:
    return cluster.world.counts["goodbye"]


@pytest.mark.parametrize("seed", [71, 72, 73])
def test_it_is_out_everywhere_and_its_return_is_as_defined(seed: int) -> None:
    cluster = Cluster(Plan(seed=seed, honest=5, d=16, weather=STORM))
    cluster.run(30.0)
    leaver, *others = cluster.honest
    before = leaver.disk.entries[-1].header.seq
    leaver.say_goodbye()
    cluster.run(40.0)
    assert not leaver.is_up()
    assert leaver.disk.entries[-1].header.kind == "leave"
    assert leaver.disk.entries[-1].header.seq > before
    for member in others:
        assert member.protocol is not None
        assert leaver.key not in member.protocol.members()
        assert leaver.key not in member.protocol.followed()
        assert member.protocol.weight_zero(leaver.key)
    assert _goodbyes(cluster) == len(others), "each takes it once, however often it comes"
    rounds = [member.rounds for member in others]
    leaver.start()
    cluster.run(60.0)
    seq = leaver.disk.entries
    back = next(i for i, each in enumerate(seq) if each.header.kind == "leave") + 1
    assert seq[back].header.kind == "resume"
    assert all(m.rounds > r + 20 for m, r in zip(others, rounds, strict=True))
    for member in others:
        assert member.protocol is not None
        assert leaver.key in member.protocol.followed()
        assert leaver.key in member.protocol.members()
    cluster.heal()
    cluster.hush()
    cluster.run(40.0)
    assert cluster.differing_copies() == []
    assert cluster.doubly_signed() == []
    assert cluster.blamed() == 0


def test_killed_between_signing_and_telling_it_never_signs_it_twice() -> None:
    cluster = Cluster(Plan(seed=74, honest=4, d=16))
    cluster.run(20.0)
    leaver = cluster.honest[0]
    leaver.crash_in = 1  # the entry is written, and not yet sent to anybody
    leaver.say_goodbye()
    assert not leaver.is_up()
    assert leaver.disk.entries[-1].header.kind == "leave"
    cluster.run(10.0)
    assert _goodbyes(cluster) == 0
    leaver.crash_in = None
    leaver.start()
    cluster.run(30.0)
    kinds = [each.header.kind for each in leaver.disk.entries]
    assert kinds.count("leave") == 1
    assert kinds[kinds.index("leave") + 1] == "resume"
    assert cluster.doubly_signed() == []
    assert cluster.blamed() == 0
