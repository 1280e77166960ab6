"""Where an exported model comes from, as signed bytes: a stretch of a stream, and a statement.

Pure. A stretch is checked as any follower would; the statement is a member's signature under a
domain of its own, so that it can never pass for an entry. What files there are, and what their
content means, is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from tapestry_p2p.gossip import identity
from tapestry_p2p.gossip.header import FIRST, RESUME, Header, Sign, SignedHeader, Verify

DIGEST_BYTES = 32
SIGN_DOMAIN = b"tapestry/1/export/sign\0"


class BrokenLineageError(ValueError):
    """A lineage that does not hold; the message says where."""


@dataclass(frozen=True)
class Stretch:
    """Entries of one stream that lead from ``first`` to ``head`` without a gap."""

    first: Header
    head: Header

    @property
    def is_whole(self) -> bool:
        """Whether it begins where the stream begins."""
        return self.first.kind in FIRST and self.first.seq == 0


def statement(network: bytes, digest: bytes) -> bytes:
    """The 32 bytes that are signed: SHA-256(domain || network id || digest).

    ``digest``: the SHA-256 of the file that names every other file with its digest. ValueError
    for another length.
    """
    if len(network) != DIGEST_BYTES or len(digest) != DIGEST_BYTES:
        raise ValueError("a network id and a digest have 32 bytes")
    return sha256(SIGN_DOMAIN + network + digest).digest()


def sign_statement(network: bytes, digest: bytes, signer: Sign) -> bytes:
    """The member's 64-byte signature of `statement`."""
    return signer(statement(network, digest))


def check_statement(
    network: bytes,
    digest: bytes,
    member: bytes,
    signature: bytes,
    verify: Verify = identity.verify,
) -> None:
    """BrokenLineageError unless ``member`` (a public key) made the signature."""
    if not verify(member, signature, statement(network, digest)):
        raise BrokenLineageError("the signature of the lineage is not the member's")


def check_head(network: bytes, signed: SignedHeader, verify: Verify = identity.verify) -> None:
    """BrokenLineageError unless the header is of that network and signed by its author."""
    header = signed.header
    if header.network != network:
        raise BrokenLineageError(f"entry {header.seq} is of another network")
    if not signed.is_signed(verify):
        raise BrokenLineageError(f"entry {header.seq} is not signed by its author")


def check_stretch(
    network: bytes,
    member: bytes,
    entries: Sequence[SignedHeader],
    genesis_root: bytes,
    verify: Verify = identity.verify,
) -> Stretch:
    """The stretch that ``entries`` are, oldest first. BrokenLineageError if they are none.

    Every signature, the network, the author, the numbers, ``prev``, and that an incarnation changes
    only by a ``resume``. A stream that begins with ``genesis`` must state the network's first root.
    """
    if not entries:
        raise BrokenLineageError("no entry of the member is there")
    before: Header | None = None
    for signed in entries:
        check_head(network, signed, verify)
        header = signed.header
        if header.author != member:
            raise BrokenLineageError(f"entry {header.seq} is of another member")
        if before is not None:
            _check_link(before, header)
        before = header
    found = Stretch(entries[0].header, entries[-1].header)
    if found.first.kind == FIRST[0] and found.first.root != genesis_root:
        raise BrokenLineageError("the stream does not begin at the network's first parameters")
    return found


def _check_link(before: Header, header: Header) -> None:
    same = header.incarnation == before.incarnation or header.kind == RESUME
    if header.seq != before.seq + 1 or header.prev != before.hash or not same:
        raise BrokenLineageError(f"entry {header.seq} does not lead on from entry {before.seq}")
