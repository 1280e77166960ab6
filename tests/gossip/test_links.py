"""The table of peers where it is full: whose idle row gives way, and to whom."""

from random import Random

import pytest
from gossip_kit import Bench, key, make_settings, only

from tapestry_p2p.gossip.effects import Drop
from tapestry_p2p.gossip.events import Connected, Disconnected
from tapestry_p2p.gossip.links import Links

ROWS = 20
FOUNDERS = tuple(key(n).public_key for n in range(100, 100 + ROWS))
LATE_FOUNDER = key(99).public_key
NEWCOMERS = tuple(key(n).public_key for n in range(1, 1 + ROWS))
IDLE, DIALLED, BARRED, FAILED, OPEN = "idle", "dialled", "barred", "failed", "open"


def _links() -> Links:
    established = (*FOUNDERS, LATE_FOUNDER)
    settings = make_settings(peers_max=ROWS)
    return Links(settings, key(0).public_key, Random(1), lambda peer: peer not in established)


def _put(links: Links, peer: bytes, state: str) -> None:
    if state == DIALLED:
        link = links.connect(peer, 0.0)
        assert link is not None
        links.disconnect(peer, 0.0)
        link.attempts, link.dial_at = 0, 0.0
        assert list(links.due([peer], 0.0)) == [peer]
        return
    link = links.connect(peer, 0.0)
    assert link is not None
    if state == BARRED:
        link.blames.take(8, 0.0)
        assert link.is_barred(0.0)
    if state == FAILED:
        links.disconnect(peer, 0.0)
    elif state != OPEN:
        link.greeted = True
        links.disconnect(peer, 60.0)
        assert link.attempts == 0


def _gone(first: str, second: str, comer: bytes) -> set[bytes]:
    """Who is forgotten for ``comer`` in a table of open rows and two others: F(ounder) or N."""
    links = _links()
    rows = dict.fromkeys((*FOUNDERS[: ROWS - 2],), OPEN)
    rows[FOUNDERS[-2] if first[0] == "F" else NEWCOMERS[-2]] = first[2:]
    rows[FOUNDERS[-1] if second[0] == "F" else NEWCOMERS[-1]] = second[2:]
    for peer, state in rows.items():
        _put(links, peer, state)
    links.connect(comer, 0.0)
    return {peer for peer in rows if links.get(peer) is None}


@pytest.mark.parametrize(
    ("stays", "goes"),
    [
        ("F idle", "N idle"),
        ("F idle", "N dialled"),
        ("F idle", "N barred"),
        ("F dialled", "F idle"),
        ("F barred", "F idle"),
        ("F failed", "F idle"),
        ("N failed", "N idle"),
        ("N barred", "N idle"),
    ],
)
def test_the_row_that_is_worth_least_gives_way(stays: str, goes: str) -> None:
    for comer in (LATE_FOUNDER, NEWCOMERS[0]):
        assert _gone(stays, goes, comer) == {(FOUNDERS if goes[0] == "F" else NEWCOMERS)[-1]}
        assert _gone(goes, stays, comer) == {(FOUNDERS if goes[0] == "F" else NEWCOMERS)[-2]}


def test_for_a_newcomer_nobody_established_is_forgotten_who_is_dialled_or_barred() -> None:
    assert _gone("F dialled", "F barred", NEWCOMERS[0]) == set()
    assert len(_gone("F dialled", "F barred", LATE_FOUNDER)) == 1


def test_a_table_of_founders_who_are_away_refuses_no_newcomer() -> None:
    bench = Bench(peers_max=ROWS, founders=frozenset(FOUNDERS), probation_rounds=5)
    for friend in FOUNDERS:
        bench.connect(friend)
        bench.step(Disconnected(friend, bench.now))
    for newcomer in NEWCOMERS:
        assert not only(bench.connect(newcomer), Drop)
    assert set(bench.protocol.greeted()) == set(NEWCOMERS)
    (drop,) = only(bench.step(Connected(key(50).public_key, bench.now)), Drop)
    assert drop.reason == "full"


def test_a_row_is_forgotten_once_it_holds_nothing_that_a_new_one_would_not() -> None:
    links = _links()
    idle, shunned, barred, wanted, stays = FOUNDERS[:5]
    for peer in (idle, shunned, barred, wanted, stays):
        link = links.connect(peer, 0.0, "/ip4/20.1.2.3/tcp/4001")
        assert link is not None
        link.greeted = True
        link.blames.take(8 if peer == barred else 1, 10.0)
        if peer != stays:
            links.disconnect(peer, 10.0)
    links.shun(shunned, 10.0)
    window, found = make_settings().blame_window_s, []
    for at in range(0, int(2 * window), 5):
        for peer in links.due([wanted], float(at)):
            links.dial_failed(peer, float(at))
        links.forget_spent(float(at))
        found.append({peer for peer in (idle, shunned, barred, wanted, stays) if links.get(peer)})
        assert at >= window or len(found[-1]) == 5
    assert found[-1] == {wanted, stays}
