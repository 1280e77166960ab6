"""Laws of one member's mixing: what comes in, what comes out; no graph, no rounds.

A case is drawn from a seed: 1 to 12 neighbours in 1 to 8 dimensions, f up to 3, equal weights or
not, vectors of very unequal lengths, copies of one another and of the member itself among them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tapestry_p2p.mix.rules import Report, mix
from tapestry_p2p.mix.rules.table import Rule, find_rule

Vector = NDArray[np.float32]
Weights = NDArray[np.float64]
Named = str | Rule
Law = Callable[[Named, int], float]
FAR = 1e-4  # what two float32 computations of one thing may differ by, of the largest distance
BROKEN = math.inf


@dataclass(frozen=True)
class Case:
    """One member's neighbourhood."""

    own: Vector  # float32[d]
    neighbours: Vector  # float32[k, d]
    weights: Weights  # float64[k]
    f: int

    @property
    def scale(self) -> float:
        """The largest distance to a neighbour."""
        steps = self.neighbours.astype(np.float64) - self.own
        return float(np.linalg.norm(steps, axis=1).max(initial=0.0))

    def mix(self, rule: Named) -> tuple[Vector, Report]:
        """The rule's pull and report."""
        return mix(rule, self.own, self.neighbours, self.weights, f=self.f)


def draw(seed: int) -> tuple[Case, np.random.Generator]:
    """A case, and the generator for whatever else the law draws."""
    random = np.random.default_rng(seed)
    k, d = int(random.integers(1, 13)), int(random.integers(1, 9))
    lengths = random.gamma(0.5, 4.0, (k, 1)) + 0.01
    z = random.standard_normal((k, d)) * lengths
    weights = np.full(k, 1.0 / (k + 1 + random.integers(0, 3)))
    if random.random() < 0.5:
        weights = random.uniform(0.1, 1.0, k)
        weights /= weights.sum() * random.uniform(1.02, 2.0)
    elif random.random() < 0.5:  # equal weights only: which of two equals goes must not matter
        z[random.random(k) < 0.3] = z[0]
    z[random.random(k) < 0.1] = 0.0
    own = random.standard_normal(d)
    return Case(
        own.astype(np.float32), (own + z).astype(np.float32), weights, int(random.integers(0, 4))
    ), random


def _apart(found: NDArray[np.floating], wanted: NDArray[np.floating], scale: float) -> float:
    """How far two pulls are from one another, over what rounding may do."""
    gap = float(np.linalg.norm(np.asarray(found, np.float64) - np.asarray(wanted, np.float64)))
    return gap / (FAR * scale + 1e-12) if math.isfinite(gap) else BROKEN


def finite(rule: Named, seed: int) -> float:
    """Whatever finite vectors come in, the pull is finite: up to the largest float32."""
    case, random = draw(seed)
    neighbours = case.neighbours.copy()
    huge = random.random(len(neighbours)) < 0.4
    powers = 10.0 ** random.uniform(-44, 38, (int(huge.sum()), 1))
    neighbours[huge] = np.clip(neighbours[huge] * powers, -3e38, 3e38)
    pull, _ = replace(case, neighbours=neighbours).mix(rule)
    return 0.0 if np.isfinite(pull).all() else BROKEN


def absent(rule: Named, seed: int) -> float:
    """A neighbour that is not finite, or out of all bounds, is as if it were not there."""
    case, random = draw(seed)
    neighbours, weights = list(case.neighbours), list(case.weights / 2)
    for bad in (np.nan, np.inf, -np.inf, 3e38)[: random.integers(1, 5)]:
        at = int(random.integers(0, len(neighbours) + 1))
        row = case.own.copy()
        row[random.integers(0, len(row))] = bad
        neighbours.insert(at, row)
        weights.insert(at, float(random.uniform(0.01, 0.1)))
    pull, _ = mix(rule, case.own, case.neighbours, case.weights / 2, f=case.f)
    found, _ = mix(rule, case.own, neighbours, np.array(weights), f=case.f)
    return _apart(found, pull, case.scale)


def agreement(rule: Named, seed: int) -> float:
    """If all neighbours hold our own vector, it stays what it is to the last bit."""
    case, _ = draw(seed)
    same = replace(case, neighbours=np.broadcast_to(case.own, case.neighbours.shape).copy())
    pull, _ = same.mix(rule)
    return 0.0 if (case.own + pull).tobytes() == case.own.tobytes() else BROKEN


def permutation(rule: Named, seed: int) -> float:
    """The order of the neighbours does not matter."""
    case, random = draw(seed)
    order = random.permutation(len(case.weights))
    other = replace(case, neighbours=case.neighbours[order], weights=case.weights[order])
    return _apart(other.mix(rule)[0], case.mix(rule)[0], case.scale)


def translation(rule: Named, seed: int) -> float:
    """Moving everybody by one vector does not change the pull."""
    case, random = draw(seed)
    by = random.standard_normal(len(case.own)) * 3
    moved = replace(
        case,
        own=(case.own + by).astype(np.float32),
        neighbours=(case.neighbours + by).astype(np.float32),
    )
    return _apart(moved.mix(rule)[0], case.mix(rule)[0], case.scale + 0.1)


def scale(rule: Named, seed: int) -> float:
    """Everything times s, also a negative s: the pull times s."""
    case, random = draw(seed)
    by = np.float32(random.choice([-1.0, 2.0, -3.0, 0.37, -1e-3, 1e4]))
    other = replace(case, own=case.own * by, neighbours=case.neighbours * by)
    return _apart(other.mix(rule)[0] / by, case.mix(rule)[0], case.scale)


def rotation(rule: Named, seed: int) -> float:
    """Turning (or mirroring) everything turns the pull."""
    case, random = draw(seed)
    d = len(case.own)
    turn = np.linalg.qr(random.standard_normal((d, d)))[0]
    own, neighbours = (case.own @ turn).astype(np.float32), case.neighbours @ turn
    other = replace(case, own=own, neighbours=neighbours.astype(np.float32))
    return _apart(other.mix(rule)[0], case.mix(rule)[0] @ turn, case.scale + 0.1)


def box(rule: Named, seed: int) -> float:
    """In each coordinate the new point lies between the smallest and the largest there are."""
    case, _ = draw(seed)
    pull, _ = case.mix(rule)
    z = case.neighbours.astype(np.float64) - case.own
    over = np.maximum(pull - np.maximum(z.max(0), 0), np.minimum(z.min(0), 0) - pull)
    return max(0.0, float(over.max())) / (FAR * case.scale + 1e-12)


def hull(rule: Named, seed: int) -> float:
    """The new point is a convex combination: shares e_j >= 0, their sum at most 1."""
    case, _ = draw(seed)
    pull, report = case.mix(rule)
    shares = np.array(report.shares)
    if len(shares) != len(case.weights) or (shares < 0).any():
        return BROKEN
    z = case.neighbours.astype(np.float64) - case.own
    return max(_apart(pull, shares @ z, case.scale), float(shares.sum()) - 1e-9)


def split(rule: Named, seed: int) -> float:
    """(b, rho): ||pull - sum_S w z||^2 <= rho b sum_S w ||z||^2 if the rest weighs at most b.

    For the split that strains it most among those tried: the farthest, the nearest, the ones just
    inside the radius, and random ones; mostly the rest stands where it hurts: together, at the
    distance of an honest neighbour, or against a few honest ones that are far away.
    b > 0; a rule without a rho is held to CS+'s 2.
    """
    case, random = draw(seed)
    case = replace(case, f=max(1, case.f))
    z = case.neighbours.astype(np.float64) - case.own
    if (kind := random.random()) < 0.8:
        z = _together(z, case, random) if kind < 0.4 else _against(z, case, random)
        case = replace(case, neighbours=(case.own + z).astype(np.float32))
        z = case.neighbours.astype(np.float64) - case.own
    pull, report = case.mix(rule)
    b = case.f * float(case.weights.max())
    rho = find_rule(rule)[0].rho or 2.0
    worst = 0.0
    for order in _orders(np.linalg.norm(z, axis=1), report.tau, random):
        rest = order[np.cumsum(case.weights[order]) <= b * (1 + 1e-12)]
        worst = max(worst, _off(pull, z, case, np.delete(np.arange(len(z)), rest), rho * b))
    return worst


def _together(z: Weights, case: Case, random: np.random.Generator) -> Weights:
    """z with a set of weight at most b at one point, at the length of one of the others."""
    order = random.permutation(len(z))
    rest = order[np.cumsum(case.weights[order]) <= case.f * case.weights.max()]
    direction = random.standard_normal(z.shape[1])
    direction /= float(np.linalg.norm(direction))
    length = np.linalg.norm(z[random.integers(0, len(z))]) * random.choice([0.999, 1.0, 1.001, 50])
    z = z.copy()
    z[rest] = direction * length
    if random.random() < 0.5:  # the honest nearly agree
        z[np.delete(np.arange(len(z)), rest)] *= 1e-3
    return z


def _against(z: Weights, case: Case, random: np.random.Generator) -> Weights:
    """z with 2f - 1 far away, f on the other side, and the others nearly where we are."""
    order, z = random.permutation(len(z)), z * 1e-3
    direction = random.standard_normal(z.shape[1])
    direction /= float(np.linalg.norm(direction))
    far, near = order[: 2 * case.f - 1], order[2 * case.f - 1 : 3 * case.f - 1]
    z[far] = direction * random.choice([2.0, 10.0, 100.0])
    z[near] = -direction * random.uniform(0.5, 1.0)
    return z


def _orders(lengths: Weights, tau: float, random: np.random.Generator) -> list[NDArray[np.int64]]:
    """Orders in which neighbours are put into the rest until it weighs b."""
    inside = np.where(lengths <= tau, -lengths, lengths)  # the longest that is not cut, first
    return [
        np.argsort(-lengths),
        np.argsort(lengths),
        np.argsort(inside),
        *(random.permutation(len(lengths)) for _ in range(3)),
    ]


def _off(pull: Vector, z: Weights, case: Case, honest: NDArray[np.int64], allowed: float) -> float:
    weights = case.weights[honest]
    off = pull.astype(np.float64) - weights @ z[honest]
    bound = allowed * float(weights @ (z[honest] ** 2).sum(axis=1))
    noise = (1e-5 * case.scale) ** 2
    return max(0.0, float(off @ off) - noise) / (bound * (1 + 1e-4) + 1e-30)


def radius(rule: Named, seed: int) -> float:
    """The weight strictly beyond tau is < 2b <= the weight at or beyond tau; b = 0: no radius."""
    case, _ = draw(seed)
    _, report = case.mix(rule)
    if case.f == 0:
        return 0.0 if report.tau == math.inf else BROKEN
    lengths, b = np.array(report.distances), case.f * float(case.weights.max())
    beyond = float(case.weights[lengths > report.tau].sum())
    reached = float(case.weights[lengths >= report.tau].sum())
    if 2 * b > float(case.weights.sum()) * (1 + 1e-9):
        return 0.0 if report.tau == 0 else BROKEN
    kept = beyond < 2 * b * (1 - 1e-12) and reached >= 2 * b * (1 - 1e-9)
    return 0.0 if kept else BROKEN


def tighter(rule: Named, seed: int) -> float:
    """tau falls as b grows."""
    case, _ = draw(seed)
    taus = [replace(case, f=f).mix(rule)[1].tau for f in range(5)]
    return 0.0 if all(b <= a for a, b in pairwise(taus)) else BROKEN
