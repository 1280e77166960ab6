"""Attacks along a line, message = base + t * direction, and the search for the t that harms most.

The search runs the receiver's own rule on candidates: for t >= 0 a grid in units of the distance
between receiver and neighbours, then golden sections about the best. What harms is the scene's
aim: ``away``, the receiver's distance from the goal, or ``along``, its way in the attack's
direction. Rules that see lengths and angles only are searched in coordinates of the few dimensions
that the vectors span, exact up to rotation, so a search costs little more than one round.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tapestry_p2p.mix.rules import RULES, mix
from tapestry_p2p.mix.rules.base import Scene as Told
from tapestry_p2p.sim.attacks.scene import Scene, Vector

Floats = NDArray[np.float64]
Base = tuple[Floats, Floats]  # base and direction, float64[h, d] each

GRID = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5, 1.8, 2.2, 3.0, 10.0, 100.0)
GOLDEN_STEPS = 7
_GOLDEN = (math.sqrt(5) - 1) / 2
BY_COORDINATE = ("trimmed_mean", "median", "balance")  # balance sees where the origin is


@dataclass(frozen=True)
class Line:
    """An attack with a strength: base and direction, and the strength of its paper.

    A paper's strength s stands for t = s + ``offset``.
    """

    at: Callable[[Scene], Base]
    usual: Callable[[Scene], Floats]  # float64[h]; this is what processes play
    offset: float = 0.0


def constant(value: float) -> Callable[[Scene], Floats]:
    """The same strength for every receiver."""
    return lambda scene: np.full(len(scene.honest), value)


# -- the lines


def alie(sign: float) -> Callable[[Scene], Base]:
    """A Little Is Enough (Baruch, Baruch, Goldberg 2019): mean + sign z sd; t = z."""
    return lambda scene: (scene.means, sign * scene.deviations)


def alie_z(scene: Scene) -> Floats:
    """z with Phi(z) = (k - s) / k, s = floor((k+1)/2) - hostile, of k neighbours in all."""
    found = []
    for _, weights, hostile in scene.neighbourhoods:
        k = len(weights)
        supporters = (k + 1) // 2 - hostile
        found.append(quantile((k - supporters) / max(k, 1)))
    return np.array(found)


def quantile(p: float) -> float:
    """The standard normal's quantile of p, within -4..4, by bisection."""
    low, high = -4.0, 4.0
    for _ in range(60):
        middle = (low + high) / 2
        below = 0.5 * (1 + math.erf(middle / math.sqrt(2))) < p
        low, high = (middle, high) if below else (low, middle)
    return (low + high) / 2


def foe(scene: Scene) -> Base:
    """Fall of Empires (Xie, Koyejo, Gupta 2019): -eps mean = mean - t mean; t = eps + 1.

    So a search begins at the mean, eps = -1, and goes outwards.
    """
    return scene.means, -scene.means


def dissensus(scene: Scene) -> Base:
    """x_i - eps sum_j w_ij (x_j - x_i) / w_byz (He, Karimireddy, Jaggi 2022); t = eps.

    eps = 1 cancels what the honest neighbours pull; more drives members apart.
    """
    weight = scene.graph.byzantine_weight
    share = np.divide(1.0, weight, out=np.zeros_like(weight), where=weight > 0)
    return scene.honest.astype(np.float64), -scene.honest_pull * share[:, None]


def spectral(scene: Scene) -> Base:
    """SpH: x_i + t phi_i sum_j phi_j x_j, phi the Fiedler vector (Gaucher et al. 2025).

    Keeps alive the disagreement that the honest graph is slowest to settle.
    """
    fiedler = scene.graph.fiedler
    slow = fiedler @ scene.centred
    return scene.honest.astype(np.float64), fiedler[:, None] * slow[None, :]


def equivocation(scene: Scene) -> Base:
    """Every second receiver is told to go one way, the others the opposite one.

    mean +- t u, u from the mean to the honest member farthest from it.
    """
    farthest = int(np.argmax((scene.centred**2).sum(axis=1)))
    side = np.where(np.arange(len(scene.honest)) % 2 == 0, 1.0, -1.0)
    return scene.means, side[:, None] * scene.centred[farthest][None, :]


def drive(pull: Callable[[Scene], Base], slant: float) -> Callable[[Scene], Base]:
    """Two aims at once: all towards one far point, and the disagreement kept alive meanwhile.

    x_i + t spread_i (u cos(slant) + v_i sin(slant)): u from the first mean towards 0, the same for
    all and for ever, so the mean drifts; v_i the direction of ``pull`` (dissensus or spectral), so
    that it drifts longer: a radius of the rule shrinks with the spread. In average consensus
    stronger than either alone (docs/attacks.md). Ours; t in units of the spread.
    """

    def at(scene: Scene) -> Base:
        first = scene.honest if scene.first is None else scene.first
        toward = _units(-first.mean(axis=0, dtype=np.float64)[None, :])
        base, direction = pull(scene)
        both = math.cos(slant) * toward + math.sin(slant) * _units(direction)
        return base, scene.spread[:, None] * both

    return at


def _units(rows: Floats) -> Floats:
    """Rows of length 1; a row of zeros stays."""
    lengths = np.sqrt((rows**2).sum(axis=1, keepdims=True))
    return np.asarray(np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0))


# -- strengths


def messages(line: Line, scene: Scene) -> Vector:
    """float32[h, d]: the line's messages, of the strength that the scene's aim says."""
    base, direction = line.at(scene)
    aim = scene.aim
    if aim.kind == "fixed":
        usual = aim.value != aim.value
        t = line.usual(scene) if usual else np.full(len(base), aim.value)
        return _points(base, direction, t + line.offset)
    lengths = np.sqrt((direction**2).sum(axis=1))
    unit = np.divide(scene.spread, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    if aim.kind == "relative":
        return _points(base, direction, aim.value * unit)
    return _points(base, direction, search(scene, base, direction, unit))


def _points(base: Floats, direction: Floats, t: Floats) -> Vector:
    return np.asarray(base + t[:, None] * direction, dtype=np.float32)


def search(scene: Scene, base: Floats, direction: Floats, unit: Floats) -> Floats:
    """float64[h]: for each receiver the t >= 0 whose message harms it most, by the aim."""
    h = len(scene.honest)
    origin = scene.middle.astype(np.float64)
    points = np.concatenate([scene.honest, base, scene.target[None, :]]) - origin
    rows = np.concatenate([points, direction * unit[:, None]])
    if scene.rule.endswith(BY_COORDINATE):
        rows[: len(points)] += origin
    else:
        rows = flat(rows)
    found = np.zeros(h)
    for i, (near, _, hostile) in enumerate(scene.neighbourhoods):
        if unit[i] > 0 and hostile:
            seen = Seen(scene, i, rows[i], rows[near], rows[h + i], rows[2 * h + 1 + i])
            found[i] = unit[i] * maximise(seen.harm(rows[2 * h]))
    return found


@dataclass(frozen=True)
class Seen:
    """Receiver i with its honest neighbours and a line of messages, in any coordinates."""

    scene: Scene
    i: int
    own: Floats  # float64[r]
    honest: Floats  # float64[k', r]
    base: Floats  # float64[r]
    step: Floats  # float64[r]

    def harm(self, goal: Floats) -> Callable[[float], float]:
        """What a message base + t step does, larger is worse: the scene's aim."""
        pull = self._weighed() or self._mixed()
        off, eta = self.own - goal, self.scene.eta

        def along(t: float) -> float:
            return float(self.step @ pull(t))

        def away(t: float) -> float:
            after = off + eta * pull(t)
            return float(after @ after)

        return along if self.scene.aim.kind == "along" else away

    def _mixed(self) -> Callable[[float], Floats]:
        """The rule's pull under t: any rule."""
        scene = self.scene
        _, weights, hostile = scene.neighbourhoods[self.i]
        own = self.own.astype(np.float32)
        rows = np.concatenate([self.honest, *[self.base[None, :]] * hostile]).astype(np.float32)

        def pull(t: float) -> Floats:
            rows[len(self.honest) :] = self.base + t * self.step
            found, _ = mix(scene.rule, own, rows, weights, f=scene.f, age=scene.age)
            return found.astype(np.float64)

        return pull

    def _weighed(self) -> Callable[[float], Floats] | None:
        """The same, by the rule's own weighing of lengths, for a rule that sees nothing else."""
        scene, rule = self.scene, RULES.get(self.scene.rule)
        if rule is None or rule.weigh is None or rule.compares or scene.rule in BY_COORDINATE:
            return None
        weigh = rule.weigh
        _, weights, hostile = scene.neighbourhoods[self.i]
        z, start = self.honest - self.own, self.base - self.own
        lengths = np.sqrt((z**2).sum(axis=1))
        nothing = np.zeros((0, 0))

        def pull(t: float) -> Floats:
            message = start + t * self.step
            distances = np.concatenate([lengths, np.full(hostile, math.sqrt(message @ message))])
            told = Told(weights, scene.f, scene.age, distances, nothing, _unseen, _unseen)
            shares = weigh(told).shares
            return np.asarray(shares[: len(z)] @ z + shares[len(z) :].sum() * message)

        return pull


def _unseen(*_: int) -> float:
    raise AssertionError("a rule of lengths alone asked for more")


def maximise(harm: Callable[[float], float]) -> float:
    """The t >= 0 with the largest harm found: GRID, then golden sections around its best point.

    Against a rule that drops whoever is too far, the worst is just inside an edge: each section
    there brings it nearer by a factor of 1.6, and the last percent counts (docs/attacks.md).
    """
    tried = {t: harm(t) for t in GRID}
    place = GRID.index(max(tried, key=tried.__getitem__))
    low, high = GRID[place - 1] if place else 0.0, GRID[min(place + 1, len(GRID) - 1)]
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    tried[left], tried[right] = harm(left), harm(right)
    for _ in range(GOLDEN_STEPS):
        if tried[left] >= tried[right]:
            high, right, left = right, left, low + (1 - _GOLDEN) * (right - low)
            tried[left] = harm(left)
        else:
            low, left, right = left, right, left + _GOLDEN * (high - left)
            tried[right] = harm(right)
    return max(tried, key=tried.__getitem__)


def flat(rows: Floats) -> Floats:
    """The same points in as few coordinates as there are of them: all lengths and angles stay."""
    if rows.shape[1] <= rows.shape[0]:
        return rows
    products = rows @ rows.T
    values, vectors = np.linalg.eigh(products)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
