"""Trees over chunks, and the requests that fetch them."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapestry_p2p.gossip.canonical import Malformed, pack
from tapestry_p2p.gossip.fetch import (
    BODY_BYTES_MAX,
    FRAMES_MAX,
    REQUEST_BYTES_MAX,
    STATUSES,
    BaseLeavesRequest,
    BaseRequest,
    ChunkRequest,
    FetchRequest,
    FetchResponse,
    FrameRequest,
    LeavesRequest,
    MoreLeavesRequest,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)
from tapestry_p2p.gossip.merkle import CHUNK_BYTES, chunk_hash, leaf_hash, merkle_root

HASH = st.binary(min_size=32, max_size=32)
SEQ = st.integers(0, 2**63 - 1)
REQUESTS: st.SearchStrategy[FetchRequest] = st.one_of(
    st.builds(ChunkRequest, HASH, st.integers(0, 1000), st.integers(1, CHUNK_BYTES - 1000)),
    st.builds(LeavesRequest, HASH, SEQ, HASH),
    st.builds(MoreLeavesRequest, HASH, SEQ, HASH, st.integers(0, 2**24), st.integers(1, 2**18)),
    st.builds(
        FrameRequest, HASH, SEQ, HASH, st.integers(0, FRAMES_MAX - 1), st.just(0),
        st.integers(1, CHUNK_BYTES),
    ),
    st.builds(BaseLeavesRequest, HASH),
    st.builds(
        BaseRequest, HASH, st.integers(0, FRAMES_MAX - 1), st.integers(0, 1000),
        st.integers(1, CHUNK_BYTES - 1000),
    ),
)  # fmt: skip


def test_trees_of_known_shape() -> None:
    a, b, c = (leaf_hash(bytes([n])) for n in range(3))
    assert a == sha256(b"\x00\x00").digest()
    assert chunk_hash(b"\x00") == sha256(b"\x00").digest() != a
    assert merkle_root([a]) == a
    ab = sha256(b"\x01" + a + b).digest()
    assert merkle_root([a, b]) == ab
    assert merkle_root([a, b, c]) == sha256(b"\x01" + ab + c).digest()
    with pytest.raises(ValueError, match="leaf"):
        merkle_root([])


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=9), st.data())
def test_a_root_names_its_leaves(chunks: list[bytes], data: st.DataObject) -> None:
    leaves = [leaf_hash(chunk) for chunk in chunks]
    other = list(leaves)
    index = data.draw(st.integers(0, len(other) - 1))
    other[index] = leaf_hash(chunks[index] + b"!")
    assert merkle_root(other) != merkle_root(leaves)
    assert merkle_root([*leaves, leaves[-1]]) != merkle_root(leaves)


@given(REQUESTS)
def test_requests_round_trip(request: FetchRequest) -> None:
    data = encode_request(request)
    assert len(data) <= REQUEST_BYTES_MAX
    assert decode_request(data) == request


def _request(**changes: object) -> bytes:
    row = {"t": "chunk", "hash": bytes(32), "offset": 0, "length": 1, **changes}
    return pack({name: value for name, value in row.items() if value is not None})


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x80", pack([]), pack({"t": "chunk"}), pack({"t": 5}), _request(t="other"),
        _request(more=1), _request(hash=bytes(31)), _request(length=0),
        _request(offset=CHUNK_BYTES), _request(length=CHUNK_BYTES + 1),
        _request(offset=2**62, length=CHUNK_BYTES), _request(offset=None), _request(length=b"1"),
        pack({"t": "leaves", "author": bytes(32), "seq": 0, "root": b""}),
        pack({"t": "more_leaves", "author": bytes(32), "seq": 0, "root": bytes(32),
              "offset": 2**25, "length": 1}),
        pack({"t": "frame", "author": bytes(32), "seq": 0, "root": bytes(32), "index": FRAMES_MAX,
              "offset": 0, "length": 1}),
    ],
)  # fmt: skip
def test_odd_requests_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        decode_request(data)


@given(st.binary(max_size=300))
def test_random_requests_and_responses_never_raise_anything_else(data: bytes) -> None:
    for decode in (decode_request, decode_response):
        try:
            decode(data)
        except Malformed:
            continue


@given(st.integers(1, BODY_BYTES_MAX), st.integers(0, 10**6))
def test_responses_round_trip(length: int, more: int) -> None:
    response = FetchResponse("ok", length, length + more)
    assert decode_response(encode_response(response)) == response


@pytest.mark.parametrize("status", STATUSES[1:])
def test_refusals_round_trip(status: str) -> None:
    assert decode_response(encode_response(FetchResponse(status))) == FetchResponse(status)


@pytest.mark.parametrize(
    "response",
    [
        FetchResponse("ok"),
        FetchResponse("ok", 2, 1),
        FetchResponse("missing", 1, 1),
        FetchResponse("odd", 1, 1),
        FetchResponse("ok", BODY_BYTES_MAX + 1, 2**40),
    ],
)
def test_odd_responses_are_malformed(response: FetchResponse) -> None:
    with pytest.raises(Malformed):
        decode_response(encode_response(response))
