"""Codecs: how a float32 difference becomes bytes, and the one routine that turns bytes back.

Knows numpy and a payload's exact size. Every follower decodes with this file, and the result must
be the same bits on every CPU: decoding is elementwise float32 (one product per parameter), never a
reduction. Block scales are zero or within 2^-100..2^100, so no product is denormal and FTZ/DAZ
settings cannot matter.

Layout (little endian), d parameters, blocks of 256, the last block may be short:
  fp32  d float32
  int8  ceil(d/256) float32 scales, then d int8;         value = code * scale
  2bit  ceil(d/256) bfloat16 scales, then ceil(d/4) bytes; parameter 4i+j sits in bits 2j, 2j+1 of
        byte i: low bit = large, high bit = negative; value = +-scale * (1.5104 if large else .4528)
The 2-bit levels are Lloyd and Max's for a Gaussian (Max 1960); the scale is the block's rms.
"""

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]

BLOCK = 256
SCALE_MIN = np.float32(2.0**-100)
SCALE_MAX = np.float32(2.0**100)
_SMALL, _LARGE, _BORDER = np.float32(0.4528), np.float32(1.5104), np.float32(0.9816)
_LEVELS = np.array([_SMALL, _LARGE, -_SMALL, -_LARGE], dtype=np.float32)
# all four values of a byte at once: float32[256, 4]
_BYTE_LEVELS = _LEVELS[(np.arange(256)[:, None] >> np.array([0, 2, 4, 6])) & 3]

CODECS = ("fp32", "int8", "2bit")


class CodecError(ValueError):
    """A payload that no honest encoder makes: wrong size, a scale or a value out of range."""


def payload_bytes(codec: str, d: int) -> int:
    """Exact payload length in bytes of ``d`` parameters; CodecError for an unknown codec."""
    blocks = -(-d // BLOCK)
    if codec == "fp32":
        return 4 * d
    if codec == "int8":
        return 4 * blocks + d
    if codec == "2bit":
        return 2 * blocks + -(-d // 4)
    raise CodecError(f"unknown codec {codec!r}")


def encode(codec: str, vector: Vector) -> bytes:
    """Encode float32[d] into ``payload_bytes(codec, d)`` bytes; CodecError if not finite."""
    if not np.isfinite(vector).all():
        raise CodecError("the vector to encode is not finite")
    if codec == "fp32":
        clean: Vector = np.where(np.abs(vector) < SCALE_MIN, np.float32(0), vector)
        return clean.astype("<f4").tobytes()
    if codec == "int8":
        return _encode_int8(vector)
    if codec == "2bit":
        return _encode_2bit(vector)
    raise CodecError(f"unknown codec {codec!r}")


def decode(codec: str, payload: bytes, d: int) -> Vector:
    """Decode a payload to float32[d], finite. CodecError for anything malformed."""
    if len(payload) != payload_bytes(codec, d):
        raise CodecError(f"{codec} payload has {len(payload)} bytes")
    if codec == "fp32":
        vector = np.frombuffer(payload, dtype="<f4").astype(np.float32)
        if not np.isfinite(vector).all():
            raise CodecError("a value is not finite")
        vector[np.abs(vector) < SCALE_MIN] = 0
        return vector
    return _decode_int8(payload, d) if codec == "int8" else _decode_2bit(payload, d)


def _blocks(vector: Vector) -> Vector:
    """float32[d] -> float32[blocks, 256], zero padded."""
    padded = np.zeros(-(-len(vector) // BLOCK) * BLOCK, dtype=np.float32)
    padded[: len(vector)] = vector
    return padded.reshape(-1, BLOCK)


def _safe_scales(scales: Vector) -> Vector:
    """Tiny scales become zero, huge ones the largest allowed."""
    clean = np.minimum(scales, SCALE_MAX)
    clean[clean < SCALE_MIN] = 0
    return clean


def _checked_scales(scales: Vector) -> Vector:
    inside = (scales >= SCALE_MIN) & (scales <= SCALE_MAX)
    zero = (scales == 0) & ~np.signbit(scales)
    if not (inside | zero).all():
        raise CodecError("a block scale is out of range")
    return scales


def _inverse(scales: Vector) -> Vector:
    return np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales > 0)


def _encode_int8(vector: Vector) -> bytes:
    blocks = _blocks(vector)
    scales = _safe_scales(np.abs(blocks).max(axis=1) / np.float32(127))
    codes = np.rint(blocks * _inverse(scales)[:, None]).clip(-127, 127).astype(np.int8)
    head: bytes = scales.astype("<f4").tobytes()
    tail: bytes = codes.reshape(-1)[: len(vector)].tobytes()
    return head + tail


def _decode_int8(payload: bytes, d: int) -> Vector:
    n = -(-d // BLOCK)
    scales = _checked_scales(np.frombuffer(payload, "<f4", n).astype(np.float32))
    codes = np.frombuffer(payload, np.int8, d, offset=4 * n)
    if (codes == -128).any():
        raise CodecError("an int8 code is out of range")
    values = codes.astype(np.float32)
    values *= np.repeat(scales, BLOCK)[:d]
    return values


def _to_bfloat16(scales: Vector) -> NDArray[np.uint16]:
    """Round positive float32 to the nearest bfloat16, as its 16 bits."""
    bits = scales.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _from_bfloat16(bits: NDArray[np.uint16]) -> Vector:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _encode_2bit(vector: Vector) -> bytes:
    blocks = _blocks(vector)
    counts = np.full(len(blocks), BLOCK, dtype=np.float32)
    if len(blocks):
        counts[-1] = len(vector) - (len(blocks) - 1) * BLOCK
    peak = np.abs(blocks).max(axis=1)
    peak[peak < SCALE_MIN] = 0
    unit = blocks * _inverse(peak)[:, None]  # else squares of tiny values would vanish
    rms = peak * np.sqrt(np.einsum("ij,ij->i", unit, unit) / counts)
    bits = _to_bfloat16(_safe_scales(rms * np.float32(1 - 2**-9)))
    scales = _from_bfloat16(bits)
    codes = (np.abs(blocks) > (_BORDER * scales)[:, None]).astype(np.uint8)
    codes |= np.signbit(blocks).astype(np.uint8) << 1
    quads = codes.reshape(-1, 4)
    packed = quads[:, 0] | quads[:, 1] << 2 | quads[:, 2] << 4 | quads[:, 3] << 6
    return bits.astype("<u2").tobytes() + packed[: -(-len(vector) // 4)].tobytes()


def _decode_2bit(payload: bytes, d: int) -> Vector:
    n = -(-d // BLOCK)
    bits = np.frombuffer(payload, "<u2", n).astype(np.uint16)
    scales = _checked_scales(_from_bfloat16(bits))
    packed = np.frombuffer(payload, np.uint8, offset=2 * n)
    if d % 4 and packed[-1] >> 2 * (d % 4):
        raise CodecError("unused bits are set")
    values: Vector = _BYTE_LEVELS[packed].reshape(-1)[:d]
    values *= np.repeat(scales, BLOCK)[:d]
    return values
