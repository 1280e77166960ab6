"""The signed header of one stream entry: its fields, its bytes, its hash, its signature.

Knows the form of a header alone. Whether the manifest allows it is validity.py's question,
whether it fits a stream is streams.py's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

from tapestry_p2p.gossip import identity
from tapestry_p2p.gossip.canonical import INTEGER_MAX, Malformed, pack, unpack

HASH_DOMAIN = b"tapestry/1/header/hash\0"
SIGN_DOMAIN = b"tapestry/1/header/sign\0"
CHUNKS_MAX = 1024
HEADER_BYTES_MAX = 40_000
SIGNED_BYTES_MAX = HEADER_BYTES_MAX + 80
INCARNATION_BYTES = 16
NO_HASH = bytes(32)
SEQ_MAX = INTEGER_MAX

GENESIS, DIFFERENCE, PROFILE, RESUME, LEAVE, RETIRE, ADOPT = KINDS = (
    "genesis",
    "difference",
    "profile",
    "resume",
    "leave",
    "retire",
    "adopt",
)

FIRST = (GENESIS, ADOPT)  # how a stream begins

Sign = Callable[[bytes], bytes]
Verify = Callable[[bytes, bytes, bytes], bool]


@dataclass(frozen=True)
class Header:
    """One entry of a stream, without its payload. Field order is wire order."""

    network: bytes  # 32, the network id
    author: bytes  # 32, Ed25519 public key
    incarnation: bytes  # 16, random, new at every resume
    seq: int
    prev: bytes  # 32, hash of the header before; zeros at seq 0
    kind: str
    codec: str  # "" where the entry carries no difference
    chunks: tuple[bytes, ...]  # SHA-256 of each payload chunk, in order
    payload_bytes: int
    root: bytes  # 32, or b"" where the entry states no root
    round: int
    tokens: int  # tokens the author has trained on so far
    cites: bytes  # 32, or b""

    @cached_property
    def encoded(self) -> bytes:
        """The canonical bytes of the header."""
        return pack([getattr(self, name) for name in self.__dataclass_fields__])

    @cached_property
    def hash(self) -> bytes:
        """SHA-256 of the canonical bytes under its own domain; no signature in it."""
        return sha256(HASH_DOMAIN + self.encoded).digest()

    @cached_property
    def digest(self) -> bytes:
        """The 32 bytes that are signed."""
        return sha256(SIGN_DOMAIN + self.network + self.encoded).digest()


@dataclass(frozen=True)
class SignedHeader:
    """A header and its author's signature; the signature is not checked by being here."""

    header: Header
    signature: bytes  # 64

    def encode(self) -> bytes:
        """The bytes that travel: ``[header bytes, signature]``."""
        return pack([self.header.encoded, self.signature])

    def is_signed(self, verify: Verify = identity.verify) -> bool:
        """Whether the author's key made the signature."""
        return verify(self.header.author, self.signature, self.header.digest)


def header_hash(header: Header) -> bytes:
    """The hash that names an entry (``prev`` of the next one)."""
    return header.hash


def sign(header: Header, signer: Sign) -> SignedHeader:
    """``header`` signed by ``signer``, a function from message to signature."""
    return SignedHeader(header, signer(header.digest))


def decode_signed(data: bytes) -> SignedHeader:
    """Parse foreign bytes into a signed header. Raises Malformed, and nothing else."""
    outer = unpack(data, bytes_max=SIGNED_BYTES_MAX)
    if type(outer) is not list or len(outer) != 2:
        raise Malformed("not a signed header")
    body, signature = outer
    if type(body) is not bytes or not _is_bytes(signature, identity.SIGNATURE_BYTES):
        raise Malformed("not a signed header")
    return SignedHeader(decode_header(body), signature)


def decode_header(data: bytes) -> Header:
    """Parse the canonical bytes of a header; Malformed for anything else."""
    row = unpack(data, bytes_max=HEADER_BYTES_MAX)
    if type(row) is not list or len(row) != len(Header.__dataclass_fields__):
        raise Malformed("not a header")
    network, author, incarnation, seq, prev, kind, codec, chunks, *numbers = row
    payload_bytes, root, round_, tokens, cites = numbers
    sound = (
        _is_bytes(network, 32)
        and _is_bytes(author, 32)
        and _is_bytes(incarnation, INCARNATION_BYTES)
        and _is_bytes(prev, 32)
        and all(type(number) is int for number in (seq, payload_bytes, round_, tokens))
        and type(kind) is str
        and kind in KINDS
        and type(codec) is str
        and len(codec) <= 16
        and codec.isascii()
        and type(chunks) is list
        and len(chunks) <= CHUNKS_MAX
        and all(_is_bytes(chunk, 32) for chunk in chunks)
        and (root == b"" or _is_bytes(root, 32))
        and (cites == b"" or _is_bytes(cites, 32))
    )
    if not sound:
        raise Malformed("a header field has a wrong type or size")
    header = Header(
        network, author, incarnation, seq, prev, kind, codec,
        tuple(chunks), payload_bytes, root, round_, tokens, cites,
    )  # fmt: skip
    header.__dict__["encoded"] = data  # canonical, so there is no need to make it again
    return header


def _is_bytes(value: object, length: int) -> bool:
    return type(value) is bytes and len(value) == length
