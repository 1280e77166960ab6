"""Signed headers: one encoding, one hash, the golden bytes, and one error for everything else."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from gossip_kit import NETWORK, Author, key, make_settings
from hypothesis import given
from hypothesis import strategies as st

from tapestry_p2p.gossip.canonical import INTEGER_MAX, Malformed, pack
from tapestry_p2p.gossip.header import (
    CHUNKS_MAX,
    KINDS,
    SIGNED_BYTES_MAX,
    Header,
    SignedHeader,
    decode_signed,
    header_hash,
    sign,
)
from tapestry_p2p.gossip.identity import Identity
from tapestry_p2p.gossip.own import sign_retire
from tapestry_p2p.gossip.validity import breach

VECTORS = Path(__file__).parent.parent / "vectors" / "headers.json"
HASHES = st.binary(min_size=32, max_size=32)
NUMBERS = st.integers(0, INTEGER_MAX)
HEADERS = st.builds(
    Header,
    network=HASHES,
    author=st.integers(1, 5).map(lambda n: key(n).public_key),
    incarnation=st.binary(min_size=16, max_size=16),
    seq=NUMBERS,
    prev=HASHES,
    kind=st.sampled_from(KINDS),
    codec=st.sampled_from(["", "fp32", "int8", "2bit"]),
    chunks=st.lists(HASHES, max_size=4).map(tuple),
    payload_bytes=NUMBERS,
    root=HASHES | st.just(b""),
    round=NUMBERS,
    tokens=NUMBERS,
    cites=HASHES | st.just(b""),
)


@given(HEADERS)
def test_round_trip(header: Header) -> None:
    signed = SignedHeader(header, bytes(64))
    again = decode_signed(signed.encode())
    assert again == signed
    assert again.header.hash == header.hash == header_hash(header)


@given(HEADERS, HEADERS)
def test_hash_and_digest_name_the_header(one: Header, other: Header) -> None:
    assert (one.hash == other.hash) == (one.digest == other.digest) == (one == other)
    assert one.hash != one.digest


def test_the_hash_leaves_out_the_signature_and_the_signature_covers_every_field() -> None:
    author = Author(1)
    author.genesis()
    signed = author.difference()
    assert signed.is_signed()
    assert not SignedHeader(signed.header, bytes(64)).is_signed()
    assert SignedHeader(signed.header, bytes(64)).header.hash == signed.header.hash
    changed: dict[str, Any] = {
        "network": bytes(32), "author": key(2).public_key, "incarnation": bytes(16), "seq": 9,
        "prev": bytes(32), "kind": "profile", "codec": "int8", "chunks": (), "payload_bytes": 1,
        "root": b"", "round": 5, "tokens": 5, "cites": bytes(32),
    }  # fmt: skip
    assert changed.keys() == {field.name for field in fields(Header)}
    for name, value in changed.items():
        other = SignedHeader(replace(signed.header, **{name: value}), signed.signature)
        assert not other.is_signed(), name


@given(HEADERS, st.data())
def test_mutated_bytes_are_malformed_or_another_header(header: Header, data: st.DataObject) -> None:
    signed = SignedHeader(header, bytes(64))
    raw = bytearray(signed.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        again = decode_signed(bytes(raw))
    except Malformed:
        return
    assert again.encode() == bytes(raw)  # no second spelling of anything


@given(st.binary(max_size=300))
def test_random_bytes_are_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        decode_signed(raw)


def _row() -> list[Any]:
    header = Author(1).entry("genesis", root=bytes(32)).header
    values = [getattr(header, field.name) for field in fields(Header)]
    return [list(value) if isinstance(value, tuple) else value for value in values]


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (0, bytes(31)), (1, bytes(33)), (2, b""), (3, "0"), (4, "x" * 32), (5, "unknown"),
        (5, b"profile"), (6, "x" * 17), (6, "ü"), (7, [bytes(31)]), (7, bytes(32)),
        (7, [bytes(32)] * (CHUNKS_MAX + 1)),
        (8, []), (9, bytes(31)), (9, ""), (10, b""), (11, {}), (12, bytes(1)),
    ],
)  # fmt: skip
def test_wrong_fields_are_malformed(index: int, value: object) -> None:
    row = _row()
    assert decode_signed(pack([pack(row), bytes(64)]))
    row[index] = value
    with pytest.raises(Malformed):
        decode_signed(pack([pack(row), bytes(64)]))


@pytest.mark.parametrize(
    "outer",
    [[], [b""], [pack(_row())], [pack(_row()), bytes(63)], [pack(_row()), bytes(64), b""], {}, 5,
     [pack(_row()[:-1]), bytes(64)], [pack([*_row(), 0]), bytes(64)], [_row(), bytes(64)]],
)  # fmt: skip
def test_wrong_envelopes_are_malformed(outer: object) -> None:
    with pytest.raises(Malformed):
        decode_signed(pack(outer))


def test_the_largest_header_fits() -> None:
    entry = Author(1).entry(
        "difference", seq=INTEGER_MAX, codec="x" * 16, chunks=(bytes(32),) * CHUNKS_MAX,
        payload_bytes=INTEGER_MAX, root=bytes(32), round=INTEGER_MAX, tokens=INTEGER_MAX,
        cites=bytes(32),
    )  # fmt: skip
    assert len(entry.encode()) < SIGNED_BYTES_MAX
    assert decode_signed(entry.encode()) == entry


def test_golden_vectors() -> None:
    cases = json.loads(VECTORS.read_text())
    assert len(cases) >= 5
    for case in cases:
        row: dict[str, Any] = case["header"]
        values: dict[str, Any] = dict(row, chunks=tuple(map(bytes.fromhex, row["chunks"])))
        values.update({name: bytes.fromhex(row[name]) for name in _BYTES})
        header = Header(**values)
        identity = Identity(bytes.fromhex(case["seed"]))
        assert identity.peer_id == case["peer_id"]
        assert header.encoded.hex() == case["encoded"]
        assert header.hash.hex() == case["hash"]
        assert header.digest.hex() == case["digest"]
        signed = sign(header, identity.sign)
        assert signed.signature.hex() == case["signature"]
        assert signed.encode().hex() == case["signed"]
        assert decode_signed(bytes.fromhex(case["signed"])) == signed


_BYTES = {"network", "author", "incarnation", "prev", "root", "cites"}


def test_what_a_manifest_allows() -> None:
    settings = make_settings(codecs={"2bit": 300_000})
    author = Author(1)
    author.genesis()
    two = (bytes(32), bytes(32))
    good = [
        author.log[0],
        author.entry("difference", codec="2bit", chunks=two, payload_bytes=300_000),
        author.entry("profile", chunks=two[:1], payload_bytes=10),
        author.entry("resume", root=bytes(32), cites=bytes(32)),
        author.entry("leave"),
        Author(2).entry("adopt", root=bytes(32), chunks=two[:1], payload_bytes=90),
        sign_retire(NETWORK, author.key, author.identity.sign),
    ]
    assert [breach(signed.header, settings) for signed in good] == [""] * len(good)
    bad = {
        "other_network": Author(1, bytes(32)).entry("genesis", root=bytes(32)),
        "other_genesis": Author(1).entry("genesis", root=bytes(32)),
        "position": author.entry("genesis", root=bytes(32)),
        "payload": author.entry("difference", codec="2bit", chunks=two[:1], payload_bytes=300_000),
        "root_missing": author.entry("resume"),
        "cites": author.entry("leave", cites=bytes(32)),
    }
    for reason, signed in bad.items():
        assert breach(signed.header, settings) == reason
    for signed in (
        author.entry("difference", codec="fp32", chunks=two, payload_bytes=300_000),
        author.entry("difference", codec="2bit", chunks=two, payload_bytes=299_999),
        author.entry("difference"),
        author.entry("profile"),
        author.entry("profile", chunks=two[:1], payload_bytes=1_000_000),
        author.entry("leave", codec="2bit"),
        author.entry("resume", root=bytes(32), payload_bytes=1),
    ):
        assert breach(signed.header, settings) == "payload"
    for signed in (
        Author(1).entry("difference", codec="2bit", chunks=two, payload_bytes=300_000),
        author.entry("retire"),
        author.entry("leave", seq=INTEGER_MAX),
    ):
        assert breach(signed.header, settings) == "position"
