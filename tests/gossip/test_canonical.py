"""One value, one encoding: whatever else decodes to it is refused, with one type of error."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapestry_p2p.gossip.canonical import INTEGER_MAX, Malformed, fields, pack, unpack

SCALARS = st.integers(0, INTEGER_MAX) | st.binary(max_size=40) | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_round_trip(value: object) -> None:
    data = pack(value)
    assert unpack(data, bytes_max=len(data)) == value
    with pytest.raises(Malformed):
        unpack(data, bytes_max=len(data) - 1)


@given(VALUES, VALUES)
def test_two_values_never_share_bytes(one: object, other: object) -> None:
    assert (pack(one) == pack(other)) == (one == other)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xcc\x05",  # 5 in two bytes
        b"\xcd\x00\x05",
        b"\xd9\x01a",  # fixstr written as str8
        b"\xc5\x00\x01a",  # bin8 written as bin16
        b"\xdc\x00\x01\x05",  # fixarray written as array16
        b"\xde\x00\x00",
        b"\xff",  # -1
        b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",  # 2**64 - 1
        b"\xc0",  # nil
        b"\xc2",  # False
        b"\xca\x3f\x80\x00\x00",  # 1.0
        b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",  # NaN
        b"\xd4\x01\x00",  # fixext1
        b"\xc7\x00\x01",  # ext8 of no bytes
        b"\xd6\xff\x00\x00\x00\x00",  # timestamp
        b"\x82\xa1a\x01\xa1a\x02",  # key twice
        b"\x82\xa1b\x01\xa1a\x02",  # keys not ascending
        b"\x81\x01\x01",  # key not text
        b"\x81\xc4\x01a\x01",
        b"\xa1\xff",  # not UTF-8
        b"\xa3\xed\xa0\x80",  # a surrogate
        b"\x05\x05",  # two values
        b"\x92\x05",  # cut short
        b"\xdd\xff\xff\xff\xff",  # 2**32 - 1 items announced
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 2000 + b"\x05",  # deep
    ],
)
def test_other_encodings_are_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        unpack(data, bytes_max=1 << 20)


@given(st.binary(max_size=200))
def test_random_bytes_raise_malformed_or_are_canonical(data: bytes) -> None:
    try:
        value = unpack(data, bytes_max=1000)
    except Malformed:
        return
    assert pack(value) == data


@given(VALUES, st.data())
def test_mutations_raise_malformed_or_are_canonical(value: object, data: st.DataObject) -> None:
    raw = bytearray(pack(value))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    test_random_bytes_raise_malformed_or_are_canonical.hypothesis.inner_test(bytes(raw))  # type: ignore[attr-defined]


def test_a_megabyte_of_empty_maps_is_refused_early() -> None:
    with pytest.raises(Malformed):
        unpack(b"\xdd\x00\x0f\xff\xff" + b"\x80" * 0xFFFFF, bytes_max=1 << 21)
    with pytest.raises(Malformed):
        unpack(b"\xdc\x40\x00" + b"\x80" * 0x4000, bytes_max=1 << 21)


@pytest.mark.parametrize(
    "value", [None, 1.0, True, -1, 2**63, {1: 2}, {"a": None}, "\ud800", object()]
)
def test_pack_admits_only_what_unpack_does(value: object) -> None:
    with pytest.raises(Malformed):
        pack(value)


def test_fields_wants_exact_keys_and_types() -> None:
    shape = {"a": int, "b": list}
    assert fields({"a": 1, "b": []}, shape) == {"a": 1, "b": []}
    others: list[object] = [{"a": 1}, {"a": 1, "b": [], "c": 1}, {"a": "1", "b": []}, []]
    for value in (*others, {"a": 1, "b": {}}, {"a": True, "b": []}):
        with pytest.raises(Malformed):
            fields(value, shape)


def test_pack_agrees_with_msgpack_where_msgpack_is_canonical() -> None:
    value: dict[str, object] = {"a": [1, b"x", "y"], "b": {}}
    assert pack(value) == msgpack.packb(value, use_bin_type=True)
