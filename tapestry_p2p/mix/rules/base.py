"""What a rule is told and what it answers: shapes only, no rule.

Everything is seen from the member itself: its own vector is 0 and neighbour j stands at
z_j = x_j - own (or x_j - base_j for a view that is not of now), float32[d]. A *weighing* rule
answers with one effective weight for each neighbour, so its pull is sum_j e_j z_j; it sees lengths
and inner products of the z_j, never their coordinates. A *coordinate* rule works on columns.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Vectors = Sequence[Vector] | NDArray[np.float32]  # k of them, or the rows of one float32[k, d]
Weights = NDArray[np.float64]

# A neighbour farther away than this is bad, and so absent: squares up to here fit float32.
DISTANCE_MAX = 1e18
NOWHERE = float("inf")  # the radius of a rule that has none


@dataclass(frozen=True, slots=True)
class Report:
    """What a rule did, one number for each neighbour as given.

    tau             the rule's radius, in units of the vectors; inf if it has none
    coefficients    [0, 1]: how much of z_j was taken; 0 for a bad neighbour; 1 for each under a
                    coordinate rule, which has none
    distances       ||z_j||; inf for a bad neighbour (not finite, or farther than DISTANCE_MAX)
    shares          e_j >= 0: the pull is sum_j e_j z_j; empty for a coordinate rule
    clipped_weight  summed weight of the neighbours, bad ones apart, with a coefficient below 1
    certificate     as handed in: what the topology promises (mix/topology.py)
    """

    tau: float
    coefficients: tuple[float, ...]
    distances: tuple[float, ...]
    shares: tuple[float, ...]
    clipped_weight: float
    certificate: str = ""

    @property
    def clipped(self) -> int:
        """How many neighbours were shortened or left out."""
        return sum(c < 1 for c in self.coefficients)


@dataclass(frozen=True, slots=True)
class Scene:
    """What a weighing rule may look at: k >= 1 neighbours, none of them bad."""

    weights: Weights  # float64[k], each > 0, sum < 1
    f: int
    age: int  # the member's own rounds, for a rule with a schedule
    distances: Weights  # float64[k], ||z_j||
    products: Weights  # float64[k, k], <z_i, z_j>; empty unless the rule asked for them
    own_norm: Callable[[], float]  # ||own||, for a rule that is not translation equivariant
    between: Callable[[int, int], float]  # ||z_i - z_j||^2, measured directly

    @property
    def b(self) -> float:
        """The Byzantine weight that is tolerated: f * max w."""
        return self.f * float(self.weights.max())

    @property
    def own_weight(self) -> float:
        """What the neighbours' weights leave to the member itself; an absent one's goes here."""
        return max(0.0, 1.0 - float(self.weights.sum()))


@dataclass(frozen=True, slots=True)
class Weighing:
    """A weighing rule's answer."""

    shares: Weights  # float64[k], e_j
    coefficients: Weights  # float64[k] in [0, 1]
    tau: float = NOWHERE


class Weigh(Protocol):
    """A weighing rule."""

    def __call__(self, scene: Scene, /) -> Weighing: ...


class Reduce(Protocol):
    """A coordinate rule on one block of columns: ``rows`` float32[k, c] is scratch, ``out[c]``."""

    def __call__(self, rows: Vector, weights: Weights, f: int, out: Vector, /) -> None: ...


# `map`, or a thread pool's: run jobs, results in order. mix/ owns no threads.
Each = Callable[[Callable[[int], object], Iterable[int]], Iterable[object]]
