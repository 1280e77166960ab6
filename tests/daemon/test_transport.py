"""The transport on real sockets: who may speak, what may be claimed, and nobody hangs another."""

import logging
import os
import signal
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest
import trio
from daemon_kit import in_trio, key, no_descriptors_left
from libp2p.custom_types import TProtocol
from libp2p.security.noise.transport import Transport as NoiseTransport
from transport_kit import (
    LOOPBACK,
    Peer,
    line,
    pair,
    peers,
    read_line,
    secured,
    stranger,
)

from tapestry_p2p.daemon import guard
from tapestry_p2p.daemon import transport as module
from tapestry_p2p.daemon.address import Address
from tapestry_p2p.daemon.gate import STRANGERS_MAX
from tapestry_p2p.daemon.transport import CHANNELS, FRAME_BYTES_MAX, Connection, TransportError
from tapestry_p2p.daemon.yamux import INBOUND_STREAMS_MAX, REFUSALS_MAX
from tapestry_p2p.errors import FAILURE, TapestryError

CHUNK = 1 << 18


@in_trio
async def test_two_peers_know_each_other_and_talk() -> None:
    async with peers(1, 2) as (a, b):
        await a.dials(b)
        assert a.events == [("connected", b.key)]
        assert b.events == [("connected", a.key)]
        for number in range(50):
            a.at(b).send("sync", b"%d" % number)
        b.at(a).send("hello", b"x" * FRAME_BYTES_MAX)
        b.at(a).send("hello", b"")
        await b.until(lambda: len(b.messages) == 50)
        await a.until(lambda: len(a.messages) == 2)
        assert b.messages == [(a.key, "sync", b"%d" % number) for number in range(50)]
        assert a.messages == [(b.key, "hello", b"x" * FRAME_BYTES_MAX), (b.key, "hello", b"")]
        assert await a.at(b).fetch(b"what", 100) == (b"ok", b"what")
        assert await b.at(a).fetch(b"", 0) == (b"ok", b"")
        assert a.transport.traffic.sent == b.transport.traffic.received > 0


@in_trio
async def test_ipv6_is_as_good() -> None:
    a, b = Peer(1), Peer(2)
    try:
        await b.transport.listen([Address("ip6", "::1", 0)])
    except TapestryError:
        pytest.skip("no IPv6 here")
    async with trio.open_nursery() as nursery:
        for peer in (a, b):
            await nursery.start(peer.transport.serve)
        await a.dials(b)
        assert a.at(b).address == f"/ip6/::1/tcp/{b.address.port}"
        assert b.at(a).address.startswith("/ip6/::1/tcp/")
        nursery.cancel_scope.cancel()


# ---- who may speak -------------------------------------------------------------------------------


@in_trio
async def test_nothing_but_noise_is_spoken() -> None:
    async with peers(1) as (us,), await stranger(us) as stream:
        await stream.send_all(line("/multistream/1.0.0"))
        assert await read_line(stream) == "/multistream/1.0.0"
        for offer in ("/plaintext/2.0.0", "/plaintext/1.0.0", "/secio/1.0.0", "/tls/1.0.0", "/x"):
            await stream.send_all(line(offer))
            assert await read_line(stream) == "na", offer
        await stream.send_all(line("/noise"))
        assert await read_line(stream) == "/noise"


@in_trio
async def test_nothing_but_yamux_is_spoken_within() -> None:
    async with peers(1) as (us,), await stranger(us) as stream:
        talk = await secured(stream, pair(2), server=1)
        await talk.write("/multistream/1.0.0")
        assert await talk.read() == "/multistream/1.0.0"
        for offer in ("/mplex/6.7.0", "/yamux/2.0.0", "/x"):
            await talk.write(offer)
            assert await talk.read() == "na", offer
        await talk.write("/yamux/1.0.0")
        assert await talk.read() == "/yamux/1.0.0"
        await us.until(lambda: us.lists(key(2).public_key))


@in_trio
async def test_a_public_key_alone_is_nobody() -> None:
    """An attacker knows the victim's public key, as everybody does, and signs with its own."""
    async with peers(1) as (us,), await stranger(us) as stream:
        with pytest.raises(Exception, match=r".*") as refused:  # noqa: PT012
            talk = await secured(stream, pair(66, public=2), server=1)
            await talk.write("/multistream/1.0.0")
            await talk.read()
        assert not isinstance(refused.value, trio.TooSlowError)
        await trio.sleep(0.05)
        assert us.events == []
        assert us.transport.connections == {}


@in_trio
async def test_a_server_with_anothers_public_key_is_not_dialled() -> None:
    async with peers(1, 3) as (us, liar):
        noise = liar.transport._security.transports[TProtocol("/noise")]
        assert isinstance(noise, NoiseTransport)
        noise.libp2p_privkey = pair(66, public=2).private_key
        assert not await us.transport.dial(key(2).public_key, [liar.address])
        assert us.events == []


@in_trio
async def test_whoever_answers_for_another_is_refused() -> None:
    async with peers(1, 2) as (us, other):
        assert not await us.transport.dial(key(3).public_key, [other.address])
        await trio.sleep(0.05)
        assert us.events == other.events == []
        assert await us.transport.dial(other.key, [other.address])


@in_trio
async def test_we_do_not_talk_to_ourselves() -> None:
    async with peers(1) as (us,):
        assert not await us.transport.dial(us.key, [us.address])
        assert us.events == []


NOBODY = [
    Address("dns", "a" * 64, 1),
    Address("dns", "a..b", 1),
    Address("dns", "nul\0.example", 1),
    Address("dns", "xn--\udcff", 1),
    Address("ip4", "999.1.1.1", 1),
    Address("ip4", "127.0.0.1", 0),
    Address("ip6", "::1::", 1),
    Address("dns", "127.0.0.1 127.0.0.1", 1),
    Address("dns", ".", 1),
]


@pytest.mark.parametrize("address", NOBODY)
@in_trio
async def test_an_address_that_is_none_is_passed_over(address: Address) -> None:
    """Peers write addresses into their profiles; none of them may end us."""
    async with peers(1, 2) as (us, other):
        assert await us.transport.dial(other.key, [address, other.address])
        assert not await us.transport.dial(key(9).public_key, [address])


# ---- one connection ------------------------------------------------------------------------------


def socket_of(connection: Connection) -> tuple[Any, Any]:
    raw = connection.raw.socket_stream.socket
    ends = sorted((raw.getsockname(), raw.getpeername()))
    return ends[0], ends[1]


@pytest.mark.parametrize("numbers", [(1, 2), (2, 1)])
@in_trio
async def test_dials_that_cross_end_as_one_connection(numbers: tuple[int, int]) -> None:
    async with peers(*numbers) as (a, b):
        for _ in range(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(a.transport.dial, b.key, [b.address])
                nursery.start_soon(b.transport.dial, a.key, [a.address])
            await trio.sleep(0.1)
            assert socket_of(a.at(b)) == socket_of(b.at(a))
            assert await a.at(b).fetch(b"1", 9) == (b"ok", b"1")
            assert await b.at(a).fetch(b"2", 9) == (b"ok", b"2")
            for peer in (a, b):
                kinds = [what for what, _ in peer.events]
                assert kinds[::2] == ["connected"] * len(kinds[::2])  # always in turns
                assert kinds[1::2] == ["disconnected"] * len(kinds[1::2])
            a.at(b).abort("test")
            await b.until(lambda: not b.lists(a))
            await a.until(lambda: not a.lists(b))


@in_trio
async def test_a_newer_dial_takes_the_place_of_the_old() -> None:
    """The peer lost its end unnoticed, and dials again."""
    async with peers(1, 2) as (a, b):
        first = await a.dials(b)
        del a.transport.connections[b.key]  # it forgot
        second = await a.dials(b)
        assert second is not first
        await b.until(lambda: len(b.events) == 3)
        assert [what for what, _ in b.events] == ["connected", "disconnected", "connected"]
        assert await b.at(a).fetch(b"1", 9) == (b"ok", b"1")


@in_trio
async def test_a_peer_may_come_back_as_often_as_it_likes() -> None:
    async with peers(1, 2) as (a, b):
        for _ in range(60):
            (await a.dials(b)).abort("test")
            await b.until(lambda: not b.lists(a))
        assert await (await a.dials(b)).fetch(b"still here", 99) == (b"ok", b"still here")
        assert not b.transport.gate.refused


# ---- what may be claimed -------------------------------------------------------------------------


async def opened(connection: Connection, channel: str) -> Any:
    return await connection._open(channel)


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("claim", [FRAME_BYTES_MAX + 1, 1 << 24, (1 << 32) - 1])
@in_trio
async def test_an_over_long_frame_ends_the_connection(channel: str, claim: int) -> None:
    async with peers(1, 2) as (a, b):
        stream = await opened(await a.dials(b), channel)
        await stream.write(struct.pack("!I", claim))
        await b.until(lambda: not b.lists(a))
        await a.dials(b)


@in_trio
async def test_too_many_streams_end_the_connection() -> None:
    async with peers(1, 2) as (a, b):
        connection = await a.dials(b)
        with trio.move_on_after(2):
            for _ in range(INBOUND_STREAMS_MAX + REFUSALS_MAX + 1):
                await connection.mux.open_stream()
        await b.until(lambda: not b.lists(a))
        await a.dials(b)


@in_trio
async def test_an_unknown_channel_is_not_spoken() -> None:
    async with peers(1, 2) as (a, b):
        stream = await (await a.dials(b)).mux.open_stream()
        await stream.write(line("/multistream/1.0.0") + line("/meshsub/1.1.0"))
        answer = b""
        while not answer.endswith(line("na")):
            answer += await stream.read(100)
        assert await a.at(b).fetch(b"1", 9) == (b"ok", b"1")


@in_trio
async def test_more_than_was_asked_for_ends_the_connection() -> None:
    async with peers(1, 2) as (a, b):
        connection = await a.dials(b)
        with pytest.raises(TransportError, match="longer"):
            await connection.fetch(b"12345", 4)
        await b.until(lambda: not b.lists(a))


@in_trio
async def test_whoever_reads_nothing_is_cut() -> None:
    async with peers(1, 2) as (a, b):
        connection = await a.dials(b)
        for _ in range(module.QUEUE_FRAMES_MAX + 200):
            connection.send("sync", b"x")
        assert connection.raw.socket_stream.socket.fileno() == -1
        connection.send("sync", b"nobody hears this")
        await a.until(lambda: not a.lists(b))


# ---- one cannot hurt another -----------------------------------------------------------------


@in_trio
async def test_a_mistake_in_a_handler_is_loud_and_costs_one_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with peers(1, 2, 3) as (us, careless, other):
        await careless.dials(us)
        await other.dials(us)
        careless.at(us).send("sync", b"trip")
        await us.until(lambda: not us.lists(careless))
        assert us.lists(other)
        assert await other.at(us).fetch(b"1", 9) == (b"ok", b"1")
        await careless.dials(us)
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert errors[0].exc_info


@in_trio
async def test_a_mistake_while_serving_is_loud_too(caplog: pytest.LogCaptureFixture) -> None:
    async def wrong(peer: bytes, request: bytes) -> tuple[bytes, bytes]:
        raise ZeroDivisionError

    async with peers(1, 2) as (us, other):
        us.serve_with = wrong
        await other.dials(us)
        with pytest.raises(TransportError):
            await other.at(us).fetch(b"1", 9)
    assert any(record.exc_info for record in caplog.records)


async def many(connection: Connection, count: int) -> None:
    """Fetch so many chunks as the fetcher does."""
    for number in range(count):
        head, body = await connection.fetch(struct.pack("!I", number), CHUNK)
        assert (head, body) == (b"ok", bytes([number]) * CHUNK)


async def bulk(peer: bytes, request: bytes) -> tuple[bytes, bytes]:
    await trio.lowlevel.checkpoint()
    return b"ok", bytes([struct.unpack("!I", request)[0]]) * CHUNK


async def chatter(connection: Connection, stop: trio.Event) -> None:
    while not stop.is_set():
        connection.send("sync", bytes(300))
        await trio.sleep(0.01)


@in_trio
async def test_bulk_both_ways_at_once_comes_through() -> None:
    """The library's Yamux deadlocks here (test_bare_libp2p.py)."""
    async with peers(1, 2) as (a, b):
        a.serve_with = b.serve_with = bulk
        await a.dials(b)
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            for one in (a.at(b), b.at(a)):
                nursery.start_soon(chatter, one, stop)
            async with trio.open_nursery() as fetching:
                fetching.start_soon(many, a.at(b), 24)
                fetching.start_soon(many, b.at(a), 24)
            stop.set()
        assert a.events == [("connected", b.key)]  # one connection all the time


@in_trio
async def test_both_sides_get_their_turn() -> None:
    """While both want much, neither waits until the other has all."""
    async with peers(1, 2) as (a, b):
        a.serve_with = b.serve_with = bulk
        await a.dials(b)
        done: list[str] = []

        async def fetch(name: str, connection: Connection) -> None:
            for _ in range(12):
                await many(connection, 1)
                done.append(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch, "a", a.at(b))
            nursery.start_soon(fetch, "b", b.at(a))
        assert {"a", "b"} == set(done[:8])


@in_trio
async def test_a_fetch_that_was_given_up_is_not_mistaken_for_the_next() -> None:
    async with peers(1, 2) as (a, b):
        asked = trio.Event()

        async def slow(peer: bytes, request: bytes) -> tuple[bytes, bytes]:
            if request == b"first":
                asked.set()
                await trio.sleep(0.1)
            return b"ok", request

        b.serve_with = slow
        await a.dials(b)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.at(b).fetch, b"first", 9)
            await asked.wait()
            nursery.cancel_scope.cancel()
        assert await a.at(b).fetch(b"second", 9) == (b"ok", b"second")


@in_trio
async def test_a_connection_lost_in_a_fetch_is_an_error_at_once() -> None:
    async with peers(1, 2) as (a, b):

        async def cut(peer: bytes, request: bytes) -> tuple[bytes, bytes]:
            b.at(a).abort("test")
            await trio.lowlevel.checkpoint()
            return b"ok", bytes(9)

        b.serve_with = cut
        await a.dials(b)
        with pytest.raises(TransportError), trio.fail_after(2):
            await a.at(b).fetch(b"1", 9)
        await a.until(lambda: not a.lists(b))


@in_trio
async def test_a_source_that_stalls_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.1)

    async def stall(peer: bytes, request: bytes) -> tuple[bytes, bytes]:
        await trio.sleep_forever()
        return b"", b""

    async with peers(1, 2) as (a, b):
        b.serve_with = stall
        await a.dials(b)
        with pytest.raises(TransportError, match="no progress"):
            await a.at(b).fetch(b"1", 9)
        await b.until(lambda: not b.lists(a))


# ---- the dead ------------------------------------------------------------------------------------

CHILD = """
import sys, trio
sys.path.insert(0, {folder!r})
from transport_kit import Peer, LOOPBACK
async def main():
    peer = Peer(9)
    await peer.transport.listen([LOOPBACK])
    async with trio.open_nursery() as nursery:
        await nursery.start(peer.transport.serve)
        print(peer.address.port, flush=True)
trio.run(main)
"""


@contextmanager
def other_process() -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """A peer with number 9 in a process of its own, and its port."""
    code = CHILD.format(folder=os.path.dirname(__file__))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    try:
        yield child, int(child.stdout.readline())
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


@asynccontextmanager
async def beside_another_process() -> AsyncIterator[tuple[Peer, "subprocess.Popen[bytes]"]]:
    with other_process() as (child, port):
        async with peers(1) as (us,):
            assert await us.transport.dial(key(9).public_key, [Address("ip4", "127.0.0.1", port)])
            yield us, child


@in_trio
async def test_a_stopped_peer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PING_EVERY_S", 0.1)
    monkeypatch.setattr(module, "PING_DEADLINE_S", 0.4)
    async with beside_another_process() as (us, child):
        await trio.sleep(1.0)
        assert us.lists(key(9).public_key)  # it answers
        child.send_signal(signal.SIGSTOP)
        began = trio.current_time()
        for _ in range(100):  # and a write that blocks does not hide it
            us.transport.connections[key(9).public_key].send("sync", bytes(FRAME_BYTES_MAX))
        await us.until(lambda: us.events[-1][0] == "disconnected")
        assert trio.current_time() - began < 2.0


@in_trio
async def test_a_killed_peer_is_noticed_at_once() -> None:
    async with beside_another_process() as (us, child):
        await us.until(lambda: len(us.events) == 1)
        child.kill()
        began = trio.current_time()
        await us.until(lambda: us.events[-1][0] == "disconnected")
        assert trio.current_time() - began < 1.0


@in_trio
async def test_whoever_is_not_admitted_is_refused_once_we_know_who_it_is() -> None:
    async with peers(1, 2, 3) as (us, barred, welcome):
        us.transport._admits = lambda peer: peer != barred.key
        await barred.transport.dial(us.key, [us.address])
        await barred.until(lambda: not barred.lists(us))
        await welcome.dials(us)
        assert [peer for _, peer in us.events] == [welcome.key]


# ---- strangers -----------------------------------------------------------------------------------


@in_trio
async def test_idle_strangers_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "HANDSHAKE_DEADLINE_S", 0.5)
    monkeypatch.setattr(module, "DEFER_S", 0)  # else they come to us seconds later
    async with peers(1, 2) as (us, honest):
        idle = [await stranger(us) for _ in range(40)]
        await us.until(lambda: us.transport.gate.refused.total() > 0)
        began = trio.current_time()
        while not await honest.transport.dial(us.key, [us.address]):
            await trio.sleep(0.05)
        await us.until(lambda: us.lists(honest))
        assert trio.current_time() - began < 1.0
        assert us.transport.gate.refused["strangers"] >= 40 - STRANGERS_MAX
        for stream in idle:
            await stream.aclose()


@in_trio
async def test_the_kernel_keeps_the_silent_away_from_us() -> None:
    async with peers(1, 2) as (us, honest):
        idle = [await stranger(us) for _ in range(40)]
        await honest.dials(us)
        assert len(us.transport.gate) == 1
        await idle[0].send_all(b"\xff")
        await us.until(lambda: len(us.transport.gate) == 2)
        for stream in idle:
            await stream.aclose()


@in_trio
async def test_slow_strangers_are_let_go_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "HANDSHAKE_DEADLINE_S", 0.3)
    async with peers(1) as (us,), await stranger(us) as stream:
        began = trio.current_time()
        with pytest.raises((trio.BrokenResourceError, EOFError)):  # noqa: PT012
            for byte in line("/multistream/1.0.0") * 10:
                await stream.send_all(bytes([byte]))
                await trio.sleep(0.05)
        assert 0.2 < trio.current_time() - began < 2.0
        assert us.events == []


@pytest.mark.parametrize("data", [b"", b"\xff" * 64, b"GET / HTTP/1.1\r\n\r\n", os.urandom(4096)])
@in_trio
async def test_strangers_who_talk_nonsense_are_let_go(data: bytes) -> None:
    async with peers(1, 2) as (us, honest):
        async with await stranger(us) as stream:
            await stream.send_all(data)
            await stream.send_eof()
            with trio.fail_after(2), suppress(trio.BrokenResourceError):
                while await stream.receive_some():
                    pass
        await honest.dials(us)


@in_trio
async def test_no_descriptors_left_for_a_moment(caplog: pytest.LogCaptureFixture) -> None:
    async with peers(1, 2) as (us, honest):
        caller = trio.socket.socket()
        with no_descriptors_left():
            await caller.connect(("127.0.0.1", us.address.port))
            while "accept failed" not in caplog.text:
                await trio.sleep(0.02)
        caller.close()
        await honest.dials(us)


# ---- listening -----------------------------------------------------------------------------------


@in_trio
async def test_a_port_that_is_taken_is_one_line_and_frees_the_others() -> None:
    async with peers(1) as (us,):
        free = trio.socket.socket()
        await free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        other = Peer(2)
        with pytest.raises(TapestryError, match="choose another port") as refused:
            await other.transport.listen([Address("ip4", "127.0.0.1", port), us.address])
        assert refused.value.exit_code == FAILURE
        assert str(us.address) in refused.value.message
        await other.transport.listen([Address("ip4", "127.0.0.1", port)])
        async with trio.open_nursery() as nursery:
            await nursery.start(other.transport.serve)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("host", ["203.0.113.9", "a" * 64, "no.such.host.invalid"])
@in_trio
async def test_a_place_that_is_not_ours_is_one_line(host: str) -> None:
    with pytest.raises(TapestryError, match="cannot listen") as refused:
        await Peer(1).transport.listen([Address("dns", host, 0)])
    assert "\n" not in refused.value.message


@in_trio
async def test_the_port_given_is_the_one_told() -> None:
    async with peers(1) as (us,):
        assert us.address.port != LOOPBACK.port
        assert us.address.host == "127.0.0.1"
