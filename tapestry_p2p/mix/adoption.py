"""Where a joiner starts: the coordinate median of an odd number of copies, the same bits anywhere.

Knows vectors only. The float32 are compared as whole numbers in the order of their values, so no
arithmetic is done, and neither the order of equal values, nor the sign of a zero, nor how a CPU
treats denormals can change a bit. Lies of f of 2f+1 copies leave every coordinate within the range
of the honest ones.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tapestry_p2p.mix.codec import Vector

BLOCK = 1 << 16  # columns at a time: 11 copies of them stay in the cache


def coordinate_median(vectors: Sequence[Vector]) -> Vector:
    """The middle value of each coordinate: float32[d] of n finite float32[d], n odd.

    O(n d). ValueError: n even or 0, or lengths that differ.
    """
    n = len(vectors)
    if n % 2 == 0:
        raise ValueError(f"a median that is one of its values needs an odd number, not {n}")
    d = len(vectors[0])
    if any(len(vector) != d for vector in vectors):
        raise ValueError("the vectors have different lengths")
    found = np.empty(d, np.int32)
    for start in range(0, d, BLOCK):
        block = slice(start, start + BLOCK)
        found[block] = _middle([_ordered(vector[block].view(np.int32)) for vector in vectors])
    return _ordered(found).view(np.float32)


def _ordered(bits: NDArray[np.int32]) -> NDArray[np.int32]:
    """Whole numbers in the order of the floats whose bits they are; its own inverse.

    The bits of negative floats run backwards: all but the sign are flipped.
    """
    return bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))


def _middle(rows: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    if len(rows) == 1:
        return rows[0]
    if len(rows) == 3:
        a, b, c = rows
        return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))
    middle = len(rows) // 2
    return np.asarray(np.partition(np.stack(rows), middle, axis=0)[middle])
