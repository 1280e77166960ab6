"""Rules that must break a law: proof that the laws can fail. No manifest can name them.

The first three are mistakes that were made in print or in prototypes; the two *planted faults* are
slips of the hand in CS+ itself that every other test might forgive.
"""

from __future__ import annotations

import numpy as np

from tapestry_p2p.mix.rules import mix
from tapestry_p2p.mix.rules.base import Scene, Weighing
from tapestry_p2p.mix.rules.clipping import clip, radius
from tapestry_p2p.mix.rules.table import Rule
from tapestry_p2p.sim.laws.rounds import Crowd, Points, Send
from tapestry_p2p.sim.laws.single import Named

FIXED_TAU = 1.0


def _clipped(scene: Scene, tau: float) -> Weighing:
    coefficients = clip(scene.distances, tau)
    return Weighing(scene.weights * coefficients, coefficients, tau)


def _fixed_tau(scene: Scene) -> Weighing:
    """Self-centred clipping with a radius somebody chose (He, Karimireddy, Jaggi 2022)."""
    return _clipped(scene, FIXED_TAU)


def _by_count(scene: Scene) -> Weighing:
    """A quantile of the distances that does not look at the weights: the 2f-th largest."""
    if scene.f == 0:
        return _clipped(scene, np.inf)
    tau = np.sort(scene.distances)[::-1][min(2 * scene.f, len(scene.distances)) - 1]
    return _clipped(scene, float(tau))


def _from_b(scene: Scene) -> Weighing:
    """Planted fault: tau where the farthest b of weight begins, not 2b."""
    if scene.f == 0:
        return _clipped(scene, np.inf)
    return _clipped(scene, radius(scene.distances, scene.weights, scene.b))


def _self_counted(scene: Scene) -> Weighing:
    """Planted fault: the member's own weight counts among the nearest when tau is looked for.

    tau is the norm at which the nearest W - 2b of W begin to be full, W the neighbours' weight.
    """
    if scene.f == 0:
        return _clipped(scene, np.inf)
    inside = float(scene.weights.sum()) - 2 * scene.b
    order = np.argsort(scene.distances, kind="stable")
    reached = scene.own_weight + np.cumsum(scene.weights[order])
    at = int(np.argmax(reached > inside * (1 + 1e-12)))
    return _clipped(scene, float(scene.distances[order][at]) if inside >= 0 else 0.0)


CONTROLS = {
    "fixed tau": Rule(_fixed_tau),
    "quantile without weights": Rule(_by_count),
    "planted: tau from b": Rule(_from_b, rho=2.0),
    "planted: self counted": Rule(_self_counted, rho=2.0),
}


def symmetric_step(rule: Named, crowd: Crowd, x: Points, send: Send | None) -> Points:
    """Edge-symmetric CS+: both ends of a link use the larger of their two radii.

    Without attackers it keeps the mean exactly. A hostile end states the radius it likes: none.
    """
    taus, moved = np.empty(len(x)), np.empty_like(x)
    for i in range(len(x)):
        vectors, weights = _seen(crowd, x, i, send)
        taus[i] = mix("cs_plus", x[i], vectors, weights, f=crowd.f)[1].tau
    for i in range(len(x)):
        vectors, weights = _seen(crowd, x, i, send)
        z = vectors.astype(np.float64) - x[i]
        agreed = np.full(len(z), np.inf)
        linked = crowd.weights[i] > 0
        agreed[: linked.sum()] = np.maximum(taus[i], taus[linked])
        lengths = np.maximum(np.linalg.norm(z, axis=1), 1e-300)
        shares = weights * np.minimum(1.0, agreed / lengths)
        moved[i] = x[i] + crowd.eta * (shares @ z)
    return moved


def _seen(
    crowd: Crowd, x: Points, i: int, send: Send | None
) -> tuple[Points, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    linked = crowd.weights[i] > 0
    if send is None:
        return x[linked], crowd.weights[i, linked]
    vectors = np.concatenate([x[linked], send(crowd, x, i)])
    return vectors, np.concatenate([crowd.weights[i, linked], crowd.hostile[i]])
