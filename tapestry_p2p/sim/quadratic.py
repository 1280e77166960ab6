"""The simulator's task: member i pulls towards its own centre c_i, f_i(x) = 1/2 ||x - c_i||^2.

The optimum of the sum over honest members is the mean of their centres, so how far a network is
from it can be measured exactly. Pure numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Quadratic:
    """One member's task: ``inner_steps`` steps of gradient descent a round."""

    centre: Vector  # float32[d]
    rate: float = 0.05
    inner_steps: int = 4

    def train(self, x: Vector) -> Vector:
        """One round from x float32[d]: exact, x - c shrinks by (1 - rate)^inner_steps."""
        keep = np.float32((1.0 - self.rate) ** self.inner_steps)
        return np.asarray(self.centre + keep * (x - self.centre), dtype=np.float32)


def centres(count: int, d: int, spread: float, seed: int) -> list[Vector]:
    """``count`` centres around a common point away from 0, float32[d] each."""
    random = np.random.default_rng(seed)
    common = random.standard_normal(d)
    return [
        np.asarray(common + spread * random.standard_normal(d), dtype=np.float32)
        for _ in range(count)
    ]
