"""Mixing rules: from neighbours' views to one pull, bounded against f Byzantine neighbours.

Knows numpy, weights and f; nothing of streams or peers. A rule gets z float32[k, d], each row a
neighbour's vector seen from here (own position is 0), and weights float64[k]. It returns the pull
float32[d], the sum of w_j * (z_j, clipped), and a Report.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tapestry_p2p.mix.codec import Vector

_COLUMNS = 1 << 14  # a block of columns stays in the L2 cache


@dataclass(frozen=True, slots=True)
class Report:
    """What a rule did: radius, one coefficient in [0, 1] and one distance per neighbour."""

    tau: float
    coefficients: tuple[float, ...]
    distances: tuple[float, ...]

    @property
    def clipped(self) -> int:
        """How many neighbours were shortened."""
        return sum(c < 1 for c in self.coefficients)


Radius = Callable[[NDArray[np.float64], NDArray[np.float64], int], float]


def distances(z: Sequence[Vector]) -> NDArray[np.float64]:
    """Euclidean norms float64[k] of k rows float32[d]: blockwise, sums in float64."""
    out = np.zeros(len(z))
    for i, row in enumerate(z):
        for start in range(0, len(row), _COLUMNS):
            block = row[start : start + _COLUMNS].astype(np.float64)
            out[i] += block @ block
    return np.sqrt(out)


def mean_radius(norms: NDArray[np.float64], weights: NDArray[np.float64], f: int) -> float:
    """No radius: plain weighted (Metropolis) averaging. Destroyed by one attacker; a baseline."""
    return float("inf")


def cs_plus_radius(norms: NDArray[np.float64], weights: NDArray[np.float64], f: int) -> float:
    """CS+ (Gaucher, Dieuleveut, Hendrikx, ICML 2025): the norm at which the farthest 2b begins.

    b = f * max w. Neighbours are sorted by (norm, position), farthest first; tau is the norm at
    which their weights reach 2b, so the weight strictly beyond tau is < 2b and the weight at or
    beyond tau is >= 2b. f = 0 gives infinity. Weights that sum to less than 2b give 0.
    Bound: for every split honest S / rest with w(rest) <= b,
    ||F - sum_S w z||^2 <= 2b * sum_S w ||z||^2. Cost O(kd).
    """
    if f == 0:
        return float("inf")
    budget = 2 * f * float(weights.max(initial=0.0)) * (1 - 1e-12)
    reached = 0.0
    for i in np.lexsort((np.arange(len(norms)), norms))[::-1]:
        reached += float(weights[i])
        if reached >= budget:
            return float(norms[i])
    return 0.0


RULES: dict[str, Radius] = {"cs_plus": cs_plus_radius, "mean": mean_radius}


def clipped(
    rule: str, z: Sequence[Vector], weights: NDArray[np.float64], f: int
) -> tuple[list[Vector], Report]:
    """Each neighbour's weighted contribution w_j * clip(z_j, tau), float32[d], and the report.

    Rows must be finite (a bad neighbour is an absent one: leave it out). KeyError: unknown rule.
    """
    norms = distances(z)
    tau = RULES[rule](norms, weights, f)
    coefficients = np.ones(len(norms))
    far = norms > tau
    coefficients[far] = tau / norms[far]
    pulls = [np.float32(w * c) * row for w, c, row in zip(weights, coefficients, z, strict=True)]
    report = Report(tau, tuple(map(float, coefficients)), tuple(map(float, norms)))
    return pulls, report


def mix(
    rule: str, z: Sequence[Vector], weights: NDArray[np.float64], f: int
) -> tuple[Vector, Report]:
    """The pull float32[d] = sum_j w_j clip(z_j, tau) of k >= 1 rows, and the report."""
    pulls, report = clipped(rule, z, weights, f)
    total = np.zeros_like(pulls[0])
    for pull in pulls:
        total += pull
    return total, report
