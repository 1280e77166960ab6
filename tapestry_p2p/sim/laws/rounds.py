"""Laws of synchronous rounds on random connected graphs, under arbitrary messages on every link.

x_i <- x_i + eta * pull_i for every honest member at once, the pull being the production rule's.
With V = sum ||x_i - mean||^2 over the honest, (b, rho) rules, L the honest part's weighted
Laplacian, eta * mu_max <= 1 and a = eta (mu2 - 2 rho b) >= 0 (Gaucher, Dieuleveut, Hendrikx 2025):

  contraction   V+ <= (1 - a) V
  drift         n ||mean+ - mean||^2 <= 2 rho eta b V
  healing       after the last hostile message V halves at least every ceil(ln 2 / a) rounds
  mean          b = 0: the mean stays, and V+ <= max (1 - eta mu)^2 V over the spectrum

A hostile neighbour sends every honest one what it likes: far away, just inside its radius, away
from the mean, all in one direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tapestry_p2p.mix.rules import mix
from tapestry_p2p.mix.rules.table import find_rule
from tapestry_p2p.mix.topology import eigenvalues
from tapestry_p2p.sim.laws.single import Named

Points = NDArray[np.float32]
Weights = NDArray[np.float64]
ROUNDS_MAX = 40  # to halve V; graphs that need more are drawn again
HEALING_ROUNDS_MAX = 8
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Crowd:
    """Honest members, their links, and the weights of the hostile ones beside each of them."""

    x: Points  # float32[n, d]
    weights: Weights  # float64[n, n], symmetric, zero diagonal
    hostile: Weights  # float64[n, m]
    f: int
    eta: float
    spectrum: Weights  # of the honest Laplacian, ascending

    @property
    def b(self) -> float:
        """The Byzantine weight tolerated at the member with the heaviest neighbour."""
        heaviest = max(float(self.weights.max()), float(self.hostile.max(initial=0.0)))
        return self.f * heaviest

    def rate(self, rho: float) -> float:
        """a = eta (mu2 - 2 rho b)."""
        return self.eta * float(self.spectrum[1] - 2 * rho * self.b)


Send = Callable[[Crowd, Points, int], Points]
Step = Callable[[Named, Crowd, Points, Send | None], Points]


def draw(
    seed: int, rho: float, rounds_max: int = ROUNDS_MAX, honest_only: bool = False
) -> tuple[Crowd, np.random.Generator]:
    """A connected graph with mu2 > 2 rho b, as (b, rho) rules ask for, and a generator."""
    random = np.random.default_rng(seed)
    while True:
        f = 0 if honest_only else int(random.integers(1, 3))
        least = 3 if f == 0 else math.ceil(2 * rho * f) + 1
        n = int(random.integers(least, least + 6))
        links = np.triu(random.random((n, n)) < random.uniform(0.4 if f == 0 else 0.8, 1.0), 1)
        spread = random.choice([0.0, 0.15, 0.5 if f == 0 else 0.3])
        weights = links * random.uniform(1 - spread, 1.0, (n, n))
        weights = weights + weights.T
        hostile = random.uniform(1 - spread, 1.0, (n, f))
        whole = 1.0 + float((weights.sum(axis=1) + hostile.sum(axis=1)).max())
        weights, hostile = weights / whole, hostile / whole
        spectrum = eigenvalues(weights)
        if spectrum[1] <= 1e-6:
            continue
        eta = float(random.choice([1.0, random.uniform(0.3, 1.0)]) / spectrum[-1])
        x = random.standard_normal((n, int(random.integers(1, 6))))
        x *= random.gamma(0.5, 2.0, (n, 1)) + 0.05  # some far from the rest
        crowd = Crowd(x.astype(np.float32), weights, hostile, f, eta, spectrum)
        if honest_only or math.log(2) <= rounds_max * crowd.rate(rho):
            return crowd, random


def step(rule: Named, crowd: Crowd, x: Points, send: Send | None) -> Points:
    """One synchronous round; ``send`` None: the hostile ones are silent."""
    moved = np.empty_like(x)
    for i in range(len(x)):
        linked = crowd.weights[i] > 0
        vectors, weights = x[linked], crowd.weights[i, linked]
        if send is not None:
            vectors = np.concatenate([vectors, send(crowd, x, i)])
            weights = np.concatenate([weights, crowd.hostile[i]])
        pull, _ = mix(rule, x[i], vectors, weights, f=crowd.f)
        moved[i] = x[i] + np.float32(crowd.eta) * pull
    return moved


def hostility(random: np.random.Generator) -> Send:
    """What the hostile neighbours of this case send, to each receiver for itself."""
    kind = random.choice(["far", "away", "aside", "noise", "mirror"], p=[0.1, 0.35, 0.35, 0.1, 0.1])
    aside = random.standard_normal(64)
    reach = float(random.choice([1 - 1e-6, 1.0, 1 + 1e-6, 3.0]))

    def send(crowd: Crowd, x: Points, i: int) -> Points:
        here, mean = x[i].astype(np.float64), x.mean(axis=0, dtype=np.float64)
        m, d = crowd.hostile.shape[1], x.shape[1]
        if kind == "far":
            return np.asarray(1e6 * random.standard_normal((m, d)), np.float32)
        if kind == "noise":
            return np.asarray(here + random.standard_normal((m, d)), np.float32)
        if kind == "mirror":
            return np.tile((mean - 3 * (here - mean)).astype(np.float32), (m, 1))
        direction = here - mean if kind == "away" else aside[:d]
        length = float(np.linalg.norm(direction))
        unit = direction / length if length > 0 else direction
        return np.tile((here + unit * _inside(crowd, x, i) * reach).astype(np.float32), (m, 1))

    return send


def _inside(crowd: Crowd, x: Points, i: int) -> float:
    """The honest distance at which CS+'s radius would stand if the hostile ones were beyond it."""
    steps = x[crowd.weights[i] > 0].astype(np.float64) - x[i]
    lengths = np.sort(np.linalg.norm(steps, axis=1))
    return float(lengths[max(0, len(lengths) - max(1, crowd.f))])


def spread(x: Points) -> float:
    """V = sum ||x_i - mean||^2, in float64."""
    apart = x.astype(np.float64)
    apart -= apart.mean(axis=0)
    return float((apart**2).sum())


def _rho(rule: Named) -> float:
    return find_rule(rule)[0].rho or 2.0


def contraction_and_drift(rule: Named, seed: int, go: Step = step) -> tuple[float, float]:
    """Strains of both inequalities in one round."""
    crowd, random = draw(seed, rho := _rho(rule))
    after = go(rule, crowd, crowd.x, hostility(random))
    if not np.isfinite(after).all():
        return math.inf, math.inf
    before = spread(crowd.x)
    noise = _ROUNDING * before
    drift = after.mean(axis=0, dtype=np.float64) - crowd.x.mean(axis=0, dtype=np.float64)
    moved = len(after) * float(drift @ drift)
    contracted = spread(after) / ((1 - crowd.rate(rho)) * before + noise)
    return contracted, moved / (2 * rho * crowd.eta * crowd.b * before + noise)


def contraction(rule: Named, seed: int) -> float:
    """V+ <= (1 - eta (mu2 - 2 rho b)) V, whatever is sent."""
    return contraction_and_drift(rule, seed)[0]


def drift(rule: Named, seed: int) -> float:
    """n ||mean+ - mean||^2 <= 2 rho eta b V, whatever is sent."""
    return contraction_and_drift(rule, seed)[1]


def healing(rule: Named, seed: int) -> float:
    """After the last hostile message V halves every ceil(ln 2 / (eta (mu2 - 2 rho b))) rounds."""
    crowd, random = draw(seed, rho := _rho(rule), HEALING_ROUNDS_MAX)
    x, send = crowd.x, hostility(random)
    for _ in range(2):
        x = step(rule, crowd, x, send)
    period = math.ceil(math.log(2) / crowd.rate(rho))
    worst = 0.0
    for _ in range(2):
        before = spread(x)
        for _ in range(period):
            x = step(rule, crowd, x, None)
        noise = 1e-10 * float((x.astype(np.float64) ** 2).sum()) + 1e-30
        worst = max(worst, spread(x) / (before / 2 + noise))
    return worst


def mean_kept(rule: Named, seed: int) -> float:
    """b = 0: the honest mean stays to 1e-6, and V shrinks by the exact spectral rate or faster."""
    crowd, _ = draw(seed, 0.0, honest_only=True)
    after = step(rule, crowd, crowd.x, None)
    size = math.sqrt(float((crowd.x.astype(np.float64) ** 2).mean()))
    drift = after.mean(axis=0, dtype=np.float64) - crowd.x.mean(axis=0, dtype=np.float64)
    slowest = float(np.max((1 - crowd.eta * crowd.spectrum[1:]) ** 2))
    rate = spread(after) / ((slowest + _ROUNDING) * spread(crowd.x))
    exact = _exactly_linear(crowd, after)
    return max(float(np.abs(drift).max()) / (1e-6 * max(1.0, size)), rate, exact)


def _exactly_linear(crowd: Crowd, after: Points) -> float:
    """How far the round is from (I - eta L) x, over 1e-5 of the points' size."""
    laplacian = np.diag(crowd.weights.sum(axis=1)) - crowd.weights
    x = crowd.x.astype(np.float64)
    gap = np.abs(after - (x - crowd.eta * laplacian @ x)).max()
    return float(gap / (_ROUNDING * max(1.0, float(np.abs(x).max()))))


def diameter(rule: Named, seed: int) -> float:
    """Nobody hostile, f whatever: the largest distance between two members never grows."""
    crowd, random = draw(seed, 0.0, honest_only=True)
    quiet = Crowd(
        crowd.x, crowd.weights, crowd.hostile, int(random.integers(0, 3)), 1.0, crowd.spectrum
    )
    after = step(rule, quiet, quiet.x, None)

    def widest(x: Points) -> float:
        apart = x[:, None].astype(np.float64) - x[None]
        return float(np.sqrt((apart**2).sum(axis=-1)).max())

    return widest(after) / (widest(crowd.x) * (1 + _ROUNDING))
