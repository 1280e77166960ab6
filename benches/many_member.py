"""A member of benches/many.py and benches/wide.py: the daemon's own node, its trainer a stand-in.

    python benches/many_member.py FOLDER NUMBER --members N [--host H] [--port P] [--deaf]
                                  [--announce ADDRESS ...] [--near ADDRESS ...]
                                  [--every SECONDS] [--parameters D]

Says its address, then one JSON line a second of what it knows, mixed, sent and received; ends with
its standard input. The stand-in hands over a vector every ``--every`` seconds that moved a little
by itself, and adds what mixing gives. ``--deaf`` listens nowhere, as behind a router.
"""

import argparse
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any, cast

import numpy as np
import trio

sys.path.insert(0, str(Path(__file__).parents[1]))

from benches.door_member import until_stdin_ends
from tapestry_p2p.daemon.address import Address, parse_address
from tapestry_p2p.daemon.copies import copy_root
from tapestry_p2p.daemon.manifest import Genesis, Manifest, Network, Schema, Task
from tapestry_p2p.daemon.node import Node, NodeOptions
from tapestry_p2p.daemon.reach import reach
from tapestry_p2p.daemon.recovery import recover
from tapestry_p2p.daemon.store import Store
from tapestry_p2p.daemon.trainer import TrainedVector, Trainer
from tapestry_p2p.gossip.identity import Identity, peer_id_of
from tapestry_p2p.heap import resident_bytes
from tapestry_p2p.mix.copy import PublicCopy

STEP = 1e-3  # of a coordinate in a round; genesis is drawn with deviation 1
NAME = "many"


def seed_of(number: int) -> bytes:
    """The key of a member."""
    return number.to_bytes(2, "big") * 16


def vector(parameters: int) -> Any:
    """The network's first vector, float32[d]."""
    return np.random.default_rng(0).standard_normal(parameters, np.float32)


def manifest(members: int, parameters: int) -> Manifest:
    """A network founded by all of its members."""
    founders = [Identity(seed_of(n)).peer_id for n in range(members)]
    root = copy_root(PublicCopy(vector(parameters))).hex()
    return Manifest(
        network=Network(name=NAME),
        task=Task(name="language"),
        schema=Schema(hash="ab" * 32, parameters=parameters),
        genesis=Genesis(seed=1, root=root, members=founders),
    )


class StandIn:
    """In the trainer's place: moves by itself, adds what it is told to."""

    life, begun, adding, held = 1, True, False, False
    results = None  # it measures nothing

    def __init__(self, node: Node, number: int, every_s: float) -> None:
        self._node, self._every_s = node, every_s
        self._random = np.random.default_rng(number)
        self.stopped = trio.Event()
        self._ending = trio.Event()
        self.x = vector(node.manifest.schema.parameters)
        self.seq = self.applied = self.added = 0
        self.handed: list[float] = []  # when each round's vector was handed over

    async def run(self) -> None:
        """Begin where the network begins, then live."""
        self._node.copies.set_genesis(vector(len(self.x)))
        await self._node.rounds.settle_stream()
        await self._ending.wait()
        self.stopped.set()

    async def stop(self) -> None:
        """End."""
        self._ending.set()

    async def vectors(self) -> AsyncIterator[TrainedVector]:
        """A round's y, again and again."""
        while self._node.rounds.loom is None:
            await trio.sleep(0.1)
        await trio.sleep(self._every_s * float(self._random.random()))
        due = trio.current_time()
        while True:
            due += self._every_s
            await trio.sleep_until(due)
            self.x = self.x + STEP * self._random.standard_normal(len(self.x), np.float32)
            self.seq += 1
            record: dict[str, Any] = {
                "seq": self.seq,
                "round": self.seq,
                "applied": self.applied,
                "steps": 1,
            }
            record |= {"added": self.added, "tokens": 0, "seconds": self._every_s}
            self.handed.append(trio.current_time())
            yield TrainedVector(self.x, record, self.life)

    async def correct(self, seq: int, correction: Any, life: int) -> bool:
        """What mixing a round gave."""
        self.x, self.applied = self.x + correction, seq
        return True

    async def add(self, addition: Any, life: int) -> int:
        """What mixing news gave."""
        self.x, self.added = self.x + addition, self.added + 1
        return self.added

    async def hold(self) -> None:
        """Never asked for."""

    def release(self) -> None:
        """Never asked for."""


def _facts(node: Node, trainer: StandIn) -> dict[str, Any]:
    """One line."""
    traffic, own = node.transport.traffic, node.copies.own
    heads = {peer_id_of(a): f.seq for a, f in node.copies.followed.items()}
    return {
        "at": time.monotonic(),
        "members": len(node.protocol.members()),
        "peers": len(node.transport.connections),
        "linked": len(node.protocol.followed()),
        "mixed": len(node.rounds.mixed["authors"]),
        "round": node.rounds.round,
        "handed": len(trainer.handed),
        "seq": own.seq if own else -1,
        "copies": heads,
        "sent": traffic.sent,
        "received": traffic.received,
        "cpu_s": time.process_time(),
        "rss_mb": resident_bytes() / 1e6,
        **reach(node),
    }


async def member(options: argparse.Namespace) -> None:
    """A node until standard input ends."""
    folder, number = Path(options.folder), options.number
    network, seed = manifest(options.members, options.parameters), seed_of(number)
    store = Store(folder / "store", network.streams.ring)
    found = recover(store, options.parameters, network.limits.norm_max)
    listen = () if options.deaf else (Address("ip4", options.host, options.port),)
    words = NodeOptions(
        name=f"m{number}",
        listen=listen,
        announce=tuple(map(parse_address, options.announce)),
        bootstrap=tuple(map(parse_address, options.near)),
        inner_steps=1,
    )
    trainers: list[StandIn] = []

    def make(node: Node) -> Trainer:
        trainers.append(StandIn(node, number, options.every))
        return cast(Trainer, trainers[0])

    node = Node(network, words, Identity(seed), seed, store, found, make, Random(number))
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run_and_then, nursery.cancel_scope.cancel)
        port = node.transport.addresses[0].port if listen else 0
        _say(port=port, id=peer_id_of(node.key))
        nursery.start_soon(_report, node, trainers[0])
        await until_stdin_ends()
        node.stop()
    store.close()


async def _report(node: Node, trainer: StandIn) -> None:
    while True:
        await trio.sleep(1)
        _say(**_facts(node, trainer))


def _say(**words: Any) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder")
    parser.add_argument("number", type=int)
    parser.add_argument("--members", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--announce", nargs="*", default=[])
    parser.add_argument("--near", nargs="*", default=[])
    parser.add_argument("--every", type=float, default=5.0)
    parser.add_argument("--parameters", type=int, default=10_000)
    parser.add_argument("--deaf", action="store_true")
    trio.run(member, parser.parse_args())


if __name__ == "__main__":
    main()
