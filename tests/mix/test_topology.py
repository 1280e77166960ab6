"""Certificates: exact all-to-all, computed for declared graphs, else estimated."""

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapestry_p2p.mix.topology import (
    BEST_EFFORT,
    CERTIFIED,
    IMPOSSIBLE,
    certificate,
    certificate_of,
    chance_overfull,
    default_tolerance,
    eigenvalues,
    estimate,
    word,
)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 24), st.integers(0, 7))
def test_the_formula_for_all_to_all_is_what_the_eigenvalues_say(members: int, f: int) -> None:
    if f >= members:
        assert certificate(members, f) == IMPOSSIBLE
        return
    weights = (1.0 - np.eye(members)) / members
    honest = np.arange(members) < members - f
    if honest.sum() > 1:
        assert certificate_of(weights, honest, f / members) == certificate(members, f)


def test_default_tolerance_is_the_last_certified() -> None:
    for members in range(1, 60):
        f = default_tolerance(members)
        assert certificate(members, f) == CERTIFIED
        assert certificate(members, f + 1) != CERTIFIED


def test_equality_is_not_inequality_and_scale_does_not_matter() -> None:
    assert [word(4.0, 1.0), word(4.01, 1.0), word(2.0, 1.0), word(2.01, 1.0)] == [
        BEST_EFFORT, CERTIFIED, IMPOSSIBLE, BEST_EFFORT,
    ]  # fmt: skip
    assert word(0.0, 0.0) == IMPOSSIBLE, "a graph in two pieces agrees on nothing"
    assert word(0.01, 0.0) == CERTIFIED


def test_two_pieces_and_one_member() -> None:
    apart = np.zeros((4, 4))
    apart[0, 1] = apart[1, 0] = apart[2, 3] = apart[3, 2] = 0.5
    assert certificate_of(apart, np.ones(4, bool), 0.0) == IMPOSSIBLE
    assert certificate_of(apart, np.arange(4) == 0, 1.0) == CERTIFIED


def test_eigenvalues_of_a_path_and_of_what_is_no_graph() -> None:
    path = np.array([[0.0, 1, 0], [1, 5.0, 1], [0, 1, 0]])  # what stands on the diagonal is self
    np.testing.assert_allclose(eigenvalues(path), [0, 1, 3], atol=1e-12)
    for wrong in (np.triu(np.ones((3, 3))), -np.ones((2, 2)), np.full((2, 2), np.nan)):
        with pytest.raises(ValueError, match="weights must be"):
            eigenvalues(wrong)


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 200), st.data())
def test_an_estimate_never_certifies(members: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, members - 1))
    f = data.draw(st.integers(0, 5))
    share = data.draw(st.floats(0, 0.9))
    found = estimate(members, k, f, share)
    assert found.word in (BEST_EFFORT, IMPOSSIBLE)
    assert 0 <= found.chance <= found.chance_any <= 1
    assert found.hostile < members
    if found.hostile <= f:
        assert found.chance == 0
    assert estimate(members, k, f + 1, share).chance <= found.chance


def test_chances_against_counting_and_drawing() -> None:
    assert chance_overfull(10, 3, 0, 2) == pytest.approx(1 - comb(7, 3) / comb(9, 3))
    assert chance_overfull(10, 9, 1, 2) == 1
    random = np.random.default_rng(0)
    hostile = np.arange(99) < 5
    drawn = random.permuted(np.tile(hostile, (20_000, 1)), axis=1)[:, :16].sum(axis=1)
    assert chance_overfull(100, 16, 1, 5) == pytest.approx((drawn > 1).mean(), abs=0.01)


def test_estimates_of_the_networks_in_question() -> None:
    assert estimate(24, 6, 1).word == IMPOSSIBLE, "6-regular graphs carry no hostile neighbour"
    sparse = estimate(100, 16, 1)
    assert sparse.word == BEST_EFFORT
    assert sparse.mu2 > 4
    assert sparse.hostile == 5
    assert 0.15 < sparse.chance < 0.2
    assert estimate(100, 16, 1, 0.01).chance == 0


@pytest.mark.parametrize("wrong", [(1, 1, 0, 0.1), (5, 5, 1, 0.1), (5, 2, -1, 0.1), (5, 2, 1, 1.0)])
def test_what_cannot_be_estimated_is_refused(wrong: tuple[int, int, int, float]) -> None:
    with pytest.raises(ValueError, match="must hold"):
        estimate(*wrong)
    with pytest.raises(ValueError, match="must be"):
        certificate(0, 1)
    with pytest.raises(ValueError, match="must be"):
        certificate_of(np.zeros((2, 2)), np.ones(2, bool), -1.0)
