"""The methods that benches/loom.py compares the Loom with: what a round makes of what was trained.

Rule: members' vectors in, members' vectors out, float32[members, d], everybody at the same time.
Each follows its paper; where a paper leaves a number open, the bench tries some, the best counts.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tapestry_p2p.mix.codec import decode, encode, payload_bytes

LINKS = (1, 4)  # of the gossip methods: member i with i ± these, round a ring; four links each

Matrix = NDArray[np.float32]  # [members, d]
Vector = NDArray[np.float32]  # [d]


class Rival(Protocol):
    """One run of a method."""

    bytes: float  # of one message, per parameter and round

    def round(self, y: Matrix) -> Matrix:
        """What members go on from, after they trained their own x to y."""
        ...


class DiLoCo:
    """Douillard et al. 2023: Nesterov's method on the mean of all members' steps, one model.

    step = mean(y) - x;  v = mu v + step;  x += lr (step + mu v). mu = 0, lr = 1: FedAvg.
    """

    bytes = 4.0

    def __init__(self, x: Matrix, lr: float, mu: float) -> None:
        self._x, self._v = x[0], np.zeros_like(x[0])
        self._lr, self._mu, self._n = np.float32(lr), np.float32(mu), len(x)

    def round(self, y: Matrix) -> Matrix:
        """One all-reduce."""
        step = y.mean(axis=0) - self._x
        self._v = self._mu * self._v + step
        self._x = self._x + self._lr * (step + self._mu * self._v)
        return np.repeat(self._x[None], self._n, axis=0)


class Gossip:
    """GASLoC (Cagnasso, Belilovsky, Oyallon 2026): gossip with momentum on what was trained.

    y' = x + eta (y - x);  x = W y' + mu (y' - y'_prev); W: weights 1/5 to four neighbours and to
    itself. mu = 0, eta = 1: D-PSGD (Lian et al. 2017) with a mixing each H steps.
    """

    bytes = 4.0

    def __init__(self, x: Matrix, eta: float, mu: float) -> None:
        self._x, self._before = x, x
        self._eta, self._mu = np.float32(eta), np.float32(mu)

    def round(self, y: Matrix) -> Matrix:
        """Everyone hears its four neighbours."""
        y = self._x + self._eta * (y - self._x)
        shifts = [0, *LINKS, *(-link for link in LINKS)]
        heard = [np.roll(y, shift, axis=0) for shift in shifts]
        mixed: Matrix = np.mean(heard, axis=0, dtype=np.float32)
        self._x = mixed + self._mu * (y - self._before)
        self._before = y
        return self._x


class NoLoCo:
    """Kolehmainen et al. 2025 (2506.10911): every round a new partner; two vectors travel.

    v = alpha v + beta mean(y - x) - gamma (x - mean(x)), means over the pair;  x += v.
    """

    bytes = 8.0

    def __init__(self, x: Matrix, seed: int, alpha: float, beta: float, gamma: float = 1.0) -> None:
        self._x, self._v = x, np.zeros_like(x)
        self._random = np.random.default_rng([seed, 71])
        self._alpha, self._beta = np.float32(alpha), np.float32(beta)
        self._gamma = np.float32(gamma)

    def round(self, y: Matrix) -> Matrix:
        """Pairs drawn by chance."""
        order = self._random.permutation(len(y))
        partner = np.empty_like(order)
        partner[order] = order.reshape(-1, 2)[:, ::-1].ravel()
        steps = y - self._x
        x = self._x
        pull = self._gamma * (x - x[partner]) * np.float32(0.5)
        self._v = (
            self._alpha * self._v + self._beta * (steps + steps[partner]) * np.float32(0.5) - pull
        )
        self._x = x + self._v
        return self._x


class SparseLoCo:
    """Sarfi et al. 2025 (2508.15706): all gather everyone's largest entries, with error feedback.

    e = beta e + (y - x);  q = C(e);  e -= q;  x += lr mean(q); C: our top-k code, 1/64 of entries.
    """

    def __init__(self, x: Matrix, lr: float, beta: float) -> None:
        self._x, self._error = x[0], np.zeros_like(x)
        self._lr, self._beta = np.float32(lr), np.float32(beta)
        self.bytes = payload_bytes("topk", x.shape[1]) / x.shape[1]

    def round(self, y: Matrix) -> Matrix:
        """Everyone sends its code to all."""
        members, d = y.shape
        total = np.zeros(d, np.float32)
        for row, own in zip(self._error, y, strict=True):
            row *= self._beta
            row += own - self._x
            coded = decode("topk", encode("topk", row), d)
            row -= coded
            total += coded
        self._x = self._x + self._lr * total / np.float32(members)
        return np.repeat(self._x[None], members, axis=0)
