"""Fetches a network's manifest from the members that an invite link names.

Knows the transport and one request. The text is worth what its hash says: whoever gives it, it
either is the network that the link names or it is refused.
"""

import os

import trio

from tapestry_p2p.daemon.address import Address
from tapestry_p2p.daemon.invite import Invite
from tapestry_p2p.daemon.manifest import parse_manifest
from tapestry_p2p.daemon.silent import Silent
from tapestry_p2p.daemon.transport import Transport, TransportError
from tapestry_p2p.errors import REFUSED, TEMPORARY, TapestryError
from tapestry_p2p.gossip.canonical import Malformed
from tapestry_p2p.gossip.fetch import ManifestRequest, decode_response, encode_request
from tapestry_p2p.gossip.identity import public_key_of

MANIFEST_BYTES_MAX = 256 * 1024
DEADLINE_S = 20.0


def fetch_manifest(invite: Invite) -> bytes:
    """The manifest's text from the first member that gives the right one.

    Asks under a key made for this once. TapestryError: 75 if nobody answers, 6 if what came is
    another network.
    """
    text: bytes = trio.run(_fetch, invite)
    return text


async def _fetch(invite: Invite) -> bytes:
    transport = Transport(os.urandom(32), Silent())
    wrong = False
    async with trio.open_nursery() as nursery:
        await nursery.start(transport.serve)
        for address in invite.addresses:
            with trio.move_on_after(DEADLINE_S):
                text = await _from(transport, invite.network_id, address)
                if text is not None and _is(text, invite.network_id):
                    nursery.cancel_scope.cancel()
                    return text
                wrong = wrong or text is not None
        nursery.cancel_scope.cancel()
    if wrong:
        raise TapestryError("what the members sent is another network than the link names", REFUSED)
    raise TapestryError(
        "no member in the link answered; check that one of them runs and can be reached from here",
        TEMPORARY,
    )


async def _from(transport: Transport, network: bytes, address: Address) -> bytes | None:
    peer = public_key_of(address.peer_id)
    if not await transport.dial(peer, [address]):
        return None
    connection = transport.connections.get(peer)
    if connection is None:
        return None
    try:
        head, body = await connection.fetch(
            encode_request(ManifestRequest(network)), MANIFEST_BYTES_MAX
        )
        return body if decode_response(head).status == "ok" else None
    except (TransportError, Malformed):
        return None


def _is(text: bytes, network: bytes) -> bool:
    try:
        return parse_manifest(text).network_id == network
    except TapestryError:
        return False
