"""What all members of one simulated network share: the world, the wires, the manifest's part.

A plain record, made by cluster.py and handed to every member.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256

from tapestry_p2p.gossip.identity import Identity, verify
from tapestry_p2p.gossip.messages import Sync, decode_sync
from tapestry_p2p.gossip.settings import Settings
from tapestry_p2p.mix.loom import LoomSettings
from tapestry_p2p.sim.network import Network
from tapestry_p2p.sim.training import Training
from tapestry_p2p.sim.vault import Point, Vault
from tapestry_p2p.sim.world import World


@dataclass(frozen=True)
class Person:
    """Who a member is and how it signs."""

    name: str
    key: bytes
    sign: Callable[[bytes], bytes]
    verify: Callable[[bytes, bytes, bytes], bool]


@dataclass(frozen=True)
class Stage:
    """Shared by all members. ``names`` tells who a key is, for the trace."""

    world: World
    network: Network
    settings: Settings
    loom: LoomSettings
    genesis: Point
    vault: Vault
    training: Training
    parse: Callable[[bytes, int], Sync]
    names: dict[bytes, str] = field(default_factory=dict)
    tick_s: float = 0.25  # between two ticks of a member

    @property
    def d(self) -> int:
        """Number of parameters."""
        return len(self.genesis.vector)


def shared_parser() -> Callable[[bytes, int], Sync]:
    """The production parser; a frame that went to many is parsed once."""
    return lru_cache(1024)(decode_sync)


def person(seed: int, n: int, real_signatures: bool) -> Person:
    """Member n of a run. Hashes may stand in for real signatures: a hundred times cheaper."""
    me = Identity(sha256(f"{seed} {n}".encode()).digest())
    if real_signatures:
        return Person(f"m{n}", me.public_key, me.sign, verify)
    return Person(f"m{n}", me.public_key, lambda m: _mark(me.public_key, m), _is_marked)


def _mark(key: bytes, message: bytes) -> bytes:
    """A cheap stand-in for a signature; only for runs in which nobody forges any."""
    return sha256(key + message).digest() * 2


def _is_marked(key: bytes, signature: bytes, message: bytes) -> bool:
    return signature == _mark(key, message)
