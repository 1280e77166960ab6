"""Settling rounds: who is left out, what that costs in the bound, and what it is for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tapestry_p2p.mix.rules import RULES, mix
from tapestry_p2p.mix.settling import KAPPA, restless, settles

Floats = NDArray[np.float64]


def equal(k: int) -> Floats:
    return np.full(k, 1 / (k + 1))


def test_the_first_and_every_tenth_round_settle_or_none() -> None:
    assert [r for r in range(1, 31) if settles(r, 10)] == [1, 10, 20, 30]
    assert not any(settles(r, 0) for r in range(1, 31))


@pytest.mark.parametrize(
    ("distances", "f", "out"),
    [
        ((1, 1, 1, 1, 9), 1, [4]),
        ((1, 1, 1, 1, 1.9), 1, []),  # within kappa tau
        ((1, 1, 9, 1, 8), 1, []),  # two are far: tau, the second largest, is far as well
        ((1, 1, 9, 1, 1, 1, 8), 2, [2, 6]),
        ((1, 1, 9, 1, 1, 1, 8), 0, []),
        ((1, 1, 1, 1, np.inf), 1, [4]),  # a bad one
        ((9,), 1, []),  # too few to tell
    ],
)
def test_who_is_left_out_by_hand(distances: tuple[float, ...], f: int, out: list[int]) -> None:
    found = restless(np.array(distances, float), equal(len(distances)), f)
    assert np.flatnonzero(found).tolist() == out


def test_weights_count_and_not_heads() -> None:
    distances = np.array([1.0, 1, 1, 1, 1, 9, 9])
    light = np.array([0.1, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05])
    assert restless(distances, light, 1)[5:].tolist() == [True, True]  # b = .1
    even = np.full(7, 0.1)
    assert restless(distances, even, 1).sum() == 0  # 2b is reached by the far ones: tau = 9


@st.composite
def neighbourhoods(draw: st.DrawFn) -> tuple[NDArray[np.float32], Floats, int, int]:
    """Vectors float32[k, d] seen from 0, weights, f, a seed."""
    k, d = draw(st.integers(4, 12)), draw(st.integers(1, 4))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = 10.0 ** random.uniform(-2, 2, (k, 1))
    rows = (scale * random.standard_normal((k, d))).astype(np.float32)
    weights = random.uniform(0.5, 1, k) if draw(st.booleans()) else np.ones(k)
    f = draw(st.integers(0, (k - 1) // 3))
    return rows, np.asarray(weights / (weights.sum() + 1)), f, int(random.integers(2**32))


@pytest.mark.parametrize("rule", ["cs_plus", "cs_plus_h", "gts"])
@given(case=neighbourhoods())
def test_leaving_out_b_adds_one_to_rho_for_every_split(
    rule: str, case: tuple[NDArray[np.float32], Floats, int, int]
) -> None:
    """||pull - sum_S w z||^2 <= (rho + 1) b sum_S w ||z||^2, whoever was judged when."""
    rows, weights, f, seed = case
    random = np.random.default_rng(seed)
    then = random.permutation(np.linalg.norm(rows, axis=1))  # the distances of another round
    kept = ~restless(then, weights, f, kappa=float(random.uniform(0.5, 4)))
    b = f * weights.max()
    assert weights[~kept].sum() <= b * (1 + 1e-9)
    pull, _ = mix(rule, np.zeros(rows.shape[1], np.float32), rows[kept], weights[kept], f=f)
    hostile = random.permutation(len(rows))[: random.integers(0, f + 1)]
    honest = np.setdiff1d(np.arange(len(rows)), hostile)
    error = pull - weights[honest] @ rows[honest].astype(np.float64)
    power = float(weights[honest] @ (rows[honest].astype(np.float64) ** 2).sum(axis=1))
    rho = RULES[rule].rho
    assert rho is not None
    assert float(error @ error) <= (rho + 1) * b * power + 1e-5 * power


def trapped(every: int, hides: bool = False, rounds: int = 150) -> float:
    """How far ten members end from what they would learn undisturbed, 1: they learned nothing.

    Member i draws to c + 40 e_i with a rate .9/sqrt(t+1); two hostile ones send minus the mean.
    All-to-all; ``every``: settling; ``hides``: the hostile ones then send the mean itself.
    """
    goal = np.zeros(14)
    goal[10:] = 3.0
    drawn = goal + np.concatenate([40 * np.eye(10), np.zeros((10, 4))], axis=1)
    x = np.zeros((10, 14), np.float32)
    left_out = np.zeros((10, 11), bool)
    weights = np.full(11, 1 / 12)

    def mixed(x: NDArray[np.float32], lie: Floats, judge: bool) -> NDArray[np.float32]:
        after = np.empty_like(x)
        for i in range(10):
            rows = np.stack([*np.delete(x, i, 0), lie, lie]).astype(np.float32)
            if judge:
                apart = np.linalg.norm(rows - x[i], axis=1)
                left_out[i] = restless(apart, weights, 2)
            kept = ~left_out[i]
            pull, _ = mix("cs_plus", x[i], rows[kept], weights[kept], f=2)
            after[i] = x[i] + pull
        return after

    for t in range(1, rounds + 1):
        x = x + np.float32(0.01 / t**0.5) * (drawn - x).astype(np.float32)
        x = mixed(x, -x.mean(axis=0), judge=False)
        if settles(t, every):
            x = mixed(x, (1.0 if hides else -1.0) * x.mean(axis=0), judge=True)
    return float(np.linalg.norm(x.mean(axis=0)[10:] - goal[10:]) / np.linalg.norm(goal[10:]))


def test_settling_frees_members_from_who_holds_them_at_the_start() -> None:
    """The trap that it is for: each alone pulls 40 one way, together they pull 6 another."""
    assert trapped(every=0) > 0.93
    assert trapped(every=10) < 0.85
    assert trapped(every=10, hides=True) > 0.93  # what it does not do: the rule alone remains


def test_kappa_spares_honest_members_of_very_different_data() -> None:
    """Settled honest members differ in distance by less than kappa: nobody honest is left out."""
    random = np.random.default_rng(0)
    apart = np.abs(random.normal(1, 0.2, (200, 11)))
    assert KAPPA == 2.0
    assert not any(restless(row, equal(11), 2).any() for row in apart)
