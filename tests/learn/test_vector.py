"""Trees as vectors: nothing lost, order by path, and a hash that tells models apart."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapestry_p2p.learn.vector import Layout

SHAPES = st.lists(st.integers(1, 4), max_size=3).map(tuple)
NAMES = st.text("abcdefgh", min_size=1, max_size=3)
TREES = st.recursive(
    SHAPES.map(lambda shape: np.zeros(shape, np.float32)),
    lambda inner: (
        st.dictionaries(NAMES, inner, min_size=1, max_size=3)
        | st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=8,
)


def _filled(tree: Any, seed: int) -> Any:
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(leaf.dtype), tree)


@given(TREES, st.integers(0, 99))
def test_there_and_back_is_exact(tree: Any, seed: int) -> None:
    params = _filled(tree, seed)
    layout = Layout(tree)
    vector = layout.flatten(params)
    assert vector.dtype == np.float32
    assert vector.shape == (layout.parameters,)
    back = layout.unflatten(vector)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    for one, other in zip(jax.tree.leaves(back), jax.tree.leaves(params), strict=True):
        assert np.array_equal(one, other)


@given(st.dictionaries(NAMES, SHAPES, min_size=1, max_size=6), st.randoms())
def test_the_order_in_the_container_does_not_matter(shapes: dict[str, Any], random: Any) -> None:
    names = list(shapes)
    random.shuffle(names)
    one = Layout({name: np.zeros(shapes[name], np.float32) for name in shapes})
    other = Layout({name: np.zeros(shapes[name], np.float32) for name in names})
    assert one.schema == other.schema
    assert [leaf.path for leaf in one.leaves] == sorted(shapes)


@given(TREES)
def test_the_hash_sees_path_shape_and_dtype(tree: Any) -> None:
    schema = Layout(tree).schema
    assert schema == Layout(_filled(tree, 1)).schema
    assert schema != Layout({"in": tree}).schema
    assert schema != Layout(jax.tree.map(lambda leaf: leaf[None], tree)).schema
    assert schema != Layout(jax.tree.map(lambda leaf: leaf.astype(np.float16), tree)).schema


def test_models_of_equal_length_are_told_apart() -> None:
    square, wide = np.zeros((4, 4), np.float32), np.zeros((2, 8), np.float32)
    schemas = {
        Layout({"a": square, "b": wide}).schema,
        Layout({"a": wide, "b": square}).schema,
        Layout({"a": square, "c": wide}).schema,
    }
    assert len(schemas) == 3


def test_ten_layers_stand_in_the_order_of_their_paths() -> None:
    layout = Layout({"layers": [np.full(1, index, np.float32) for index in range(11)]})
    paths = [leaf.path for leaf in layout.leaves]
    assert paths == sorted(paths)
    assert paths[:3] == ["layers/0", "layers/1", "layers/10"]


def test_narrow_leaves_travel_as_float32() -> None:
    params = {"a": jnp.full(3, 1.5, jnp.bfloat16)}
    layout = Layout(params)
    assert np.array_equal(layout.flatten(params), np.full(3, 1.5, np.float32))
    assert layout.unflatten(layout.flatten(params))["a"].dtype == jnp.bfloat16


@pytest.mark.parametrize("tree", [{}, {"a": np.zeros(2, np.int32)}])
def test_what_cannot_travel_is_refused(tree: Any) -> None:
    with pytest.raises(ValueError, match="parameter"):
        Layout(tree)
