"""What members learn, and when it is computed: together wherever their work overlaps in time.

Knows a Learner by its methods alone, so that sim/ needs no JAX: quadratics.py has one, and
learn/crowd.py another. A member begins a piece of work and takes the result later; whatever others
began meanwhile is computed in the same call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Matrix = NDArray[np.float32]


class Learner(Protocol):
    """The honest members' tasks. Each keeps its optimizer and its place in the data, by row."""

    genesis: Vector  # float32[d]

    def train(self, x: Matrix, steps: int, first_step: int, who: Sequence[int]) -> Matrix:
        """``steps`` inner steps from x float32[m, d] for the ``m`` members ``who``."""
        ...

    def evaluate(self, x: Matrix) -> dict[str, NDArray[np.float64]]:
        """Named measures, float64[m] each, of the models x float32[m, d]."""
        ...


class Training:
    """Work in hand."""

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self.calls = self.pieces = 0
        self._begun: dict[int, tuple[Vector, int, int]] = {}
        self._done: dict[int, Vector] = {}

    def begin(self, member: int, x: Vector, steps: int, first_step: int) -> None:
        """The member goes on from x float32[d]. Work of its former life is dropped."""
        self._done.pop(member, None)
        self._begun[member] = (x, steps, first_step)

    def take(self, member: int) -> Vector:
        """The result, float32[d]."""
        if member in self._begun:
            self._compute(*self._begun[member][1:])
        return self._done.pop(member)

    def _compute(self, steps: int, first_step: int) -> None:
        """All pieces of that length and place in the schedule at once."""
        alike = (steps, first_step)
        who = sorted(member for member, work in self._begun.items() if work[1:] == alike)
        x = np.stack([self._begun.pop(member)[0] for member in who])
        results = self.learner.train(x, steps, first_step, who)
        self._done.update(zip(who, results, strict=True))
        self.calls += 1
        self.pieces += len(who)
