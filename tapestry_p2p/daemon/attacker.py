"""A Byzantine member as a real process: a node without a trainer that publishes an attack.

For testnets only. It keeps pace with the honest members: one entry whenever all whose copies it
holds have moved on, or after a while. Its entries are well signed and well numbered; what they say
is the attack's. An attack that spoils payloads leaves its own copy where it is.
"""

import contextlib
import logging
from collections.abc import Callable, Iterable

import numpy as np
import trio

from tapestry_p2p.daemon.copies import Followed, copy_root, split
from tapestry_p2p.daemon.node import Node
from tapestry_p2p.daemon.voice import SilencedError
from tapestry_p2p.errors import BAD_CONFIG, TapestryError
from tapestry_p2p.gossip import events as ev
from tapestry_p2p.gossip.header import DIFFERENCE
from tapestry_p2p.mix.codec import Vector, decode, encode, payload_bytes
from tapestry_p2p.mix.loom import Difference

log = logging.getLogger("tapestry.attacker")

POLL_S = 0.05
PATIENCE_S = 2.0


class Attacker:
    """Drives ``node`` by the attack named ``attack`` of sim/attacks.py."""

    def __init__(self, node: Node, attack: str) -> None:
        from tapestry_p2p.sim.attacks import ATTACKS, PLAYABLE

        if attack not in PLAYABLE:
            raise TapestryError(
                f"testing.attack: no attack {attack!r}; choose from {', '.join(sorted(PLAYABLE))}",
                BAD_CONFIG,
            )
        self._node = node
        self._attack = ATTACKS[attack]
        self._seen: dict[bytes, int] = {}

    async def run(self) -> None:
        """Until cancelled."""
        await self._node.rounds.adopt_genesis()
        while True:
            await self._next_round()
            await self._publish(self._node.rounds.round + 1)

    async def _next_round(self) -> None:
        """Until all have moved on, or some have and patience ends."""
        with trio.move_on_after(PATIENCE_S):
            while not self._moved(all):
                await trio.sleep(POLL_S)
        while not self._moved(any):
            await trio.sleep(POLL_S)
        self._seen = {a: f.seq for a, f in self._node.copies.followed.items()}

    def _moved(self, enough: Callable[[Iterable[bool]], bool]) -> bool:
        followed = self._node.copies.followed
        return bool(followed) and enough(f.seq > self._seen.get(a, 0) for a, f in followed.items())

    async def _publish(self, round_: int) -> None:
        node = self._node
        own, genesis = node.copies.own, node.copies.genesis
        vectors = list(node.copies.vectors().values())
        if own is None or genesis is None or not vectors or not node.rounds.go.is_set():
            return
        async with node.rounds.speaking:
            with contextlib.suppress(SilencedError):  # after a restart it asks first, as all do
                if self._attack.spoils:
                    await self._publish_spoiled(own, round_)
                else:
                    target = self._attack.play(genesis.vector, np.stack(vectors))
                    await self._publish_step(own, target, round_)
                node.rounds.round = round_
                await node.rounds.save(throttled=True)

    async def _publish_step(self, own: Followed, target: Vector, round_: int) -> None:
        """As an honest member would publish ``target`` float32[d]."""
        codec = self._node.manifest.streams.codec
        payload = encode(codec, (target - own.copy.vector).astype(np.float32))
        difference = Difference(payload, decode(codec, payload, len(own.copy)))
        await self._node.rounds.publish_difference(difference, round_, 0)
        own.copy.add(difference.vector)

    async def _publish_spoiled(self, own: Followed, round_: int) -> None:
        """An entry of the due size, whose chunks hold what no honest encoder makes."""
        from tapestry_p2p.sim.attacks import spoil

        node, codec = self._node, self._node.manifest.streams.codec
        size = payload_bytes(codec, len(own.copy))
        payload = spoil(self._attack.spoils, bytes(size))
        chunks = split(payload, node.manifest.limits.chunk_bytes_max)
        node.copies.chunks.put_own(own.seq + 1, dict(chunks), node.manifest.streams.ring)
        node.rounds.payload = payload
        names = tuple(name for name, _ in chunks)
        now, root = trio.current_time(), copy_root(own.copy)
        await node.rounds.voice.publish(
            ev.Publish(
                DIFFERENCE, now, codec=codec, chunks=names, payload_bytes=size, root=root,
                round=round_,
            )
        )  # fmt: skip
