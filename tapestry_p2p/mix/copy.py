"""The public copy: the vector that a stream's entries add up to, the same bits at every follower.

Knows float32 and SHA-256. A copy changes only by a difference (``advance`` takes its bytes, ``add``
its vector; elementwise float32, the same bits) or by being replaced whole. Its bytes are
little-endian float32; ``leaves`` are the hashes whose Merkle root stands in an entry
(gossip/merkle.py joins them).
"""

import hashlib
from collections.abc import Iterator

import numpy as np

from tapestry_p2p.mix.codec import CodecError, Vector, decode_add, payload_norm

FRAME_BYTES = 256 * 1024
_LEAF = b"\x00"


class PublicCopy:
    """float32[d], owned by this object; read it through ``vector`` and do not write to it."""

    def __init__(self, vector: Vector) -> None:
        self.vector: Vector = np.array(vector, dtype=np.float32)

    def __len__(self) -> int:
        return len(self.vector)

    def advance(self, codec: str, payload: bytes, norm_max: float) -> None:
        """Move the copy by the difference in ``payload``.

        CodecError if that is malformed or longer than ``norm_max``; then the copy is as it was.
        """
        if payload_norm(codec, payload, len(self.vector)) > norm_max:
            raise CodecError("the difference is longer than the manifest allows")
        decode_add(codec, payload, self.vector)

    def add(self, difference: Vector) -> None:
        """Move the copy by a decoded difference, float32[d]."""
        np.add(self.vector, difference, out=self.vector)

    def frames(self) -> Iterator[bytes]:
        """The copy's bytes in frames of 256 KiB, the last one shorter."""
        data = self.vector.astype("<f4", copy=False).data.cast("B")
        for start in range(0, len(data), FRAME_BYTES):
            yield bytes(data[start : start + FRAME_BYTES])

    def leaves(self) -> list[bytes]:
        """SHA-256(0x00 || frame) of each frame, in order."""
        return [frame_leaf(frame) for frame in self.frames()]


def frame_leaf(frame: bytes) -> bytes:
    """The Merkle leaf (32 bytes) of one frame."""
    return hashlib.sha256(_LEAF + frame).digest()


def vector_of(data: bytes, d: int, norm_max: float) -> Vector:
    """float32[d] from a keyframe's bytes; CodecError on a wrong size, NaN, or a huge norm."""
    if len(data) != 4 * d:
        raise CodecError(f"a keyframe of {d} parameters has {4 * d} bytes, this has {len(data)}")
    vector = np.frombuffer(data, dtype="<f4").astype(np.float32)
    if not np.isfinite(vector).all() or norm(vector) > norm_max:
        raise CodecError("the keyframe is not finite or longer than the manifest allows")
    return vector


def norm(vector: Vector) -> float:
    """Euclidean norm summed in float64, so that 1e38 does not overflow."""
    total = 0.0
    for start in range(0, len(vector), 1 << 16):
        block = vector[start : start + (1 << 16)].astype(np.float64)
        total += float(block @ block)
    return float(np.sqrt(total))
