"""Rounds of the Loom with each codec: members agree at the largest gamma that the codec allows."""

import numpy as np
import pytest

from tapestry_p2p.mix.codec import CODECS, gamma_max
from tapestry_p2p.mix.copy import PublicCopy
from tapestry_p2p.mix.loom import Loom, LoomSettings

MEMBERS, D = 8, 4096


def spread_and_error(codec: str, gamma: float, rounds: int) -> tuple[float, float]:
    """Members' distance from their mean, and the mean's from the optimum, both in its lengths.

    Synchronous, everyone with everyone, on f_i = 1/2 sum_k l_k (x_k - c_ik)^2 with l in .03 .. 1.
    """
    rng = np.random.default_rng(0)
    curvature = (10 ** rng.uniform(-1.5, 0, D)).astype(np.float32)
    centres = (rng.standard_normal((MEMBERS, D)) + 3).astype(np.float32)
    zero = np.zeros(D, np.float32)
    settings = LoomSettings(codec=codec, gamma=gamma)
    looms = [Loom[int](settings, zero, PublicCopy(zero)) for _ in range(MEMBERS)]
    for step in range(rounds):
        ys = []
        for i, loom in enumerate(looms):
            # ten steps of gradient descent at .05
            y = centres[i] + (1 - np.float32(0.05) * curvature) ** 10 * (loom.x - centres[i])
            loom.published(loom.difference(y), y)
            ys.append(y)
        for i, loom in enumerate(looms):
            for j in range(MEMBERS):
                if j != i:
                    loom.arrived(j, step)
                    loom.decoded(j, step)
        copies = {j: loom.own.vector.copy() for j, loom in enumerate(looms)}
        for i, loom in enumerate(looms):
            others = {j: copy for j, copy in copies.items() if j != i}
            loom.mixed(loom.mix(ys[i], others, MEMBERS - 1))
    xs = np.stack([loom.x for loom in looms]).astype(np.float64)
    mean, best = xs.mean(0), centres.mean(0)
    length = np.linalg.norm(best)
    spread = np.linalg.norm(xs - mean) / MEMBERS**0.5
    return float(spread / length), float(np.linalg.norm(mean - best) / length)


@pytest.mark.parametrize("codec", CODECS)
def test_members_come_to_the_optimum(codec: str) -> None:
    spread, error = spread_and_error(codec, gamma_max(codec), 150)
    assert error < 0.05
    assert spread < (0.2 if gamma_max(codec) < 1 else 0.01)


def test_top_k_runs_away_from_its_copies_at_a_larger_gamma() -> None:
    """The control: why the manifest refuses it."""
    early, _ = spread_and_error("topk", 0.5, 75)
    late, _ = spread_and_error("topk", 0.5, 225)
    assert late > 2 * early
