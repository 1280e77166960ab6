"""What a member claims of its models travels in its profile, or nothing of it does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapestry_p2p.gossip.canonical import Malformed, pack, unpack
from tapestry_p2p.gossip.profile import (
    UNITS,
    VALUE_MAX,
    Profile,
    Results,
    decode_profile,
    encode_profile,
)

VALUES = st.integers(0, VALUE_MAX)
RESULTS = st.builds(
    Results,
    st.sampled_from(UNITS),
    st.integers(0, 1 << 62),
    VALUES,
    st.integers(1, VALUE_MAX),
    VALUES,
)


@given(st.none() | RESULTS)
def test_a_profile_comes_back_as_it_went(results: Results | None) -> None:
    profile = Profile("Anna", ("deu",), ("/ip4/192.0.2.1/tcp/1",), results)
    assert decode_profile(encode_profile(profile)) == profile


def test_without_results_the_bytes_are_those_of_old() -> None:
    row = {"addresses": ["/ip4/192.0.2.1/tcp/1"], "languages": ["deu"], "name": "Anna"}
    profile = Profile("Anna", ("deu",), ("/ip4/192.0.2.1/tcp/1",))
    assert encode_profile(profile) == pack(row)


@pytest.mark.parametrize(
    "wrong",
    [
        {"unit": "bits"},
        {"together": 0},
        {"together": VALUE_MAX + 1},
        {"alone": VALUE_MAX + 1},
        {"step": "1"},
        {"more": 1},
    ],
)
def test_results_out_of_bounds_are_malformed(wrong: dict[str, object]) -> None:
    profile = Profile("Anna", (), (), Results("loss", 1, together=1))
    row = unpack(encode_profile(profile), bytes_max=4096)
    row["results"].update(wrong)
    with pytest.raises(Malformed):
        decode_profile(pack(row))
