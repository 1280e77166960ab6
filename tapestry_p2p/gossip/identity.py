"""Who a member is: an Ed25519 key, named as libp2p names it. Signs and verifies; stores nothing.

A peer id is the identity multihash of the protobuf-wrapped public key, in base58. Keys of small
order and non-canonical encodings of a key are refused, since one signature would fit many
messages or one member could have two names.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tapestry_p2p.gossip import base58

KEY_BYTES = 32
SIGNATURE_BYTES = 64
PEER_ID_PREFIX = bytes([0x00, 0x24, 0x08, 0x01, 0x12, 0x20])
FIELD_PRIME = 2**255 - 19
_ORDER_8 = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
# the y coordinates of all eight points of small order (x and -x share one)
SMALL_ORDER_Y = frozenset({0, 1, FIELD_PRIME - 1, _ORDER_8, FIELD_PRIME - _ORDER_8})


class Identity:
    """A member's private key. ``seed`` is the 32 bytes of RFC 8032."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != KEY_BYTES:
            raise ValueError("an Ed25519 seed has 32 bytes")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key: bytes = self._key.public_key().public_bytes_raw()
        self.peer_id: str = peer_id_of(self.public_key)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature of ``message``."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"Identity({self.peer_id})"


def is_sound_key(public_key: bytes) -> bool:
    """Whether the bytes may name a member: 32, canonical, not of small order."""
    if len(public_key) != KEY_BYTES:
        return False
    y = int.from_bytes(public_key, "little") & (2**255 - 1)
    return y < FIELD_PRIME and y not in SMALL_ORDER_Y


def verify(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the key made ``signature`` of ``message``. Never raises on foreign bytes."""
    if len(signature) != SIGNATURE_BYTES or not is_sound_key(public_key):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def peer_id_of(public_key: bytes) -> str:
    """The libp2p peer id (``12D3Koo...``) of a public key."""
    if len(public_key) != KEY_BYTES:
        raise ValueError("an Ed25519 public key has 32 bytes")
    return base58.encode(PEER_ID_PREFIX + public_key)


def public_key_of(peer_id: str) -> bytes:
    """The public key inside a peer id; ValueError if it is not an Ed25519 one or not sound."""
    data = base58.decode(peer_id)
    key = data[len(PEER_ID_PREFIX) :]
    if not data.startswith(PEER_ID_PREFIX) or not is_sound_key(key):
        raise ValueError("not the peer id of an Ed25519 key")
    return key
