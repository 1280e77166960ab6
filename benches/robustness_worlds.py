"""Learning under attack, synchronous: everybody trains, everybody mixes, attackers know everything.

Knows one run: a graph, a crowd of learners, an arm (rule and what stands around it) and an attack.
Rules, attacks, graphs and learners are the production ones; nothing of tables or files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapestry_p2p.learn.crowd import Crowd
from tapestry_p2p.mix.rules import mix
from tapestry_p2p.mix.settling import KAPPA, restless, settles
from tapestry_p2p.sim.attacks import ATTACKS, Aim, Scene
from tapestry_p2p.sim.graphs import Graph

Matrix = NDArray[np.float32]  # [honest members, d]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Arm:
    """A rule and what stands around it. The name is the table's row."""

    name: str
    rule: str
    settle_every: int = 0  # 0: never
    kappa: float = KAPPA
    f: int = 0  # 0: the number of Byzantine members; else what the members believe
    local_steps: int = 1  # between two mixings
    mixings: int = 1  # between two trainings
    momentum: float = 0.0  # of every member's gradients
    judge: str = ""  # a name of JUDGES: whom else a member leaves out, every round


@dataclass(frozen=True)
class Hearing:
    """What one member has before it mixes: all neighbours' vectors, hostile ones last."""

    own: Matrix  # float32[d]
    rows: list[Matrix]  # k of float32[d]
    weights: NDArray[np.float64]
    step: Matrix  # float32[d]: what this round's training did


# ---- ideas that leave neighbours out by what one round, or many, have shown -------------------


class OwnTraining:
    """Leaves out the f neighbours whose pull undoes most of what one's own training did.

    -<step, z_j>: to first order what following j costs on one's own data, over the learning rate.
    """

    def __init__(self, f: int) -> None:
        self._f = f

    def __call__(self, hearing: Hearing) -> Mask:
        """Whom to leave out, bool[k]."""
        harm = -((np.stack(hearing.rows) - hearing.own) @ hearing.step)
        out = np.zeros(len(harm), bool)
        out[np.argsort(-harm, kind="stable")[: self._f]] = True
        return out


class AlwaysFar:
    """Leaves out the f neighbours that were most often at or beyond tau, a fading count of rounds.

    Reputation: a point a round among the 2f farthest, fading by 2 % a round.
    """

    def __init__(self, f: int) -> None:
        self._f = f
        self._points = np.zeros(0)

    def __call__(self, hearing: Hearing) -> Mask:
        """Whom to leave out, bool[k]."""
        apart = np.linalg.norm(np.stack(hearing.rows) - hearing.own, axis=1)
        if len(self._points) != len(apart):
            self._points = np.zeros(len(apart))
        self._points *= 0.98
        self._points[np.argsort(-apart, kind="stable")[: 2 * self._f]] += 1.0
        out = np.zeros(len(apart), bool)
        out[np.argsort(-self._points, kind="stable")[: self._f]] = True
        return out


class RunningDirection:
    """Leaves out the f neighbours whose clipped part, averaged over rounds, points most one way.

    r_j = ||EMA of z_j|| / EMA of ||z_j||, fading by 5 % a round: 1 for who always pulls alike.
    """

    def __init__(self, f: int) -> None:
        self._f = f
        self._mean: NDArray[np.float32] | None = None
        self._length = np.zeros(0)

    def __call__(self, hearing: Hearing) -> Mask:
        """Whom to leave out, bool[k]."""
        z = np.stack(hearing.rows) - hearing.own
        length = np.linalg.norm(z, axis=1)
        if self._mean is None:
            self._mean, self._length = np.zeros_like(z), np.zeros_like(length)
        self._mean = np.float32(0.95) * self._mean + np.float32(0.05) * z
        self._length = 0.95 * self._length + 0.05 * length
        same = np.linalg.norm(self._mean, axis=1) / np.maximum(self._length, 1e-30)
        out = np.zeros(len(same), bool)
        out[np.argsort(-same, kind="stable")[: self._f]] = True
        return out


JUDGES: dict[str, Callable[[int], Callable[[Hearing], Mask]]] = {
    "own training": OwnTraining,
    "always far": AlwaysFar,
    "running direction": RunningDirection,
}


# ---- one run ---------------------------------------------------------------------------------


class Neighbourhoods:
    """All honest members' mixing: the rule, on the neighbours that nobody left out."""

    def __init__(self, arm: Arm, members: int, f: int) -> None:
        self._arm = arm
        self._left_out: list[Mask | None] = [None] * members
        self._judges = [JUDGES[arm.judge](f) if arm.judge else None for _ in range(members)]

    def mixed(self, scene: Scene, messages: Matrix, steps: Matrix) -> Matrix:
        """Everybody's next vector float32[h, d]."""
        return np.stack(
            [self._one(scene, i, self._heard(scene, i, messages, steps)) for i in range(len(steps))]
        )

    def settled(self, scene: Scene, messages: Matrix) -> Matrix:
        """The same in a settling round, after deciding anew whom to leave out until the next."""
        still = np.zeros_like(messages)
        for i in range(len(messages)):
            hearing = self._heard(scene, i, messages, still)
            _, report = mix(scene.rule, hearing.own, hearing.rows, hearing.weights, f=scene.f)
            apart = np.array(report.distances)
            self._left_out[i] = restless(apart, hearing.weights, scene.f, self._arm.kappa)
        return self.mixed(scene, messages, still)

    def left_out(self, hostile: Sequence[int]) -> tuple[int, int]:
        """How many hostile (they stand last) and how many honest neighbours are left out now."""
        bad = good = 0
        for mask, count in zip(self._left_out, hostile, strict=True):
            if mask is not None:
                bad += int(mask[len(mask) - count :].sum())
                good += int(mask[: len(mask) - count].sum())
        return bad, good

    def _heard(self, scene: Scene, i: int, messages: Matrix, steps: Matrix) -> Hearing:
        near, weights, hostile = scene.neighbourhoods[i]
        rows = [*(scene.honest[j] for j in near), *[messages[i]] * hostile]
        return Hearing(scene.honest[i], rows, weights, steps[i])

    def _one(self, scene: Scene, i: int, hearing: Hearing) -> Matrix:
        mask, judge = self._left_out[i], self._judges[i]
        if judge is not None and hearing.step.any():
            mask = judge(hearing)
        kept = np.flatnonzero(~mask) if mask is not None else range(len(hearing.rows))
        rows = [hearing.rows[j] for j in kept]
        pull, _ = mix(
            scene.rule, hearing.own, rows, hearing.weights[kept], f=scene.f, age=scene.age
        )
        return hearing.own + np.float32(scene.eta) * pull


@dataclass(frozen=True)
class Outcome:
    """Held-out accuracy of the honest members, in percent."""

    mean: float
    worst: float
    left_out: tuple[int, int] = (0, 0)  # hostile, honest: links left out at the end


def learn(
    crowd: Crowd,
    x: Matrix,
    graph: Graph,
    arm: Arm,
    attack: str,
    *,
    f: int,
    iterations: int,
    seed: int,
    hides: bool = False,
) -> Outcome:
    """D-SGD with a robust rule: ``iterations`` inner steps of every member, a mixing after each.

    crowd     one learner for each row of x float32[h, d], where they start
    attack    a name of ATTACKS, of the strength its paper uses, or none: nobody hostile is there
    hides     in settling rounds the hostile members send the honest mean in place of the attack
    """
    crowd.rewind()
    graph = graph if attack != "none" else deserted(graph)
    random = np.random.default_rng(seed)
    scene = Scene(graph, x, arm.rule, f, random, aim=Aim("fixed"))
    everyone = Neighbourhoods(arm, len(x), f)
    for round_ in range(1, iterations // arm.local_steps + 1):
        y = crowd.train(x, arm.local_steps, (round_ - 1) * arm.local_steps)
        step, x = y - x, y
        for _ in range(arm.mixings):
            scene = scene.then(x)
            x = everyone.mixed(scene, _messages(scene, attack), step)
        if settles(round_, arm.settle_every):
            still = replace(scene, honest=x)
            told = still.means.astype(np.float32) if hides else _messages(still, attack)
            x = everyone.settled(still, told)
    found: Any = crowd.evaluate(x)["accuracy"] * 100
    counts = graph.byzantine_count.tolist()
    return Outcome(float(found.mean()), float(found.min()), everyone.left_out(counts))


def deserted(graph: Graph) -> Graph:
    """The same graph with hostile members absent: their weight stays with each honest one."""
    inside = np.outer(graph.honest, graph.honest)
    return Graph(np.where(inside, graph.weights, 0.0), graph.honest, graph.name)


def _messages(scene: Scene, attack: str) -> Matrix:
    return scene.honest if attack == "none" else ATTACKS[attack].messages(scene)
