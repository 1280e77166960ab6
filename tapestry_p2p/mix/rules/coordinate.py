"""Coordinate rules: trimmed mean and median, each column by itself, by min/max networks.

A column's values are put in order by a fixed sequence of comparators (i, j): smaller to i, larger
to j, done on whole blocks of columns at once; no sort. Comparators that the wanted outputs do not
depend on are left out. Not rotation equivariant: columns are what these rules see.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np

from tapestry_p2p.mix.rules.base import Vector, Weights

Network = tuple[tuple[int, int], ...]


def sorting_network(n: int) -> Network:
    """Batcher's odd-even merge sort (1968) for any n: pairs (i, j), i < j, smaller to i."""

    def merge(low: int, high: int, step: int) -> Iterator[tuple[int, int]]:
        double = step * 2
        if double < high - low:
            yield from merge(low, high, double)
            yield from merge(low + step, high, double)
            yield from ((i, i + step) for i in range(low + step, high - step, double))
        else:
            yield (low, low + step)

    def sort(low: int, high: int) -> Iterator[tuple[int, int]]:
        if high - low >= 1:
            middle = low + (high - low) // 2
            yield from sort(low, middle)
            yield from sort(middle + 1, high)
            yield from merge(low, high, 1)

    size = 1 << max(0, n - 1).bit_length()
    return tuple((i, j) for i, j in sort(0, size - 1) if j < n)  # the rest are +inf: never move


def peeling_network(n: int, f: int) -> Network:
    """f times the smallest to the front and the largest to the back; the middle stays unordered."""
    steps: list[tuple[int, int]] = []
    for low in range(f):
        high = n - 1 - low
        half = (high - low + 1) // 2
        pairs = [(low + i, high - i) for i in range(half)]
        steps += pairs  # halves the candidates for both ends
        front = [*range(low, low + half), *([low + half] if (high - low + 1) % 2 else [])]
        back = [*([low + half] if (high - low + 1) % 2 else []), *range(high - half + 1, high + 1)]
        steps += [(low, i) for i in front[1:]]
        steps += [(i, high) for i in back[:-1] if i != low]
    return tuple(steps)


@cache
def network(n: int, f: int) -> Network:
    """The cheaper network that leaves positions f .. n-f-1 with the values of those ranks.

    In any order; and without the comparators that only order values within the middle.
    """
    return min(_pruned(sorting_network(n), n, f), _pruned(peeling_network(n, f), n, f), key=len)


def _pruned(steps: Network, n: int, f: int) -> Network:
    """Backwards: a comparator within the middle, or between values nobody wants, does nothing."""
    kind = ["middle" if f <= i < n - f else "end" for i in range(n)]
    kept = []
    for i, j in reversed(steps):
        if kind[i] == kind[j] == "middle" or (kind[i] == kind[j] == "end" and _same_end(i, j, n)):
            continue
        kept.append((i, j))
        kind[i] = kind[j] = "ordered"
    return tuple(reversed(kept))


def _same_end(i: int, j: int, n: int) -> bool:
    return (2 * i < n) == (2 * j < n)


def arrange(rows: Vector, steps: Network) -> list[Vector]:
    """The rows float32[n, c] after the comparators, as a list of views; ``rows`` is scratch."""
    lines = list(rows)
    spare = np.empty_like(lines[0])
    for i, j in steps:
        low, high = lines[i], lines[j]
        np.minimum(low, high, out=spare)
        np.maximum(low, high, out=high)
        lines[i], spare = spare, low
    return lines


def trimmed_mean(rows: Vector, weights: Weights, f: int, out: Vector) -> None:
    """Coordinate trimmed mean of the neighbours: without the f largest and the f smallest.

    Yin et al. (ICML 2018); as in BRIDGE-T (Fang, Yang, Bajwa 2022) the member itself is never cut:
    pull = s/(s + w_own) * mean of the middle k - 2f, s their part of the weights (for equal weights
    1/(k+1): (sum of the middle + own)/(k - 2f + 1)). O(k log^2 k d). Needs k > 2f, else 0.
    """
    k = len(rows)
    if k <= 2 * f:
        out[:] = 0
        return
    lines = arrange(rows, network(k, f))
    total = lines[f]
    for line in lines[f + 1 : k - f]:
        total += line
    whole = float(weights.sum())
    share = whole * (k - 2 * f) / k
    np.multiply(total, np.float32(share / (share + max(0.0, 1 - whole)) / (k - 2 * f)), out=out)


def median(rows: Vector, weights: Weights, f: int, out: Vector) -> None:
    """Coordinate median of the neighbours and the member itself; f and the weights do not occur.

    Yin et al. (ICML 2018); BRIDGE-M. Of an even number of points the mean of the middle two.
    O(k log^2 k d). Bounded while the honest are more than half of the points.
    """
    n = len(rows) + 1
    points = np.empty((n, rows.shape[1]), np.float32)
    points[0] = 0
    points[1:] = rows
    lines = arrange(points, network(n, (n - 1) // 2))
    if n % 2:
        out[:] = lines[n // 2]
    else:
        np.add(lines[n // 2 - 1], lines[n // 2], out=out)
        out *= np.float32(0.5)
