"""1bit: the sign, with one bfloat16 scale for each block of 256.

    scale = mean|v|, to the nearest bfloat16      value = sign(v) * scale

(Seide et al. 2014; Bernstein et al. 2018.) Payload: ceil(d/256) scales, then ceil(d/8) bytes; bit j
of byte i is 1 if parameter 8i+j is negative; unused bits are 0. In a block of n values
||C(v) - v||^2 = ||v||^2 - n mean|v|^2 (1 - e^2), |e| <= 2^-8 the scale's rounding: omega is 2/pi on
Gaussians and at least (1 - 2^-16) / 256 for every v.
"""

from collections.abc import Iterator

import numpy as np

from tapestry_p2p.mix.codec import form
from tapestry_p2p.mix.codec.form import Bytes, Codec, CodecError, Part, Payload, Vector

BLOCK = 256
# all eight signs of a byte at once: float32[256, 8]
_BYTE_SIGNS = (1 - 2 * ((np.arange(256)[:, None] >> np.arange(8)) & 1)).astype(np.float32)


def payload_bytes(d: int) -> int:
    """2 ceil(d/256) + ceil(d/8)."""
    return 2 * form.count(d, BLOCK) + form.count(d, 8)


def encode(vector: Vector) -> bytes:
    """float32[d] -> payload. CodecError if not finite."""
    d, n = len(vector), form.count(len(vector), BLOCK)
    payload: Bytes = np.empty(payload_bytes(d), np.uint8)
    scales, codes = payload[: 2 * n].view("<u2"), payload[2 * n :]
    space = np.empty(min(form.PIECE, n * BLOCK), np.bool_)
    for start, rows, work in form.pieces(vector, BLOCK):
        counts = form.lengths(len(rows), BLOCK, d - start)
        means = _means(np.abs(rows, out=work), counts)
        bits = form.to_bfloat16(form.safe_scales(means))
        scales[start // BLOCK :][: len(bits)] = bits
        negative = np.signbit(rows, out=space[: rows.size].reshape(rows.shape))
        negative[bits == 0] = False
        packed = np.packbits(negative, bitorder="little")
        part = codes[start // 8 :][: len(packed)]
        part[:] = packed[: len(part)]
    return payload.tobytes()


def _means(magnitudes: Vector, counts: Vector) -> Vector:
    """Mean of each block; infinite where only the sum is."""
    with np.errstate(over="ignore"):
        sums = np.add.reduce(magnitudes, axis=1)
    if not np.isfinite(sums).all():
        form.peaks(magnitudes)  # raises unless only the sum is too large
    means: Vector = sums / counts
    return means


def parts(payload: Payload, d: int) -> Iterator[Part]:
    """+-scale."""
    n = form.count(d, BLOCK)
    scales = form.checked_scales(form.from_bfloat16(np.frombuffer(payload, "<u2", n)))
    codes = np.frombuffer(payload, np.uint8, offset=2 * n)
    if d % 8 and codes[-1] >> d % 8:
        raise CodecError("unused bits are set")
    form.need_empty(scales, codes, BLOCK // 8)

    def levels(start: int, stop: int, out: Vector) -> None:
        packed = codes[start // 8 : form.count(stop, 8)]
        np.take(_BYTE_SIGNS, packed, axis=0, out=out[: 8 * len(packed)].reshape(-1, 8), mode="clip")

    yield from form.scaled(levels, scales, BLOCK, d)


CODEC = Codec(payload_bytes, encode, parts)
