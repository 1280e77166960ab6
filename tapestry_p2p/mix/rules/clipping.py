"""Rules that look at distances from oneself alone: mean, CS+, CS+H, GTS, BALANCE.

Each is a pure function of (weights, f, distances): O(k log k) after one pass over the vectors
for the distances, and one more for the weighted sum. Notation: z_j = x_j - own, w_j its weight,
b = f * max w, c_j the coefficient; the pull is sum_j w_j c_j z_j.
"""

import numpy as np

from tapestry_p2p.mix.rules.base import Scene, Weighing, Weights

KAPPA = 2.0
BALANCE_GAMMA, BALANCE_KAPPA, BALANCE_ROUNDS = 0.3, 1.0, 1000
_ROUNDING = 1 - 1e-12


def mean(scene: Scene) -> Weighing:
    """Metropolis averaging: c_j = 1 (Xiao and Boyd 2004). Tolerates nobody: b = 0."""
    return Weighing(scene.weights, np.ones_like(scene.weights))


def radius(distances: Weights, weights: Weights, budget: float) -> float:
    """The norm at which the farthest ``budget`` of weight begins; 0 if there is not so much.

    Neighbours are sorted by (norm, position), farthest first; the weight strictly beyond the
    radius is < budget <= the weight at or beyond it.
    """
    order = np.lexsort((np.arange(len(distances)), distances))[::-1]
    reached = np.cumsum(weights[order]) >= budget * _ROUNDING
    return float(distances[order[int(np.argmax(reached))]]) if reached.any() else 0.0


def clip(distances: Weights, tau: float) -> Weights:
    """min(1, tau / ||z_j||)."""
    far = distances > tau
    coefficients = np.ones_like(distances)
    coefficients[far] = tau / distances[far]
    return coefficients


def cs_plus(scene: Scene) -> Weighing:
    """CS+: c_j = min(1, tau / ||z_j||), tau the norm at which the farthest 2b of weight begins.

    Gaucher, Dieuleveut, Hendrikx (ICML 2025). b = 0: tau is infinite, the exact mean. For every
    split honest S / rest with w(rest) <= b: ||pull - sum_S w z||^2 <= 2b sum_S w ||z||^2, "(b,2)".
    In a synchronous round on a graph with mu2 > 4b the honest members' spread shrinks whatever the
    others send (certificate factor 2).
    """
    if scene.f == 0:
        return mean(scene)
    tau = radius(scene.distances, scene.weights, 2 * scene.b)
    coefficients = clip(scene.distances, tau)
    return Weighing(scene.weights * coefficients, coefficients, tau)


def cs_plus_h(scene: Scene) -> Weighing:
    """CS+ that leaves out whoever is beyond KAPPA tau: far liars pull nothing at all.

    (b, rho) with rho = 2 (1 + 1/(2 KAPPA))^2: 3.125 for KAPPA = 2, so certified for mu2 > 6.25 b
    where CS+ needs 4 b. Derivation: a zeroed honest z costs tau more than a clipped one, and tau
    is at most ||z|| / KAPPA.
    """
    clipped = cs_plus(scene)
    beyond = scene.distances > KAPPA * clipped.tau
    coefficients = np.where(beyond, 0.0, clipped.coefficients)
    return Weighing(scene.weights * coefficients, coefficients, clipped.tau)


def gts(scene: Scene) -> Weighing:
    """GTS, the sum form of NNA: the farthest b of weight is left out, the last one in part.

    Farhadkhani et al. (NNA, ICML 2023); Gaucher et al. (GTS, ICML 2025). (b,4): certified for
    mu2 > 8b. For equal weights the f farthest neighbours are left out; NNA divides what is left by
    its weight, GTS leaves that weight with the member itself. tau: the nearest of those left out.
    """
    if scene.f == 0:
        return mean(scene)
    order = np.lexsort((np.arange(len(scene.distances)), scene.distances))[::-1]
    weights = scene.weights[order]
    before = np.concatenate([[0.0], np.cumsum(weights)[:-1]])
    dropped = np.clip(scene.b - before, 0.0, weights)
    dropped[dropped < weights * 1e-9] = 0.0  # a rounding error of the sum drops nobody
    coefficients = np.empty_like(weights)
    coefficients[order] = 1.0 - dropped / weights
    tau = float(scene.distances[order][dropped > 0].min())
    return Weighing(scene.weights * coefficients, coefficients, tau)


def balance(scene: Scene) -> Weighing:
    """BALANCE: c_j = 1 if ||z_j|| <= gamma exp(-kappa t/T) ||own||, else 0.

    Fang et al. (CCS 2024), with our weights in place of its alpha = 1/2; gamma .3, kappa 1, T 1000
    rounds, t = age, constant afterwards. A control: its radius is a share of the parameters' own
    length, so it is not translation equivariant and nothing bounds it; f and b do not occur.
    """
    done = min(1.0, scene.age / BALANCE_ROUNDS)
    tau = BALANCE_GAMMA * float(np.exp(-BALANCE_KAPPA * done)) * scene.own_norm()
    coefficients = (scene.distances <= tau).astype(np.float64)
    return Weighing(scene.weights * coefficients, coefficients, tau)
