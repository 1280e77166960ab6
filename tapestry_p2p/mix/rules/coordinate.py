"""Coordinate rules: trimmed mean and median, each column by itself, by min/max networks.

A column's values are put in order by a fixed sequence of comparators (i, j): smaller to i, larger
to j, done on whole blocks of columns at once; no sort. Comparators that the wanted outputs do not
depend on are left out. Not rotation equivariant: columns are what these rules see.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np

from tapestry_p2p.mix.rules.base import Vector, Weights

Step = tuple[int, int, str]  # low, high, and what is wanted: "both", "low" or "high"
Network = tuple[Step, ...]


def sorting_pairs(n: int) -> list[tuple[int, int]]:
    """Batcher's odd-even merge sort (1968) for any n: pairs i < j, the smaller value to i."""

    def merge(low: int, high: int, step: int) -> Iterator[tuple[int, int]]:
        double = step * 2
        if double < high - low:
            yield from merge(low, high, double)
            yield from merge(low + step, high, double)
            yield from ((i, i + step) for i in range(low + step, high - step, double))
        else:
            yield (low, low + step)

    def sort(low: int, high: int) -> Iterator[tuple[int, int]]:
        if high > low:
            middle = low + (high - low) // 2
            yield from sort(low, middle)
            yield from sort(middle + 1, high)
            yield from merge(low, high, 1)

    size = 1 << max(0, n - 1).bit_length()
    return [(i, j) for i, j in sort(0, size - 1) if j < n]  # the rest are +inf: they never move


def peeling_pairs(n: int, f: int) -> list[tuple[int, int]]:
    """f times the smallest to the front and the largest to the back; the middle in any order."""
    pairs: list[tuple[int, int]] = []
    for low in range(f):
        high = n - 1 - low
        half = (high - low + 1) // 2
        odd = [low + half] if (high - low) % 2 == 0 else []  # stands for itself at both ends
        pairs += [(low + i, high - i) for i in range(half)]
        pairs += [(low, i) for i in [*range(low + 1, low + half), *odd]]
        pairs += [(i, high) for i in [*odd, *range(high - half + 1, high)]]
    return pairs


@cache
def network(n: int, f: int) -> Network:
    """The cheaper network that leaves the values of ranks f .. n-f-1 in those positions.

    In any order: comparators that only order the middle are left out, and so is every minimum and
    maximum that nothing later reads.
    """
    found = (_pruned(pairs, n, f) for pairs in (sorting_pairs(n), peeling_pairs(n, f)))
    return min(found, key=_cost)


def _cost(steps: Network) -> int:
    return sum(2 if what == "both" else 1 for _, _, what in steps)


def _pruned(pairs: list[tuple[int, int]], n: int, f: int) -> Network:
    """Backwards, what each position's value is for: the middle, nothing ("spent"), or a step."""
    use = ["middle" if f <= i < n - f else "spent" for i in range(n)]
    kept: list[Step] = []
    for i, j in reversed(pairs):
        if use[i] == use[j] and use[i] != "step":
            continue
        what = "both" if "spent" not in (use[i], use[j]) else "low" if use[j] == "spent" else "high"
        kept.append((i, j, what))
        use[i] = use[j] = "step"
    return tuple(reversed(kept))


def arrange(lines: list[Vector], steps: Network) -> None:
    """Run the comparators over lines of equal length, float32[c] each; the lines are scratch."""
    spare = np.empty_like(lines[0])
    for i, j, what in steps:
        low, high = lines[i], lines[j]
        if what == "low":
            np.minimum(low, high, out=low)
        elif what == "high":
            np.maximum(low, high, out=high)
        else:
            np.minimum(low, high, out=spare)
            np.maximum(low, high, out=high)
            lines[i], spare = spare, low


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
    lines = list(rows)
    arrange(lines, network(k, f))
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
    lines = [np.zeros(rows.shape[1], np.float32), *rows]
    arrange(lines, network(n, (n - 1) // 2))
    if n % 2:
        out[:] = lines[n // 2]
    else:
        np.add(lines[n // 2 - 1], lines[n // 2], out=out)
        out *= np.float32(0.5)
