"""The production Protocol and Loom together: calm, unequal speeds, an attacker, crashes, joiners.

Tasks are quadratics, so the distance to the optimum is exact; genesis is at distance 1.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tapestry_p2p.mix.loom import LoomSettings
from tapestry_p2p.sim.average import topology_of
from tapestry_p2p.sim.cluster import Cluster, Plan
from tapestry_p2p.sim.network import Weather
from tapestry_p2p.sim.rounds import Pace


def _quiet(cluster: Cluster, seconds: float = 30.0) -> None:
    """Nobody publishes any more; then all copies must be equal, and nobody forked or to blame."""
    cluster.hush()
    cluster.run(seconds)
    assert cluster.differing_copies() == []
    assert cluster.doubly_signed() == []
    assert cluster.blamed() == 0


def test_a_calm_network_converges_and_spends_few_bytes() -> None:
    cluster = Cluster(Plan(seed=11, real_signatures=True))
    cluster.run(60.0)
    assert cluster.distance() < 0.05
    assert cluster.consensus_distance() < 0.2
    counts = cluster.world.counts
    assert counts["keyframe_asked"] == 0
    assert counts["published"] > 5 * 50
    assert counts["applied"] > 4 * (counts["published"] - 20), "everybody holds nearly everything"
    _quiet(cluster)


def test_same_plan_same_trace_and_another_seed_another() -> None:
    def trace(seed: int) -> str:
        cluster = Cluster(Plan(seed=seed, honest=3, d=8))
        cluster.run(20.0)
        return cluster.world.trace

    assert trace(3) == trace(3) != trace(4)


@pytest.mark.parametrize("view", ["applied_pull", "current"])
@pytest.mark.parametrize("factor", [4.0, 8.0, 16.0])
def test_a_slow_member_and_a_batched_link_stay_bounded(factor: float, view: str) -> None:
    plan = Plan(
        seed=21, d=32, pace=Pace(round_s=0.5), slower={0: factor}, batched={(1, 2): 4},
        loom=LoomSettings(view=view),
    )  # fmt: skip
    cluster = Cluster(plan)
    worst = _watch(cluster, 40.0)
    assert worst < 1.5, "nobody ever leaves for worse than genesis"
    assert cluster.distance() < 0.3
    assert cluster.world.counts["batch"] > 0
    cluster.network.heal()
    _quiet(cluster)


def _fast(factor: float, view: str) -> Plan:
    """One member is ``factor`` times faster than all others."""
    slow = dict.fromkeys(range(1, 5), factor)
    return Plan(
        seed=22, d=32, pace=Pace(round_s=1.0 / factor), slower=slow, ring=32,
        loom=LoomSettings(view=view, ttl=32),
    )  # fmt: skip


def _watch(cluster: Cluster, seconds: float) -> float:
    """Run, and the worst distance of any member seen on the way; stops where it runs away."""
    worst = 0.0
    for _ in range(int(seconds)):
        cluster.run(1.0)
        worst = max(worst, *(cluster.distance(n) for n in range(cluster.plan.honest)))
        if not worst < 10.0:
            break
    return worst


@pytest.mark.parametrize("view", ["applied_pull", "current"])
@pytest.mark.parametrize("factor", [4.0, 8.0, 16.0])
def test_a_fast_member_stays_bounded(factor: float, view: str) -> None:
    cluster = Cluster(_fast(factor, view))
    assert _watch(cluster, 25.0) < 1.5
    assert cluster.distance() < 0.4
    _quiet(cluster)


def test_naive_age_matching_diverges() -> None:
    """The control: without the applied pull a fast member adds the same step again and again."""
    assert not _watch(Cluster(_fast(16.0, "naive")), 100.0) < 10.0


def test_a_mirror_attacker_is_bounded_by_cs_plus_and_ruins_the_mean() -> None:
    def end(rule: str, byzantine: int) -> float:
        plan = Plan(seed=31, honest=6, byzantine=byzantine, d=32, loom=LoomSettings(rule=rule, f=1))
        cluster = Cluster(plan)
        cluster.run(60.0)
        distance = cluster.distance()
        _quiet(cluster)
        return distance

    clean, attacked, ruined = end("cs_plus", 0), end("cs_plus", 1), end("mean", 1)
    assert clean < 0.05
    assert attacked < 0.15
    assert ruined > 0.4


def _restart(cluster: Cluster, break_it: Callable[[], None]) -> None:
    cluster.at(20.0, cluster.members[1].crash)
    cluster.at(20.5, break_it)
    cluster.at(24.0, cluster.members[1].start)
    cluster.run(60.0)
    assert cluster.members[1].rounds > 40
    assert cluster.distance() < 0.1
    _quiet(cluster)


def lose(cluster: Cluster, entries: int) -> None:
    assert cluster.members[1].disk.lose(entries) == entries


def test_a_killed_member_goes_on_at_its_next_seq() -> None:
    cluster = Cluster(Plan(seed=41, honest=4, d=16))
    _restart(cluster, lambda: None)
    assert cluster.world.counts["resumed"] == 0
    entries = cluster.members[1].disk.entries
    assert [signed.header.seq for signed in entries] == list(range(len(entries)))
    incarnations = {signed.header.incarnation for signed in entries}
    assert len(incarnations) == 1


def test_a_rolled_back_member_resumes() -> None:
    cluster = Cluster(Plan(seed=42, honest=4, d=16))
    _restart(cluster, lambda: lose(cluster, 5))
    assert cluster.world.counts["resumed"] == 1
    assert cluster.world.counts["shown_own_head"] >= 1


def test_a_member_that_lost_its_copies_takes_keyframes() -> None:
    cluster = Cluster(Plan(seed=43, honest=4, d=16))
    _restart(cluster, cluster.members[1].disk.copies.clear)
    assert cluster.world.counts["keyframe"] >= 3


def test_crashes_between_effects_never_sign_a_seq_twice() -> None:
    cluster = Cluster(Plan(seed=44, honest=3, d=8, pace=Pace(round_s=0.5)))
    member = cluster.members[2]

    def doom(n: int) -> None:
        member.crash_in = n
        cluster.world.after(4.0, member.start)

    for n in range(25):
        cluster.at(10.0 + 6.0 * n, lambda n=n: doom(n))  # type: ignore[misc]
    cluster.run(170.0)
    assert cluster.world.counts["crashed_between_effects"] == 25
    _quiet(cluster)


def test_a_late_joiner_takes_keyframes_and_catches_up() -> None:
    cluster = Cluster(Plan(seed=45, honest=4, d=16, late={3: 40.0}))
    assert cluster.members[3].disk.entries == []
    cluster.run(80.0)
    assert cluster.world.counts["joined_late"] == 1
    assert cluster.world.counts["keyframe"] >= 3
    assert cluster.distance(3) < 0.4
    _quiet(cluster)


def test_both_sides_of_a_partition_go_on_and_then_agree() -> None:
    cluster = Cluster(Plan(seed=46, honest=6, d=16))
    keys = [member.key for member in cluster.members]
    cluster.at(20.0, lambda: cluster.network.partition(keys[:3], keys[3:]))
    cluster.run(60.0)
    rounds = [member.rounds for member in cluster.members]
    cluster.network.unite()
    cluster.run(30.0)
    assert min(rounds) > 50
    assert cluster.distance() < 0.1
    _quiet(cluster)


def test_loss_and_reordering_then_calm() -> None:
    storm = Weather(delay_s=(0.01, 0.3), loss=0.2, double=0.1, reorder=True)
    cluster = Cluster(Plan(seed=47, honest=4, d=16, weather=storm))
    cluster.run(60.0)
    assert min(member.rounds for member in cluster.members) > 40, "nobody waits for anybody"
    for what in ("lost", "doubled", "reordered", "fetch_timeout", "gap_asked"):
        assert cluster.world.counts[what] > 0, what
    cluster.network.heal()
    cluster.run(20.0)
    assert cluster.distance() < 0.1
    _quiet(cluster)


def test_a_plan_can_be_varied() -> None:
    plan = Plan(seed=48, honest=3, d=8, loom=LoomSettings(codec="int8"))
    for codec in ("fp32", "int8"):
        cluster = Cluster(replace(plan, loom=LoomSettings(codec=codec)))
        cluster.run(30.0)
        assert cluster.distance() < 0.05
        _quiet(cluster)


@pytest.mark.parametrize("topology", ["ring", "regular:4"])
def test_on_a_declared_graph_everyone_follows_its_neighbours_alone(topology: str) -> None:
    graph = topology_of(topology, 8, 0)
    cluster = Cluster(Plan(seed=49, honest=8, d=8, graph=graph))
    cluster.run(30.0)
    for row, member in zip(graph.weights, cluster.members, strict=True):
        near = {cluster.members[n].key for n in range(8) if row[n]}
        assert member.protocol is not None
        assert set(member.protocol.followed()) == set(member.copies) == near
    assert cluster.distance() < 0.1


def test_links_chosen_by_secrets_are_mutual_and_reach_everybody() -> None:
    cluster = Cluster(Plan(seed=50, honest=12, d=8, links=4))
    cluster.run(40.0)
    followed = {m.key: set(m.protocol.followed()) for m in cluster.members if m.protocol}
    assert all(a in followed[b] for a, theirs in followed.items() for b in theirs)
    assert {len(theirs) for theirs in followed.values()} <= {3, 4}
    assert cluster.distance() < 0.1
