"""The public copy: the vector that a stream's entries add up to, the same bits at every follower.

Knows float32 and SHA-256. A copy changes only by a difference (``advance`` takes its bytes, ``add``
its vector; elementwise float32, the same bits) or by being replaced whole. Its bytes are
little-endian float32; ``leaves`` are the hashes whose Merkle root stands in an entry
(gossip/merkle.py joins them).
"""

import hashlib
from collections.abc import Iterator

import numpy as np

from tapestry_p2p.mix.codec import CodecError, Payload, Vector, decode_add, is_longer
from tapestry_p2p.mix.space import MEMORY, Space

FRAME_BYTES = 256 * 1024
_FRAME = FRAME_BYTES // 4  # parameters
_SETTLE_EVERY = 256  # frames: 64 MB
_LEAF = b"\x00"


class PublicCopy:
    """float32[d], owned by this object; read it through ``vector`` and do not write to it."""

    def __init__(self, vector: Vector, space: Space = MEMORY) -> None:
        """A copy of ``vector``, which lives in ``space``."""
        self._space = space
        self.vector: Vector = space.copy(vector)

    @classmethod
    def holding(cls, vector: Vector, space: Space = MEMORY) -> "PublicCopy":
        """``vector`` itself, which nobody else writes to from now on and which is in ``space``."""
        copy = cls(vector[:0], space)
        copy.vector = vector
        return copy

    def __len__(self) -> int:
        return len(self.vector)

    def advance(self, codec: str, payload: Payload, norm_max: float) -> None:
        """Move the copy by the difference in ``payload``.

        CodecError if that is malformed or longer than ``norm_max``; then the copy is as it was.
        """
        if is_longer(codec, payload, len(self.vector), norm_max):
            raise CodecError("the difference is longer than the manifest allows")
        decode_add(codec, payload, self.vector)
        self._space.settle()

    def add(self, difference: Vector) -> None:
        """Move the copy by a decoded difference, float32[d]."""
        for block in self._space.blocks(len(self.vector)):
            np.add(self.vector[block], difference[block], out=self.vector[block])

    def frame(self, index: int) -> bytes:
        """Frame ``index`` of the copy's bytes: 256 KiB, the last one shorter; b"" beyond."""
        part = self.vector[index * _FRAME : (index + 1) * _FRAME]
        return part.astype("<f4", copy=False).tobytes()

    def frames(self) -> Iterator[bytes]:
        """All of them, in order."""
        for index in range(-(-len(self.vector) // _FRAME)):
            yield self.frame(index)
            if index % _SETTLE_EVERY == 0:
                self._space.settle()

    def leaves(self) -> list[bytes]:
        """SHA-256(0x00 || frame) of each frame, in order."""
        return [frame_leaf(frame) for frame in self.frames()]

    def leaves_after(self, difference: Vector) -> list[bytes]:
        """Those of the copy once ``difference``, float32[d], is added; it is not yet."""
        found = []
        for index, block in enumerate(_frame_blocks(len(self.vector))):
            moved = self.vector[block] + difference[block]
            found.append(frame_leaf(moved.astype("<f4", copy=False).tobytes()))
            if index % _SETTLE_EVERY == 0:
                self._space.settle()
        return found


def _frame_blocks(d: int) -> Iterator[slice]:
    return (slice(start, start + _FRAME) for start in range(0, d, _FRAME))


def frame_leaf(frame: bytes) -> bytes:
    """The Merkle leaf (32 bytes) of one frame."""
    return hashlib.sha256(_LEAF + frame).digest()


def vector_of(data: bytes, d: int, norm_max: float) -> Vector:
    """float32[d] from a keyframe's bytes; CodecError on a wrong size, NaN, or a huge norm."""
    if len(data) != 4 * d:
        raise CodecError(f"a keyframe of {d} parameters has {4 * d} bytes, this has {len(data)}")
    vector = np.frombuffer(data, dtype="<f4").astype(np.float32)
    need_sane(vector, norm_max)
    return vector


def need_sane(vector: Vector, norm_max: float) -> None:
    """CodecError if a whole copy is not finite, or is longer than ``norm_max``."""
    if not norm(vector) <= norm_max:  # NaN and infinity too
        raise CodecError("the keyframe is not finite or longer than the manifest allows")


def norm(vector: Vector, origin: Vector | None = None) -> float:
    """Euclidean norm (of ``vector - origin``) summed in float64, so that 1e38 does not overflow."""
    total = 0.0
    for start in range(0, len(vector), 1 << 16):
        part = vector[start : start + (1 << 16)]
        if origin is not None:
            part = part - origin[start : start + (1 << 16)]
        block = part.astype(np.float64)
        total += float(block @ block)
    return float(np.sqrt(total))
