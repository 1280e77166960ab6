"""What every codec is made of: the pair of functions, the one error, scales, the walk in pieces.

Knows no codec. A vector is worked on a piece at a time, with arrays made once a call, so that what
is in use stays in the processor's second cache and nothing as long as the vector is made on the
side: a fresh page costs more than the arithmetic on it. Scales are zero or within 2^-100..2^100:
then no product of a scale and a level is denormal, no sum with a copy that holds no denormals is
either, and a processor's FTZ/DAZ settings cannot matter.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Payload = bytes | memoryview
Part = tuple[slice | NDArray[np.intp], Vector]

PIECE = 1 << 16  # parameters; a multiple of every block length
SCALE_MIN = np.float32(2.0**-100)
SCALE_MAX = np.float32(2.0**100)
_INFINITY = 0x7F800000


class CodecError(ValueError):
    """A payload that no honest encoder makes: wrong size, a scale, code or bit out of range."""


@dataclass(frozen=True)
class Codec:
    """One codec as pure functions. ``parts`` is law; encoders may differ in a scale's last bit.

    * ``payload_bytes(d)``: the exact length of a payload of d parameters.
    * ``encode(float32[d]) -> bytes``: CodecError if a value is not finite.
    * ``norm_bound(payload, d)``: at least the norm of what it decodes to, at once; may be infinite.
    * ``parts(payload, d)``: yields ``(where, values)`` so that ``vector[where] += values`` for each
      part adds the difference; no parameter is in two parts. Checks the whole payload before the
      first part (CodecError); ``values`` are overwritten by the next step.
    """

    payload_bytes: Callable[[int], int]
    encode: Callable[[Vector], bytes]
    parts: Callable[[Payload, int], Iterator[Part]]
    norm_bound: Callable[[Payload, int], float] = lambda payload, d: math.inf


def count(d: int, block: int) -> int:
    """How many blocks hold d parameters, the last one perhaps short."""
    return -(-d // block)


def pieces(vector: Vector, block: int) -> Iterator[tuple[int, Vector, Vector]]:
    """(first parameter, float32[n, block], work) along the vector; the last block is 0 padded.

    ``work`` has the same shape and whatever the last piece left in it.
    """
    space = np.empty(min(PIECE, count(len(vector), block) * block), np.float32)
    for start in range(0, len(vector), PIECE):
        part = vector[start : start + PIECE]
        if missing := -len(part) % block:
            part = np.concatenate([part, np.zeros(missing, np.float32)])
        yield start, part.reshape(-1, block), space[: len(part)].reshape(-1, block)


def lengths(blocks: int, block: int, left: int) -> Vector:
    """How many values each of the next blocks has, float32; ``left`` parameters remain."""
    found = np.full(blocks, block, np.float32)
    found[-1] = min(block, left - (blocks - 1) * block)
    return found


def scaled(
    levels: Callable[[int, int, Vector], None], scales: Vector, block: int, d: int
) -> Iterator[Part]:
    """Parts of one product per parameter: its level times its block's scale.

    ``levels(start, stop, out)`` writes the levels of the parameters start..stop to ``out``, which
    has room for whole blocks.
    """
    values = np.zeros(min(PIECE, count(d, block) * block), np.float32)
    for start in range(0, d, PIECE):
        stop = min(start + PIECE, d)
        first, last = start // block, count(stop, block)
        part = values[: (last - first) * block]
        part[stop - start :] = 0  # no scale twice on what the last piece left
        levels(start, stop, part)
        rows = part.reshape(-1, block)
        np.multiply(rows, scales[first:last, None], out=rows)
        yield slice(start, stop), part[: stop - start]


# ---- scales ----------------------------------------------------------------------------------


def peaks(magnitudes: Vector) -> Vector:
    """The largest of each row, float32[n, block] -> float32[n]; CodecError if not finite."""
    # magnitudes compare as their bits do; integers are reduced twice as fast
    found = np.maximum.reduce(magnitudes.view(np.int32), axis=1)
    need_finite(found)
    largest: Vector = found.view(np.float32)
    return largest


def need_finite(bits: NDArray[np.int32]) -> None:
    """CodecError if one of the magnitudes, as bits, is infinite or NaN, which lies above that."""
    if bits.max() >= _INFINITY:
        raise CodecError("the vector to encode is not finite")


def safe_scales(scales: Vector) -> Vector:
    """Tiny scales become zero, huge ones the largest allowed."""
    clean = np.minimum(scales, SCALE_MAX)
    clean[clean < SCALE_MIN] = 0
    return clean


def checked_scales(scales: Vector) -> Vector:
    """The same; CodecError unless each is +0 or within SCALE_MIN..SCALE_MAX."""
    inside = (scales >= SCALE_MIN) & (scales <= SCALE_MAX)
    zero = (scales == 0) & ~np.signbit(scales)
    if not (inside | zero).all():
        raise CodecError("a block scale is out of range")
    return scales


def need_empty(scales: Vector, codes: Bytes, block_bytes: int) -> None:
    """CodecError unless blocks of scale 0 have codes 0: else one vector had many spellings."""
    zero = scales == 0
    if not zero.any():
        return
    whole = len(codes) // block_bytes
    rows = codes[: whole * block_bytes].reshape(whole, block_bytes)
    short = codes[whole * block_bytes :]
    if rows[zero[:whole]].any() or (zero[whole:].any() and short.any()):
        raise CodecError("a block of scale 0 has codes")


def inverse(scales: Vector) -> Vector:
    """1/scale, and 0 for 0."""
    return np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales > 0)


def to_bfloat16(scales: Vector) -> NDArray[np.uint16]:
    """Round positive float32 to the nearest bfloat16, as its 16 bits."""
    bits = scales.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bfloat16(bits: NDArray[np.uint16]) -> Vector:
    """The float32 that 16 bits stand for."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
