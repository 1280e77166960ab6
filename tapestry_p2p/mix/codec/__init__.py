"""Codecs: how a float32 difference becomes bytes, and the one routine that turns bytes back.

Knows each codec's name; a codec is a file of this folder and a row below. Every follower decodes
with these files, and the result must be the same bits on every CPU: decoding is elementwise float32
(at most one product per parameter, then one sum with the copy), never a reduction.
"""

from collections.abc import Iterator

import numpy as np

from tapestry_p2p.mix.codec import float32, int4, int8, one_bit, top_k, two_bit
from tapestry_p2p.mix.codec.form import Codec, CodecError, Part, Payload, Vector

__all__ = [
    "CODECS", "CodecError", "Payload", "Vector", "decode", "decode_add", "encode", "gamma_max",
    "is_longer", "payload_bytes", "payload_norm",
]  # fmt: skip

_ROWS = {
    "fp32": float32.CODEC,
    "int8": int8.CODEC,
    "int4": int4.CODEC,
    "2bit": two_bit.CODEC,
    "1bit": one_bit.CODEC,
    "topk": top_k.CODEC,
}
CODECS = tuple(_ROWS)
# Of the Loom's gamma. Copies that show a fiftieth of a change lag so far behind that members who go
# the whole way to their mean run away from it: from .2 up distances grew on quadratics, whoever's.
_GAMMA_MAX = {"topk": 0.15}


def payload_bytes(codec: str, d: int) -> int:
    """Exact payload length in bytes of ``d`` parameters; CodecError for an unknown codec."""
    return _row(codec).payload_bytes(d)


def encode(codec: str, vector: Vector) -> bytes:
    """Encode float32[d] into ``payload_bytes(codec, d)`` bytes; CodecError if not finite."""
    return _row(codec).encode(np.ascontiguousarray(vector, np.float32))


def decode(codec: str, payload: Payload, d: int, out: Vector | None = None) -> Vector:
    """Decode a payload to float32[d], finite. CodecError for anything malformed.

    Into ``out``, float32[d], if given; what it held is lost.
    """
    parts = _parts(codec, payload, d)
    vector = np.empty(d, np.float32) if out is None else out
    vector.fill(-0.0)  # -0 + v has the bits of v, whatever v is
    for where, values in parts:
        vector[where] = values
    return vector


def decode_add(codec: str, payload: Payload, target: Vector) -> None:
    """``target`` float32[d] += decode(codec, payload, d), bit for bit, with no vector in between.

    CodecError for anything malformed; then the target is as it was.
    """
    for where, values in _parts(codec, payload, len(target)):
        target[where] += values


def is_longer(codec: str, payload: Payload, d: int, norm_max: float) -> bool:
    """Whether what a payload decodes to is longer than ``norm_max``. CodecError if malformed.

    Decodes it only where the codec cannot tell at a glance.
    """
    if len(payload) == _row(codec).payload_bytes(d) and (
        _row(codec).norm_bound(payload, d) <= norm_max
    ):
        return False
    return not payload_norm(codec, payload, d) <= norm_max


def payload_norm(codec: str, payload: Payload, d: int) -> float:
    """Euclidean norm of what a payload decodes to, summed in float64. CodecError if malformed."""
    total = 0.0
    for _, values in _parts(codec, payload, d):
        wide = values.astype(np.float64)
        total += float(wide @ wide)
    return float(np.sqrt(total))


def gamma_max(codec: str) -> float:
    """The largest share of the way to the neighbourhood's mean that copies of this codec allow."""
    return _GAMMA_MAX.get(codec, 1.0)


def _row(codec: str) -> Codec:
    if codec not in _ROWS:
        raise CodecError(f"unknown codec {codec!r}")
    return _ROWS[codec]


def _parts(codec: str, payload: Payload, d: int) -> Iterator[Part]:
    row = _row(codec)
    if len(payload) != row.payload_bytes(d):
        raise CodecError(f"{codec} payload has {len(payload)} bytes")
    return row.parts(payload, d)
