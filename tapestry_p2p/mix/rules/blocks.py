"""Passes over the vectors, in blocks of columns that stay in the L2 cache; no n*d temporary.

A pass reads every vector once. Differences are formed directly (never |x|^2 + |y|^2 - 2xy of raw
parameters), products are float32 within a block and are summed in float64, blocks always in the
same order: the result does not depend on how many threads run the jobs. ``each`` runs the jobs:
`map`, or a thread pool's; numpy lets other threads run meanwhile.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from tapestry_p2p.mix.rules.base import Each, Reduce, Vector, Vectors, Weights

COLUMNS = 1 << 13  # also short enough for BLAS not to start threads of its own in a dot product
_JOB = 32 * COLUMNS


@dataclass(frozen=True, slots=True)
class Rows:
    """k neighbours' vectors x_j as seen from own (or from ``bases[j]``): rows z_j float32[k, d]."""

    own: Vector
    vectors: Vectors
    bases: Sequence[Vector] | None
    each: Each

    def __len__(self) -> int:
        return len(self.vectors)

    def only(self, chosen: Sequence[int]) -> "Rows":
        """The same with the chosen neighbours alone."""
        if len(chosen) == len(self.vectors):
            return self
        bases = None if self.bases is None else [self.bases[j] for j in chosen]
        return Rows(self.own, [self.vectors[j] for j in chosen], bases, self.each)

    def fill(self, start: int, stop: int, block: Vector) -> Vector:
        """z[:, start:stop], written into the scratch ``block`` float32[k, >= stop - start]."""
        z = block[:, : stop - start]
        if self.bases is None and isinstance(self.vectors, np.ndarray):
            return np.subtract(self.vectors[:, start:stop], self.own[start:stop], out=z)
        for j, row in enumerate(self.vectors):
            base = self.own if self.bases is None else self.bases[j]
            np.subtract(row[start:stop], base[start:stop], out=z[j])
        return z

    def run(self, work: Callable[[int, int, Vector], object], spare: int = 0) -> list[object]:
        """Call ``work(start, stop, z)`` for each block; the results in order.

        z is scratch float32[spare + k, columns]: the rows stand behind ``spare`` unset ones.
        """
        d = len(self.own)
        return [
            found
            for job in self.each(partial(self._job, work, spare), range(0, d, _JOB))
            for found in job  # type: ignore[attr-defined]
        ]

    def _job(
        self, work: Callable[[int, int, Vector], object], spare: int, begin: int
    ) -> list[object]:
        end = min(begin + _JOB, len(self.own))
        scratch = np.empty((spare + len(self), min(COLUMNS, end - begin)), np.float32)
        found = []
        with np.errstate(over="ignore", invalid="ignore"):  # a bad row is seen by its norm
            for start in range(begin, end, COLUMNS):
                stop = min(start + COLUMNS, end)
                self.fill(start, stop, scratch[spare:])
                found.append(work(start, stop, scratch[:, : stop - start]))
        return found


def distances(rows: Rows) -> Weights:
    """||z_j|| float64[k]; inf or nan for a row that is not finite or overflows float32 squares."""
    parts = rows.run(lambda _start, _stop, z: np.vecdot(z, z))
    return np.sqrt(np.sum(parts, axis=0, dtype=np.float64) if parts else np.zeros(len(rows)))


def products(rows: Rows) -> Weights:
    """<z_i, z_j> float64[k, k]; a bad row spoils its own row and column only."""
    parts = rows.run(lambda _start, _stop, z: z @ z.T)
    k = len(rows)
    total = np.sum(parts, axis=0, dtype=np.float64) if parts else np.zeros((k, k))
    return np.asarray((total + total.T) / 2)


def combine(rows: Rows, shares: Weights) -> Vector:
    """sum_j e_j z_j float32[d]; rows with a zero share are not read."""
    out = np.zeros_like(rows.own)
    used = np.flatnonzero(shares)
    if not len(used):
        return out
    factors = shares[used].astype(np.float32)

    def work(start: int, stop: int, z: Vector) -> None:
        np.dot(factors, z, out=out[start:stop])

    rows.only(used.tolist()).run(work)
    return out


def reduce_columns(
    rows: Rows, reduce: Reduce, weights: Weights, f: int, matrix: Weights | None
) -> Vector:
    """A coordinate rule on every column; with ``matrix`` M float64[n, n] on the mixed points.

    Point 0 is the member itself; the mixed points are sum_l M_il z_l, the pull is then theirs from
    mixed point 0, plus that point.
    """
    out = np.empty_like(rows.own)
    mixing = None if matrix is None else matrix[:, 1:].astype(np.float32)

    def work(start: int, stop: int, z: Vector) -> None:
        into = out[start:stop]
        if mixing is None:
            reduce(z, weights, f, into)
            return
        points = mixing @ z
        points[1:] -= points[0]
        reduce(points[1:], weights, f, into)
        into += points[0]

    rows.run(work)
    return out


def square_between(rows: Rows, i: int, j: int) -> float:
    """||z_i - z_j||^2, by direct differences of two rows."""

    def work(_start: int, _stop: int, z: Vector) -> float:
        step = z[0] - z[1]
        return float(step @ step)

    return float(np.sum(rows.only([i, j]).run(work), dtype=np.float64))
