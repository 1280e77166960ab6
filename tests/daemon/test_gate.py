"""The gate: few strangers, few from one place, and the silent make room for those who speak."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapestry_p2p.daemon.gate import (
    DEBT_SHAKES,
    FAULT_SHAKES,
    FAULTS,
    FAULTS_PER_S,
    KNOWN_PER_S,
    KNOWN_SHAKES,
    OTHERS_PER_S,
    OTHERS_SHAKES,
    PER_BLOCK,
    ROWS_MAX,
    SHAKES,
    SHAKES_PER_S,
    SLOW_S,
    STRANGERS_MAX,
    STRANGERS_PER_BLOCK,
    Gate,
    Guest,
    block_of,
)


class Socket:
    """A guest's other half."""

    def __init__(self, host: str, speaks: bool = False, since: float = 0.0) -> None:
        self.speaks, self.gone = speaks, False
        self.guest = Guest(host, lambda: not self.speaks, self.cut, since)

    def cut(self) -> None:
        self.gone = True


def host(number: int) -> str:
    return f"8.8.{number // 200}.{number % 200 + 1}"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("8.8.8.8", "8.8.8.8", True),
        ("8.8.8.8", "8.8.8.9", False),
        ("2001:db8:1:2:3::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:8.8.8.8", "8.8.8.8", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("127.0.0.1", "127.8.9.10", False),
        ("127.8.9.10", "127.8.9.11", False),
    ],
)
def test_what_one_block_is(one: str, other: str, same: bool) -> None:
    assert (block_of(one) == block_of(other)) is same


@pytest.mark.parametrize("mine", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_no_block(mine: str) -> None:
    """As it calls itself; who makes up a source address in 127/8 is somebody."""
    assert block_of(mine) == ""


def test_a_silent_stranger_makes_room_the_oldest_first() -> None:
    gate = Gate()
    sockets = [Socket(host(n)) for n in range(STRANGERS_MAX)]
    assert all(gate.enter(socket.guest) for socket in sockets)
    assert gate.enter(Socket(host(999)).guest)
    assert [socket.gone for socket in sockets] == [True] + [False] * (STRANGERS_MAX - 1)
    assert gate.refused == {"strangers": 1}


def test_nobody_who_speaks_is_shown_out() -> None:
    gate = Gate()
    sockets = [Socket(host(n), speaks=True) for n in range(STRANGERS_MAX)]
    assert all(gate.enter(socket.guest) for socket in sockets)
    assert not gate.enter(Socket(host(999)).guest)
    assert not any(socket.gone for socket in sockets)
    gate.leave(sockets[3].guest, 0.0)
    assert gate.enter(Socket(host(999)).guest)


def test_whoever_takes_too_long_makes_room_as_well() -> None:
    gate = Gate()
    sockets = [Socket(host(n), speaks=True, since=n) for n in range(STRANGERS_MAX)]
    assert all(gate.enter(socket.guest) for socket in sockets)
    assert gate.enter(Socket(host(999), speaks=True, since=SLOW_S + 0.1).guest)
    assert [socket.gone for socket in sockets] == [True] + [False] * (STRANGERS_MAX - 1)
    assert not gate.enter(Socket(host(998), speaks=True, since=SLOW_S + 0.1).guest)


def test_one_block_has_few_strangers_whatever_is_free() -> None:
    gate = Gate()
    sockets = [Socket(host(1), speaks=True) for _ in range(STRANGERS_PER_BLOCK)]
    assert all(gate.enter(socket.guest) for socket in sockets)
    assert not gate.enter(Socket(host(1)).guest)
    assert gate.refused == {"strangers_per_block": 1}
    assert gate.enter(Socket(host(2)).guest)
    gate.prove(sockets[0].guest)
    assert gate.enter(Socket(host(1)).guest)


def test_one_block_has_few_members() -> None:
    gate = Gate()
    for number in range(PER_BLOCK + 1):
        socket = Socket(host(1))
        assert gate.enter(socket.guest)
        assert gate.prove(socket.guest) is (number < PER_BLOCK)
    gate.leave(next(iter(gate._guests)), 0.0)
    another = Socket(host(1))
    assert gate.enter(another.guest)
    assert gate.prove(another.guest)


@pytest.mark.parametrize("near", ["127.0.0.1", "10.1.2.3", "192.168.0.9", "::1", "fd00::1"])
def test_private_networks_may_hold_many_members(near: str) -> None:
    gate = Gate()
    for _ in range(3 * PER_BLOCK):
        socket = Socket(near)
        assert gate.enter(socket.guest)
        assert gate.prove(socket.guest)


def knock(gate: Gate, where: str, at: float) -> bool:
    """Whether somebody from there, at that time, gets as far as a handshake; it leaves again."""
    guest = Socket(where, since=at).guest
    done = gate.enter(guest) and gate.shake(guest, at)
    gate.leave(guest, at)
    return done


def test_a_block_has_some_handshakes_at_once_and_then_one_now_and_then() -> None:
    gate = Gate()
    at_once = sum(knock(gate, host(1), 0.0) for _ in range(100))
    assert at_once == SHAKES
    assert gate.refused["handshakes"] == 100 - SHAKES
    assert knock(gate, host(2), 0.0), "others do not pay for it"
    later = sum(knock(gate, host(1), n / 10) for n in range(1, 1001))
    assert later == pytest.approx(100 * SHAKES_PER_S, abs=1)


def test_who_has_none_left_is_refused_before_it_holds_a_place_or_costs_anything() -> None:
    gate = Gate()
    for _ in range(100):
        knock(gate, host(1), 0.0)
    assert not gate.enter(Socket(host(1)).guest)
    assert len(gate) == 0


def test_to_hold_a_socket_costs_no_handshake() -> None:
    """The silent never begin one: they cannot use up those of the others."""
    gate = Gate()
    for n in range(500):
        gate.enter(Socket(host(n)).guest)
    assert knock(gate, host(501), 1.0)


def test_strangers_blocks_share_a_few_and_those_of_members_have_their_own() -> None:
    gate = Gate()
    gate.vouch(host(0))
    at_once = sum(knock(gate, host(n), 0.0) for n in range(1, 200))
    assert at_once == OTHERS_SHAKES
    assert not knock(gate, host(201), 0.0), "a newcomer has to wait"
    assert sum(knock(gate, host(0), 0.0) for _ in range(100)) == KNOWN_SHAKES
    later = sum(knock(gate, host(201 + n), n / 10) for n in range(1000))
    assert later == pytest.approx(100 * OTHERS_PER_S, abs=1)


@pytest.mark.parametrize("mine", ["127.0.0.1", "::1"])
def test_this_machine_pays_nothing(mine: str) -> None:
    gate = Gate()
    for n in range(1000):
        assert knock(gate, mine, 0.0)
        gate.blame(Socket(mine).guest, 0.0, bytes([n % 250]) * 32)
    assert not gate.refused


def test_who_breaks_the_protocol_pays_with_its_block_and_is_barred_soon() -> None:
    gate, peer, other = Gate(), b"p" * 32, b"q" * 32
    broke = 0
    while not gate.is_barred(peer, 0.0):
        gate.blame(Socket(host(1)).guest, 0.0, peer)
        broke += 1
    assert broke == FAULTS
    assert not gate.is_barred(other, 0.0)
    waits = DEBT_SHAKES / SHAKES_PER_S
    assert broke * FAULT_SHAKES - SHAKES < DEBT_SHAKES
    assert not knock(gate, host(1), 0.5 * waits)
    assert knock(gate, host(1), waits + 1 / SHAKES_PER_S)
    assert gate.is_barred(peer, 0.9 / FAULTS_PER_S)
    assert not gate.is_barred(peer, 1.1 / FAULTS_PER_S)


def test_a_few_addresses_cannot_use_up_what_is_for_all_newcomers() -> None:
    """Twenty of them, ten times a second; every half minute somebody comes for the first time."""
    gate = Gate()
    let_in = 0
    for step in range(3000):
        for n in range(20):
            knock(gate, host(n), step / 10)
        let_in += step % 300 == 299 and knock(gate, host(100 + step), step / 10)
    assert let_in == 10


def test_one_bad_neighbour_at_a_members_address_does_not_keep_the_member_out() -> None:
    """Barred, or of another network, it dials on as it should: both are behind one router."""
    gate = Gate()
    gate.vouch(host(1))
    let_in = 0
    for minute in range(60):
        for second in (0, 30):
            if knock(gate, host(1), 60.0 * minute + second):
                gate.blame(Socket(host(1)).guest, 60.0 * minute + second)
        let_in += knock(gate, host(1), 60.0 * minute + 31)
    assert let_in == 60


def test_a_flood_of_faults_from_a_members_address_costs_us_few_handshakes() -> None:
    gate = Gate()
    gate.vouch(host(1))
    begun = 0
    for n in range(10_000):  # ten a second
        if knock(gate, host(1), n / 10):
            begun += 1
            gate.blame(Socket(host(1)).guest, n / 10)
    assert begun <= KNOWN_SHAKES / (1 + FAULT_SHAKES) + 1000 * KNOWN_PER_S / (1 + FAULT_SHAKES) + 2


def test_who_speaks_and_stops_spends_a_handshake_too() -> None:
    """Else a dozen addresses could hold all places of strangers for ever, for twenty bytes each."""
    gate = Gate()
    spoke = 0
    for n in range(1000):
        guest = Socket(host(1), speaks=True, since=n / 10).guest
        if gate.enter(guest):
            spoke += 1
            gate.leave(guest, n / 10 + 0.05)
    assert spoke <= SHAKES + 100 * SHAKES_PER_S + 1


def test_who_comes_from_where_a_member_was_seen_finds_a_place() -> None:
    gate = Gate()
    gate.vouch(host(0))
    sockets = [Socket(host(n), speaks=True) for n in range(1, STRANGERS_MAX + 1)]
    assert all(gate.enter(socket.guest) for socket in sockets)
    assert not gate.enter(Socket(host(99), speaks=True).guest)
    assert gate.enter(Socket(host(0), speaks=True).guest)
    assert [socket.gone for socket in sockets] == [True] + [False] * (STRANGERS_MAX - 1)


def test_a_dozen_addresses_that_speak_and_stop_keep_no_member_out() -> None:
    """Eighty sockets a second, each says its first line, and no more until it is cut."""
    gate = Gate()
    gate.vouch(host(0))
    held: list[Socket] = []
    let_in = 0
    for step in range(600):
        now = step / 10
        for n in range(8):
            socket = Socket(host(1 + (8 * step + n) % 12), speaks=True, since=now)
            if gate.enter(socket.guest):
                held.append(socket)
        while held and (held[0].gone or now - held[0].guest.since > 4.9):
            gate.leave(held.pop(0).guest, now)
        let_in += step % 50 == 25 and knock(gate, host(0), now)
    assert let_in == 12


def test_a_barred_peer_that_knocks_on_is_not_barred_for_longer() -> None:
    gate, peer = Gate(), b"p" * 32
    for _ in range(int(FAULTS)):
        gate.blame(Socket(host(1)).guest, 0.0, peer)
    for n in range(100):
        gate.blame(Socket(host(1)).guest, float(n))
    assert not gate.is_barred(peer, 1.1 / FAULTS_PER_S)
    assert knock(gate, host(1), 100 + (DEBT_SHAKES + 1) / SHAKES_PER_S), "debts have an end"


def test_what_is_remembered_of_blocks_and_peers_is_bounded() -> None:
    gate = Gate()
    for n in range(2 * ROWS_MAX):
        where, peer = f"2001:db8:0:{n:x}::1", n.to_bytes(32, "big")
        knock(gate, where, float(n))
        gate.blame(Socket(where).guest, float(n), peer)
        gate.vouch(f"2001:db8:1:{n:x}::1")
    for table in (gate._shakes, gate._faults, gate._established):
        assert len(table) == ROWS_MAX


Move = Callable[[Gate, Socket], object]
MOVES: list[Move] = [
    lambda gate, socket: gate.enter(socket.guest),
    lambda gate, socket: gate.leave(socket.guest, 0.0),
    lambda gate, socket: setattr(socket, "speaks", True),
]


@given(st.lists(st.tuples(st.integers(0, 60), st.sampled_from(MOVES)), max_size=300))
def test_the_bounds_hold_whatever_happens(moves: list[tuple[int, Move]]) -> None:
    gate = Gate(6)
    sockets = [Socket(host(number % 9)) for number in range(61)]
    for number, move in moves:
        move(gate, sockets[number])
        assert len(gate.strangers) <= 6
        for block in range(9):
            near = [guest for guest in gate.strangers if guest.block == host(block)]
            assert len(near) <= STRANGERS_PER_BLOCK
