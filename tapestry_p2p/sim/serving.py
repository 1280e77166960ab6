"""What a simulated member gives to others: payload chunks by hash, copies where they stand.

Speaks the production request format. Everything kept is bounded.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tapestry_p2p.gossip.fetch import (
    ChunkRequest,
    FetchResponse,
    FrameRequest,
    LeavesRequest,
    decode_request,
    encode_response,
)
from tapestry_p2p.gossip.merkle import chunk_hash, merkle_root
from tapestry_p2p.mix.copy import FRAME_BYTES, PublicCopy

CHUNKS_MAX, SNAPSHOTS_MAX = 4096, 4
Standing = Callable[[bytes, int], PublicCopy | None]


class Serving:
    """``standing(author, seq)`` is the copy that stands there, if any."""

    def __init__(self, standing: Standing, chunk_bytes: int) -> None:
        self._standing = standing
        self._chunk_bytes = chunk_bytes
        self._chunks: dict[bytes, bytes] = {}
        self._snapshots: dict[bytes, NDArray[np.float32]] = {}

    def keep(self, payload: bytes) -> None:
        """Have a payload's chunks at hand."""
        size = self._chunk_bytes
        pieces = [payload[i : i + size] for i in range(0, len(payload), size)]
        self._chunks.update({chunk_hash(piece): piece for piece in pieces})
        while len(self._chunks) > CHUNKS_MAX:
            del self._chunks[next(iter(self._chunks))]

    def answer(self, request: bytes) -> tuple[bytes, bytes]:
        """Response and body of a peer's fetch."""
        asked = decode_request(request)
        found = b""
        if isinstance(asked, ChunkRequest):
            found = self._chunks.get(asked.hash, b"")
        elif isinstance(asked, LeavesRequest | FrameRequest):
            found = self._part_of_copy(asked)
        if not found:
            return encode_response(FetchResponse("missing")), b""
        return encode_response(FetchResponse("ok", len(found), len(found))), found

    def _part_of_copy(self, asked: LeavesRequest | FrameRequest) -> bytes:
        vector = self._snapshot(asked)
        if vector is None:
            return b""
        if isinstance(asked, LeavesRequest):
            return b"".join(PublicCopy(vector).leaves())
        start = asked.index * FRAME_BYTES
        return vector.astype("<f4").tobytes()[start : start + FRAME_BYTES]

    def _snapshot(self, asked: LeavesRequest | FrameRequest) -> NDArray[np.float32] | None:
        """The copy with that root, held from the first time it is asked for."""
        if asked.root in self._snapshots:
            return self._snapshots[asked.root]
        public = self._standing(asked.author, asked.seq)
        if public is None or merkle_root(public.leaves()) != asked.root:
            return None
        self._snapshots[asked.root] = public.vector.copy()
        while len(self._snapshots) > SNAPSHOTS_MAX:
            del self._snapshots[next(iter(self._snapshots))]
        return self._snapshots[asked.root]
