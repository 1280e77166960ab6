"""Graphs for simulators: who is linked with whom, at which weight, and who is honest.

Knows numpy and a seed. Every link between two members of degrees a and b weighs 1 / (1 + max(a, b))
(Metropolis; hostile neighbours count), so regular graphs have 1 / (k + 1) everywhere. A member's
weight on itself is what its links leave of 1 and stands nowhere in the matrix. Eigenvalues are of
the weighted Laplacian of the honest members' part; divided by ``unit`` they are those of unit
weights, as papers print them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from random import Random

import numpy as np
from numpy.typing import NDArray

from tapestry_p2p.mix.topology import certificate_of, eigenvalues

Adjacency = NDArray[np.bool_]
# honest neighbours int64[k'], all weights float64[k] (hostile ones last), how many are hostile
Neighbourhood = tuple[NDArray[np.int64], NDArray[np.float64], int]
_SWAPS = 20  # times the number of links: a circulant's order is gone after few of them


@dataclass(frozen=True)
class Graph:
    """Weights float64[n, n], symmetric with a zero diagonal, and who is honest, bool[n]."""

    weights: NDArray[np.float64]
    honest: NDArray[np.bool_]
    name: str = ""

    def __post_init__(self) -> None:
        n = len(self.honest)
        if self.weights.shape != (n, n) or np.diag(self.weights).any():
            raise ValueError(f"weights must be {n} x {n} with a zero diagonal")
        if not self.honest.any():
            raise ValueError("at least one member must be honest")
        eigenvalues(self.weights)  # symmetric, finite, not negative

    @cached_property
    def honest_weights(self) -> NDArray[np.float64]:
        """float64[h, h]: links among the honest."""
        return self.weights[np.ix_(self.honest, self.honest)]

    @cached_property
    def byzantine_weight(self) -> NDArray[np.float64]:
        """float64[h]: how much weight of hostile neighbours each honest member has."""
        return np.asarray(self.weights[np.ix_(self.honest, ~self.honest)].sum(axis=1))

    @cached_property
    def byzantine_count(self) -> NDArray[np.int64]:
        """int64[h]: how many hostile neighbours each honest member has."""
        return np.asarray((self.weights[np.ix_(self.honest, ~self.honest)] > 0).sum(axis=1))

    @cached_property
    def neighbourhoods(self) -> list[Neighbourhood]:
        """Of each honest member."""
        across = self.weights[np.ix_(self.honest, ~self.honest)]
        found = []
        for own, hostile in zip(self.honest_weights, across, strict=True):
            near = np.flatnonzero(own)
            weights = np.concatenate([own[near], hostile[hostile > 0]])
            found.append((near, weights, int((hostile > 0).sum())))
        return found

    @cached_property
    def spectrum(self) -> NDArray[np.float64]:
        """float64[h]: eigenvalues of the honest members' Laplacian, ascending."""
        return eigenvalues(self.honest_weights)

    @cached_property
    def fiedler(self) -> NDArray[np.float64]:
        """float64[h]: an eigenvector of mu2, length 1: the disagreement that settles last."""
        weights = self.honest_weights
        laplacian = np.diag(weights.sum(axis=1)) - weights
        return np.asarray(np.linalg.eigh(laplacian)[1][:, min(1, len(weights) - 1)])

    @property
    def unit(self) -> float:
        """The largest weight of a link: what one neighbour counts at most."""
        return float(self.weights.max())

    @property
    def mu2(self) -> float:
        """The second smallest eigenvalue: how well the honest hang together. 0: not at all."""
        return float(self.spectrum[1]) if len(self.spectrum) > 1 else 0.0

    @property
    def mu_max(self) -> float:
        """The largest eigenvalue: a step eta <= 1 / mu_max cannot overshoot."""
        return float(self.spectrum[-1])

    def b(self, f: int) -> float:
        """The Byzantine weight that f hostile neighbours may have: f * max w."""
        return f * self.unit

    def certificate(self, f: int) -> str:
        """What mixing on this graph promises against f hostile neighbours each."""
        return certificate_of(self.weights, self.honest, self.b(f))


def weighted(adjacency: Adjacency, honest: NDArray[np.bool_], name: str = "") -> Graph:
    """The graph of ``adjacency`` bool[n, n] with Metropolis weights 1 / (1 + max degree)."""
    degree = adjacency.sum(axis=1)
    weights = adjacency / (1.0 + np.maximum(degree[:, None], degree[None, :]))
    return Graph(weights, honest, name)


def _beset(adjacency: Adjacency, byzantine: int, name: str) -> Graph:
    """All of ``adjacency`` are honest, and each has the same ``byzantine`` hostile neighbours."""
    n = len(adjacency)
    whole = np.zeros((n + byzantine, n + byzantine), dtype=bool)
    whole[:n, :n] = adjacency
    whole[n:, :n] = True
    whole[:n, n:] = True
    honest = np.arange(n + byzantine) < n
    weights = weighted(whole, honest).weights
    # a hostile member's own degree is its affair: it must not make the honest count it for less
    degree = whole[:n].sum(axis=1)
    weights[:n, n:] = 1.0 / (1.0 + degree[:, None])
    weights[n:, :n] = weights[:n, n:].T
    weights[n:, n:] = 0.0
    return Graph(weights, honest, name)


def complete(n: int, f: int) -> Graph:
    """All-to-all, ``n`` members of whom the last ``f`` are hostile. Unit mu2 = n - f."""
    return weighted(~np.eye(n, dtype=bool), np.arange(n) < n - f, f"complete({n}, {f})")


def two_worlds(clique: int = 13, cross: int = 8, byzantine: int = 3) -> Graph:
    """Two cliques whose members have ``cross`` links each to the other one; unit mu2 2 * cross.

    Every honest member has ``byzantine`` hostile neighbours.
    """
    if not 0 < cross <= clique:
        raise ValueError(f"0 < cross <= clique must hold: cross={cross}, clique={clique}")
    inside = ~np.eye(clique, dtype=bool)
    across = _circulant(clique, range(cross))
    both = np.block([[inside, across], [across.T, inside]])
    return _beset(both, byzantine, f"two_worlds({clique}, {cross}, {byzantine})")


def ring(n: int, byzantine: int = 0) -> Graph:
    """Each with two neighbours. Unit mu2 = 2 - 2 cos(2 pi / n): no guarantee against anybody."""
    if n < 3:
        raise ValueError(f"a ring needs at least 3 members, not {n}")
    return _beset(_circulant(n, (1, n - 1)), byzantine, f"ring({n}, {byzantine})")


def regular(n: int, k: int, seed: int, byzantine: int = 0) -> Graph:
    """A random connected k-regular graph of ``n`` honest members, ``byzantine`` more at each.

    A circulant, its links swapped in pairs at random (degrees stay, the limit is uniform:
    Taylor 1981). ValueError: n * k odd, or not 2 <= k < n.
    """
    if not 2 <= k < n or n * k % 2:
        raise ValueError(f"2 <= k < n and an even n * k must hold: n={n}, k={k}")
    half = [*range(1, k // 2 + 1), *([n // 2] if k % 2 else [])]
    adjacency = _circulant(n, [*half, *(n - s for s in half)])
    random = Random(seed)
    name = f"regular({n}, {k}, {byzantine})"
    while True:
        _swap(adjacency, random)
        found = _beset(adjacency, byzantine, name)
        if found.mu2 > 1e-9:
            return found


def erdos_renyi(n: int, p: float, seed: int, byzantine: int = 0) -> Graph:
    """Each link with chance ``p``, drawn anew until connected; random members are hostile.

    Batagelj and Brandes' skips (2005) in the order that networkx draws them, so seed 300 with
    n=12, p=.7 and 2 hostile members is the graph of the published IOS tables.
    """
    if not 0 < p < 1 or not 0 <= byzantine < n:
        raise ValueError(f"0 < p < 1 and 0 <= byzantine < n must hold: p={p}, {byzantine}, {n}")
    random = Random(seed)
    while True:
        adjacency = _skips(n, p, random)
        if connected(adjacency):
            break
    hostile = random.sample(range(n), byzantine)
    return weighted(adjacency, _all_but(n, hostile), f"erdos_renyi({n}, {p}, {byzantine})")


def two_castle(k: int = 6, byzantine: int = 2, seed: int = 40) -> Graph:
    """Two cliques of ``k``; each member is linked to all of the other but its counterpart.

    ``byzantine`` random members are hostile; 40 is the seed of the published IOS tables.
    """
    inside = ~np.eye(k, dtype=bool)
    adjacency = np.block([[inside, inside], [inside, inside]])
    hostile = Random(seed).sample(range(2 * k), byzantine)
    return weighted(adjacency, _all_but(2 * k, hostile), f"two_castle({k}, {byzantine})")


def dumbbell(clique: int = 10, byzantine: int = 0) -> Graph:
    """Two cliques joined by a single link; every honest member has ``byzantine`` hostile ones.

    He, Karimireddy, Jaggi 2022. Its mu2 is so small that one hostile neighbour is too many.
    """
    inside = ~np.eye(clique, dtype=bool)
    nothing = np.zeros((clique, clique), dtype=bool)
    adjacency = np.block([[inside, nothing], [nothing, inside]])
    adjacency[clique - 1, clique] = adjacency[clique, clique - 1] = True
    return _beset(adjacency, byzantine, f"dumbbell({clique}, {byzantine})")


def connected(adjacency: Adjacency) -> bool:
    """Whether every member is reached from the first."""
    reached = np.zeros(len(adjacency), dtype=bool)
    reached[0] = True
    while True:
        more = reached | adjacency[reached].any(axis=0)
        if np.array_equal(more, reached):
            return bool(reached.all())
        reached = more


def _circulant(n: int, steps: range | list[int] | tuple[int, ...]) -> Adjacency:
    """bool[n, n]: i is linked to i + s for each step s, around the circle."""
    first = np.zeros(n, dtype=bool)
    first[list(steps)] = True
    return np.stack([np.roll(first, i) for i in range(n)])


def _swap(adjacency: Adjacency, random: Random) -> None:
    """Replace links a-b, c-d by a-d, c-b where none of those is there yet; many times; in place."""
    links = [(int(a), int(b)) for a, b in np.argwhere(np.triu(adjacency))]
    for _ in range(_SWAPS * len(links)):
        i, j = random.randrange(len(links)), random.randrange(len(links))
        (a, b), (c, d) = links[i], links[j]
        if random.random() < 0.5:
            c, d = d, c
        if len({a, b, c, d}) < 4 or adjacency[a, d] or adjacency[c, b]:
            continue
        adjacency[[a, b, c, d], [b, a, d, c]] = False
        adjacency[[a, d, c, b], [d, a, b, c]] = True
        links[i], links[j] = (a, d), (c, b)


def _skips(n: int, p: float, random: Random) -> Adjacency:
    """bool[n, n]: the gaps between chosen pairs are geometric."""
    adjacency = np.zeros((n, n), dtype=bool)
    v, w, rate = 1, -1, math.log(1.0 - p)
    while v < n:
        w += 1 + int(math.log(1.0 - random.random()) / rate)
        while w >= v and v < n:
            w -= v
            v += 1
        if v < n:
            adjacency[v, w] = adjacency[w, v] = True
    return adjacency


def _all_but(n: int, hostile: list[int]) -> NDArray[np.bool_]:
    honest = np.ones(n, dtype=bool)
    honest[hostile] = False
    return honest
