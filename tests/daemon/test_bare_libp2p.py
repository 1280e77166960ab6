"""The holes of bare libp2p 0.8.1 that we work around, each shown open beside our own way.

Every test first lets the library fail. Where it no longer does, the test fails and says so: then
upstream has mended the hole, and what we put in its place may go (docs/decisions/0002).
"""

import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest
import trio
from bare_kit import (
    Endless,
    Pipe,
    bare_host,
    bare_mux,
    caller,
    claim_plaintext,
    identity,
    opening,
    said,
)
from daemon_kit import in_mock_time, in_trio, key
from libp2p.custom_types import TProtocol
from libp2p.network.config import ConnectionConfig
from libp2p.protocol_muxer import multiselect_communicator
from libp2p.protocol_muxer.exceptions import MultiselectCommunicatorError
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.utils import read_delim
from transport_kit import line, peers, stranger

from tapestry_p2p.daemon import guard
from tapestry_p2p.daemon.pipes import TapStream
from tapestry_p2p.daemon.rates import Traffic
from tapestry_p2p.daemon.sealed import SealedSocket
from tapestry_p2p.daemon.transport import (
    PING_DEADLINE_S,
    PING_EVERY_S,
    Connection,
)
from tapestry_p2p.daemon.yamux import INBOUND_STREAMS_MAX, WINDOW_BYTES, Mux, ViolationError

SERVER, CLIENT, VICTIM = 11, 12, 13
HOUR_S = 3600.0


def mended(replacement: str) -> str:
    """What a test says whose hole is closed."""
    return f"upstream has mended this: our replacement {replacement} may go"


async def soon(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether the condition comes to hold in time."""
    with trio.move_on_after(seconds):
        while not condition():
            await trio.sleep(0.005)
    return condition()


async def quietly(task: Callable[..., Awaitable[object]], *args: Any) -> None:
    with suppress(Exception):
        await task(*args)


def unnoted(data: memoryview) -> None:
    """Bytes that nobody counts."""


def our_mux() -> Mux:
    """The listening end; it is fed by hand."""
    return Mux(cast(SealedSocket, None), False)


# ---- strangers -----------------------------------------------------------------------------------


@in_trio
async def test_plaintext_is_accepted_and_with_it_a_forged_identity() -> None:
    async with bare_host(SERVER) as (host, port):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            answer = await claim_plaintext(stream, VICTIM)
            forged = answer != "na" and await soon(
                lambda: identity(VICTIM) in host.get_connected_peers()
            )
        assert forged, mended("Noise alone (transport.py)")

    async with peers(SERVER) as (us,), await stranger(us) as stream:
        assert await claim_plaintext(stream, VICTIM) == "na"
        assert not us.lists(key(VICTIM).public_key)


@in_mock_time
async def test_a_line_of_multistream_may_be_of_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = b"\x80\x80\x80\x80\x04"  # 1 GiB; the library also gives up after so many reads

    async def read_a_line() -> int:
        endless = Endless(claim)
        with pytest.raises(MultiselectCommunicatorError):
            await MultiselectCommunicator(cast(Any, endless)).read()
        return endless.taken

    monkeypatch.setattr(multiselect_communicator, "read_delim", read_delim)
    assert await read_a_line() > 1 << 20, mended("read_delim_bounded (guard.py)")
    monkeypatch.setattr(multiselect_communicator, "read_delim", guard.read_delim_bounded)
    assert await read_a_line() <= len(claim)


@in_trio
async def test_a_place_for_an_inbound_connection_never_comes_back() -> None:
    """Three places here, 250 by default; one identity that comes and goes takes them all."""
    places = 3
    few = ConnectionConfig(
        max_connections=places, min_connections=0, low_watermark=0, high_watermark=places
    )
    async with bare_host(SERVER, connection_config=few) as (host, port):
        for _ in range(places):
            async with caller(port, CLIENT, SERVER):
                assert await soon(lambda: bool(host.get_connected_peers()))
            assert await soon(lambda: not host.get_connected_peers())
        deaf = False
        try:
            async with caller(port, CLIENT, SERVER):
                pass
        except (IndexError, trio.BrokenResourceError):  # the socket is closed on us
            deaf = True
        assert deaf, mended("accept loop (transport.py, gate.py)")

    async with peers(SERVER, CLIENT) as (us, other):
        for _ in range(3 * places):
            (await other.dials(us)).abort("again")
            await us.until(lambda: not us.lists(other))
        assert await soon(lambda: len(us.transport.gate) == 0)
        await other.dials(us)


# ---- members who take more than they were given --------------------------------------------------


@in_mock_time
async def test_a_receive_window_is_only_logged() -> None:
    frames = opening(1) + said(1, bytes(65_536)) * 64
    incoming = Pipe(frames)
    async with bare_mux(incoming, Pipe(), False) as mux:
        await soon(lambda: not incoming.data, HOUR_S)
        await trio.sleep(1)
        held = len(mux.stream_buffers.get(1, b""))
        assert held > 8 * WINDOW_BYTES, mended("windows (yamux.py)")
        assert not mux.is_closed, mended("windows (yamux.py)")

    ours = our_mux()
    with pytest.raises(ViolationError, match="overrun"):
        ours.feed(frames)
    assert sum(map(len, ours.streams[1]._inbox)) <= WINDOW_BYTES


@in_mock_time
async def test_nobody_counts_inbound_streams() -> None:
    count = 2000
    frames = b"".join(opening(2 * number + 1) for number in range(count))
    async with bare_mux(Pipe(frames), Pipe(), False) as mux:
        with trio.move_on_after(HOUR_S):
            async with trio.open_nursery() as nursery:
                for _ in range(count):
                    nursery.start_soon(quietly, mux.accept_stream)
        assert len(mux.streams) == count, mended("INBOUND_STREAMS_MAX (yamux.py)")

    ours = our_mux()
    with pytest.raises(ViolationError, match="too many"):
        ours.feed(frames)
    assert len(ours.streams) == INBOUND_STREAMS_MAX


# ---- the writer, and who waits for whom ----------------------------------------------------------


async def pour(mux: Any, size: int) -> None:
    stream = await mux.open_stream()
    for _ in range(size >> 16):
        await stream.write(bytes(1 << 16))


async def chat(mux: Any) -> None:
    """Short streams, one after the other: each has to be answered with an ACK."""
    while True:
        stream = await mux.open_stream()
        await stream.write(b"hello")
        await stream.close()
        await trio.sleep(0.01)


async def drain(mux: Any, got: list[int]) -> None:
    async def take(stream: Any) -> None:
        while piece := await stream.read(1 << 20):
            got.append(len(piece))
        await stream.close()

    async with trio.open_nursery() as readers:
        while True:
            readers.start_soon(quietly, take, await mux.accept_stream())


async def arrives_both_ways(one: Any, other: Any) -> bool:
    """Whether bulk both ways beside short streams comes through within a minute."""
    size, patience = 4 << 20, 60.0
    counts: list[list[int]] = [[], []]
    async with trio.open_nursery() as nursery:
        for mux, got in zip((one, other), counts, strict=True):
            nursery.start_soon(quietly, pour, mux, size)
            nursery.start_soon(quietly, chat, mux)
            nursery.start_soon(quietly, drain, mux, got)
        came = await soon(lambda: min(map(sum, counts)) >= size, patience)
        nursery.cancel_scope.cancel()
    return came


@asynccontextmanager
async def our_muxes() -> AsyncIterator[tuple[Mux, Mux]]:
    """Two ends over a socket that takes little at once."""
    ours, theirs = trio.socket.socketpair()
    keys = bytes(32), bytes([1]) * 32
    with ours, theirs:
        muxes = []
        for end, dialled in ((ours, True), (theirs, False)):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 15)
            order = keys if dialled else keys[::-1]
            sealed = SealedSocket(trio.SocketStream(end), *order, unnoted, unnoted)
            muxes.append(Mux(sealed, dialled))
        async with trio.open_nursery() as nursery:
            for mux in muxes:
                nursery.start_soon(mux.run)
            yield muxes[0], muxes[1]
            nursery.cancel_scope.cancel()


@in_mock_time
async def test_bulk_both_ways_ends_in_silence() -> None:
    """The reader itself answers, under the lock that the blocked writer holds: a circle."""
    there, back = Pipe(), Pipe()
    async with bare_mux(back, there, True) as one, bare_mux(there, back, False) as other:
        assert not await arrives_both_ways(one, other), mended("writer task (yamux.py)")
        assert not one.is_closed  # and nobody is told

    async with our_muxes() as (first, second):
        assert await arrives_both_ways(first, second)


@in_mock_time
async def test_a_stopped_peer_is_never_noticed() -> None:
    """It answers nothing and takes nothing; an hour later it still counts as connected."""
    async with bare_mux(Pipe(), Pipe(stopped=True), True) as mux, trio.open_nursery() as nursery:
        nursery.start_soon(quietly, mux.open_stream)
        await trio.sleep(HOUR_S)
        assert not mux.is_closed, mended("ping (transport.py)")
        nursery.cancel_scope.cancel()

    ours, theirs = trio.socket.socketpair()
    with ours, theirs:
        stream = trio.SocketStream(ours)
        raw = TapStream(stream, Traffic(), None)
        sealed = SealedSocket(stream, bytes(32), bytes(32), raw.note_sent, raw.note_received)
        connection = Connection(
            own=bytes(32),
            peer=bytes(32),
            dialled=True,
            address="nowhere",
            mux=Mux(sealed, True),
            raw=raw,
            handlers=cast(Any, None),
        )
        began = trio.current_time()
        await connection.run()
        assert trio.current_time() - began <= PING_EVERY_S + PING_DEADLINE_S
        assert ours.fileno() == -1


# ---- a mistake of ours ---------------------------------------------------------------------------

SPOKEN = TProtocol("/test/1")


async def careless(stream: Any) -> None:
    raise ZeroDivisionError("a mistake of ours")


@in_trio
async def test_an_error_in_a_handler_ends_the_whole_host(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    died = False
    try:
        async with bare_host(SERVER) as (host, port), caller(port, CLIENT, SERVER) as talk:
            host.set_stream_handler(SPOKEN, careless)
            words = line("/multistream/1.0.0") + line(SPOKEN)
            await talk.read_writer.write(opening(1) + said(1, words))
            await trio.sleep(3)
    except* ZeroDivisionError:
        died = True
    assert died, mended("_handled (transport.py)")

    async with peers(SERVER, CLIENT, VICTIM) as (us, one, other):
        await one.dials(us)
        await other.dials(us)
        one.at(us).send("sync", b"trip")  # its handler divides by zero
        await us.until(lambda: not us.lists(one))
        assert us.lists(other)
        await one.dials(us)
