"""The gate: few strangers, few from one place, and the silent make room for those who speak."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapestry_p2p.daemon.gate import (
    PER_BLOCK,
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
    ],
)
def test_what_one_block_is(one: str, other: str, same: bool) -> None:
    assert (block_of(one) == block_of(other)) is same


@pytest.mark.parametrize("mine", ["127.0.0.1", "::1", "127.8.9.10"])
def test_this_machine_is_no_block(mine: str) -> None:
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
    gate.leave(sockets[3].guest)
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
    gate.leave(next(iter(gate._guests)))
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


Move = Callable[[Gate, Socket], object]
MOVES: list[Move] = [
    lambda gate, socket: gate.enter(socket.guest),
    lambda gate, socket: gate.leave(socket.guest),
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
