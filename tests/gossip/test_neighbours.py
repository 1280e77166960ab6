"""The table of links by itself: whose choice it is, what may change, what nobody can force."""

from collections import Counter

import pytest
from gossip_kit import key, make_settings
from hypothesis import given
from hypothesis import strategies as st

from tapestry_p2p.gossip.neighbours import VAIN, Neighbours, Tie

K = 6
HALF = K // 2
LOCAL = {key(n).public_key: None for n in range(1, 30)}
PEERS = list(LOCAL)


def _table(secret: int = 1, **changes: object) -> Neighbours:
    settings = make_settings(**{"k": K, "all_to_all_max": 3, "renew_every_s": 1000.0, **changes})
    table = Neighbours(settings, bytes([secret]) * 16)
    table.crowd(30)
    table.note(0.0, (), alone=False)
    return table


def _full(table: Neighbours, at: float = 0.0) -> Neighbours:
    """Half of the links chosen, half of them granted; then the rest of the chosen."""
    for peer in table.pick(LOCAL, at, HALF):
        assert table.agree(peer, LOCAL, at) == []
    for peer in PEERS:
        if len(table.ties) < K and peer not in table.ties:
            assert table.grant(peer, LOCAL, at, guest=False) == []
    return table


def _present(table: Neighbours, at: float) -> None:
    table.note(at, set(table.ties), alone=False)


def test_the_order_follows_from_a_secret_that_nobody_else_has() -> None:
    one, same, other = (_table(secret).pick(LOCAL, 0.0, 3) for secret in (1, 1, 2))
    assert one == same != other


def test_no_member_is_everybodys_choice() -> None:
    """Each of 29 is among the first six of 200 secrets about 41 times."""
    chosen = Counter(p for n in range(200) for p in sorted(PEERS, key=_table(n).rank)[:K])
    assert 15 < min(chosen.values()) <= max(chosen.values()) < 80


def test_half_of_the_links_are_never_granted() -> None:
    table = _table()
    for guest in (False, True):
        for peer in PEERS:
            if peer not in table.ties:
                for victim in table.grant(peer, LOCAL, 0.0, guest=guest) or ():
                    table.part(victim)
        assert len(table.agreed()) == K - HALF


def test_the_newest_granted_link_changes_hands_for_guests_alone_and_rarely() -> None:
    table = _full(_table())
    granted = [peer for peer, tie in table.ties.items() if not tie.chosen]
    one, other, *others = (peer for peer in PEERS if peer not in table.ties)
    assert table.grant(one, LOCAL, 1.0, guest=False) is None
    assert table.grant(one, LOCAL, 1.0, guest=True) == [granted[0]]
    table.part(granted[0])
    _present(table, 600.0)
    assert all(table.grant(peer, LOCAL, 600.0, guest=True) is None for peer in others)
    assert table.grant(other, LOCAL, 601.0, guest=True) == [one], "the newest"


def test_who_refuses_is_left_alone_and_then_drops_in_the_order() -> None:
    table = _table(link_asks_max=40)
    order = sorted(PEERS, key=table.rank)
    (first,) = table.pick(LOCAL, 0.0, 1)
    assert first == order[0]
    table.refuse(first, 0.0)
    assert table.pick(LOCAL, 10.0, 1) == [order[1]]
    table.part(order[1])
    assert table.pick(LOCAL, 20.0, len(PEERS)) == [*order[1:], first]


def test_a_wait_doubles_and_ends() -> None:
    table = _table()
    only = {PEERS[0]: None}
    waits, at = [], 0.0
    for _ in range(8):
        assert table.pick(only, at, 1) == [PEERS[0]]
        table.refuse(PEERS[0], at)
        begin = at
        while not table.room(at, 1) or not table.pick(only, at, 1):
            at += 1.0
        table.part(PEERS[0])
        waits.append(at - begin)
    assert waits == [15.0, 30.0, 60.0, 120.0, 120.0, 120.0, 120.0, 120.0]


def test_one_that_we_asked_in_vain_may_ask_us_though_the_granted_places_are_taken() -> None:
    table = _table()
    (chosen,) = table.pick(LOCAL, 0.0, 1)
    table.refuse(chosen, 0.0)
    others = [peer for peer in PEERS if peer != chosen]
    for peer in others[: K - HALF]:
        assert table.grant(peer, LOCAL, 0.0, guest=False) == []
    assert table.grant(others[-1], LOCAL, 0.0, guest=False) is None
    assert table.grant(chosen, LOCAL, 0.0, guest=False) == []
    assert table.ties[chosen].chosen


def test_one_that_broke_a_link_waits_before_it_gets_another() -> None:
    table = _table()
    assert table.grant(PEERS[0], LOCAL, 0.0, guest=False) == []
    table.refuse(PEERS[0], 0.0)
    assert table.grant(PEERS[0], LOCAL, 14.0, guest=True) is None
    assert table.grant(PEERS[0], LOCAL, 15.0, guest=False) == []


def test_renewal_exchanges_the_oldest_chosen_link_for_one_of_a_new_order() -> None:
    table = _full(_table())
    oldest = next(peer for peer, tie in table.ties.items() if tie.chosen)
    assert table.pick(LOCAL, 100.0, K) == []
    before = sorted(PEERS, key=table.rank)
    _present(table, 1600.0)
    assert sorted(PEERS, key=table.rank) != before
    (asked,) = table.pick(LOCAL, 1600.0, K)
    assert table.need_place(30)
    assert table.pick(LOCAL, 1600.0, K) == [], "one at a time"
    assert table.agree(asked, LOCAL, 1601.0) == [oldest]
    table.part(oldest)
    assert table.pick(LOCAL, 1602.0, K) == []
    assert not table.need_place(30)


def test_an_absent_neighbour_keeps_its_place_until_another_has_agreed() -> None:
    table = _full(_table(renew_every_s=1e9))
    away, *here = list(table.ties)
    table.note(700.0, here, alone=False)
    (asked,) = table.pick(LOCAL, 700.0, K)
    assert away in table.agreed()
    table.refuse(asked, 710.0)
    assert away in table.agreed()
    (asked,) = table.pick(LOCAL, 720.0, K)
    assert table.agree(asked, LOCAL, 721.0) == [away]


def test_while_we_are_cut_off_no_time_passes() -> None:
    table = _full(_table())
    for at in range(1, 20_000, 100):
        table.note(float(at), (), alone=True)
    assert table.room(20_000.0, K) == 0
    assert len(table.agreed()) == K
    assert table.epoch == 0


def test_an_address_block_has_its_share_and_local_ones_are_exempt() -> None:
    settings = {"k": 16, "all_to_all_max": 17}
    blocks: dict[bytes, str | None] = dict.fromkeys(PEERS[:20], "20.1")
    blocks |= dict.fromkeys(PEERS[20:26], "20.2")
    table = _table(**settings)
    while picked := table.pick(blocks, 0.0, 16):
        for peer in picked:
            table.agree(peer, blocks, 0.0)
    assert Counter(blocks[peer] for peer in table.ties) == {"20.1": 4, "20.2": 4}
    assert table.grant(PEERS[0], blocks, 0.0, guest=True) is None
    assert table.grant(PEERS[28], blocks, 0.0, guest=True) == [], "of no known block: counted too"
    local = _table(**settings)
    while picked := local.pick(LOCAL, 0.0, 16):
        for peer in picked:
            local.agree(peer, LOCAL, 0.0)
    assert len(local.ties) == 16


def test_who_turns_out_to_be_elsewhere_than_it_claimed_counts_there() -> None:
    """It claimed a private address, which no share holds for, and came from a public one."""
    table = _table(k=16, all_to_all_max=17)
    seen: dict[bytes, str | None] = dict.fromkeys(PEERS, "20.1")
    while picked := table.pick(LOCAL, 0.0, 16):
        for peer in picked:
            if table.agree(peer, seen, 0.0) is None:
                table.refuse(peer, 0.0)
    assert len(table.agreed()) == 4


def test_newcomers_are_chosen_last_and_have_a_quarter_of_the_links_at_most() -> None:
    table = _table(k=16, all_to_all_max=17)
    new = set(PEERS[:20])
    order = []
    while picked := table.pick(LOCAL, 0.0, 16, new):
        for peer in picked:
            assert table.agree(peer, LOCAL, 0.0, new) == []
            order.append(peer in new)
    assert order == [False] * 9 + [True] * 4
    stranger = next(peer for peer in PEERS if peer in new and peer not in table.ties)
    for guest in (False, True):
        assert table.grant(stranger, LOCAL, 1000.0, guest, new) is None
    assert table.grant(stranger, LOCAL, 1000.0, False) == [], "once it is none"


TRUSTED = frozenset(PEERS[-2:])


def test_whom_the_operator_trusts_is_asked_first_though_others_have_not_answered() -> None:
    table = _table(trusted=TRUSTED, link_asks_max=4)
    strangers = {peer: None for peer in LOCAL if peer not in TRUSTED}
    assert len(table.pick(strangers, 0.0, K)) == 4
    assert set(table.pick(LOCAL, 0.0, K)) == TRUSTED
    assert len(table.pick(LOCAL, 0.0, K)) == 0
    trusted_alone = _table(trusted=frozenset(PEERS), link_asks_max=4)
    assert len(trusted_alone.pick(LOCAL, 0.0, K)) == K, "never more than there are places"


def _with_trusted(secret: int = 1) -> Neighbours:
    """A table that strangers had filled, before each of two trusted members came its own way."""
    table = _table(secret, trusted=TRUSTED, guest_s=1.0)
    for peer in PEERS[:K]:
        table.ties[peer] = Tie(PEERS.index(peer) < HALF, 0.0, True, 0.0)
    asking, asked = PEERS[-2:]
    for way in (asking, asked):
        if way == asking:
            replaced = table.grant(asking, LOCAL, 1.0, guest=False)
        else:
            assert table.pick(LOCAL, 1.0, K) == [asked]
            replaced = table.agree(asked, LOCAL, 1.0)
        assert replaced is not None
        for victim in replaced:
            assert victim in PEERS[:K]
            table.part(victim)
    return table


def test_whom_the_operator_trusts_finds_no_table_full() -> None:
    table = _with_trusted()
    assert set(table.agreed()) > TRUSTED
    assert len(table.agreed()) == K


def test_whom_the_operator_trusts_keeps_its_place_from_guests() -> None:
    table = _with_trusted()
    for tie in table.ties.values():
        tie.chosen = True  # so that half of them are older, and of our choosing
    for at, guest in enumerate(PEERS[K:-2], start=10):
        for victim in table.grant(guest, LOCAL, at, guest=True) or ():
            table.part(victim)
    assert set(table.agreed()) > TRUSTED


def test_renewal_exchanges_no_link_to_whom_the_operator_trusts() -> None:
    table = _with_trusted()
    for peer in TRUSTED:
        table.ties[peer].since = -1.0  # the oldest, and chosen
        assert table.ties[peer].chosen
    for at in range(3000, 30_000, 3000):
        _present(table, float(at))
        for asked in table.pick(LOCAL, float(at), K):
            for victim in table.agree(asked, LOCAL, float(at)) or ():
                assert victim not in TRUSTED
                table.part(victim)
    assert set(table.agreed()) > TRUSTED


def test_the_switch_keeps_whom_we_follow_and_back_needs_fewer() -> None:
    table = Neighbours(make_settings(k=K, all_to_all_max=8), bytes(16))
    assert not table.crowd(8)
    assert table.crowd(9)
    left = table.enter(PEERS[:8], 0.0)
    assert (len(left), len(table.agreed())) == (2, K)
    assert sum(tie.chosen for tie in table.ties.values()) == HALF
    assert not table.crowd(8)
    assert table.crowd(7)
    assert not table.sparse


def test_what_is_restored_stays_and_keeps_its_order() -> None:
    table = _full(_table())
    kept = [(peer, table.ties[peer].chosen) for peer in table.agreed()]
    again = Neighbours(make_settings(k=K, all_to_all_max=3), bytes(16))
    again.restore(table.secret, 7, kept)
    again.note(5000.0, (), alone=False)
    assert again.sparse
    others = [peer for peer in PEERS if peer not in dict(kept)]
    left = again.enter([*others, *again.ties], 5000.0)
    assert sorted(left) == sorted(others)
    assert again.room(5000.0, K) == 0, "absence counts from the start"
    table.epoch = 7
    assert sorted(PEERS, key=table.rank) == sorted(PEERS, key=again.rank)


@given(st.sampled_from([2, 3, 6, 16]), st.data())
def test_whatever_happens_links_are_lost_one_at_a_time_and_never_too_many(
    k: int, data: st.DataObject
) -> None:
    """Invariants of the table under any order of asks, answers, absences and renewals."""
    table = _table(k=k)
    at = 0.0
    for _ in range(data.draw(st.integers(1, 40))):
        at += data.draw(st.sampled_from([0.5, 20.0, 700.0]))
        before = set(table.agreed())
        peer = data.draw(st.sampled_from(PEERS[: 2 * k]))
        told_no = False
        match data.draw(st.sampled_from(["note", "alone", "pick", "yes", "ask", "guest", "no"])):
            case "note":
                table.note(at, set(PEERS[: data.draw(st.integers(0, 2 * k))]), alone=False)
            case "alone":
                table.note(at, (), alone=True)
            case "pick":
                table.pick(LOCAL, at, k)
            case "no":
                told_no = peer in table.ties
                table.refuse(peer, at)
            case "yes" if peer in table.ties and not table.ties[peer].agreed:
                for victim in table.agree(peer, LOCAL, at) or ():
                    table.part(victim)
            case "ask" | "guest" as how if peer not in table.ties:
                for victim in table.grant(peer, LOCAL, at, guest=how == "guest") or ():
                    table.part(victim)
        for late in table.unanswered(at):
            table.refuse(late, at)
        agreed = set(table.agreed())
        assert len(agreed) <= k
        assert len(before - agreed) <= 1
        assert told_no or len(agreed) >= len(before), "given up only for another one"
        assert len(table.ties) <= k + table._settings.link_asks_max + 1


def test_for_the_last_missing_link_ever_fewer_are_asked_until_one_agrees() -> None:
    table = _table()
    for peer in table.pick(LOCAL, 0.0, K - 1):
        table.agree(peer, LOCAL, 0.0)
    while len(table.agreed()) < K - 1:
        for peer in table.pick(LOCAL, 0.0, K - 1):
            table.agree(peer, LOCAL, 0.0)
    asked = []
    for second in range(900):
        _present(table, float(second))
        for peer in table.pick(LOCAL, float(second), K):
            asked.append(second)
            table.refuse(peer, float(second))
    early, late = sum(at < 60 for at in asked), sum(at >= 600 for at in asked)
    assert early >= VAIN
    assert late <= 4
    for peer in table.pick(LOCAL, 1100.0, K):
        table.agree(peer, LOCAL, 1100.0)
    table.part(table.agreed()[0])
    assert table.pick(LOCAL, 1101.0, K), "a link that was lost is looked for at once"


@pytest.mark.parametrize(("lacks", "hunts"), [(4, False), (5, True)])
def test_who_lacks_a_quarter_stops_hunting_and_who_lacks_more_goes_on(
    lacks: int, hunts: bool
) -> None:
    """Where all hunt for their last links, each costs more the more members there are."""
    table = _table(k=16, all_to_all_max=17)
    while len(table.agreed()) < 16 - lacks:
        for peer in table.pick(LOCAL, 0.0, 16 - lacks):
            table.agree(peer, LOCAL, 0.0)
    asked = []
    for second in range(2400):
        _present(table, float(second))
        for peer in table.pick(LOCAL, float(second), 16):
            asked.append(second)
            table.refuse(peer, float(second))
    late = sum(at >= 1200 for at in asked)
    assert sum(at < 120 for at in asked) >= VAIN
    assert (late > 100) is hunts
    assert hunts or 1 <= late <= 2 * lacks, "one look in ten minutes"
