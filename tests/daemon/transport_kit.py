"""Peers for tests of the transport: real sockets on the loopback, real Noise and Yamux."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
from daemon_kit import key
from libp2p.crypto.ed25519 import Ed25519PrivateKey, create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.security.noise.transport import Transport as NoiseTransport

from benches.door_offers import Liar
from tapestry_p2p.daemon.address import Address
from tapestry_p2p.daemon.transport import Connection, Transport

LOOPBACK = Address("ip4", "127.0.0.1", 0)
Serve = Callable[[bytes, bytes], Awaitable[tuple[bytes, bytes]]]


async def echo(peer: bytes, request: bytes) -> tuple[bytes, bytes]:
    """Answer a fetch by what it said."""
    await trio.lowlevel.checkpoint()
    return b"ok", request


@dataclass
class Peer:
    """A transport and all it was told."""

    number: int
    serve_with: Serve = echo
    source: str | None = None  # where it dials from
    events: list[tuple[str, bytes]] = field(default_factory=list)
    messages: list[tuple[bytes, str, bytes]] = field(default_factory=list)
    told: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        seed = bytes([self.number]) * 32
        self.transport = Transport(seed, self, source=self.source)
        self.key = key(self.number).public_key
        assert self.transport.own == self.key

    @property
    def address(self) -> Address:
        return self.transport.addresses[0]

    async def connected(self, peer: bytes, address: str) -> None:
        await trio.lowlevel.checkpoint()
        self._note("connected", peer)

    async def disconnected(self, peer: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self._note("disconnected", peer)

    async def message(self, peer: bytes, channel: str, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if data == b"trip":
            raise ZeroDivisionError("a mistake of ours")
        self.messages.append((peer, channel, data))
        self._tell()

    async def serve(self, peer: bytes, request: bytes) -> tuple[bytes, bytes]:
        return await self.serve_with(peer, request)

    def _note(self, what: str, peer: bytes) -> None:
        self.events.append((what, peer))
        self._tell()

    def _tell(self) -> None:
        self.told.set()
        self.told = trio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for the next thing that we are told until the condition holds."""
        while not condition():
            with trio.move_on_after(0.05):
                await self.told.wait()

    async def dials(self, other: "Peer") -> Connection:
        assert await self.transport.dial(other.key, [other.address])
        await other.until(lambda: other.events[-1:] == [("connected", self.key)])
        await self.until(lambda: self.events[-1:] == [("connected", other.key)])
        return self.transport.connections[other.key]

    def at(self, other: "Peer") -> Connection:
        return self.transport.connections[other.key]

    def lists(self, other: "Peer | bytes") -> bool:
        return (other.key if isinstance(other, Peer) else other) in self.transport.connections


@asynccontextmanager
async def peers(*numbers: int) -> AsyncIterator[list[Peer]]:
    """So many listening transports; all are gone when the block ends."""
    made = [Peer(number) for number in numbers]
    async with trio.open_nursery() as nursery:
        for peer in made:
            await peer.transport.listen([LOOPBACK])
            await nursery.start(peer.transport.serve)
        yield made
        nursery.cancel_scope.cancel()


# ---- strangers: not our transport, but what somebody else might write ----------------------------


async def stranger(peer: Peer) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", peer.address.port)


def line(text: str) -> bytes:
    """A multistream line."""
    data = text.encode() + b"\n"
    return bytes([len(data)]) + data


async def read_line(stream: trio.SocketStream) -> str:
    length = (await stream.receive_some(1))[0]
    data = b""
    while len(data) < length:
        part = await stream.receive_some(length - len(data))
        assert part, "closed in the middle of a line"
        data += part
    return data.decode().rstrip("\n")


def pair(number: int, public: int | None = None) -> KeyPair:
    """A key pair; with ``public``, one that claims another's public key."""
    made = create_new_key_pair(bytes([number]) * 32)
    if public is None:
        return made
    claimed = create_new_key_pair(bytes([public]) * 32).public_key
    own = made.private_key
    assert isinstance(own, Ed25519PrivateKey)
    return KeyPair(Liar(own.impl, claimed), claimed)


async def secured(stream: trio.SocketStream, keys: KeyPair, server: int) -> MultiselectCommunicator:
    """The other side's Noise, up to the choice of a muxer. Raises what libp2p raises."""
    raw = RawConnection(TrioTCPStream(stream), initiator=True)
    await stream.send_all(line("/multistream/1.0.0") + line("/noise"))
    assert await read_line(stream) == "/multistream/1.0.0"
    assert await read_line(stream) == "/noise"
    noise = NoiseTransport(keys, noise_privkey=create_noise_key().private_key)
    expected = ID.from_pubkey(create_new_key_pair(bytes([server]) * 32).public_key)
    return MultiselectCommunicator(await noise.secure_outbound(raw, expected))
