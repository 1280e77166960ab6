"""The frames of the hello and sync channels: their shape as bytes, bounded; not their meaning.

Parsing raises Malformed and nothing else. Signed headers inside are parsed, not verified.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from tapestry_p2p.gossip.canonical import Malformed, fields, pack, unpack
from tapestry_p2p.gossip.header import SignedHeader, decode_signed
from tapestry_p2p.gossip.profile import PROFILE_BYTES_MAX

HELLO, SYNC = "hello", "sync"
HEADS_MAX = 64  # signed headers in one frame
MEMBERS_MAX = 32  # profiles in one frame
ROWS_MAX = 512  # rows of a digest
MARK_BYTES = 8
_ROW = [bytes, int, int, int, bytes]
RECENT = 256  # signed headers that need not be parsed again, each of ...
RECENT_BYTES_MAX = 1024  # ... at most so many bytes
FRAME_BYTES = 49_152  # where a sender starts a new frame; below any message_bytes_max


@dataclass(frozen=True)
class Row:
    """What the sender holds of one author. Numbers are seq + 1; 0 means none. A mere claim."""

    author: bytes
    profile: int  # its newest profile entry
    head: int  # its newest header
    copy: int  # where the sender's copy of it stands
    mark: bytes = b""  # first 8 bytes of the newest header's hash: equal numbers may hide a fork


@dataclass(frozen=True)
class Hello:
    """The first frame each way on every connection."""

    network: bytes
    wire: int
    heads: tuple[SignedHeader, ...]
    rows: tuple[Row, ...]
    ask: bool  # the sender has not had our hello: answer with one


@dataclass(frozen=True)
class Heads:
    """Signed headers."""

    heads: tuple[SignedHeader, ...]


@dataclass(frozen=True)
class Want:
    """Ask for the headers ``first .. last`` of an author."""

    author: bytes
    first: int
    last: int


@dataclass(frozen=True)
class Digest:
    """What the sender holds, for anti-entropy."""

    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Members:
    """Newest profiles: the signed header of each profile entry, and its payload."""

    profiles: tuple[tuple[SignedHeader, bytes], ...]


@dataclass(frozen=True)
class Following:
    """Whether the sender follows the receiver, or would. ``ask`` wants the same told back."""

    follow: bool
    ask: int  # TELL, ASK, or ASK_GUEST: the place that changes hands will do


TELL, ASK, ASK_GUEST = 0, 1, 2


Sync = Heads | Want | Digest | Members | Following


def encode_hello(hello: Hello) -> bytes:
    """The bytes of a hello."""
    return pack(
        {
            "ask": int(hello.ask),
            "digest": _rows(hello.rows),
            "heads": [signed.encode() for signed in hello.heads],
            "network": hello.network,
            "wire": hello.wire,
        }
    )


def decode_hello(data: bytes, bytes_max: int) -> Hello:
    """Parse a foreign hello."""
    shape = {"ask": int, "digest": list, "heads": list, "network": bytes, "wire": int}
    row = fields(unpack(data, bytes_max=bytes_max), shape)
    if len(row["network"]) != 32 or row["ask"] not in (0, 1):
        raise Malformed("not a hello")
    heads = _parse_heads(row["heads"])
    return Hello(row["network"], row["wire"], heads, _parse_rows(row["digest"]), row["ask"] == 1)


def encode_sync(message: Sync) -> bytes:
    """The bytes of a sync frame."""
    if isinstance(message, Heads):
        return pack({"heads": [signed.encode() for signed in message.heads], "t": "heads"})
    if isinstance(message, Want):
        return pack({"t": "want", **vars(message)})
    if isinstance(message, Digest):
        return pack({"digest": _rows(message.rows), "t": "digest"})
    if isinstance(message, Following):
        return pack({"ask": message.ask, "follow": int(message.follow), "t": "link"})
    return pack(
        {
            "members": [[head.encode(), payload] for head, payload in message.profiles],
            "t": "members",
        }
    )


def decode_sync(data: bytes, bytes_max: int) -> Sync:
    """Parse a foreign sync frame."""
    value = unpack(data, bytes_max=bytes_max)
    name = value.get("t") if type(value) is dict else None
    if name == "heads":
        return Heads(_parse_heads(fields(value, {"t": str, "heads": list})["heads"]))
    if name == "want":
        row = fields(value, {"t": str, "author": bytes, "first": int, "last": int})
        if len(row["author"]) != 32 or row["first"] > row["last"]:
            raise Malformed("not a want")
        return Want(row["author"], row["first"], row["last"])
    if name == "digest":
        return Digest(_parse_rows(fields(value, {"t": str, "digest": list})["digest"]))
    if name == "link":
        row = fields(value, {"t": str, "ask": int, "follow": int})
        if row["ask"] not in (TELL, ASK, ASK_GUEST) or row["follow"] not in (0, 1):
            raise Malformed("not a link")
        return Following(row["follow"] == 1, row["ask"])
    if name == "members":
        return Members(_parse_members(fields(value, {"t": str, "members": list})["members"]))
    raise Malformed("unknown frame")


def heads_frames(heads: Iterable[SignedHeader]) -> Iterator[bytes]:
    """``heads`` frames holding all of ``heads``, each within bounds."""
    batch: list[SignedHeader] = []
    size = 0
    for signed in heads:
        length = len(signed.header.encoded) + 80
        if batch and (len(batch) == HEADS_MAX or size + length > FRAME_BYTES):
            yield encode_sync(Heads(tuple(batch)))
            batch, size = [], 0
        batch.append(signed)
        size += length
    if batch:
        yield encode_sync(Heads(tuple(batch)))


def members_frames(profiles: Iterable[tuple[SignedHeader, bytes]]) -> Iterator[bytes]:
    """``members`` frames holding all of ``profiles``, each within bounds."""
    batch: list[tuple[SignedHeader, bytes]] = []
    size = 0
    for signed, payload in profiles:
        length = len(signed.header.encoded) + len(payload) + 80
        if batch and (len(batch) == MEMBERS_MAX or size + length > FRAME_BYTES):
            yield encode_sync(Members(tuple(batch)))
            batch, size = [], 0
        batch.append((signed, payload))
        size += length
    if batch:
        yield encode_sync(Members(tuple(batch)))


def _rows(rows: tuple[Row, ...]) -> list[list[object]]:
    return [[row.author, row.profile, row.head, row.copy, row.mark] for row in rows]


def _parse_rows(rows: list[object]) -> tuple[Row, ...]:
    if len(rows) > ROWS_MAX:
        raise Malformed("digest too long")
    parsed: dict[bytes, Row] = {}
    for row in rows:
        if type(row) is not list or [type(item) for item in row] != _ROW:
            raise Malformed("not a digest row")
        if len(row[0]) != 32 or row[0] in parsed or len(row[4]) not in (0, MARK_BYTES):
            raise Malformed("author of a digest row")
        parsed[row[0]] = Row(*row)
    return tuple(parsed.values())


def _parse_heads(heads: list[object]) -> tuple[SignedHeader, ...]:
    if len(heads) > HEADS_MAX:
        raise Malformed("too many heads")
    return tuple(_signed(_bytes(head)) for head in heads)


def _signed(data: bytes) -> SignedHeader:
    """The signed header; what several peers show us is read once, as long as it is short."""
    return _recent(data) if len(data) <= RECENT_BYTES_MAX else decode_signed(data)


_recent = lru_cache(RECENT)(decode_signed)


def _parse_members(members: list[object]) -> tuple[tuple[SignedHeader, bytes], ...]:
    if len(members) > MEMBERS_MAX:
        raise Malformed("too many profiles")
    parsed: list[tuple[SignedHeader, bytes]] = []
    for pair in members:
        if type(pair) is not list or len(pair) != 2:
            raise Malformed("not a profile")
        head, payload = _bytes(pair[0]), _bytes(pair[1])
        if len(payload) > PROFILE_BYTES_MAX:
            raise Malformed("profile too long")
        parsed.append((decode_signed(head), payload))
    return tuple(parsed)


def _bytes(value: object) -> bytes:
    if type(value) is not bytes:
        raise Malformed("not bytes")
    return value
