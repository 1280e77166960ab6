"""The processes of benches/door.py: a member without a trainer, and those who knock at its door.

    python benches/door_member.py member FOLDER NUMBER [--host H] [--near ADDRESS ...] [--bulk]
                                         [--announce ADDRESS] [--upload B] [--download B]
    python benches/door_member.py reconnect ADDRESS COUNT
    python benches/door_member.py idle ADDRESS COUNT SOURCE,...

Each is told what to do by its words, ends with its standard input, and prints JSON lines. The
member is the daemon's own node, with its control socket in FOLDER; with --bulk it also draws one
vector after the other from every peer, and prints what came and how long small talk took.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import trio

sys.path.insert(0, str(Path(__file__).parents[1]))

from tapestry_p2p.daemon import control, transport
from tapestry_p2p.daemon.address import Address, parse_address
from tapestry_p2p.daemon.copies import copy_root
from tapestry_p2p.daemon.manifest import Genesis, Manifest, Network, Schema, Task
from tapestry_p2p.daemon.node import Node, NodeOptions
from tapestry_p2p.daemon.recovery import recover
from tapestry_p2p.daemon.silent import Silent
from tapestry_p2p.daemon.status import Control
from tapestry_p2p.daemon.store import Store
from tapestry_p2p.daemon.transport import Connection, Transport, TransportError
from tapestry_p2p.daemon.yamux import MuxError
from tapestry_p2p.gossip.fetch import FrameRequest, LeavesRequest, encode_request
from tapestry_p2p.gossip.identity import Identity, peer_id_of, public_key_of
from tapestry_p2p.mix.copy import FRAME_BYTES, PublicCopy

PARAMETERS = 1 << 20  # 4 MB: what a bulk transfer draws again and again
REOPEN_S = 5.0  # an idle socket that was cut is opened again after so long
TALK_EVERY_S = 0.05


def say(**words: Any) -> None:
    """One JSON line."""
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def seed_of(number: int) -> bytes:
    """The key of a member of the bench."""
    return bytes([number]) * 32


def vector() -> Any:
    """The network's first vector, float32[PARAMETERS]."""
    return np.random.default_rng(0).standard_normal(PARAMETERS, np.float32)


def manifest() -> Manifest:
    """The network of the bench."""
    return Manifest(
        network=Network(name="door"),
        task=Task(name="language"),
        schema=Schema(hash="ab" * 32, parameters=PARAMETERS),
        genesis=Genesis(seed=1, root=copy_root(PublicCopy(vector())).hex()),
    )


# ---- a member ------------------------------------------------------------------------------------


async def member(options: argparse.Namespace) -> None:
    """A node until standard input ends."""
    transport.PING_EVERY_S, transport.PING_DEADLINE_S = options.ping
    folder = Path(options.folder)
    network, seed = manifest(), seed_of(options.number)
    store = Store(folder / "store", network.streams.ring)
    host = Address("ip4", options.host, 0)
    near = tuple(map(parse_address, options.near))
    found = recover(store, PARAMETERS, network.limits.norm_max)
    announced = parse_address(options.announce) if options.announce else host
    words = NodeOptions(
        listen=(host,),
        announce=(announced,),
        bootstrap=near,
        upload=options.upload,
        download=options.download,
    )
    node = Node(network, words, Identity(seed), seed, store, found, None, Random(options.number))
    async with trio.open_nursery() as nursery:
        await nursery.start(control.serve, folder / "control.sock", Control(node).answer)
        await nursery.start(node.run_and_then, nursery.cancel_scope.cancel)
        node.copies.set_genesis(vector())
        await node.rounds.settle_stream()
        if options.bulk:
            nursery.start_soon(Bulk(node, options.talk).run)
        say(port=node.transport.addresses[0].port, id=peer_id_of(node.key))
        await until_stdin_ends()
        node.stop()
    store.close()


class Bulk:
    """Draws the network's first vector from every peer, for ever, and talks beside it."""

    def __init__(self, node: Node, talk_every_s: float) -> None:
        self._node, self._talk_every_s = node, talk_every_s
        self._root = bytes.fromhex(node.manifest.genesis.root)
        self.got: Counter[str] = Counter()
        self.waits: dict[str, list[float]] = {}

    async def run(self) -> None:
        """A draw and a talk for each connection, one line a second."""
        served: set[int] = set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._report)
            while True:
                for connection in list(self._node.transport.connections.values()):
                    if id(connection) not in served:
                        served.add(id(connection))
                        nursery.start_soon(self._until_closed, self._draw, connection)
                        nursery.start_soon(self._until_closed, self._talk, connection)
                await trio.sleep(0.05)

    async def _until_closed(
        self, task: Callable[[Connection], Awaitable[None]], connection: Connection
    ) -> None:
        try:
            await task(connection)
        except (TransportError, MuxError):
            await connection.closed.wait()

    async def _draw(self, connection: Connection) -> None:
        author, name = connection.peer, peer_id_of(connection.peer)
        while not connection.closed.is_set():
            leaves = encode_request(LeavesRequest(author, 0, self._root))
            await connection.fetch(leaves, 1 << 20)
            for index in range(4 * PARAMETERS // FRAME_BYTES):
                frame = FrameRequest(author, 0, self._root, index, 0, FRAME_BYTES)
                async with self._node.fetcher.download.asking_for(FRAME_BYTES):
                    _, body = await connection.fetch(encode_request(frame), FRAME_BYTES)
                self.got[name] += len(body)

    async def _talk(self, connection: Connection) -> None:
        waits = self.waits.setdefault(peer_id_of(connection.peer), [])
        stream = await connection._open("ping")
        while not connection.closed.is_set():
            began = trio.current_time()
            await stream.write(b"\x00\x00\x00\x0812345678")
            await stream.read_exactly(12)
            waits.append(trio.current_time() - began)
            await trio.sleep(self._talk_every_s)

    async def _report(self) -> None:
        while True:
            await trio.sleep(1)
            peers = [peer_id_of(key) for key in self._node.transport.connections]
            say(peers=peers, got=self.got, waits=self.waits)
            for waits in self.waits.values():
                waits.clear()


# ---- those who knock -----------------------------------------------------------------------------


async def reconnect(target: str, count: int) -> None:
    """One identity that connects and leaves, ``count`` times."""
    address = parse_address(target)
    peer = public_key_of(address.peer_id)
    knocker = Transport(seed_of(200), Silent())
    tally: Counter[str] = Counter()
    async with trio.open_nursery() as nursery:
        await nursery.start(knocker.serve)
        for _ in range(count):
            if await knocker.dial(peer, [address]):
                tally["connected"] += 1
                connection = knocker.connections[peer]
                connection.abort("again")
                await connection.closed.wait()
            else:
                tally["refused"] += 1
        nursery.cancel_scope.cancel()
    say(**tally)


async def idle(target: str, count: int, sources: list[str]) -> None:
    """``count`` sockets that say nothing; whoever is cut comes again."""
    address, random = parse_address(target), Random(count)
    tally: Counter[str] = Counter()

    async def hold(source: str) -> None:
        while True:
            try:
                with trio.socket.socket() as sock:
                    await sock.bind((source, 0))
                    await sock.connect((address.host, address.port))
                    tally["opened"] += 1
                    while await sock.recv(1024):
                        pass  # it greets us; we say nothing
                tally["cut"] += 1
            except OSError:
                tally["failed"] += 1
            await trio.sleep(REOPEN_S * random.uniform(0.5, 1.5))

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(hold, sources[number % len(sources)])
        say(ready=True)
        await until_stdin_ends()
        nursery.cancel_scope.cancel()
    say(**tally)


async def until_stdin_ends() -> None:
    """The bench holds the other end."""
    async with trio.lowlevel.FdStream(0) as stdin:
        while await stdin.receive_some(4096):
            pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("member")
    one.add_argument("folder")
    one.add_argument("number", type=int)
    one.add_argument("--host", default="127.0.0.1")
    one.add_argument("--near", nargs="*", default=[])
    one.add_argument("--bulk", action="store_true")
    one.add_argument("--talk", type=float, default=TALK_EVERY_S)
    one.add_argument("--announce", default="")
    one.add_argument("--upload", type=float, default=0.0)
    one.add_argument("--download", type=float, default=0.0)
    ping = (transport.PING_EVERY_S, transport.PING_DEADLINE_S)
    one.add_argument("--ping", nargs=2, type=float, default=ping)
    one = verbs.add_parser("reconnect")
    one.add_argument("address")
    one.add_argument("count", type=int)
    one = verbs.add_parser("idle")
    one.add_argument("address")
    one.add_argument("count", type=int)
    one.add_argument("sources")
    options = parser.parse_args()
    match options.verb:
        case "member":
            trio.run(member, options)
        case "reconnect":
            trio.run(reconnect, options.address, options.count)
        case _:
            trio.run(idle, options.address, options.count, options.sources.split(","))


if __name__ == "__main__":
    main()
