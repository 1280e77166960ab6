"""Requests and responses of the fetch channel, as bytes. Moves nothing itself.

A request is one canonical map; the answer is one canonical map {status, length, total}, and where
the status is ``ok`` a second frame of ``length`` raw bytes follows.
"""

from __future__ import annotations

from tapestry_p2p.gossip.canonical import Malformed, fields, pack, unpack
from tapestry_p2p.gossip.fact import fact
from tapestry_p2p.gossip.merkle import CHUNK_BYTES, HASH_BYTES

REQUEST_BYTES_MAX = 256
RESPONSE_BYTES_MAX = 128
BODY_BYTES_MAX = CHUNK_BYTES
FRAMES_MAX = 2**20
STATUSES = ("ok", "missing", "busy", "refused")


@fact
class ChunkRequest:
    """Bytes ``offset .. offset+length`` of the payload chunk named ``hash``."""

    hash: bytes
    offset: int
    length: int


@fact
class LeavesRequest:
    """The leaf hashes of the copy of ``author`` at ``seq`` whose root is ``root``, joined: the
    first ``BODY_BYTES_MAX`` bytes of them.

    A holder that answers ``ok`` keeps that copy for a while, so that its frames can be asked for.
    """

    author: bytes
    seq: int
    root: bytes


@fact
class MoreLeavesRequest:
    """Bytes ``offset .. offset+length`` of those leaves joined, where one answer does not hold all.

    That is so from 8,193 of them on: 2 GiB.
    """

    author: bytes
    seq: int
    root: bytes
    offset: int
    length: int


@fact
class FrameRequest:
    """Bytes ``offset .. offset+length`` of chunk ``index`` of that copy."""

    author: bytes
    seq: int
    root: bytes
    index: int
    offset: int
    length: int


@fact
class ManifestRequest:
    """The text of the manifest whose network id is ``network``; needs no hello before it.

    Whoever asks checks the hash of what comes back.
    """

    network: bytes


@fact
class BaseLeavesRequest:
    """The leaf hashes of the manifest's base file, whose root is ``root``; needs no hello."""

    root: bytes


@fact
class BaseRequest:
    """Bytes ``offset .. offset+length`` of piece ``index`` of that file; needs no hello."""

    root: bytes
    index: int
    offset: int
    length: int


FetchRequest = (
    ChunkRequest
    | LeavesRequest
    | MoreLeavesRequest
    | FrameRequest
    | ManifestRequest
    | BaseLeavesRequest
    | BaseRequest
)


@fact
class FetchResponse:
    """``length`` bytes follow; the whole chunk (or all leaves) has ``total`` bytes."""

    status: str
    length: int = 0
    total: int = 0


_SHAPES: dict[str, dict[str, type]] = {
    "chunk": {"t": str, "hash": bytes, "offset": int, "length": int},
    "leaves": {"t": str, "author": bytes, "seq": int, "root": bytes},
    "more_leaves": {
        "t": str, "author": bytes, "seq": int, "root": bytes, "offset": int, "length": int,
    },
    "frame": {
        "t": str, "author": bytes, "seq": int, "root": bytes,
        "index": int, "offset": int, "length": int,
    },
    "manifest": {"t": str, "network": bytes},
    "base_leaves": {"t": str, "root": bytes},
    "base": {"t": str, "root": bytes, "index": int, "offset": int, "length": int},
}  # fmt: skip
_TYPES: dict[str, type[FetchRequest]] = {
    "chunk": ChunkRequest,
    "leaves": LeavesRequest,
    "more_leaves": MoreLeavesRequest,
    "frame": FrameRequest,
    "manifest": ManifestRequest,
    "base_leaves": BaseLeavesRequest,
    "base": BaseRequest,
}


def encode_request(request: FetchRequest) -> bytes:
    """The bytes of a request."""
    name = next(name for name, kind in _TYPES.items() if type(request) is kind)
    return pack({"t": name, **vars(request)})


def decode_request(data: bytes) -> FetchRequest:
    """Parse a foreign request; Malformed for a wrong key, type, hash size or range."""
    value = unpack(data, bytes_max=REQUEST_BYTES_MAX)
    name = value.get("t") if type(value) is dict else None
    if type(name) is not str or name not in _SHAPES:
        raise Malformed("not a fetch request")
    row = fields(value, _SHAPES[name])
    for key in ("hash", "author", "root", "network"):
        if key in row and len(row[key]) != HASH_BYTES:
            raise Malformed(f"wrong size of {key}")
    end = FRAMES_MAX * HASH_BYTES if name == "more_leaves" else CHUNK_BYTES
    if "length" in row and not (
        0 < row["length"] <= BODY_BYTES_MAX and row["offset"] + row["length"] <= end
    ):
        raise Malformed("range outside of what is asked for")
    if row.get("index", 0) >= FRAMES_MAX:
        raise Malformed("index too large")
    return _TYPES[name](**{key: item for key, item in row.items() if key != "t"})


def encode_response(response: FetchResponse) -> bytes:
    """The bytes of a response's first frame."""
    return pack(vars(response))


def decode_response(data: bytes) -> FetchResponse:
    """Parse a foreign response; Malformed unless status, length and total agree."""
    value = unpack(data, bytes_max=RESPONSE_BYTES_MAX)
    row = fields(value, {"status": str, "length": int, "total": int})
    response = FetchResponse(**row)
    if response.status not in STATUSES:
        raise Malformed("unknown status")
    if response.length > min(BODY_BYTES_MAX, response.total):
        raise Malformed("length beyond the total")
    if (response.status == "ok") != (response.length > 0):
        raise Malformed("length does not fit the status")
    return response
