"""A Byzantine member as a real process: a node without a trainer that publishes an attack.

For testnets only. It keeps pace with the honest members: one entry whenever all whose copies it
holds have moved on, or after a while.
"""

import contextlib
import logging
from collections.abc import Callable, Iterable

import numpy as np
import trio

from tapestry_p2p.daemon.node import Node
from tapestry_p2p.daemon.voice import SilencedError
from tapestry_p2p.errors import BAD_CONFIG, TapestryError
from tapestry_p2p.mix.codec import decode, encode
from tapestry_p2p.mix.loom import Difference

log = logging.getLogger("tapestry.attacker")

POLL_S = 0.05
PATIENCE_S = 2.0


class Attacker:
    """Drives ``node`` by the attack named ``attack`` of sim/attacks.py."""

    def __init__(self, node: Node, attack: str) -> None:
        from tapestry_p2p.sim.attacks import ATTACKS

        if attack not in ATTACKS:
            raise TapestryError(
                f"testing.attack: no attack {attack!r}; choose from {', '.join(sorted(ATTACKS))}",
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
        node, codec = self._node, self._node.manifest.streams.codec
        own, genesis = node.copies.own, node.copies.genesis
        vectors = list(node.copies.vectors().values())
        if own is None or genesis is None or not vectors or not node.rounds.go.is_set():
            return
        async with node.fetcher.mixing:
            target = self._attack(genesis.vector, np.stack(vectors))
            payload = encode(codec, (target - own.copy.vector).astype(np.float32))
            difference = Difference(payload, decode(codec, payload, len(own.copy)))
            with contextlib.suppress(SilencedError):  # after a restart it asks first, as all do
                await node.rounds.publish_difference(difference, round_, 0)
                own.copy.add(difference.vector)
                node.rounds.round = round_
                await node.rounds.save(throttled=True)
