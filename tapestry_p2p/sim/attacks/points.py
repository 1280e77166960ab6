"""Attacks without a strength to search: each gives messages float32[h, d] from a scene."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tapestry_p2p.sim.attacks.lines import dissensus
from tapestry_p2p.sim.attacks.scene import Scene, Vector

Point = Callable[[Scene], Vector]
NOISE = 30.0
SCALE = 100.0
MIRROR = 3.0


def _all(scene: Scene, message: NDArray[np.generic]) -> Vector:
    """One message for every receiver."""
    return np.tile(np.asarray(message, dtype=np.float32), (len(scene.honest), 1))


def sign_flip(scene: Scene) -> Vector:
    """-mean."""
    return np.asarray(-scene.means, dtype=np.float32)


def gaussian(scene: Scene) -> Vector:
    """mean + 30 N(0, I), drawn for each receiver (as in the IOS tables)."""
    return np.asarray(
        scene.means + NOISE * scene.random.standard_normal(scene.means.shape), dtype=np.float32
    )


def zero(scene: Scene) -> Vector:
    """The vector 0."""
    return np.zeros_like(scene.honest)


def isolation(scene: Scene) -> Vector:
    """Makes the plain weighted mean return x_i: dissensus with eps = 1 (Wu, Chen, Ling 2023)."""
    base, direction = dissensus(scene)
    return np.asarray(base + direction, dtype=np.float32)


def duplicate(scene: Scene) -> Vector:
    """Each receiver hears one of its honest neighbours, chosen anew each round, once more."""
    chosen = [
        int(scene.random.choice(near)) if len(near) else i
        for i, (near, _, _) in enumerate(scene.neighbourhoods)
    ]
    return np.asarray(scene.honest[chosen])


def mimic(scene: Scene) -> Vector:
    """One honest member, always the same, once more (Karimireddy, He, Jaggi 2022)."""
    return _all(scene, scene.honest[scene.victim])


def mirror(scene: Scene) -> Vector:
    """Undo the training threefold: x_0 - 3 (mean - x_0). Ruins a plain mean."""
    return np.asarray(scene.start - MIRROR * (scene.means - scene.start), dtype=np.float32)


def scale(scene: Scene) -> Vector:
    """100 times the mean."""
    return np.asarray(SCALE * scene.means, dtype=np.float32)


def stale(scene: Scene) -> Vector:
    """The genesis for ever: a member that never learns."""
    return _all(scene, scene.start)


def replay(scene: Scene) -> Vector:
    """What one honest member said in the first round, again and again."""
    first = scene.honest if scene.first is None else scene.first
    return _all(scene, first[scene.victim])


def label_flip(scene: Scene) -> Vector:
    """An honest member with poisoned data: what was learned from labels c - 1 - y.

    A learning world hands it in as ``scene.poisoned``. ValueError without it.
    """
    if scene.poisoned is None:
        raise ValueError("label_flip needs a copy that learned from flipped labels")
    return np.broadcast_to(scene.poisoned, scene.honest.shape).astype(np.float32)


def flip_labels(labels: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """c - 1 - y for each label y of c classes."""
    return np.asarray(classes - 1 - labels.astype(np.int64))


def min_max(scene: Scene) -> Vector:
    """mean - g sd, g the largest that is no farther from any honest than the honest are apart.

    Shejwalkar and Houmansadr (2021); over each receiver's honest neighbours and itself.
    """

    def reach(rows: NDArray[np.float64], down: NDArray[np.float64]) -> float:
        allowed = _squares(rows).max()
        slope, size = rows @ down, float(down @ down)
        inside = slope**2 - size * ((rows**2).sum(axis=1) - allowed)
        return float(((slope + np.sqrt(np.maximum(inside, 0.0))) / size).min())

    return _reaching(scene, reach)


def min_sum(scene: Scene) -> Vector:
    """mean - g sd, g the largest whose summed squared distance no honest member's exceeds."""

    def reach(rows: NDArray[np.float64], down: NDArray[np.float64]) -> float:
        squares = _squares(rows)
        allowed = squares.sum(axis=1).max() - (rows**2).sum()
        return float(np.sqrt(max(allowed, 0.0) / (len(rows) * float(down @ down))))

    return _reaching(scene, reach)


def _reaching(
    scene: Scene, reach: Callable[[NDArray[np.float64], NDArray[np.float64]], float]
) -> Vector:
    """mean + g * (-sd) with g from ``reach(rows less their mean, -sd)``, for each receiver."""
    found = scene.means.copy()
    for i, near in enumerate(scene.sight > 0):
        down = -scene.deviations[i]
        if down.any():
            rows = scene.honest[near].astype(np.float64) - scene.means[i]
            found[i] += reach(rows, down) * down
    return np.asarray(found, dtype=np.float32)


def _squares(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """||r_i - r_j||^2 float64[m, m] of centred rows."""
    products = rows @ rows.T
    sizes = np.diagonal(products)
    return np.asarray(np.maximum(sizes[:, None] + sizes[None, :] - 2 * products, 0.0))


def filled(value: float) -> Point:
    """The same number everywhere."""
    return lambda scene: np.full_like(scene.honest, value)
