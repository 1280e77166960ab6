"""The simulator's own task: member i pulls towards its centre c_i, f_i(x) = 1/2 ||x - c_i||^2.

The optimum of the sum over honest members is the mean of their centres, so how far a network is
from it can be measured exactly. Pure numpy, elementwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Matrix = NDArray[np.float32]


class Quadratics:
    """``count`` members with centres around a common point away from 0, in d dimensions."""

    def __init__(
        self, count: int, d: int, spread: float = 0.3, seed: int = 0, rate: float = 0.05,
        noise: float = 0.0,
    ) -> None:  # fmt: skip
        random = np.random.default_rng(seed)
        common = random.standard_normal(d)
        apart = spread * random.standard_normal((count, d))
        self.centres: Matrix = np.asarray(common + apart, dtype=np.float32)
        self.genesis: Vector = np.zeros(d, dtype=np.float32)
        self.rate = rate  # of gradient descent
        self._seed, self._noise = seed, noise  # of each piece of training, in every coordinate

    @property
    def optimum(self) -> Vector:
        """Where the sum is least: the mean of the centres, float32[d]."""
        return np.asarray(self.centres.mean(axis=0), dtype=np.float32)

    def train(self, x: Matrix, steps: int, first_step: int, who: Sequence[int]) -> Matrix:
        """Gradient descent from x float32[m, d]: exact, x - c shrinks by (1 - rate)^steps.

        With noise each result is off by a normal draw of member and step, as small batches are.
        """
        centre = self.centres[list(who)]
        keep = np.float32((1.0 - self.rate) ** steps)
        y = np.asarray(centre + keep * (x - centre), dtype=np.float32)
        if not self._noise:
            return y
        drawn = (np.random.default_rng((self._seed, n, first_step)) for n in who)
        off = np.stack([random.standard_normal(x.shape[1], np.float32) for random in drawn])
        return np.asarray(y + np.float32(self._noise) * off, dtype=np.float32)

    def evaluate(self, x: Matrix) -> dict[str, NDArray[np.float64]]:
        """Distance to the optimum, float64[m]; genesis is at 1."""
        whole = float(np.linalg.norm(self.genesis - self.optimum))
        away = np.linalg.norm(x - self.optimum, axis=1).astype(np.float64)
        return {"distance": away / whole}
