"""Deadlines that are measured: a slow link is waited for, one that stalls is not for long."""

import socket
from typing import Any

import pytest
import trio
from daemon_kit import in_mock_time

from tapestry_p2p.daemon.guard import HANDSHAKE_DEADLINE_S
from tapestry_p2p.daemon.patience import (
    CEILING_S,
    FLOOR_S,
    HANDSHAKE_CEILING_S,
    PEERS_MAX,
    RATE_LEAST,
    Patience,
    handshake_s,
)
from tapestry_p2p.daemon.rates import Pacer

FRAME = 256 * 1024
PEER = b"p" * 32


def link(latency_s: float, bytes_per_s: float, answers: int = 20) -> Patience:
    """What is known of a peer behind such a link."""
    patience = Patience()
    for number in range(answers):
        length = FRAME if number % 2 else 100
        patience.took(PEER, length, latency_s + length / bytes_per_s)
    return patience


def test_before_the_first_answer_the_ceiling_holds() -> None:
    assert Patience().allowed_s(PEER, FRAME) == CEILING_S + FRAME / RATE_LEAST


@pytest.mark.parametrize(
    ("latency_s", "bytes_per_s"),
    [(0.0005, 1e8), (0.4, 125_000.0), (2.0, 20_000.0), (0.05, 17_000.0)],
)
def test_a_link_gets_what_it_needs_whatever_it_is(latency_s: float, bytes_per_s: float) -> None:
    for length in (100, 5000, FRAME):
        needs = latency_s + length / bytes_per_s
        allowed = link(latency_s, bytes_per_s).allowed_s(PEER, length)
        assert 1.5 * needs < allowed <= max(FLOOR_S, 12 * needs) + 1, (length, needs, allowed)


def test_a_fast_link_that_stalls_is_left_after_the_floor() -> None:
    assert link(0.001, 1e8).allowed_s(PEER, FRAME) == FLOOR_S


def test_a_deadline_that_was_too_short_doubles_up_to_the_ceiling_and_heals() -> None:
    patience = link(0.001, 1e8)
    before = patience.allowed_s(PEER, 100)
    allowed = []
    for _ in range(30):
        patience.missed(PEER)
        allowed.append(patience.allowed_s(PEER, 100))
    assert allowed[:3] == [2 * before, 4 * before, 8 * before]
    assert allowed[-1] == CEILING_S + 100 / RATE_LEAST
    patience.took(PEER, 100, 0.001)
    assert patience.allowed_s(PEER, 100) == FLOOR_S


def test_strangers_do_not_fill_it() -> None:
    patience = Patience()
    for number in range(10 * PEERS_MAX):
        patience.took(number.to_bytes(32, "big"), 100, 0.1)
        patience.missed(number.to_bytes(32, "big"))
    assert len(patience._peers) == PEERS_MAX


def test_a_handshake_has_sixteen_round_trips_within_bounds() -> None:
    class Told:
        """A socket whose kernel measured that round trip."""

        def __init__(self, micros: int) -> None:
            self.micros = micros

        def getsockopt(self, *_: Any) -> bytes:
            return bytes(68) + self.micros.to_bytes(4, "little")

    told = [
        handshake_s(Told(micros), HANDSHAKE_DEADLINE_S) for micros in (200, 800_000, 60_000_000)
    ]
    assert told == [HANDSHAKE_DEADLINE_S, pytest.approx(12.8), HANDSHAKE_CEILING_S]
    server = socket.create_server(("127.0.0.1", 0))
    with server, socket.create_connection(server.getsockname()) as real:
        assert handshake_s(real, HANDSHAKE_DEADLINE_S) == HANDSHAKE_DEADLINE_S
        micros = int.from_bytes(real.getsockopt(6, socket.TCP_INFO, 72)[68:], "little")
        assert 0 < micros < 1_000_000, "the kernel tells the round trip where we look for it"
    with socket.socket(socket.AF_UNIX) as other:
        assert handshake_s(other, HANDSHAKE_DEADLINE_S) == HANDSHAKE_DEADLINE_S


@in_mock_time
async def test_questions_that_wait_for_one_another_are_not_late() -> None:
    """Ten at once to one source that takes two seconds each: none is given up."""
    from tapestry_p2p.daemon.fetcher import Fetcher

    class Slow:
        async def fetch(self, _request: bytes, _most: int) -> tuple[bytes, bytes]:
            await trio.sleep(2.0)
            return b"head", b"body"

    fetcher = Fetcher.__new__(Fetcher)
    fetcher.patience, fetcher._turns, fetcher.unreachable = Patience(), {}, OSError
    fetcher.download = Pacer()
    fetcher.patience.took(PEER, 100, 0.01)
    slow, answers = Slow(), []

    async def ask() -> None:
        answers.append(await fetcher._exchange(PEER, slow, b"", 100))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask)
    assert len(answers) == 10
    assert trio.current_time() >= 20.0
