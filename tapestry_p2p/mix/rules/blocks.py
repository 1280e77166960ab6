"""Passes over the vectors, in blocks of columns that stay in the cache; no k*d temporary.

A pass reads every vector once. Differences are formed directly (never |x|^2 + |y|^2 - 2xy of raw
parameters); products are float32 over at most 8192 columns and summed in float64, always in the
same order: what they give does not depend on how many threads run the jobs. ``each`` runs the
jobs: `map`, or a thread pool's; numpy lets other threads run meanwhile.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, cast

import numpy as np

from tapestry_p2p.mix.rules.base import DISTANCE_MAX, Each, Reduce, Vector, Vectors, Weights
from tapestry_p2p.mix.space import MEMORY, Space

CHUNK = 1 << 13  # columns of one dot product: longer ones make BLAS start threads of its own
_BLOCK = 1 << 19  # numbers of one block of rows: 2 MB
_JOB = 1 << 19  # columns of one job
_SETTLE_EVERY = 16 * _JOB  # columns
_PAD = 272  # columns between rows: a power of two apart, they would share lines of the cache
_SMALL_GEMM = 1_000_000  # multiply-adds up to which BLAS has a faster kernel, 3-4 times
_NOISE = 8.0  # how much larger than the pull what cancels in it may be: 3 bits of 24
Found = TypeVar("Found")
Work = Callable[[int, int, Vector], Found]


@dataclass(frozen=True, slots=True)
class Rows:
    """k neighbours' vectors x_j as seen from own (or from ``bases[j]``): rows z_j float32[k, d]."""

    own: Vector
    vectors: Vectors
    bases: Sequence[Vector] | None
    each: Each
    space: Space = MEMORY  # for what is as long as a vector

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def columns(self) -> int:
        """How many columns one block has."""
        return max(CHUNK, min(_JOB, _BLOCK // max(1, len(self)) // CHUNK * CHUNK))

    def only(self, chosen: Sequence[int]) -> "Rows":
        """The same with the chosen neighbours alone."""
        if len(chosen) == len(self.vectors):
            return self
        bases = None if self.bases is None else [self.bases[j] for j in chosen]
        return Rows(self.own, [self.vectors[j] for j in chosen], bases, self.each, self.space)

    def fill(self, start: int, stop: int, block: Vector) -> Vector:
        """z[:, start:stop], written into the scratch ``block`` float32[k, >= stop - start]."""
        z = block[:, : stop - start]
        if self.bases is None and isinstance(self.vectors, np.ndarray):
            return np.subtract(self.vectors[:, start:stop], self.own[start:stop], out=z)
        own, large = self.own[start:stop], len(self.own) > self.columns
        for j, row in enumerate(self.vectors):
            x = row[start:stop]
            if large:  # it waits for memory less than a subtraction does: 5 % of a pass
                np.dot(x, x)
            np.subtract(x, own if self.bases is None else self.bases[j][start:stop], z[j])
        return z

    def run(self, work: "Work[Found]") -> list[Found]:
        """``work(start, stop, z)`` of each block, in order; z is scratch, float32[k, columns]."""
        buffers: list[Vector] = []  # one for each job that runs at a time
        job = partial(self._job, work, self.columns, buffers)
        jobs = self.each(job, range(0, len(self.own), _JOB))
        return [part for parts in cast("Iterable[list[Found]]", jobs) for part in parts]

    def _job(
        self, work: "Work[Found]", columns: int, buffers: list[Vector], begin: int
    ) -> list[Found]:
        end = min(begin + _JOB, len(self.own))
        shape = (len(self), min(columns, len(self.own)) + _PAD)
        try:
            block = buffers.pop()
        except IndexError:  # all are in use
            block = np.empty(shape, np.float32)
        found = []
        with np.errstate(over="ignore", invalid="ignore"):  # a bad row is seen by its norm
            for start in range(begin, end, columns):
                stop = min(start + columns, end)
                found.append(work(start, stop, self.fill(start, stop, block)))
        buffers.append(block)
        if end % _SETTLE_EVERY == 0:
            self.space.settle()
        return found


@dataclass(frozen=True, slots=True)
class Survey:
    """What the first pass found."""

    lengths: Weights  # float64[k], ||z_j||; inf for a bad row
    products: Weights  # float64[k, k], <z_i, z_j>; empty unless asked for
    total: Vector | None  # sum_j w_j z_j, if asked for
    good: list[int]  # the rows that are finite and no farther than DISTANCE_MAX
    z: Vector | None = None  # float32[k, d], if one block held them all


def _lengths(squares: Weights) -> tuple[Weights, list[int]]:
    lengths = np.sqrt(squares)
    sane = lengths <= DISTANCE_MAX  # nan is not
    lengths[~sane] = np.inf
    return lengths, sane.nonzero()[0].tolist()


def survey(rows: Rows, compare: bool, weights: Weights | None) -> Survey:
    """One pass: lengths, with ``compare`` all inner products, with ``weights`` their sum too."""
    k = len(rows)
    small = rows.columns >= len(rows.own)
    total = None if weights is None or small else rows.space.empty(len(rows.own))
    factors = None if total is None or weights is None else weights.astype(np.float32)
    whole: list[Vector] = []

    def work(start: int, stop: int, z: Vector) -> Weights:
        if small:
            whole.append(z)
        if total is not None and factors is not None:
            np.matmul(factors, z, out=total[start:stop])  # np.dot copies z
        return _products(z) if compare else _squares(z)

    found = sum(rows.run(work), np.zeros((k, k) if compare else k))
    lengths, good = _lengths(np.diagonal(found) if compare else found)
    products = found if compare else np.zeros((0, 0))
    return Survey(lengths, products, total, good, whole[0] if whole else None)


def _squares(z: Vector) -> Weights:
    """<z_j, z_j> float64[k] of one block."""
    found = np.zeros(len(z))
    for part in _cut(z, CHUNK):
        found += np.vecdot(part, part)
    return found


def _products(z: Vector) -> Weights:
    """<z_i, z_j> float64[k, k] of one block; a bad row spoils its own row and column only."""
    k = len(z)
    if k < 2:
        return _squares(z).reshape(k, k)
    found = np.zeros((k, k))
    for part in _cut(z, _small(k * (k - 1))):
        found[:, 1:] += part @ part[1:].T  # not part @ part.T: its own kernel is the slow one
    found[0, 0] = _squares(z[:1])[0]
    found[:, 0] = found[0]
    return found


def _small(products: int) -> int:
    """For how many columns, at so many products each, BLAS still takes its faster kernel."""
    return min(CHUNK, max(256, 1 << (_SMALL_GEMM // max(1, products)).bit_length() - 1))


def _cut(z: Vector, columns: int) -> list[Vector]:
    return [z[:, at : at + columns] for at in range(0, z.shape[1], columns)]


def combine(rows: Rows, shares: Weights, weights: Weights, seen: Survey) -> Vector:
    """sum_j e_j z_j float32[d] of good rows; those with a zero share are not read.

    With the survey's sum_j w_j z_j only those rows are read whose share is not the common multiple
    of their weight: unless they are most, or so long that what cancels would drown the pull.
    """
    if seen.z is not None:
        z = seen.z if len(seen.good) == len(seen.z) else seen.z[seen.good]
        return np.asarray(shares.astype(np.float32) @ z)
    if seen.total is None or len(seen.good) < len(seen.lengths):
        return _add(rows, shares, rows.space.zeros(len(rows.own)))
    common = float(np.sort(shares / weights)[len(weights) // 2])
    rest = shares - common * weights
    rest[np.abs(rest) <= 1e-12 * weights] = 0.0
    noise = common * float(weights @ seen.lengths) / _NOISE
    if 2 * np.count_nonzero(rest) > len(rest) or noise > float(shares @ seen.lengths):
        return _add(rows, shares, rows.space.zeros(len(rows.own)))
    if common != 1:
        np.multiply(seen.total, np.float32(common), out=seen.total)
    return _add(rows, rest, seen.total)


def _add(rows: Rows, shares: Weights, out: Vector) -> Vector:
    used = shares.nonzero()[0]
    if not len(used):
        return out
    factors = shares[used].astype(np.float32)

    def work(start: int, stop: int, z: Vector) -> None:
        out[start:stop] += factors @ z

    rows.only(used.tolist()).run(work)
    return out


def reduce_columns(
    rows: Rows, reduce: Reduce, weights: Weights, f: int, matrix: Weights | None
) -> tuple[Vector, Survey]:
    """A coordinate rule on every column; with ``matrix`` M float64[n, n] on the mixed points.

    Point 0 is the member itself; the mixed points are sum_l M_il z_l, the pull is then theirs from
    mixed point 0, plus that point.
    """
    out = rows.space.empty(len(rows.own))
    mixing = None if matrix is None else matrix[:, 1:].astype(np.float32)
    small = _small(len(rows) * (len(rows) + 1))

    def work(start: int, stop: int, z: Vector) -> Weights:
        squares = _squares(z)
        into = out[start:stop]
        if mixing is None:
            reduce(z, weights, f, into)
            return squares
        points = np.concatenate([mixing @ part for part in _cut(z, small)], axis=1)
        points[1:] -= points[0]
        reduce(points[1:], weights, f, into)
        into += points[0]
        return squares

    lengths, good = _lengths(sum(rows.run(work), np.zeros(len(rows))))
    return out, Survey(lengths, np.zeros((0, 0)), None, good)


def square_between(rows: Rows, i: int, j: int) -> float:
    """||z_i - z_j||^2, by direct differences of two rows."""

    def work(_start: int, _stop: int, z: Vector) -> float:
        return float(_squares((z[0] - z[1])[None])[0])

    return sum(rows.only([i, j]).run(work))


def norm(vector: Vector) -> float:
    """||vector||, summed in float64."""
    return float(np.sqrt(sum(float(_squares(part)[0]) for part in _cut(vector[None], CHUNK))))
