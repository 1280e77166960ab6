"""One table of laws for all codecs; every law holds for each vector that can be drawn.

``error`` is the claim that has no exception: ||C(v) - v||^2 <= error ||v||^2 for every v whose
magnitudes are 0 or within 2^-80..2^99 (omega = 1 - error); ``gaussian`` is the claim for Gaussian
ones. 2bit contracts Gaussian vectors and not every vector (two_bit.py says where).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tapestry_p2p.mix.codec import CODECS, Vector, decode, decode_add, encode, payload_norm
from tapestry_p2p.mix.codec.form import PIECE


@dataclass(frozen=True)
class Law:
    """What a codec claims."""

    error: float  # of every vector
    gaussian: float  # of Gaussian vectors
    stable: bool  # what was decoded is coded without loss
    rounds: int  # of coding what is missing, until less than a hundredth is


LAWS = {
    "fp32": Law(error=0, gaussian=0, stable=True, rounds=1),
    "int8": Law(error=0.004, gaussian=1e-4, stable=False, rounds=3),
    "int4": Law(error=0.33, gaussian=0.0125, stable=True, rounds=6),
    "2bit": Law(error=1.03, gaussian=0.12, stable=False, rounds=120),
    "1bit": Law(error=1 - (1 - 2**-16) / 256, gaussian=0.37, stable=True, rounds=1500),
    "topk": Law(error=1 - (1 - 2**-16) / 64, gaussian=0.89, stable=True, rounds=320),
}

Draw = Callable[[np.random.Generator, int], np.ndarray]
KINDS: dict[str, Draw] = {
    "gaussian": lambda r, d: r.standard_normal(d),
    "student": lambda r, d: r.standard_t(1.5, d).clip(-1e6, 1e6),
    "small integers": lambda r, d: r.integers(-3, 4, d),
    "equal": lambda r, d: np.ones(d),
    "signs": lambda r, d: r.choice([-1.0, 1.0], d),
    "one among zeros": lambda r, d: np.arange(d) % 256 == r.integers(256),
    "sparse": lambda r, d: np.where(r.random(d) < 0.01, r.standard_normal(d), 0),
    "falling": lambda r, d: 0.7 ** (np.arange(d) % 97),
    "zeros": lambda r, d: np.zeros(d),
    "one large": lambda r, d: np.where(np.arange(d) == r.integers(d), 1e6, r.standard_normal(d)),
}
SIZES = st.integers(1, 700) | st.integers(4000, 4400) | st.sampled_from([4096, 8192, 8200])
fewer = settings(max_examples=settings().max_examples // 8)  # of what takes longer
codecs = pytest.mark.parametrize("codec", CODECS)


@st.composite
def drawn(draw: st.DrawFn, sizes: st.SearchStrategy[int] = SIZES) -> Vector:
    """float32[d] of some kind, times a power of two; magnitudes are 0 or within 2^-60..2^90."""
    d, seed = draw(sizes), draw(st.integers(0, 2**32 - 1))
    vector = KINDS[draw(st.sampled_from(sorted(KINDS)))](np.random.default_rng(seed), d)
    vector = vector.astype(np.float32)
    vector[np.abs(vector) < 2.0**-40] = 0
    return vector * np.float32(2.0 ** draw(st.integers(-20, 70)))


def coded(codec: str, vector: Vector) -> Vector:
    return decode(codec, encode(codec, vector), len(vector))


def squared(vector: Vector) -> float:
    wide = vector.astype(np.float64)
    return float(wide @ wide)


def test_every_codec_has_its_laws() -> None:
    assert set(LAWS) == set(CODECS)


@codecs
@given(vector=drawn())
def test_the_error_is_within_the_claim_for_every_vector(codec: str, vector: Vector) -> None:
    error = squared(coded(codec, vector) - vector)
    assert error <= LAWS[codec].error * squared(vector)


@codecs
@fewer
@given(st.integers(0, 2**32 - 1), st.integers(-60, 60))
def test_the_error_is_within_the_claim_for_gaussians(codec: str, seed: int, exponent: int) -> None:
    vector = np.random.default_rng(seed).standard_normal(16 * 4096).astype(np.float32)
    vector *= np.float32(2.0**exponent)
    error = squared(coded(codec, vector) - vector)
    assert error <= LAWS[codec].gaussian * squared(vector)


def test_two_bits_may_lengthen_an_error() -> None:
    """So its bound above 1 is no slack: a control, and the reason for `rounds` of it."""
    vector = np.zeros(256, np.float32)
    vector[7] = 1
    assert squared(coded("2bit", vector) - vector) > 1.02


@codecs
@given(vector=drawn(), seed=st.integers(0, 2**32 - 1))
def test_adding_is_bitwise_the_sum_with_the_decoded(codec: str, vector: Vector, seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = rng.standard_normal(len(vector)).astype(np.float32) * np.float32(2.0**10)
    target[rng.random(len(target)) < 0.2] = 0
    target[rng.random(len(target)) < 0.2] *= -0.0
    payload = encode(codec, vector)
    whole = target + decode(codec, payload, len(vector))
    decode_add(codec, payload, target)
    assert target.tobytes() == whole.tobytes()


@codecs
@given(vector=drawn())
def test_the_norm_is_that_of_the_decoded(codec: str, vector: Vector) -> None:
    norm = payload_norm(codec, encode(codec, vector), len(vector))
    assert norm == pytest.approx(squared(coded(codec, vector)) ** 0.5, rel=1e-12)


@codecs
@given(vector=drawn(), exponent=st.integers(-20, 8))
def test_a_power_of_two_passes_through(codec: str, vector: Vector, exponent: int) -> None:
    factor = np.float32(2.0**exponent)
    assert (coded(codec, vector * factor) == coded(codec, vector) * factor).all()


@codecs
@given(vector=drawn())
def test_signs_pass_through(codec: str, vector: Vector) -> None:
    """C(-v) = -C(v), where v is not 0: a sign of 0 must be one or the other."""
    there = vector != 0
    assert (coded(codec, -vector)[there] == -coded(codec, vector)[there]).all()


@codecs
@given(vector=drawn())
def test_what_was_decoded_is_coded_without_loss(codec: str, vector: Vector) -> None:
    once = coded(codec, vector)
    twice = coded(codec, once)
    if LAWS[codec].stable:
        assert (twice == once).all()
    else:  # no drift either: the second loss is no larger than a claim allows
        assert squared(twice - once) <= LAWS[codec].error * squared(once)


@codecs
@given(d=SIZES, zero=st.sampled_from([0.0, -0.0]))
def test_nothing_is_coded_as_nothing(codec: str, d: int, zero: float) -> None:
    assert not coded(codec, np.full(d, zero, np.float32)).any()


wild = st.floats(width=32, allow_nan=False, allow_infinity=False)


@codecs
@given(vector=st.integers(1, 70).flatmap(lambda d: arrays(np.float32, d, elements=wild)))
def test_tiny_and_huge_values_stay_far_from_denormal_and_infinite(
    codec: str, vector: Vector
) -> None:
    values = np.abs(coded(codec, vector))
    assert ((values == 0) | (values > 2.0**-102)).all()
    assert float(values.max()) <= 1.52 * float(np.abs(vector).max())


@codecs
@pytest.mark.parametrize("d", [PIECE, PIECE + 1, PIECE + 4097, 2 * PIECE - 1])
@fewer
@given(kind=st.sampled_from(sorted(KINDS)), seed=st.integers(0, 99), cut=st.integers(0, 16))
def test_a_block_knows_nothing_of_the_others(
    codec: str, d: int, kind: str, seed: int, cut: int
) -> None:
    """Pieces, and what an earlier piece left in memory, change nothing."""
    vector = KINDS[kind](np.random.default_rng(seed), d).astype(np.float32)
    vector *= np.float32(2.0**64)
    here = 4096 * cut
    whole = coded(codec, vector)
    assert (coded(codec, vector[:here]) == whole[:here]).all()
    assert (coded(codec, vector[here:]) == whole[here:]).all()


@codecs
@fewer
@given(vector=drawn(st.integers(1, 700) | st.just(4200)))
def test_a_copy_that_is_sent_what_it_lacks_comes_to_the_vector(codec: str, vector: Vector) -> None:
    """Error feedback without a buffer: each payload codes what is missing in the copy."""
    copy = np.zeros_like(vector)
    for _ in range(LAWS[codec].rounds):
        if squared(vector - copy) <= 1e-4 * squared(vector):
            break
        decode_add(codec, encode(codec, vector - copy), copy)
    assert squared(vector - copy) <= 1e-4 * squared(vector)
