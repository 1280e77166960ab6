"""The joiner's start: a median of bits, whatever the floats, the order, or the CPU."""

import hashlib
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tapestry_p2p.mix.adoption import BLOCK, coordinate_median
from tapestry_p2p.mix.codec import Vector

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def _vectors(n: int, d: int, seed: int = 0) -> list[Vector]:
    drawn = np.random.default_rng(seed)
    return [drawn.standard_normal(d).astype(np.float32) for _ in range(n)]


@pytest.mark.parametrize("n", [1, 3, 5, 7, 31])
def test_it_is_numpys_median(n: int) -> None:
    vectors = _vectors(n, 2 * BLOCK + 5)
    assert np.array_equal(coordinate_median(vectors), np.median(vectors, axis=0))


@given(
    arrays(np.float32, st.tuples(st.sampled_from([1, 3, 5]), st.integers(1, 40)), elements=FLOATS)
)
def test_every_coordinate_is_the_middle_one_whatever_the_floats(rows: Vector) -> None:
    found = coordinate_median(list(rows))
    half = len(rows) // 2
    assert ((rows <= found).sum(axis=0) > half).all()
    assert ((rows >= found).sum(axis=0) > half).all()
    taken = rows.view(np.int32) == found.view(np.int32)
    assert taken.any(axis=0).all(), "the bits of one of the values, never new ones"


def test_the_order_of_the_copies_changes_no_bit_not_even_of_zeros_and_denormals() -> None:
    tiny = np.float32(1e-45)
    rows = [
        np.array([0.0, -0.0, tiny, -tiny, 1e38, -0.0], np.float32),
        np.array([-0.0, 0.0, 0.0, -0.0, -1e38, 0.0], np.float32),
        np.array([0.0, -0.0, -0.0, tiny, 1e-38, -tiny], np.float32),
    ]
    found = {coordinate_median(order).tobytes() for order in permutations(rows)}
    assert len(found) == 1
    signs = np.signbit(np.frombuffer(found.pop(), np.float32))
    assert signs.tolist() == [False, True, False, True, False, True]


def test_f_liars_of_2f_plus_1_leave_it_within_the_honest_range() -> None:
    honest = _vectors(4, 1000)
    for lie in (1e38, -1e38, 0.0):
        liars = [np.full(1000, lie, np.float32)] * 3
        found = coordinate_median([*liars, *honest])
        assert (found >= np.min(honest, axis=0)).all()
        assert (found <= np.max(honest, axis=0)).all()


def test_the_bits_are_those_of_every_machine() -> None:
    """A golden vector: if this fails, copies that start here are not those of others."""
    data = b"".join(hashlib.sha256(f"adopt {n}".encode()).digest() for n in range(625))
    bits = np.frombuffer(data, "<u4").astype(np.uint32).reshape(5, 1000)
    bits[(bits & 0x7F800000) == 0x7F800000] &= 0x807FFFFF  # neither infinite nor NaN
    found = coordinate_median([row.view(np.float32) for row in bits])
    assert hashlib.sha256(found.astype("<f4").tobytes()).hexdigest()[:16] == "08b55d542067e928"


@pytest.mark.parametrize("lengths", [[], [4, 4], [4, 4, 5]])
def test_what_has_no_middle_is_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match=r"odd number|lengths"):
        coordinate_median([np.zeros(d, np.float32) for d in lengths])
