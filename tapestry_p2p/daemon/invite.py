"""Invite links: `tapestry:<network id>?a=<address with /p2p/ID>&a=...`

Knows the form of the link; fetches nothing. Whoever holds a link may ask to join, so it is no
secret and grants nothing by itself: the network id checks the manifest that comes back.
"""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote

from tapestry_p2p.daemon.address import Address, parse_address
from tapestry_p2p.errors import USAGE, TapestryError

ADDRESSES_MAX = 16
LINK_CHARS_MAX = 4096
_LINK = re.compile(r"tapestry:(?P<network>[0-9a-f]{64})\?(?P<query>[!-~]+)")


@dataclass(frozen=True, slots=True)
class Invite:
    """A network (32 bytes) and where members of it may be reached, best first."""

    network_id: bytes
    addresses: tuple[Address, ...]

    def __str__(self) -> str:
        query = "&".join("a=" + quote(str(address), safe="/:.") for address in self.addresses)
        return f"tapestry:{self.network_id.hex()}?{query}"


def parse_invite(link: str) -> Invite:
    """The invite that a link stands for. TapestryError (exit 2) says what is wrong with it."""
    match = _LINK.fullmatch(link.strip()) if len(link) <= LINK_CHARS_MAX else None
    if match is None:
        raise _bad("it looks like tapestry:<64 hex digits>?a=<address>, copy it whole")
    pairs = parse_qsl(match["query"], keep_blank_values=True, max_num_fields=None)
    if {key for key, _ in pairs} != {"a"} or len(pairs) > ADDRESSES_MAX:
        raise _bad(f"after the ? come 1 to {ADDRESSES_MAX} addresses, a=... each")
    return Invite(bytes.fromhex(match["network"]), tuple(_address(text) for _, text in pairs))


def _address(text: str) -> Address:
    from tapestry_p2p.gossip.identity import public_key_of

    try:
        address = parse_address(text)
        public_key_of(address.peer_id)
    except ValueError as error:
        raise _bad(
            f"{text[:120]!r} is no address of a member (/ip4/.../tcp/.../p2p/...)"
        ) from error
    return address


def _bad(why: str) -> TapestryError:
    return TapestryError(f"this is no invite link: {why}", USAGE)
