"""Members that cannot reach each other: whoever both reach shows the one's entries to the other.

Nobody is named a relay; a digest that lags is what asks for it, and bytes are fetched from any
holder and checked as ever.
"""

from dataclasses import replace
from functools import partial

import pytest

from tapestry_p2p.gossip.exchange import RELAY_DIGESTS
from tapestry_p2p.sim import fetching
from tapestry_p2p.sim.cluster import DIGEST_EVERY_S, Cluster, Plan
from tapestry_p2p.sim.member import Member
from tapestry_p2p.sim.network import Reply, Weather
from tapestry_p2p.sim.rounds import Pace

HEARD_S = 40.0  # two digests and a bit: then everybody knows who needs what


def _apart(
    members: int, weather: Weather | None = None, ring: int = 16, round_s: float = 1.0
) -> Cluster:
    """Members 1 and 2 never reach each other; the others reach both."""
    plan = Plan(
        seed=71, honest=members, d=16, ring=ring, pace=Pace(round_s=round_s),
        weather=weather or Weather(),
    )  # fmt: skip
    cluster = Cluster(plan)
    cluster.network.partition([cluster.members[1].key], [cluster.members[2].key])
    return cluster


def _lag(reader: Member, author: Member) -> int:
    """Entries by which a copy is behind its author."""
    held = reader.copies.get(author.key)
    return author.disk.entries[-1].header.seq - (held.seq if held else -1)


def _lags(cluster: Cluster, seconds: int) -> list[int]:
    one, other = cluster.members[1], cluster.members[2]
    lags = []
    for _ in range(seconds):
        cluster.run(1.0)
        lags += [_lag(one, other), _lag(other, one)]
    return lags


@pytest.mark.parametrize("members", [3, 5])
def test_a_mutual_peer_brings_each_entry_within_a_round(members: int) -> None:
    cluster = _apart(members)
    cluster.run(HEARD_S)
    lags = _lags(cluster, 60)
    assert not cluster.network.is_connected(cluster.members[1].key, cluster.members[2].key)
    assert max(lags) <= 3
    assert sum(lags) / len(lags) < 0.5
    assert cluster.consensus_distance() < 0.3
    cluster.hush()
    cluster.run(20.0)
    assert cluster.differing_copies() == []
    assert cluster.blamed() == 0
    assert cluster.world.counts["keyframe"] == 0


def test_many_mutual_peers_do_not_all_show_the_same_entry() -> None:
    cluster = _apart(6)
    cluster.run(HEARD_S)
    _lags(cluster, 60)
    duplicates = cluster.verdicts()["ignore"]["duplicate"]
    entries = sum(len(member.disk.entries) for member in cluster.members)
    assert duplicates < entries


def test_a_mutual_peer_that_dies_is_replaced_by_another() -> None:
    cluster = _apart(4)
    cluster.run(HEARD_S)
    cluster.members[0].crash()
    cluster.run(HEARD_S)
    assert max(_lags(cluster, 20)) <= 3


def test_frames_lost_on_the_way_only_delay() -> None:
    """Twice as many ways to be lost: copies still stay within half of the ring."""
    cluster = _apart(3, replace(Weather(), loss=0.1))
    cluster.run(HEARD_S)
    lags = _lags(cluster, 60)
    assert 0 < sum(lags) / len(lags) < cluster.plan.ring / 2
    cluster.network.weather = Weather()
    cluster.hush()
    cluster.run(40.0)
    assert cluster.differing_copies() == []
    assert cluster.blamed() == 0


def test_a_header_shown_while_its_payload_still_comes_is_no_claim_to_hold_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The mutual peer reads for 12 s, and its digest shows the header meanwhile."""
    monkeypatch.setattr(fetching, "ANSWER_S", 60.0)
    cluster = _apart(3, round_s=20.0)
    mutual, ask = cluster.members[0].key, cluster.network.ask

    def slow(source: bytes, target: bytes, request: bytes, reply: Reply) -> None:
        late = partial(cluster.world.after, 12.0, reply)
        ask(source, target, request, late if source == mutual else reply)

    monkeypatch.setattr(cluster.network, "ask", slow)
    cluster.run(400.0)
    assert cluster.verdicts()["ignore"]["fetch_missing"] > 10
    assert cluster.world.counts["keyframe"] == 0
    cluster.hush()
    cluster.run(40.0)
    assert cluster.differing_copies() == []


def test_once_they_reach_each_other_nobody_is_shown_what_it_has() -> None:
    cluster = _apart(3)
    cluster.run(HEARD_S)
    cluster.network.unite()
    cluster.run(RELAY_DIGESTS * DIGEST_EVERY_S)
    assert cluster.network.is_connected(cluster.members[1].key, cluster.members[2].key)
    before = cluster.verdicts()["ignore"]["duplicate"]
    cluster.run(30.0)
    assert cluster.verdicts()["ignore"]["duplicate"] - before < 10
