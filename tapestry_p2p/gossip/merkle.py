"""Hashes of what is fetched: chunks of a payload by SHA-256, a copy's chunks by a Merkle tree.

Leaves and inner nodes are hashed under different prefixes, so that a node can never pass for a
leaf. An odd node at the end of a level moves up unchanged. Knows nothing of floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

CHUNK_BYTES = 256 * 1024
HASH_BYTES = 32


def chunk_hash(chunk: bytes | memoryview) -> bytes:
    """The name of a payload chunk: its plain SHA-256."""
    return sha256(chunk).digest()


def leaf_hash(chunk: bytes | memoryview) -> bytes:
    """The leaf of one chunk of a copy: SHA-256 of a zero byte and the chunk."""
    digest = sha256(b"\x00")
    digest.update(chunk)
    return digest.digest()


def merkle_root(leaf_hashes: Sequence[bytes]) -> bytes:
    """The 32-byte root above ``leaf_hashes``; ValueError if there are none."""
    if not leaf_hashes:
        raise ValueError("a tree needs a leaf")
    level = list(leaf_hashes)
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        above = [sha256(b"\x01" + left + right).digest() for left, right in pairs]
        if len(level) % 2:
            above.append(level[-1])
        level = above
    return level[0]
