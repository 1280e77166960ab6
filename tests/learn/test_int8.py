"""Eight bits: every number at its nearest level, the better axis taken, usable inside jit."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tapestry_p2p.learn.int8 import LEVELS, SCALE, Int8, dense, dequantised, quantise, quantised


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 6), st.integers(1, 6)),
        elements=st.floats(-1000, 1000, width=32),
    )
)
def test_every_number_is_at_its_nearest_level(array: np.ndarray) -> None:
    values, scale = quantise(array)
    assert values.dtype == np.int8
    assert scale.dtype == np.float32
    assert np.abs(values.astype(int)).max() <= LEVELS
    assert (np.abs(values * scale - array) <= 0.501 * scale).all()


@pytest.mark.parametrize("axis", [0, 1])
def test_the_axis_with_less_error_is_taken(axis: int) -> None:
    drawn = np.random.default_rng(1).standard_normal((32, 24)).astype(np.float32)
    sizes = np.geomspace(1, 1000, drawn.shape[axis], dtype=np.float32)
    array = drawn * (sizes[:, None] if axis == 0 else sizes)
    _, scale = quantise(array)
    assert scale.shape == ((32, 1) if axis == 0 else (1, 24))


def test_a_channel_of_zeros_stays_zeros() -> None:
    values, scale = quantise(np.zeros((3, 4), np.float32))
    assert not values.any()
    assert np.isfinite(scale).all()


def test_a_number_alone_has_no_channels() -> None:
    with pytest.raises(ValueError, match="channels"):
        quantise(np.array(1, np.float32))


def test_vectors_are_left_as_they_are_and_a_matrix_takes_a_quarter() -> None:
    drawn = np.random.default_rng(2)
    tensors = {
        "norm": drawn.standard_normal(64).astype(np.float32),
        "mix": drawn.standard_normal((64, 192)).astype(np.float32),
    }
    small = quantised(tensors)
    assert set(small) == {"norm", "mix", "mix" + SCALE}
    assert small["norm"] is tensors["norm"]
    assert small["mix"].nbytes + small["mix" + SCALE].nbytes < 0.27 * tensors["mix"].nbytes
    again = dequantised(small)
    assert set(again) == set(tensors)
    error = np.linalg.norm(again["mix"] - tensors["mix"]) / np.linalg.norm(tensors["mix"])
    assert 0.003 < error < 0.01  # step / sqrt(12), step = about 3 deviations / 127


def test_eight_bit_leaves_compute_as_their_float32_does() -> None:
    array = np.random.default_rng(3).standard_normal((8, 8)).astype(np.float32)
    leaf = Int8(*quantise(array))
    found = jax.jit(lambda tree: dense(tree)["w"] @ np.ones(8, np.float32))({"w": leaf})
    assert np.allclose(found, dense(leaf) @ np.ones(8, np.float32), rtol=1e-5)
    assert jax.tree.leaves({"w": leaf})[0].dtype == np.int8
