"""fp32: the difference as it is, d little-endian float32. Nothing is lost but dust.

A magnitude below 2^-100 is sent as +0 (see form.py), and so is -0: one spelling for each vector.
Error: none on magnitudes of at least 2^-100.
"""

from collections.abc import Iterator

import numpy as np

from tapestry_p2p.mix.codec import form
from tapestry_p2p.mix.codec.form import PIECE, SCALE_MIN, Codec, CodecError, Part, Payload, Vector

_MAGNITUDE = np.uint32(0x7FFFFFFF)
_LEAST = SCALE_MIN.view(np.uint32)
_SPAN = np.float32(np.inf).view(np.uint32) - _LEAST


def payload_bytes(d: int) -> int:
    """4 d."""
    return 4 * d


def encode(vector: Vector) -> bytes:
    """float32[d] -> 4d bytes. CodecError if not finite."""
    starts = range(0, len(vector), PIECE)
    if not all(_spelt(vector[start : start + PIECE]) for start in starts):
        vector = vector.copy()
        for start in starts:
            _sweep(vector[start : start + PIECE])
    return vector.astype("<f4", copy=False).tobytes()


def _sweep(part: Vector) -> None:
    """Turn dust into +0, in place. CodecError if a value is not finite."""
    magnitudes = np.abs(part)
    form.need_finite(magnitudes.view(np.int32))
    part[magnitudes < SCALE_MIN] = 0


def _spelt(part: Vector) -> bool:
    """Whether each value stands as it is sent."""
    bits = part.view(np.uint32)
    above = (bits & _MAGNITUDE) - _LEAST  # wraps round below the least
    return bool(((above < _SPAN) | (bits == 0)).all())


def parts(payload: Payload, d: int) -> Iterator[Part]:
    """The payload's own float32, in pieces."""
    vector = np.frombuffer(payload, "<f4", d).astype(np.float32, copy=False)
    if not all(_spelt(vector[start : start + PIECE]) for start in range(0, d, PIECE)):
        raise CodecError("a value is not finite, tiny, or a negative zero")
    for start in range(0, d, PIECE):
        stop = min(start + PIECE, d)
        yield slice(start, stop), vector[start:stop]


CODEC = Codec(payload_bytes, encode, parts)
