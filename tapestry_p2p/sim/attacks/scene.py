"""What an omniscient attacker sees of one synchronous round, and how receivers would answer it.

Knows the graph, all honest vectors and the receivers' rule (production code: mix/rules). Every
honest member is a receiver: a message is float32[d] for each, [h, d] in all, and all hostile
neighbours of a receiver send it the same one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tapestry_p2p.mix.rules import Report, mix
from tapestry_p2p.sim.graphs import Graph, Neighbourhood

Vector = NDArray[np.float32]

AIMS = ("away", "along", "fixed", "relative")


@dataclass(frozen=True)
class Aim:
    """How an attack with a strength t chooses it, for every receiver and round.

    away      search the t >= 0 that leaves the receiver farthest from the scene's goal
    along     search the t >= 0 that moves the receiver farthest in the attack's direction
    fixed     t = value, in the attack's own unit: FOE's epsilon, ALIE's z; nan: its usual value
    relative  t = value times the median distance between the receiver and its honest neighbours
    """

    kind: str = "away"
    value: float = float("nan")

    def __post_init__(self) -> None:
        if self.kind not in AIMS:
            raise ValueError(f"an aim is one of {', '.join(AIMS)}, not {self.kind!r}")

    def __str__(self) -> str:
        return self.kind if self.value != self.value else f"{self.kind} {self.value:g}"


@dataclass(frozen=True)
class Scene:
    """One round. h honest members; rows of ``honest`` in the order of the graph's honest ones."""

    graph: Graph
    honest: Vector  # float32[h, d], what they mix now
    rule: str
    f: int
    random: np.random.Generator
    eta: float = 1.0  # receivers move by eta * pull
    age: int = 0  # rounds so far
    genesis: Vector | None = None  # float32[d], where all began; None: 0
    first: Vector | None = None  # float32[h, d], what they mixed in the first round; None: now
    goal: Vector | None = None  # float32[d], where they ought to be; None: their mean now
    poisoned: Vector | None = None  # float32[d] or [h, d]: learned from flipped labels
    aim: Aim = Aim()
    victim: int = 0  # whom mimic copies

    def __post_init__(self) -> None:
        if len(self.honest) != int(self.graph.honest.sum()):
            raise ValueError(f"{len(self.honest)} vectors for {int(self.graph.honest.sum())}")

    @property
    def start(self) -> Vector:
        """The genesis, float32[d]."""
        return np.zeros_like(self.honest[0]) if self.genesis is None else self.genesis

    @cached_property
    def middle(self) -> Vector:
        """The honest members' mean, float32[d]."""
        return np.asarray(self.honest.mean(axis=0, dtype=np.float64), dtype=np.float32)

    @property
    def target(self) -> Vector:
        """Where the honest ought to be, float32[d]: what an attacker wants them far from."""
        return self.middle if self.goal is None else self.goal

    @cached_property
    def sight(self) -> NDArray[np.float64]:
        """float64[h, h]: row i averages over i's honest neighbours and itself."""
        near = (self.graph.honest_weights > 0) + np.eye(len(self.honest))
        return np.asarray(near / near.sum(axis=1, keepdims=True))

    @cached_property
    def centred(self) -> NDArray[np.float64]:
        """float64[h, d]: the honest less their mean, so that small spreads keep their digits."""
        return np.asarray(self.honest.astype(np.float64) - self.middle)

    @cached_property
    def means(self) -> NDArray[np.float64]:
        """float64[h, d]: the mean of each receiver's honest neighbours and itself."""
        return np.asarray(self.sight @ self.centred + self.middle)

    @cached_property
    def deviations(self) -> NDArray[np.float64]:
        """float64[h, d]: coordinate by coordinate, the standard deviation over the same."""
        squares = self.sight @ self.centred**2 - (self.sight @ self.centred) ** 2
        return np.asarray(np.sqrt(np.maximum(squares, 0.0)))

    @cached_property
    def honest_pull(self) -> NDArray[np.float64]:
        """float64[h, d]: sum_j w_ij (x_j - x_i) over honest neighbours."""
        weights = self.graph.honest_weights
        return np.asarray(weights @ self.centred - weights.sum(axis=1)[:, None] * self.centred)

    @cached_property
    def spread(self) -> NDArray[np.float64]:
        """float64[h]: the median distance from each receiver to its honest neighbours."""
        linked = self.graph.honest_weights > 0
        centred = self.centred
        squares = (centred**2).sum(axis=1)
        apart = squares[:, None] + squares[None, :] - 2 * centred @ centred.T
        distances = np.sqrt(np.maximum(apart, 0.0))
        return np.array([np.median(row[near]) if near.any() else 0.0
                         for row, near in zip(distances, linked, strict=True)])  # fmt: skip

    def respond(self, receiver: int, message: Vector) -> tuple[Vector, Report]:
        """The receiver's next vector float32[d] if all its hostile neighbours send ``message``."""
        near, weights, hostile = self.neighbourhoods[receiver]
        rows = np.concatenate([self.honest[near], np.tile(message, (hostile, 1))])
        return self.answer(self.honest[receiver], rows, weights)

    def answer(
        self, own: Vector, rows: Vector, weights: NDArray[np.float64]
    ) -> tuple[Vector, Report]:
        """Where ``own`` float32[d] goes by the rule, with neighbours ``rows`` float32[k, d]."""
        pull, report = mix(self.rule, own, rows, weights, f=self.f, age=self.age)
        return own + np.float32(self.eta) * pull, report

    @property
    def neighbourhoods(self) -> list[Neighbourhood]:
        """Of each receiver."""
        return self.graph.neighbourhoods

    def mixed(self, messages: Vector) -> Vector:
        """Everybody's next vector, float32[h, d], under ``messages`` float32[h, d]."""
        return np.stack([self.respond(i, m)[0] for i, m in enumerate(messages)])

    def then(self, honest: Vector) -> Scene:
        """The next round's scene; ``first`` is kept, ``age`` grows."""
        first = self.honest if self.first is None else self.first
        return replace(self, honest=honest, first=first, age=self.age + 1)
