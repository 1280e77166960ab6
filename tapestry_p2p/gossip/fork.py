"""Fork proofs: two signed headers of one author, incarnation and seq that differ.

Anyone can check one from its bytes alone. Knows nothing of streams or of what follows from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

from tapestry_p2p.gossip import identity
from tapestry_p2p.gossip.canonical import Malformed, pack, unpack
from tapestry_p2p.gossip.header import SIGNED_BYTES_MAX, SignedHeader, Verify, decode_signed

PROOF_DOMAIN = b"tapestry/1/fork\0"
PROOF_BYTES_MAX = 2 * SIGNED_BYTES_MAX + 16


@dataclass(frozen=True)
class ForkProof:
    """Two signed headers, the lower hash first."""

    first: SignedHeader
    second: SignedHeader

    @property
    def author(self) -> bytes:
        """The key that signed both."""
        return self.first.header.author

    @cached_property
    def id(self) -> bytes:
        """32 bytes that a resume cites; the same whoever found the fork."""
        return sha256(PROOF_DOMAIN + self.first.header.hash + self.second.header.hash).digest()

    def encode(self) -> bytes:
        """The bytes that are stored."""
        return pack([self.first.encode(), self.second.encode()])


def conflict(one: SignedHeader, other: SignedHeader) -> bool:
    """Whether two headers, if both are signed, prove a fork."""
    a, b = one.header, other.header
    return (a.network, a.author, a.incarnation, a.seq) == (
        b.network,
        b.author,
        b.incarnation,
        b.seq,
    ) and a.hash != b.hash


def fork_proof(one: SignedHeader, other: SignedHeader) -> ForkProof:
    """The proof made of two conflicting headers; ValueError if they do not conflict."""
    if not conflict(one, other):
        raise ValueError("no conflict")
    first, second = sorted((one, other), key=lambda signed: signed.header.hash)
    return ForkProof(first, second)


def decode_proof(data: bytes, verify: Verify = identity.verify) -> ForkProof:
    """Parse and check a proof: conflict, order, both signatures. Malformed otherwise."""
    row = unpack(data, bytes_max=PROOF_BYTES_MAX)
    if type(row) is not list or len(row) != 2 or not all(type(item) is bytes for item in row):
        raise Malformed("not a fork proof")
    first, second = (decode_signed(item) for item in row)
    if not conflict(first, second) or first.header.hash > second.header.hash:
        raise Malformed("the headers do not prove a fork")
    if not (first.is_signed(verify) and second.is_signed(verify)):
        raise Malformed("a header of the proof is not signed")
    return ForkProof(first, second)
