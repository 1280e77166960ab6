"""libp2p as it comes, for tests that show its holes: whole hosts, and its Yamux over pipes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.io.trio import TrioTCPStream
from libp2p.peer.id import ID
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.security.insecure.transport import (
    PlaintextHandshakeReadWriter,
    make_exchange_message,
)
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr
from transport_kit import line, pair, read_line, secured

from tapestry_p2p.daemon.yamux import HEADER, Flag, Kind


def identity(number: int) -> ID:
    """The peer id of a key of the tests."""
    return ID.from_pubkey(create_new_key_pair(bytes([number]) * 32).public_key)


@asynccontextmanager
async def bare_host(number: int, **options: Any) -> AsyncIterator[tuple[Any, int]]:
    """A host as ``new_host`` makes it, listening on the loopback, and its port."""
    host = new_host(key_pair=create_new_key_pair(bytes([number]) * 32), **options)
    async with host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        yield host, int(host.get_addrs()[0].value_for_protocol("tcp"))


@asynccontextmanager
async def caller(port: int, client: int, server: int) -> AsyncIterator[MultiselectCommunicator]:
    """A client of a bare host, up to and with the choice of Yamux."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        talk = await secured(stream, pair(client), server)
        for word in ("/multistream/1.0.0", "/yamux/1.0.0"):
            await talk.write(word)
            assert await talk.read() == word
        yield talk


async def claim_plaintext(stream: trio.SocketStream, claimed: int) -> str:
    """Offer plaintext; if it is taken, say that we are whoever we like. The answer to the offer.

    Uses nothing of the claimed one but its public key.
    """
    await stream.send_all(line("/multistream/1.0.0") + line("/plaintext/2.0.0"))
    assert await read_line(stream) == "/multistream/1.0.0"
    answer = await read_line(stream)
    if answer == "na":
        return answer
    talk = TrioTCPStream(stream)
    public = create_new_key_pair(bytes([claimed]) * 32).public_key
    exchange = PlaintextHandshakeReadWriter(cast(Any, talk))
    await exchange.write_msg(make_exchange_message(public).SerializeToString())
    await exchange.read_msg()
    muxer = MultiselectCommunicator(talk)
    await muxer.write("/multistream/1.0.0")
    await muxer.write("/yamux/1.0.0")
    return answer


class Pipe:
    """Bytes on their way, at most ``capacity``; ``stopped``: nobody takes them any more."""

    def __init__(self, data: bytes = b"", capacity: int = 1 << 16, stopped: bool = False) -> None:
        self.data, self.capacity, self.stopped = bytearray(data), capacity, stopped
        self._changed = trio.lowlevel.ParkingLot()

    async def take(self, n: int | None) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self.data:
            await self._changed.park()
        piece = bytes(self.data[:n])
        del self.data[: len(piece)]
        self._changed.unpark_all()
        return piece

    async def put(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        left = data
        while left:
            while self.stopped or len(self.data) >= self.capacity:
                await self._changed.park()
            room = self.capacity - len(self.data)
            self.data += left[:room]
            left = left[room:]
            self._changed.unpark_all()


class Wire:
    """A secured connection in memory, as the library's muxer wants it."""

    def __init__(self, incoming: Pipe, outgoing: Pipe) -> None:
        self._incoming, self._outgoing = incoming, outgoing

    async def read(self, n: int | None = None) -> bytes:
        return await self._incoming.take(n)

    async def write(self, data: bytes) -> None:
        await self._outgoing.put(data)

    async def close(self) -> None:
        """Nobody holds a pipe."""


@asynccontextmanager
async def bare_mux(incoming: Pipe, outgoing: Pipe, dialled: bool) -> AsyncIterator[Yamux]:
    """The library's Yamux over two pipes; it runs inside the block."""
    mux = Yamux(cast(Any, Wire(incoming, outgoing)), identity(1), is_initiator=dialled)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mux.start)
        await mux.event_started.wait()
        yield mux
        nursery.cancel_scope.cancel()


def opening(number: int) -> bytes:
    """The frame that opens a stream."""
    return HEADER.pack(0, Kind.WINDOW, Flag.SYN, number, 0)


def said(number: int, body: bytes) -> bytes:
    """A frame with data."""
    return HEADER.pack(0, Kind.DATA, 0, number, len(body)) + body


class Endless:
    """A socket that gives as many bytes as anybody wants, and counts them."""

    def __init__(self, first: bytes) -> None:
        self._first, self.taken = first, 0

    async def read(self, n: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        piece = (self._first or bytes(1 << 16))[:n]
        self._first = self._first[len(piece) :]
        self.taken += len(piece)
        return piece
