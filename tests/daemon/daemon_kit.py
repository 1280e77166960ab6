"""The daemon tests share: trio without a plugin, small vectors, an author of real entries."""

import functools
import os
import resource
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from typing import Any, ParamSpec

import numpy as np
import trio
import trio.testing

from tapestry_p2p.daemon.address import Address
from tapestry_p2p.daemon.copies import copy_root, split
from tapestry_p2p.daemon.manifest import Genesis, Manifest, Mixing, Network, Schema, Task
from tapestry_p2p.daemon.node import Node, NodeOptions
from tapestry_p2p.daemon.recovery import Recovered, recover
from tapestry_p2p.daemon.store import LoggedEntry, Store
from tapestry_p2p.gossip.header import (
    DIFFERENCE,
    GENESIS,
    NO_HASH,
    PROFILE,
    RESUME,
    Header,
    SignedHeader,
    sign,
)
from tapestry_p2p.gossip.identity import Identity
from tapestry_p2p.gossip.merkle import chunk_hash
from tapestry_p2p.mix.codec import Vector, decode, encode
from tapestry_p2p.mix.copy import PublicCopy

P = ParamSpec("P")

NETWORK = bytes(range(32))
D = 600  # parameters: three blocks of a codec, the last one short
DEADLINE_S = 20.0  # of real time, for what takes a fraction of a second


def in_trio(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """The test under trio and the real clock; it fails rather than hangs."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def bounded() -> None:
            with trio.fail_after(DEADLINE_S):
                await test(*args, **kwargs)

        trio.run(bounded)

    return run


def in_mock_time(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """The test under a clock that jumps whenever everybody waits: nothing really sleeps."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        clock = trio.testing.MockClock(autojump_threshold=0)
        trio.run(functools.partial(test, *args, **kwargs), clock=clock)

    return run


def vector(d: int = D, seed: int = 0, scale: float = 1.0) -> Vector:
    """float32[d], the same for the same seed."""
    drawn = np.random.default_rng(seed).normal(0, scale, d)
    return drawn.astype(np.float32)


def same(one: Vector | None, other: Vector | None) -> bool:
    """Whether two vectors are the same bit for bit."""
    return one is not None and other is not None and one.tobytes() == other.tobytes()


def key(n: int) -> Identity:
    """A member's key, the same for the same number."""
    return Identity(bytes([n]) * 32)


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """Whoever opens a file or accepts a connection in this process is refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Author:
    """Writes a stream of real entries, and keeps its public copy as a follower would."""

    def __init__(
        self,
        n: int = 1,
        d: int = D,
        codec: str = "2bit",
        chunk_bytes: int = 1 << 18,
        network: bytes = NETWORK,
    ) -> None:
        self.network = network
        self.identity = key(n)
        self.key = self.identity.public_key
        self.codec, self.chunk_bytes = codec, chunk_bytes
        self.copy = PublicCopy(vector(d))
        self.entries: list[LoggedEntry] = []
        self.signed: list[SignedHeader] = []
        self.incarnation = bytes([n]) * 16

    @property
    def seq(self) -> int:
        return len(self.entries) - 1

    def write(self, kind: str, payload: bytes = b"", *, round_: int = 0, **changes: Any) -> None:
        """Append one entry; a difference has already moved the copy."""
        chunks = tuple(name for name, _ in split(payload, self.chunk_bytes))
        if kind == PROFILE:
            chunks = (chunk_hash(payload),)
        header = Header(
            network=self.network,
            author=self.key,
            incarnation=self.incarnation,
            seq=len(self.entries),
            prev=self.signed[-1].header.hash if self.signed else NO_HASH,
            kind=kind,
            codec=self.codec if kind == DIFFERENCE else "",
            chunks=chunks,
            payload_bytes=len(payload),
            root=copy_root(self.copy),
            round=round_,
            tokens=0,
            cites=b"",
        )
        signed = sign(replace(header, **changes), self.identity.sign)
        self.signed.append(signed)
        self.entries.append(LoggedEntry(header.seq, signed.encode(), payload))

    def genesis(self) -> "Author":
        self.write(GENESIS)
        return self

    def difference(self, **changes: Any) -> "Author":
        """One round: the copy moves by a coded step."""
        step = vector(len(self.copy), seed=len(self.entries), scale=0.01)
        payload = encode(self.codec, step)
        self.copy.add(decode(self.codec, payload, len(self.copy)))
        self.write(DIFFERENCE, payload, round_=len(self.entries), **changes)
        return self

    def profile(self) -> "Author":
        self.write(PROFILE, b"a profile")
        return self

    def resume(self) -> "Author":
        """Go on under a new incarnation."""
        self.incarnation = bytes(byte ^ 255 for byte in self.incarnation)
        self.write(RESUME)
        return self

    def grow(self, count: int) -> "Author":
        for _ in range(count):
            self.difference()
        return self


def make_manifest(genesis: Vector, **mixing: Any) -> Manifest:
    """A network whose members start at ``genesis`` float32[d]."""
    return Manifest(
        network=Network(name="test"),
        task=Task(name="language"),
        schema=Schema(hash="ab" * 32, parameters=len(genesis)),
        genesis=Genesis(seed=1, root=copy_root(PublicCopy(genesis)).hex()),
        mixing=Mixing(**mixing),
    )


def make_node(
    manifest: Manifest, store: Store, n: int = 1, found: Recovered | None = None, **options: Any
) -> Node:
    """A node without a trainer that listens on the loopback, as ``run`` would build it."""
    if found is None:
        found = recover(store, manifest.schema.parameters, manifest.limits.norm_max)
    listen = (Address("ip4", "127.0.0.1", 0),)
    identity = key(n)
    return Node(
        manifest,
        NodeOptions(listen=listen, **options),
        identity,
        bytes([n]) * 32,
        store,
        found,
        None,
        Random(n),
    )
