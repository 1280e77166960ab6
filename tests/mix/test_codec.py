"""Codecs: exact sizes, claimed error, bit-exact decoding, one error type for malformed bytes."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tapestry_p2p.mix.codec import CODECS, CodecError, decode, encode, payload_bytes

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "codecs.json").read_text())
# contraction on Gaussian vectors: E||C(v) - v||^2 <= NMSE * ||v||^2
NMSE = {"fp32": 0.0, "int8": 1e-4, "2bit": 0.13}

finite = st.floats(-(2.0**90), 2.0**90, width=32)
vectors = st.integers(1, 700).flatmap(lambda d: arrays(np.float32, d, elements=finite))


@pytest.mark.parametrize("row", VECTORS, ids=lambda r: f"{r['codec']}-{r['d']}")
def test_golden_vectors_decode_to_the_same_bits(row: dict[str, str | int]) -> None:
    decoded = decode(str(row["codec"]), bytes.fromhex(str(row["payload"])), int(row["d"]))
    assert decoded.astype("<f4").tobytes().hex() == row["float32"]


@settings(deadline=None)
@given(vectors, st.sampled_from(CODECS))
def test_size_is_exact_and_result_finite(vector: np.ndarray, codec: str) -> None:
    payload = encode(codec, vector)
    assert len(payload) == payload_bytes(codec, len(vector))
    assert np.isfinite(decode(codec, payload, len(vector))).all()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_claimed_contraction_holds(codec: str, scale: float) -> None:
    vector = (np.random.default_rng(1).standard_normal(50_000) * scale).astype(np.float32)
    error = decode(codec, encode(codec, vector), len(vector)) - vector
    assert float(error @ error) <= NMSE[codec] * float(vector @ vector)


@settings(deadline=None)
@given(vectors, st.sampled_from(CODECS))
def test_no_value_is_denormal(vector: np.ndarray, codec: str) -> None:
    values = np.abs(decode(codec, encode(codec, vector * np.float32(1e-25)), len(vector)))
    assert (values[values > 0] >= np.finfo(np.float32).tiny).all()


@settings(deadline=None)
@given(st.binary(max_size=400), st.integers(1, 600), st.sampled_from(CODECS))
def test_any_bytes_decode_or_are_refused(data: bytes, d: int, codec: str) -> None:
    padded = (data * (payload_bytes(codec, d) // max(1, len(data)) + 1))[: payload_bytes(codec, d)]
    for payload in (data, padded):
        try:
            assert np.isfinite(decode(codec, payload, d)).all()
        except CodecError:
            continue


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_encoded(bad: float) -> None:
    for codec in CODECS:
        with pytest.raises(CodecError):
            encode(codec, np.array([1.0, bad], np.float32))


def test_hostile_scales_are_refused() -> None:
    nan = np.array([np.nan], "<f4").tobytes()
    with pytest.raises(CodecError):
        decode("int8", nan + b"\x01", 1)
    with pytest.raises(CodecError):
        decode("2bit", b"\xff\x7f\x01", 1)  # bfloat16 NaN
    with pytest.raises(CodecError):
        decode("fp32", nan, 1)
    with pytest.raises(CodecError):
        encode("4bit", np.ones(3, np.float32))
