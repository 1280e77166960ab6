"""int8: signed bytes with one float32 scale for each block of 256.

    scale = max|v| / 127      code = round(v / scale)      value = code * scale

Payload: ceil(d/256) scales, then d codes, never -128. An error is at most half a scale, so
||C(v) - v||^2 <= 256/254^2 ||v||^2 = .0040 ||v||^2 for every v (the largest value of a block is
exact but for rounding; scales within form.py's limits).
"""

from collections.abc import Iterator

import numpy as np

from tapestry_p2p.mix.codec import form
from tapestry_p2p.mix.codec.form import Bytes, Codec, CodecError, Part, Payload, Vector

BLOCK = 256


def payload_bytes(d: int) -> int:
    """4 ceil(d/256) + d."""
    return 4 * form.count(d, BLOCK) + d


def encode(vector: Vector) -> bytes:
    """float32[d] -> payload. CodecError if not finite."""
    d, n = len(vector), form.count(len(vector), BLOCK)
    payload: Bytes = np.empty(payload_bytes(d), np.uint8)
    scales, codes = payload[: 4 * n].view("<f4"), payload[4 * n :].view(np.int8)
    for start, rows, work in form.pieces(vector, BLOCK):
        np.abs(rows, out=work)
        scale = form.safe_scales(form.peaks(work) / np.float32(127))
        scales[start // BLOCK :][: len(scale)] = scale
        round_units(rows, scale, 127, work)
        part = codes[start : start + rows.size]
        np.copyto(part, work.reshape(-1)[: len(part)], casting="unsafe")
    return payload.tobytes()


def round_units(rows: Vector, scale: Vector, most: int, out: Vector) -> None:
    """``out`` = rows / scale to the nearest whole number within -most..most (also: int4)."""
    np.multiply(rows, form.inverse(scale)[:, None], out=out)
    np.rint(out, out=out)
    if scale.max() == form.SCALE_MAX:  # otherwise nothing lies beyond
        np.clip(out, -most, most, out=out)


def parts(payload: Payload, d: int) -> Iterator[Part]:
    """code * scale."""
    n = form.count(d, BLOCK)
    scales = form.checked_scales(np.frombuffer(payload, "<f4", n).astype(np.float32))
    codes = np.frombuffer(payload, np.int8, d, offset=4 * n)
    if d and codes.min() == -128:
        raise CodecError("an int8 code is out of range")
    form.need_empty(scales, codes.view(np.uint8), BLOCK)

    def levels(start: int, stop: int, out: Vector) -> None:
        out[: stop - start] = codes[start:stop]

    yield from form.scaled(levels, scales, BLOCK, d)


CODEC = Codec(payload_bytes, encode, parts)
