"""Links chosen by secrets, at work: tens of members converge, an attacker is bounded, members move.

And newcomers: they begin where the others are, unless their own measure says that this is worse.
"""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tapestry_p2p.mix.loom import LoomSettings
from tapestry_p2p.mix.topology import eigenvalues
from tapestry_p2p.sim.cluster import Cluster, Plan
from tapestry_p2p.sim.rounds import Pace


def _links(cluster: Cluster) -> NDArray[np.float64]:
    """Who follows whom, float64[n, n] of zeros and ones."""
    rows = {member.key: n for n, member in enumerate(cluster.members)}
    links = np.zeros((len(rows), len(rows)))
    for member in cluster.members:
        assert member.protocol is not None
        for author in member.protocol.followed():
            links[rows[member.key], rows[author]] = 1.0
    return links


def _check(cluster: Cluster, k: int) -> None:
    """A graph that is mutual and nearly regular; then silence, in which all copies are equal."""
    links = _links(cluster)
    assert np.array_equal(links, links.T)
    assert links.sum(axis=1).max() <= k
    assert links.sum() >= 0.95 * k * len(links)
    assert {m.protocol.neighbours for m in cluster.members if m.protocol} == {k}
    cluster.hush()
    cluster.run(16.0)
    assert cluster.differing_copies() == []
    assert cluster.doubly_signed() == []
    assert cluster.blamed() == 0


def test_forty_members_with_six_links_converge() -> None:
    plan = Plan(seed=61, honest=40, d=16, links=6, pace=Pace(round_s=2.0))
    cluster = Cluster(plan)
    cluster.run(30.0)
    assert cluster.distance() < 0.2
    assert cluster.consensus_distance() < 0.15
    assert eigenvalues(_links(cluster))[1] > 0.8, "6 - 2 sqrt(5) is 1.5; it reaches everybody"
    _check(cluster, 6)


def test_twenty_four_members_with_sixteen_links_bound_an_attacker() -> None:
    def end(rule: str, byzantine: int) -> float:
        plan = Plan(
            seed=62, honest=24 - byzantine, byzantine=byzantine, d=8, links=16,
            pace=Pace(round_s=1.2, news_share=0.0), loom=LoomSettings(rule=rule, f=1),
        )  # fmt: skip
        cluster = Cluster(plan)
        cluster.run(20.0)
        honest = _links(cluster)[: plan.honest, : plan.honest]
        assert eigenvalues(honest)[1] > 4.0, "what a proof needs for f = 1"
        return cluster.distance()

    assert end("cs_plus", 1) < 0.2
    assert end("mean", 1) > 0.3


def test_a_member_that_restarts_keeps_its_links_and_its_copies() -> None:
    cluster = Cluster(Plan(seed=63, honest=8, d=8, links=4))
    cluster.run(20.0)
    member = cluster.members[5]
    before = set(member.copies)
    member.crash()
    cluster.run(4.0)
    keyframes = cluster.world.counts["keyframe"]
    member.start()
    cluster.run(10.0)
    assert set(member.copies) == before
    assert cluster.world.counts["keyframe"] == keyframes
    _check(cluster, 4)


# -- newcomers


@pytest.mark.parametrize("links", [0, 4])
def test_who_comes_late_begins_where_the_others_are(links: int) -> None:
    plan = Plan(seed=64, honest=7, d=16, links=links, late={6: 30.0}, pace=Pace(round_s=1.0))
    cluster = Cluster(plan)
    late = cluster.members[6]
    while not late.disk.entries:
        cluster.run(1.0)
        assert cluster.world.now < 60.0
    assert cluster.distance(6) < 0.3, "genesis is at 1"
    cluster.run(30.0)
    counts = cluster.world.counts
    assert counts["adopted"] == 1
    assert counts["started_from_others"] >= max(2, links - 1)
    assert counts["fetch_root"] == counts["fetch_content"] == 0
    assert late.rounds > 20
    assert cluster.distance() < 0.1
    cluster.hush()
    cluster.run(20.0)
    assert cluster.differing_copies() == []
    assert cluster.blamed() == 0


def test_who_is_invited_by_liars_alone_begins_at_genesis() -> None:
    plan = Plan(seed=65, honest=2, byzantine=4, attack="gaussian", d=16, late={1: 40.0})
    cluster = Cluster(plan)
    gone, late, liar = cluster.members[0], cluster.members[1], cluster.members[2]
    cluster.at(35.0, gone.crash)  # it made them known to one another
    late.settings = replace(late.settings, bootstrap=((liar.key, ("/dns4/m2/tcp/1",)),))
    cluster.run(80.0)
    assert cluster.world.counts["adopted_nothing"] == 1
    assert cluster.world.counts["adopted"] == 0
    assert late.disk.entries[0].header.kind == "genesis"
    assert late.rounds > 10


def test_who_has_a_stream_never_adopts() -> None:
    cluster = Cluster(Plan(seed=66, honest=4, d=8, late={3: 20.0}))
    cluster.run(50.0)
    late = cluster.members[3]
    assert cluster.world.counts["adopted"] == 1
    late.crash()
    cluster.run(1.0)
    late.start()
    cluster.run(20.0)
    assert cluster.world.counts["adopted"] == 1
    assert [signed.header.kind for signed in late.disk.entries].count("adopt") == 1
