"""Laws of the mixing rules (SCIENCE 7) that this release ships, and controls that break them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapestry_p2p.mix.rules import distances, mix
from tapestry_p2p.mix.topology import (
    BEST_EFFORT,
    CERTIFIED,
    IMPOSSIBLE,
    certificate,
    default_tolerance,
)

seeds = st.integers(0, 2**32 - 1)
Floats = np.ndarray


def draw(seed: int, k: int, d: int = 6) -> Floats:
    random = np.random.default_rng(seed)
    return (random.standard_normal((k, d)) * random.gamma(0.5, 4, (k, 1))).astype(np.float32)


def equal_weights(k: int) -> Floats:
    return np.full(k, 1 / (k + 1))


@settings(deadline=None)
@given(seeds, st.integers(2, 12), st.integers(1, 2))
def test_split_bound_holds_for_every_split(seed: int, k: int, f: int) -> None:
    """||F - sum_S w z||^2 <= 2b sum_S w ||z||^2 for every S whose rest weighs at most b."""
    f = min(f, (k + 1) // 3)
    z, w = draw(seed, k), equal_weights(k)
    pull, _ = mix("cs_plus", list(z), w, f)
    b = f * w[0]
    for rest in np.random.default_rng(seed).permuted(np.tile(np.arange(k), (20, 1)), axis=1)[:, :f]:
        honest = np.setdiff1d(np.arange(k), rest)
        off = pull - (w[honest, None] * z[honest]).sum(0)
        bound = 2 * b * (w[honest] * (z[honest].astype(float) ** 2).sum(1)).sum()
        assert float(off @ off) <= bound * (1 + 1e-4) + 1e-9


@settings(deadline=None)
@given(seeds, st.integers(1, 12), st.integers(0, 4))
def test_radius_law(seed: int, k: int, f: int) -> None:
    """Weight strictly beyond tau < 2b <= weight at or beyond tau; tau falls as f grows."""
    z, w = draw(seed, k), equal_weights(k)
    _, report = mix("cs_plus", list(z), w, f)
    norms = distances(list(z))
    if f == 0:
        assert report.tau == np.inf
        return
    assert w[norms > report.tau].sum() < 2 * f * w[0]
    if 2 * f <= k:
        assert w[norms >= report.tau].sum() >= 2 * f * w[0] * (1 - 1e-9)
    _, tighter = mix("cs_plus", list(z), w, f + 1)
    assert tighter.tau <= report.tau


@settings(deadline=None)
@given(seeds, st.integers(2, 8), st.integers(0, 2))
def test_permutation_scale_and_rotation(seed: int, k: int, f: int) -> None:
    z, w = draw(seed, k), equal_weights(k)
    pull, _ = mix("cs_plus", list(z), w, f)
    order = np.random.default_rng(seed).permutation(k)
    np.testing.assert_allclose(mix("cs_plus", list(z[order]), w, f)[0], pull, atol=1e-4)
    np.testing.assert_allclose(mix("cs_plus", list(-3 * z), w, f)[0], -3 * pull, atol=1e-3)
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((6, 6)))[0].astype(np.float32)
    turned, _ = mix("cs_plus", list(z @ turn), w, f)
    np.testing.assert_allclose(turned, pull @ turn, atol=1e-3)


def test_agreement_is_returned_bitwise() -> None:
    pull, report = mix("cs_plus", [np.zeros(5, np.float32)] * 4, equal_weights(4), 1)
    assert not pull.any()
    assert report.coefficients == (1, 1, 1, 1)


def test_without_attackers_it_is_the_mean() -> None:
    z = draw(3, 5)
    np.testing.assert_array_equal(
        mix("cs_plus", list(z), equal_weights(5), 0)[0],
        mix("mean", list(z), equal_weights(5), 0)[0],
    )


def test_one_attacker_moves_the_mean_anywhere_but_not_cs_plus() -> None:
    z = draw(4, 6)
    far = [*z[:5], np.full(6, 1e9, np.float32)]
    bounded, report = mix("cs_plus", far, equal_weights(6), 1)
    assert np.linalg.norm(bounded) <= np.linalg.norm(z[:5], axis=1).max()
    assert report.clipped == 1
    assert report.coefficients[-1] < 1e-6
    assert np.linalg.norm(mix("mean", far, equal_weights(6), 1)[0]) > 1e8


def test_distances_survive_what_would_overflow_in_float32() -> None:
    assert distances([np.full(4, 1e38, np.float32)])[0] == pytest.approx(2e38)


@pytest.mark.parametrize(
    ("members", "f", "expected"),
    [
        (5, 0, CERTIFIED),
        (6, 1, CERTIFIED),
        (5, 1, BEST_EFFORT),
        (4, 1, BEST_EFFORT),
        (3, 1, IMPOSSIBLE),
        (11, 2, CERTIFIED),
        (10, 2, BEST_EFFORT),
        (6, 2, IMPOSSIBLE),
    ],
)
def test_certificate(members: int, f: int, expected: str) -> None:
    assert certificate(members, f) == expected
    assert certificate(members, default_tolerance(members)) == CERTIFIED
