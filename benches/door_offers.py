"""What must never be taken: other securities, other muxers, and a name without its key.

Knows libp2p's own handshakes, as a stranger would use them; judges nothing.
"""

from collections.abc import Awaitable, Callable
from typing import Any, cast

import trio
from libp2p.crypto.ed25519 import Ed25519PrivateKey, Ed25519PublicKey, create_new_key_pair
from libp2p.crypto.keys import KeyPair, PublicKey
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.security.insecure.transport import (
    PlaintextHandshakeReadWriter,
    make_exchange_message,
)
from libp2p.security.noise.transport import Transport as NoiseTransport

SECURITIES = ("/plaintext/2.0.0", "/plaintext/1.0.0", "/secio/1.0.0", "/tls/1.0.0", "/mplex/6.7.0")
MUXERS = ("/mplex/6.7.0", "/yamux/2.0.0", "/plaintext/2.0.0")
MULTISTREAM = "/multistream/1.0.0"
LIAR = bytes([66]) * 32


async def answers(host: str, port: int, server: bytes) -> dict[str, str]:
    """What a member at ``port`` whose key is ``server`` answers to each offer."""
    found = {}
    async with await trio.open_tcp_stream(host, port) as stream:
        talk = MultiselectCommunicator(TrioTCPStream(stream))
        await talk.write(MULTISTREAM)
        await talk.read()
        for offer in SECURITIES:
            await talk.write(offer)
            found[offer] = await talk.read()
    async with await trio.open_tcp_stream(host, port) as stream:
        talk = await secured(stream, create_new_key_pair(LIAR), server)
        await talk.write(MULTISTREAM)
        await talk.read()
        for offer in MUXERS:
            await talk.write(offer)
            found[f"{offer} within Noise"] = await talk.read()
    return found


def forge(port: int, server: bytes, victim: bytes) -> list[Callable[[], Awaitable[None]]]:
    """Ways to pass for ``victim``, of whom only the public key is known; each may raise."""
    claimed = Ed25519PublicKey.from_bytes(victim)

    async def in_plaintext() -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            raw = TrioTCPStream(stream)
            talk = MultiselectCommunicator(raw)
            await talk.write(MULTISTREAM)
            await talk.write("/plaintext/2.0.0")
            exchange = PlaintextHandshakeReadWriter(cast(Any, raw))
            await exchange.write_msg(make_exchange_message(claimed).SerializeToString())
            await talk.write(MULTISTREAM)
            await talk.write("/yamux/1.0.0")
            await trio.sleep(1)

    async def in_noise() -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            own = create_new_key_pair(LIAR).private_key
            assert isinstance(own, Ed25519PrivateKey)
            talk = await secured(stream, KeyPair(Liar(own.impl, claimed), claimed), server)
            await talk.write(MULTISTREAM)
            await talk.write("/yamux/1.0.0")
            await trio.sleep(1)

    return [in_plaintext, in_noise]


class Liar(Ed25519PrivateKey):
    """Signs with its own key and names another's."""

    def __init__(self, impl: Any, claimed: PublicKey) -> None:
        super().__init__(impl)
        self._claimed = claimed

    def get_public_key(self) -> PublicKey:
        return self._claimed


async def secured(
    stream: trio.SocketStream, keys: KeyPair, server: bytes
) -> MultiselectCommunicator:
    """Noise, up to the choice of a muxer. Raises what libp2p raises."""
    raw = TrioTCPStream(stream)
    talk = MultiselectCommunicator(raw)
    await talk.write(MULTISTREAM)
    await talk.write("/noise")
    for expected in (MULTISTREAM, "/noise"):
        assert await talk.read() == expected
    noise = NoiseTransport(keys, noise_privkey=create_noise_key().private_key)
    expect = ID.from_pubkey(Ed25519PublicKey.from_bytes(server))
    return MultiselectCommunicator(
        await noise.secure_outbound(RawConnection(raw, initiator=True), expect)
    )
