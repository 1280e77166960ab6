"""topk: of each 4096 values the 64 largest, each with a sign and one of two sizes; no others.

Aji and Heafield (2017) for the choice, Elias (1974) and Fano (1971) for the indices. A block of m
values, 4096 or for the last one less, keeps the k = ceil(m/64) largest and becomes a record of
4 + k + ceil(k/4) bytes, 84 for a whole one:

    two bfloat16    the levels, small < large, or both 0
    k bytes         the indices, rising: 6 k bits with the low six bits of each, then 2 k bits where
                    bit (index >> 6) + i is 1 for the i-th; Elias-Fano, exactly 8 bits an index
    ceil(k/4) bytes two bits a value as in two_bit.py: 2j large, 2j+1 negative; unused bits 0

A level that no value has is 0; a value of level 0 has code 0. The two groups are those that leave
the least error (the best cut in falling order) and the levels their means, so that with kept
magnitudes a and n values at each level c, ||C(v) - v||^2 = ||v||^2 - sum n c^2 (1 - e^2),
|e| <= 2^-8 the rounding of c, and sum n c^2 >= (sum a)^2 / k >= ||v||^2 / 64: omega is at least
(1 - 2^-16) / 64 for every v, .12 on Gaussians.

What is left out decodes to -0, the only float32 that changes no number's bits when it is added:
so adding the few that are there is bitwise the same as adding the whole vector.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tapestry_p2p.mix.codec import form
from tapestry_p2p.mix.codec.form import Bytes, Codec, CodecError, Part, Payload, Vector

BLOCK, SHARE = 4096, 64
_POWERS = np.array([1, 2, 4, 8, 16, 32], np.uint8)
_GROUP = 1 << 20  # parameters whose records are made at a time

Table = NDArray[np.int64]  # [blocks, k]


def _kept(m: int) -> int:
    return form.count(m, SHARE)


def _record_bytes(m: int) -> int:
    k = _kept(m)
    return 4 + k + form.count(k, 4) if m else 0


def payload_bytes(d: int) -> int:
    """84 for each 4096, and 4 + k + ceil(k/4), k = ceil(m/64), for the m values left."""
    return d // BLOCK * _record_bytes(BLOCK) + _record_bytes(d % BLOCK)


# ---- encode ----------------------------------------------------------------------------------


def encode(vector: Vector) -> bytes:
    """float32[d] -> payload. CodecError if not finite."""
    whole = len(vector) // BLOCK * BLOCK
    records = [
        _records(vector[start : min(start + _GROUP, whole)], SHARE)
        for start in range(0, whole, _GROUP)
    ]
    if whole < len(vector):
        records.append(_records(vector[whole:], _kept(len(vector) - whole)))
    return b"".join(record.tobytes() for record in records)


def _records(vector: Vector, k: int) -> Bytes:
    """The records of whole blocks, or of one short one: uint8[n, bytes]."""
    found = [
        (rows, _largest(np.abs(rows, out=work), k)) for _, rows, work in form.pieces(vector, BLOCK)
    ]
    indices = np.concatenate([index for _, index in found])
    values = np.concatenate([np.take_along_axis(rows, index, axis=1) for rows, index in found])
    levels, large = _two_levels(np.abs(values))
    negative = np.signbit(values) & (np.where(large, levels[:, 1:], levels[:, :1]) > 0)
    heads = form.to_bfloat16(levels).astype("<u2").view(np.uint8)
    codes = np.stack([large, negative], axis=2).reshape(len(values), 2 * k)
    return np.concatenate(
        [heads, _elias_fano(indices), np.packbits(codes, axis=1, bitorder="little")], axis=1
    )


def _largest(magnitudes: Vector, k: int) -> Table:
    """Indices of the k largest of each row, rising; of equal ones the first."""
    n = len(magnitudes)
    bits = magnitudes.view(np.int32)  # magnitudes compare as their bits do
    tops = np.maximum.reduce(bits.reshape(n, 16, BLOCK // 16), axis=1)
    form.need_finite(tops)
    # k of the 256 tops reach this bound, so k values do, and few more: only those are ordered
    bound = np.partition(tops, -k, axis=1)[:, -k]
    row, index = np.divmod(np.flatnonzero(bits >= bound[:, None]), BLOCK)
    keys = bits[row, index].astype(np.int64) << 12 | (BLOCK - 1 - index)
    counts = np.bincount(row, minlength=n)
    table = np.full((n, counts.max()), -1, np.int64)
    table[row, np.arange(len(row)) - (np.cumsum(counts) - counts)[row]] = keys
    best = np.partition(table, -k, axis=1)[:, -k:]
    return np.sort(BLOCK - 1 - (best & (BLOCK - 1)), axis=1)


def _two_levels(magnitudes: Vector) -> tuple[Vector, NDArray[np.bool_]]:
    """float32[n, k] -> levels float32[n, 2] that bfloat16 holds, and who has the large one."""
    n, k = magnitudes.shape
    falling = np.sort(magnitudes, axis=1)[:, ::-1]
    sums = np.cumsum(falling, axis=1, dtype=np.float64)
    above, total = np.arange(1, k + 1), sums[:, -1:]
    # the cut with the least error has the largest sum of (group's sum)^2 / (group's number)
    gain = sums**2 / above + (total - sums) ** 2 / np.maximum(k - above, 1)
    cut = falling[np.arange(n), gain.argmax(axis=1)]
    large = magnitudes >= cut[:, None]
    many = large.sum(axis=1)
    upper = np.where(large, magnitudes, 0).sum(axis=1, dtype=np.float64) / many
    lower = np.where(large, 0, magnitudes).sum(axis=1, dtype=np.float64) / np.maximum(k - many, 1)
    levels = np.stack([lower, upper], axis=1)
    levels = form.safe_scales(np.minimum(levels, form.SCALE_MAX).astype(np.float32))
    levels = form.from_bfloat16(form.to_bfloat16(levels))
    one = levels[:, 0] == levels[:, 1]  # too near each other: all large, or all nothing
    levels[one, 0] = 0
    large[one] = levels[one, 1:] > 0
    return levels, large


def _elias_fano(indices: Table) -> Bytes:
    """Rising indices int64[n, k] -> uint8[n, k]."""
    n, k = indices.shape
    low = np.unpackbits((indices & 63).astype(np.uint8).reshape(-1), bitorder="little")
    upper = np.zeros(n * 2 * k, np.uint8)
    upper[((indices >> 6) + np.arange(k) + 2 * k * np.arange(n)[:, None]).reshape(-1)] = 1
    bits = [low.reshape(n, k, 8)[:, :, :6].reshape(n, 6 * k), upper.reshape(n, 2 * k)]
    return np.packbits(np.concatenate(bits, axis=1), axis=1, bitorder="little")


# ---- decode ----------------------------------------------------------------------------------


def parts(payload: Payload, d: int) -> Iterator[Part]:
    """Indices and values of what is there."""
    data = np.frombuffer(payload, np.uint8)
    whole, size = d // BLOCK, _record_bytes(BLOCK)
    step = _GROUP // BLOCK
    found = [
        _read(data[size * first : size * min(first + step, whole)].reshape(-1, size), BLOCK, first)
        for first in range(0, whole, step)
    ]
    if d % BLOCK:
        found.append(_read(data[size * whole :].reshape(1, -1), d % BLOCK, whole))
    yield from found


def _read(records: Bytes, m: int, first: int) -> Part:
    """Indices and values of blocks ``first`` and after, of m values each."""
    k = _kept(m)
    indices = _indices(records[:, 4 : 4 + k], m)
    indices += BLOCK * (first + np.arange(len(records)))[:, None]
    levels = form.checked_scales(
        form.from_bfloat16(np.ascontiguousarray(records[:, :4]).view("<u2"))
    )
    if ((levels[:, 0] >= levels[:, 1]) & (levels != 0).any(axis=1)).any():
        raise CodecError("the levels are not in order")
    codes = np.unpackbits(records[:, 4 + k :], axis=1, bitorder="little")
    if codes[:, 2 * k :].any():
        raise CodecError("unused bits are set")
    large, negative = codes[:, 0 : 2 * k : 2] != 0, codes[:, 1 : 2 * k : 2] != 0
    values = np.where(large, levels[:, 1:], levels[:, :1])
    if ((values == 0) & (large | negative)).any():
        raise CodecError("a value of 0 has a code")
    used = np.stack([~large.all(axis=1), large.any(axis=1)], axis=1)
    if ((levels > 0) & ~used).any():
        raise CodecError("no value has a level that is there")
    np.negative(values, out=values, where=negative)
    return indices.reshape(-1), values.reshape(-1)


def _indices(data: Bytes, m: int) -> Table:
    """uint8[n, k] -> int64[n, k], rising and below m, or CodecError."""
    n, k = data.shape
    bits = np.unpackbits(data, axis=1, bitorder="little")
    upper = bits[:, 6 * k :]
    if (upper.sum(axis=1, dtype=np.int64) != k).any():
        raise CodecError("a block has not as many indices as it must")
    low = bits[:, : 6 * k].reshape(n, k, 6) @ _POWERS
    places = np.flatnonzero(upper).reshape(n, k) - 2 * k * np.arange(n)[:, None]
    indices: Table = (places - np.arange(k) << 6) + low
    if (indices[:, -1] >= m).any() or (np.diff(indices, axis=1) <= 0).any():
        raise CodecError("indices do not rise, or reach beyond the block")
    return indices


CODEC = Codec(payload_bytes, encode, parts)
