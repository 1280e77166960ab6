"""2bit: the sign and one of two sizes, with one bfloat16 scale for each block of 256.

    scale = rms(v)      value = sign(v) * scale * (1.5104 if |v| > .9816 scale else .4528)

Lloyd's and Max's levels for a Gaussian (Max 1960). Payload: ceil(d/256) scales, then ceil(d/4)
bytes; parameter 4i+j sits in bits 2j (large), 2j+1 (negative) of byte i; unused bits are 0.
Error: .117 ||v||^2 on Gaussians, .33 on heavy tails. It is no contraction for every v: on one value
among 255 zeros it is 1.03 ||v||^2, the most there is; the copy still follows, since every entry
codes against it.
"""

from collections.abc import Iterator

import numpy as np

from tapestry_p2p.mix.codec import form
from tapestry_p2p.mix.codec.form import Bytes, Codec, CodecError, Part, Payload, Vector

BLOCK = 256
_SMALL, _LARGE, _BORDER = np.float32(0.4528), np.float32(1.5104), np.float32(0.9816)
_LEVELS = np.array([_SMALL, _LARGE, -_SMALL, -_LARGE], dtype=np.float32)
# all four values of a byte at once: float32[256, 4]
_BYTE_LEVELS = _LEVELS[(np.arange(256)[:, None] >> np.array([0, 2, 4, 6])) & 3]


def payload_bytes(d: int) -> int:
    """2 ceil(d/256) + ceil(d/4)."""
    return 2 * form.count(d, BLOCK) + form.count(d, 4)


def encode(vector: Vector) -> bytes:
    """float32[d] -> payload. CodecError if not finite."""
    d, n = len(vector), form.count(len(vector), BLOCK)
    payload: Bytes = np.empty(payload_bytes(d), np.uint8)
    scales, codes = payload[: 2 * n].view("<u2"), payload[2 * n :]
    space = np.empty((2, min(form.PIECE, n * BLOCK)), np.uint8)
    for start, rows, work in form.pieces(vector, BLOCK):
        counts = form.lengths(len(rows), BLOCK, d - start)
        bits = form.to_bfloat16(_rms(rows, counts, work))
        scales[start // BLOCK :][: len(bits)] = bits
        border = _BORDER * form.from_bfloat16(bits)
        large, negative = (flags[: rows.size].reshape(rows.shape) for flags in space)
        np.greater(np.abs(rows, out=work), border[:, None], out=large.view(np.bool_))
        np.signbit(rows, out=negative.view(np.bool_))
        _pack(large.reshape(-1), negative.reshape(-1), codes[start // 4 :])
    return payload.tobytes()


def _pack(large: Bytes, negative: Bytes, out: Bytes) -> None:
    """Two flags a parameter, uint8[4n] each and both spoilt, to as many bytes as ``out`` takes."""
    quads = large.view("<u4")
    quads |= negative.view("<u4") << 1
    quads *= np.uint32(0x01041040)  # brings all four pairs into the top byte
    quads >>= np.uint32(24)
    part = out[: len(quads)]
    np.copyto(part, quads[: len(part)], casting="unsafe")


def _rms(rows: Vector, counts: Vector, work: Vector) -> Vector:
    """Root mean square of each block, less what rounding to bfloat16 may add."""
    peak = form.peaks(np.abs(rows, out=work))
    peak = np.where(peak < form.SCALE_MIN, np.float32(0), peak)
    # of units, since the squares of tiny values would vanish
    units = np.multiply(rows, form.inverse(peak)[:, None], out=work)
    rms = peak * np.sqrt(np.einsum("ij,ij->i", units, units) / counts)
    return form.safe_scales(rms * np.float32(1 - 2**-9))


def parts(payload: Payload, d: int) -> Iterator[Part]:
    """+-scale * level."""
    n = form.count(d, BLOCK)
    scales = form.checked_scales(form.from_bfloat16(np.frombuffer(payload, "<u2", n)))
    codes = np.frombuffer(payload, np.uint8, offset=2 * n)
    if d % 4 and codes[-1] >> 2 * (d % 4):
        raise CodecError("unused bits are set")

    def levels(start: int, stop: int, out: Vector) -> None:
        packed = codes[start // 4 : form.count(stop, 4)]
        np.take(
            _BYTE_LEVELS, packed, axis=0, out=out[: 4 * len(packed)].reshape(-1, 4), mode="clip"
        )

    yield from form.scaled(levels, scales, BLOCK, d)


def norm_bound(payload: Payload, d: int) -> float:
    """Every parameter at the larger level: sqrt(256 sum(scale^2)) 1.5104."""
    scales = form.from_bfloat16(np.frombuffer(payload, "<u2", form.count(d, BLOCK)))
    wide = scales.astype(np.float64)
    return float(np.sqrt(BLOCK * (wide @ wide))) * float(_LARGE)


CODEC = Codec(payload_bytes, encode, parts, norm_bound)
