"""int4: four bits a parameter with one bfloat16 scale for each block of 64.

    scale = max|v| / 7 as bfloat16      code = round(v / scale)      value = code * scale

Payload: ceil(d/64) scales, then ceil(d/2) bytes; parameter 2i is the low half of byte i, 2i+1 the
high half, as two's complement, never -8; an unused half is 0. An error is at most half a scale, so
||C(v) - v||^2 <= 64/14^2 (1 + 2^-7) ||v||^2 < .33 ||v||^2 for every v.
"""

from collections.abc import Iterator

import numpy as np

from tapestry_p2p.mix.codec import form
from tapestry_p2p.mix.codec.form import Bytes, Codec, CodecError, Part, Payload, Vector
from tapestry_p2p.mix.codec.int8 import round_units

BLOCK = 64
_CODES = (np.arange(16, dtype=np.float32) + 8) % 16 - 8
# both values of a byte at once: float32[256, 2]
_BYTE_CODES = np.stack([np.tile(_CODES, 16), np.repeat(_CODES, 16)], axis=1)


def payload_bytes(d: int) -> int:
    """2 ceil(d/64) + ceil(d/2)."""
    return 2 * form.count(d, BLOCK) + form.count(d, 2)


def encode(vector: Vector) -> bytes:
    """float32[d] -> payload. CodecError if not finite."""
    d, n = len(vector), form.count(len(vector), BLOCK)
    payload: Bytes = np.empty(payload_bytes(d), np.uint8)
    scales, codes = payload[: 2 * n].view("<u2"), payload[2 * n :]
    space = np.empty(min(form.PIECE, n * BLOCK), np.int8)
    for start, rows, work in form.pieces(vector, BLOCK):
        np.abs(rows, out=work)
        bits = form.to_bfloat16(form.safe_scales(form.peaks(work) / np.float32(7)))
        scales[start // BLOCK :][: len(bits)] = bits
        round_units(rows, form.from_bfloat16(bits), 7, work)
        fours = space[: rows.size]
        np.copyto(fours, work.reshape(-1), casting="unsafe")
        pairs = fours.view("<u2") & 0x0F0F
        pairs |= pairs >> 4
        part = codes[start // 2 :][: len(pairs)]
        np.copyto(part, pairs[: len(part)], casting="unsafe")
    return payload.tobytes()


def parts(payload: Payload, d: int) -> Iterator[Part]:
    """code * scale."""
    n = form.count(d, BLOCK)
    scales = form.checked_scales(form.from_bfloat16(np.frombuffer(payload, "<u2", n)))
    codes = np.frombuffer(payload, np.uint8, offset=2 * n)
    if ((codes & 0x0F) == 8).any() or (codes >> 4 == 8).any():
        raise CodecError("an int4 code is out of range")
    if d % 2 and codes[-1] >> 4:
        raise CodecError("unused bits are set")
    form.need_empty(scales, codes, BLOCK // 2)

    def levels(start: int, stop: int, out: Vector) -> None:
        packed = codes[start // 2 : form.count(stop, 2)]
        np.take(_BYTE_CODES, packed, axis=0, out=out[: 2 * len(packed)].reshape(-1, 2), mode="clip")

    yield from form.scaled(levels, scales, BLOCK, d)


CODEC = Codec(payload_bytes, encode, parts)
