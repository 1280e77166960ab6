"""Somebody with a key, a connection and no manners: what every hostile program is made of.

Speaks the real wire by the daemon's own transport; what it says there is the program's affair. It
signs what it likes, in its own name, and serves the payloads that it made.
"""

import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import trio

from tapestry_p2p.daemon.address import Address, parse_address
from tapestry_p2p.daemon.manifest import Manifest, parse_manifest
from tapestry_p2p.daemon.transport import Connection, Transport, TransportError
from tapestry_p2p.gossip.canonical import Malformed
from tapestry_p2p.gossip.fetch import (
    ChunkRequest,
    FetchResponse,
    ManifestRequest,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)
from tapestry_p2p.gossip.header import (
    DIFFERENCE,
    GENESIS,
    INCARNATION_BYTES,
    NO_HASH,
    PROFILE,
    Header,
    SignedHeader,
    sign,
)
from tapestry_p2p.gossip.identity import Identity, public_key_of
from tapestry_p2p.gossip.merkle import chunk_hash
from tapestry_p2p.gossip.messages import (
    HELLO,
    SYNC,
    Heads,
    Hello,
    Members,
    Row,
    Want,
    decode_hello,
    decode_sync,
    encode_hello,
    encode_sync,
)
from tapestry_p2p.gossip.profile import Profile, encode_profile

SOURCE: ContextVar[str | None] = ContextVar("source", default=None)  # address to attack from
MANIFEST_BYTES_MAX = 256 * 1024
REDIAL_S = 0.5
FRAME_BYTES_MAX = 65_536


@dataclass
class Victim:
    """A daemon under attack: where it listens and which network it is in."""

    address: Address
    manifest: Manifest

    @property
    def key(self) -> bytes:
        """Its public key."""
        return public_key_of(self.address.peer_id)

    @property
    def network(self) -> bytes:
        """The network id."""
        return self.manifest.network_id


async def find_victim(text: str, network: bytes) -> Victim:
    """Ask the daemon at a multiaddr for its manifest. TransportError if it has none for us."""
    address = parse_address(text)
    transport = Transport(os.urandom(32), Stranger.silent(), source=SOURCE.get())
    async with trio.open_nursery() as nursery:
        await nursery.start(transport.serve)
        peer = public_key_of(address.peer_id)
        if not await transport.dial(peer, [address]):
            raise TransportError(f"nobody answers at {text}")
        request = encode_request(ManifestRequest(network))
        head, body = await transport.connections[peer].fetch(request, MANIFEST_BYTES_MAX)
        nursery.cancel_scope.cancel()
    if decode_response(head).status != "ok":
        raise TransportError(f"{text} is in another network")
    return Victim(address, parse_manifest(body))


@dataclass
class Stranger:
    """One identity, its connections, its stream, and a tally of what it did and was told."""

    seed: bytes = field(default_factory=lambda: os.urandom(32))
    network: bytes = bytes(32)
    tally: Counter[str] = field(default_factory=Counter)
    log: list[SignedHeader] = field(default_factory=list)
    heard: dict[bytes, dict[int, SignedHeader]] = field(default_factory=dict)
    chunks: dict[bytes, bytes] = field(default_factory=dict)
    withholds: bool = False  # announces, never serves
    greets: bool = True

    def __post_init__(self) -> None:
        self.identity = Identity(self.seed)
        self.incarnation = os.urandom(INCARNATION_BYTES)
        self.transport = Transport(self.seed, self, source=SOURCE.get())
        self.payload = b""  # of the newest profile

    @classmethod
    def silent(cls) -> "Stranger":
        """One who says nothing by itself."""
        return cls(greets=False)

    # -- what the transport tells us

    async def connected(self, peer: bytes, address: str) -> None:
        """Say hello, as anybody does."""
        self.tally["connected"] += 1
        if self.greets:
            self.say_hello(peer)

    async def disconnected(self, peer: bytes) -> None:
        """It had enough of us."""
        self.tally["disconnected"] += 1

    async def message(self, peer: bytes, channel: str, data: bytes) -> None:
        """Remember the headers that we are shown; answer requests for ours."""
        try:
            if channel == HELLO:
                heads = decode_hello(data, FRAME_BYTES_MAX).heads
            else:
                said = decode_sync(data, FRAME_BYTES_MAX)
                if isinstance(said, Want) and said.author == self.identity.public_key:
                    self.show(peer, *self.log[said.first : said.last + 1])
                heads = said.heads if isinstance(said, Heads) else ()
        except Malformed:
            self.tally["unreadable"] += 1
            return
        for signed in heads:
            self.heard.setdefault(signed.header.author, {})[signed.header.seq] = signed

    async def serve(self, peer: bytes, request: bytes) -> tuple[bytes, bytes]:
        """Give the chunks that we made."""
        asked = decode_request(request)
        self.tally["asked"] += 1
        if self.withholds:
            await trio.sleep_forever()
        data = self.chunks.get(asked.hash, b"") if isinstance(asked, ChunkRequest) else b""
        if not data or not isinstance(asked, ChunkRequest):
            return encode_response(FetchResponse("missing")), b""
        body = data[asked.offset : asked.offset + asked.length]
        return encode_response(FetchResponse("ok", len(body), len(data))), body

    # -- connections

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Stranger"]:
        """Its transport runs inside the block."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.transport.serve)
            yield self
            nursery.cancel_scope.cancel()

    async def reach(self, victim: Victim) -> Connection:
        """A live connection to the victim, dialled again for as long as it takes."""
        while True:
            connection = self.transport.connections.get(victim.key)
            if connection is not None and not connection.closed.is_set():
                return connection
            self.tally["dialled"] += 1
            if not await self.transport.dial(victim.key, [victim.address]):
                self.tally["refused"] += 1
                await trio.sleep(REDIAL_S)

    def say_hello(self, peer: bytes, network: bytes | None = None) -> None:
        """Greet, and claim to hold our own stream."""
        rows = (Row(self.identity.public_key, 0, len(self.log), len(self.log)),)
        hello = Hello(network or self.network, 1, tuple(self.log[-16:]), rows, True)
        self.say(peer, HELLO, encode_hello(hello))

    def say(self, peer: bytes, channel: str, data: bytes) -> None:
        """Queue a frame if the peer is there."""
        connection = self.transport.connections.get(peer)
        if connection is not None:
            connection.send(channel, data)
            self.tally["said"] += 1

    def show(self, peer: bytes, *signed: SignedHeader) -> None:
        """Show headers to a peer."""
        if signed:
            self.say(peer, SYNC, encode_sync(Heads(signed)))

    # -- a stream of its own

    def entry(self, kind: str, payload: bytes = b"", **changes: Any) -> SignedHeader:
        """A signed next entry, not yet in the log; its payload can be fetched."""
        last = self.log[-1].header if self.log else None
        names = tuple(chunk_hash(piece) for piece in (payload,) if piece)
        self.chunks.update(zip(names, (payload,), strict=False))
        header = Header(
            self.network, self.identity.public_key, self.incarnation,
            last.seq + 1 if last else 0, last.hash if last else NO_HASH, kind, "", names,
            len(payload), b"", last.round if last else 0, 0, b"",
        )  # fmt: skip
        return sign(replace(header, **changes), self.identity.sign)

    def add(self, signed: SignedHeader) -> SignedHeader:
        """Make an entry part of the stream."""
        self.log.append(signed)
        return signed

    def begin(self, manifest: Manifest, name: str = "stranger") -> None:
        """Genesis and profile, as every member's stream begins."""
        self.network = manifest.network_id
        self.add(self.entry(GENESIS, root=bytes.fromhex(manifest.genesis.root)))
        self.payload = encode_profile(Profile(name, (), ("/ip4/127.0.0.1/tcp/1",)))
        self.add(self.entry(PROFILE, self.payload))

    def difference(self, manifest: Manifest, payload: bytes, **changes: Any) -> SignedHeader:
        """A difference with that payload; its root is made up unless given."""
        last = self.log[-1].header
        fields = {"codec": manifest.streams.codec, "root": os.urandom(32), "round": last.round + 1}
        return self.entry(DIFFERENCE, payload, **{**fields, **changes})

    def introduce(self, peer: bytes) -> None:
        """Show our profile."""
        self.say(peer, SYNC, encode_sync(Members(((self.log[1], self.payload),))))
