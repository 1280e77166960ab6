"""Who mixes with whom, and what that can promise: certificates.

Knows counts and weights; not keys, not who is honest in a running network (nobody does: a declared
graph names its honest members, as a simulator may). Source: Gaucher, Dieuleveut, Hendrikx 2025.

  CERTIFIED     mu2 > 4b            V = sum ||x_i - mean||^2 of the honest shrinks every round
  BEST-EFFORT   2b < mu2 <= 4b      nothing is proven, nothing is excluded
  IMPOSSIBLE    mu2 <= 2b           no rule can help

mu2 is the second smallest eigenvalue of the weighted Laplacian of the HONEST members' graph, b the
Byzantine weight a neighbourhood may hold, f * max w. Only ratios count, so unit weights and b = f
say the same. On the complete graph mu2 = n - f in unit weights: CERTIFIED iff n > 5f, IMPOSSIBLE
iff n <= 3f.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CERTIFIED, BEST_EFFORT, IMPOSSIBLE = "CERTIFIED", "BEST-EFFORT", "IMPOSSIBLE"
ASSUMED_SHARE = 0.05  # of hostile members, where secrets choose the links and nobody can count
_MARGIN = 1e-9  # relative: an equality must not pass as an inequality by rounding


def certificate(members: int, f: int) -> str:
    """What all-to-all mixing of ``members`` (Byzantine ones included) promises against ``f``."""
    if f < 0 or members < 1:
        raise ValueError(f"members={members} and f={f} must be >= 1 and >= 0")
    if f == 0 or members > 5 * f:
        return CERTIFIED
    return IMPOSSIBLE if members <= 3 * f else BEST_EFFORT


def eigenvalues(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """All eigenvalues float64[n], ascending, of the Laplacian of symmetric weights float64[n, n].

    The diagonal (a member's weight on itself) does not count. ValueError: not symmetric, or a
    weight that is negative or not finite.
    """
    if not np.isfinite(weights).all() or weights.min(initial=0.0) < 0:
        raise ValueError("weights must be finite and not negative")
    if not np.array_equal(weights, weights.T):
        raise ValueError("weights must be symmetric")
    links = weights - np.diag(np.diag(weights))
    return np.asarray(np.linalg.eigvalsh(np.diag(links.sum(axis=1)) - links))


def certificate_of(weights: NDArray[np.float64], honest: NDArray[np.bool_], b: float) -> str:
    """What a declared graph promises: weights float64[n, n], who is honest bool[n], b >= 0.

    One honest member alone has nothing to agree on: CERTIFIED.
    """
    if b < 0:
        raise ValueError(f"b={b} must be >= 0")
    if honest.sum() < 2:
        return CERTIFIED
    return word(float(eigenvalues(weights[np.ix_(honest, honest)])[1]), b)


def word(mu2: float, b: float) -> str:
    """The certificate for ``mu2`` and ``b``, both in the same unit of weight."""
    scale = _MARGIN * max(1.0, abs(mu2))
    if mu2 > 4 * b + scale:
        return CERTIFIED
    return BEST_EFFORT if mu2 > 2 * b + scale else IMPOSSIBLE


class Estimate(NamedTuple):
    """What a graph whose links nobody knows may promise; ``word`` is never CERTIFIED."""

    word: str
    chance: float  # that one honest member's neighbourhood holds more than f hostile ones
    chance_any: float  # at most: that any honest member's does
    mu2: float  # about, in unit weights, of the honest part
    hostile: int  # members assumed so


def estimate(members: int, k: int, f: int, assumed_share: float = ASSUMED_SHARE) -> Estimate:
    """What random links promise: ``members`` in all, each with ``k`` links, against ``f``.

    The neighbourhood is drawn without replacement from the others, ceil(share * members) of whom
    are hostile: the count is hypergeometric. mu2 is that of a random regular graph of the honest
    with k - f links, (k-f) - 2 sqrt((k-f-1) (1 - (k-f)/n)): Friedman's bound (2008), corrected for
    finite graphs. From 24 to 100 members it is near the lowest of drawn graphs, .3 to 1 below their
    mean (tests/sim/test_graphs.py).
    """
    if members < 2 or not 1 <= k < members or f < 0 or not 0 <= assumed_share < 1:
        raise ValueError(
            f"1 <= k < members, f >= 0 and 0 <= share < 1 must hold:"
            f" members={members}, k={k}, f={f}, share={assumed_share}"
        )
    hostile = min(members - 1, math.ceil(assumed_share * members - _MARGIN))
    chance = chance_overfull(members, k, f, hostile)
    honest, degree = members - hostile, max(k - f, 0)
    inside = max(0.0, (degree - 1) * (1 - degree / max(honest, degree + 1)))
    mu2 = max(0.0, degree - 2 * math.sqrt(inside)) if degree else 0.0
    found = IMPOSSIBLE if word(mu2, f) == IMPOSSIBLE else BEST_EFFORT
    return Estimate(found, chance, min(1.0, honest * chance), mu2, hostile)


def chance_overfull(members: int, k: int, f: int, hostile: int) -> float:
    """The chance that ``k`` of an honest member's ``members - 1`` others hold more than f hostile.

    Hypergeometric: sum over h > f of C(hostile, h) C(members - 1 - hostile, k - h) / C(members - 1,
    k), in exact integers.
    """
    others = members - 1
    bad = sum(
        math.comb(hostile, h) * math.comb(others - hostile, k - h)
        for h in range(f + 1, min(hostile, k) + 1)
    )
    return bad / math.comb(others, k)


def default_tolerance(members: int) -> int:
    """The largest certified f of an all-to-all network: floor((n - 1) / 5)."""
    return max(0, (members - 1) // 5)


def enough_live(live: int, f: int) -> bool:
    """Whether ``live`` members (self included) suffice to mix at all: live >= 3f + 1."""
    return live >= 3 * f + 1
