"""Keys and names: libp2p must compute the same peer id, and odd keys must not pass."""

import warnings

import pytest
from gossip_kit import key
from hypothesis import given
from hypothesis import strategies as st

from tapestry_p2p.gossip import base58
from tapestry_p2p.gossip.identity import (
    FIELD_PRIME,
    SMALL_ORDER_Y,
    Identity,
    is_sound_key,
    peer_id_of,
    public_key_of,
    verify,
)

D = -121665 * pow(121666, -1, FIELD_PRIME) % FIELD_PRIME
Point = tuple[int, int]


def _add(a: Point, b: Point) -> Point:
    """Affine addition on edwards25519 (RFC 8032, 5.1)."""
    (x1, y1), (x2, y2) = a, b
    t = D * x1 * x2 * y1 * y2
    x = (x1 * y2 + x2 * y1) * pow(1 + t, -1, FIELD_PRIME)
    y = (y1 * y2 + x1 * x2) * pow(1 - t, -1, FIELD_PRIME)
    return x % FIELD_PRIME, y % FIELD_PRIME


def _with_y(y: int) -> Point:
    """A point with that y."""
    u, v = (y * y - 1) % FIELD_PRIME, (D * y * y + 1) % FIELD_PRIME
    square = u * pow(v, -1, FIELD_PRIME) % FIELD_PRIME
    x = pow(square, (FIELD_PRIME + 3) // 8, FIELD_PRIME)
    if x * x % FIELD_PRIME != square:
        x = x * pow(2, (FIELD_PRIME - 1) // 4, FIELD_PRIME) % FIELD_PRIME
    assert x * x % FIELD_PRIME == square, "no such point"
    return x, y


def test_the_small_order_list_is_the_eight_torsion() -> None:
    for y in SMALL_ORDER_Y:
        point = _with_y(y)
        for _ in range(3):
            point = _add(point, point)
        assert point == (0, 1)
    # y = 1 and y = -1 have one point each, the other three two: eight in all
    assert len(SMALL_ORDER_Y) == 5


@pytest.mark.parametrize("y", [*SMALL_ORDER_Y, FIELD_PRIME, FIELD_PRIME + 1, 2**255 - 1])
@pytest.mark.parametrize("sign", [0, 1])
def test_odd_keys_are_refused(y: int, sign: int) -> None:
    odd = (y | sign << 255).to_bytes(32, "little")
    assert not is_sound_key(odd)
    assert not verify(odd, bytes(64), b"anything")
    with pytest.raises(ValueError, match="peer id"):
        public_key_of(peer_id_of(odd))


def test_the_zero_signature_of_the_neutral_key_fits_any_message_elsewhere_but_not_here() -> None:
    neutral = (1).to_bytes(32, "little")
    assert not verify(neutral, neutral + bytes(32), b"whatever")


@given(st.binary(min_size=32, max_size=32))
def test_peer_id_is_libp2ps_own(seed: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from libp2p.crypto.ed25519 import create_new_key_pair
        from libp2p.peer.id import ID
    pair = create_new_key_pair(seed)
    ours = Identity(seed)
    assert ours.public_key == pair.public_key.to_bytes()
    assert ours.peer_id == str(ID.from_pubkey(pair.public_key))
    assert public_key_of(ours.peer_id) == ours.public_key
    assert ours.peer_id.startswith("12D3Koo")


def test_sign_and_verify() -> None:
    me = key(1)
    signature = me.sign(b"message")
    assert verify(me.public_key, signature, b"message")
    assert not verify(me.public_key, signature, b"messagf")
    assert not verify(key(2).public_key, signature, b"message")
    assert not verify(me.public_key, signature[:-1], b"message")
    assert str(me.peer_id) in repr(me)
    assert me._key.private_bytes_raw().hex() not in repr(me)


@pytest.mark.parametrize("text", ["", "0", "12D3Koo", "Il" * 20, "1" * 200, "é"])
def test_what_is_no_peer_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        public_key_of(text)


@given(st.binary(max_size=64))
def test_base58_round_trip(data: bytes) -> None:
    assert base58.decode(base58.encode(data)) == data
