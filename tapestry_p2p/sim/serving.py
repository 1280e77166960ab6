"""What a simulated member gives to others: payload chunks by hash, copies where they stand.

Speaks the production request format. Everything kept is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

from tapestry_p2p.gossip.fetch import (
    ChunkRequest,
    FetchRequest,
    FetchResponse,
    FrameRequest,
    LeavesRequest,
    decode_request,
    encode_response,
)
from tapestry_p2p.mix.copy import FRAME_BYTES
from tapestry_p2p.sim.vault import Point

CHUNKS_MAX, SNAPSHOTS_MAX = 1024, 4
Standing = Callable[[bytes, int], Point | None]
MISSING = encode_response(FetchResponse("missing"))


class Serving:
    """``standing(author, seq)`` is the copy that stands there, if any."""

    def __init__(self, standing: Standing) -> None:
        self._standing = standing
        self._chunks: dict[bytes, bytes] = {}
        self._snapshots: dict[bytes, Point] = {}

    def keep(self, chunks: Iterable[bytes], names: Iterable[bytes]) -> None:
        """Have chunks of a payload at hand, by their hashes."""
        self._chunks.update(zip(names, chunks, strict=True))
        while len(self._chunks) > CHUNKS_MAX:
            del self._chunks[next(iter(self._chunks))]

    def clear(self) -> None:
        """Have no payload any more."""
        self._chunks.clear()

    def answer(self, request: bytes) -> tuple[bytes, bytes]:
        """Response and body of a peer's fetch."""
        asked = _parsed(request)
        found = b""
        if isinstance(asked, ChunkRequest):
            found = self._chunks.get(asked.hash, b"")
        elif isinstance(asked, LeavesRequest | FrameRequest):
            found = self._part_of_copy(asked)
        return (_found(len(found)), found) if found else (MISSING, b"")

    def _part_of_copy(self, asked: LeavesRequest | FrameRequest) -> bytes:
        point = self._snapshot(asked)
        if point is None:
            return b""
        if isinstance(asked, LeavesRequest):
            return b"".join(point.leaves)
        start = asked.index * FRAME_BYTES
        return point.vector.astype("<f4").tobytes()[start : start + FRAME_BYTES]

    def named(self, author: bytes, seq: int, root: bytes) -> Point | None:
        """A copy that somebody's start names, if we have it."""
        point = self._standing(author, seq)
        return point if point is not None and point.root == root else self._snapshots.get(root)

    def hold(self, point: Point) -> None:
        """Have this copy at hand for those who ask."""
        self._snapshots[point.root] = point
        while len(self._snapshots) > SNAPSHOTS_MAX:
            del self._snapshots[next(iter(self._snapshots))]

    def _snapshot(self, asked: LeavesRequest | FrameRequest) -> Point | None:
        """The copy with that root, held from the first time it is asked for."""
        if asked.root in self._snapshots:
            return self._snapshots[asked.root]
        point = self._standing(asked.author, asked.seq)
        if point is None or point.root != asked.root:
            return None
        self.hold(point)
        return point


@lru_cache(1024)  # all followers of an entry ask in the same words
def _parsed(request: bytes) -> FetchRequest:
    return decode_request(request)


@lru_cache(1024)
def _found(length: int) -> bytes:
    return encode_response(FetchResponse("ok", length, length))
