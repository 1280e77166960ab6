"""The digits model and data in plain numpy, for every rival of benches/endtoend.py alike.

Imports numpy alone: it runs in other programs' environments. The same perceptron 64-32-10 and the
same AdamW (rate .01 after ten steps, decay .01) as the task `digits`, batches of 32.
"""

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
SHAPES = ((64, 32), (32,), (32, 10), (10,))
PIXELS, BATCH, RATE, WARMUP, DECAY = 64, 32, 0.01, 10, 0.01
TARGET = 0.95


def read(path: str) -> Vector:
    """float32[n, 65]: pixels of 0..16, then the digit."""
    return np.loadtxt(Path(path), delimiter=",", dtype=np.float32)


class Learner:
    """One member's model, moments and records."""

    def __init__(self, records: Vector, seed: int) -> None:
        first = np.random.default_rng(1)  # everyone starts at one point
        self.leaves = [
            ((first.random(shape, np.float32) - 0.5) * np.sqrt(12 / shape[0])).astype(np.float32)
            if len(shape) == 2
            else np.zeros(shape, np.float32)
            for shape in SHAPES
        ]
        self._records, self._random = records, np.random.default_rng(seed)
        self._moments = [(np.zeros_like(leaf), np.zeros_like(leaf)) for leaf in self.leaves]
        self._step = 0

    @property
    def vector(self) -> Vector:
        """All parameters, float32[2410]."""
        return np.concatenate([leaf.ravel() for leaf in self.leaves])

    @vector.setter
    def vector(self, vector: Vector) -> None:
        at = 0
        for leaf in self.leaves:
            leaf[...] = vector[at : at + leaf.size].reshape(leaf.shape)
            at += leaf.size

    def train(self, steps: int) -> None:
        """So many steps of AdamW on the mean cross-entropy of a batch."""
        for _ in range(steps):
            rows = self._records[self._random.integers(0, len(self._records), BATCH)]
            self._descend(self._gradients(rows))

    def _gradients(self, rows: Vector) -> list[Vector]:
        x, classes = rows[:, :PIXELS] / np.float32(16), rows[:, PIXELS].astype(int)
        hidden_w, hidden_b, out_w, out_b = self.leaves
        hidden = np.maximum(x @ hidden_w + hidden_b, 0)
        scores = hidden @ out_w + out_b
        scores = np.exp(scores - scores.max(1, keepdims=True))
        share = scores / scores.sum(1, keepdims=True)
        share[np.arange(len(rows)), classes] -= 1
        share /= len(rows)
        back = (share @ out_w.T) * (hidden > 0)
        return [x.T @ back, back.sum(0), hidden.T @ share, share.sum(0)]

    def _descend(self, gradients: list[Vector]) -> None:
        self._step += 1
        rate = RATE * min(1.0, self._step / WARMUP)
        for leaf, gradient, (mean, square) in zip(
            self.leaves, gradients, self._moments, strict=True
        ):
            mean += 0.1 * (gradient - mean)
            square += 0.001 * (gradient * gradient - square)
            unit = mean / (1 - 0.9**self._step)
            unit /= np.sqrt(square / (1 - 0.999**self._step)) + 1e-8
            leaf -= (rate * (unit + DECAY * leaf)).astype(np.float32)

    def accuracy(self, records: Vector) -> float:
        """The share of pictures named rightly."""
        hidden_w, hidden_b, out_w, out_b = self.leaves
        hidden = np.maximum(records[:, :PIXELS] / np.float32(16) @ hidden_w + hidden_b, 0)
        named = (hidden @ out_w + out_b).argmax(1)
        return float((named == records[:, PIXELS]).mean())


def now() -> float:
    """Seconds on the clock that all processes of a machine share."""
    return time.monotonic()
