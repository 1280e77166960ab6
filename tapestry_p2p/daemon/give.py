"""Gives one signed entry to members by their addresses, as a guest under a key made for this once.

Knows the transport and one exchange of frames: greet with the entry, then ask for it until it is
shown back. What the entry says is its author's affair.
"""

import os

import trio

from tapestry_p2p.daemon.address import Address
from tapestry_p2p.daemon.silent import Silent
from tapestry_p2p.daemon.transport import Transport
from tapestry_p2p.errors import TEMPORARY, TapestryError
from tapestry_p2p.gossip.canonical import Malformed
from tapestry_p2p.gossip.header import SignedHeader
from tapestry_p2p.gossip.identity import public_key_of
from tapestry_p2p.gossip.messages import (
    HELLO,
    SYNC,
    Heads,
    Hello,
    Want,
    decode_sync,
    encode_hello,
    encode_sync,
)

WIRE = 1
DEADLINE_S = 20.0  # for each address
ASK_EVERY_S = 0.5


class _Guest(Silent):
    """Listens for one entry to be shown back."""

    def __init__(self, signed: SignedHeader) -> None:
        self._signed = signed
        self.held = trio.Event()  # a member holds it

    async def message(self, peer: bytes, channel: str, data: bytes) -> None:
        if channel != SYNC:
            return
        try:
            said = decode_sync(data, len(data))
        except Malformed:
            return
        if isinstance(said, Heads) and self._signed in said.heads:
            self.held.set()


def give(signed: SignedHeader, addresses: tuple[Address, ...]) -> list[str]:
    """Give the entry to members by their addresses, under a key made for this once.

    The peer ids of those that hold it now. TapestryError (75) if there is none.
    """
    told: list[str] = trio.run(_give_all, signed, addresses)
    if not told:
        raise TapestryError(
            "no member took it; check that one of the addresses can be reached from here",
            TEMPORARY,
        )
    return told


async def _give_all(signed: SignedHeader, addresses: tuple[Address, ...]) -> list[str]:
    told = []
    for address in addresses:
        guest = _Guest(signed)
        transport = Transport(os.urandom(32), guest)
        async with trio.open_nursery() as nursery:
            await nursery.start(transport.serve)
            with trio.move_on_after(DEADLINE_S):
                if await _give(transport, guest, signed, address):
                    told.append(address.peer_id)
            nursery.cancel_scope.cancel()
    return told


async def _give(
    transport: Transport, guest: _Guest, signed: SignedHeader, address: Address
) -> bool:
    """Greet with the entry, and ask for it until it is shown back."""
    peer, header = public_key_of(address.peer_id), signed.header
    if not await transport.dial(peer, [address]) or peer not in transport.connections:
        return False
    connection = transport.connections[peer]
    connection.send(HELLO, encode_hello(Hello(header.network, WIRE, (signed,), (), False)))
    while not guest.held.is_set() and not connection.closed.is_set():
        connection.send(SYNC, encode_sync(Want(header.author, header.seq, header.seq)))
        with trio.move_on_after(ASK_EVERY_S):
            await guest.held.wait()
    return guest.held.is_set()
