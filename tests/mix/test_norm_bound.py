"""What a codec says at a glance of a payload's length is never less than its length."""

import numpy as np
import pytest

from tapestry_p2p.mix.codec import CODECS, CodecError, encode, is_longer, payload_norm, two_bit
from tapestry_p2p.mix.copy import PublicCopy

D = 1000


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e12])
def test_the_bound_is_a_bound_and_not_far_off(scale: float) -> None:
    vector = np.random.default_rng(0).standard_normal(D).astype(np.float32) * np.float32(scale)
    payload = encode("2bit", vector)
    exact, bound = payload_norm("2bit", payload, D), two_bit.norm_bound(payload, D)
    assert exact <= bound <= 2 * exact


@pytest.mark.parametrize("codec", CODECS)
def test_longer_is_what_the_norm_says(codec: str) -> None:
    payload = encode(codec, np.random.default_rng(1).standard_normal(D).astype(np.float32))
    exact = payload_norm(codec, payload, D)
    assert not is_longer(codec, payload, D, exact * 1.001)
    assert is_longer(codec, payload, D, exact * 0.999)


@pytest.mark.parametrize("bits", [0x7FC0, 0x7F80, 0xBF80])
def test_a_scale_that_is_nan_infinite_or_negative_is_refused_and_nothing_moves(bits: int) -> None:
    payload = bytearray(encode("2bit", np.ones(D, np.float32)))
    payload[:2] = bits.to_bytes(2, "little")
    copy = PublicCopy(np.zeros(D, np.float32))
    with pytest.raises(CodecError):
        copy.advance("2bit", bytes(payload), 1e6)
    assert not copy.vector.any()
