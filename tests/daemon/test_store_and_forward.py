"""Two members that nobody can dial, and one that both reach: entries pass through it, both ways."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import cast

import pytest
import trio
from daemon_kit import in_trio, key, make_manifest, make_node, same, vector

from tapestry_p2p.daemon.address import Address
from tapestry_p2p.daemon.manifest import Manifest
from tapestry_p2p.daemon.node import Node
from tapestry_p2p.daemon.status import Control
from tapestry_p2p.daemon.store import Store
from tapestry_p2p.daemon.trainer import TrainedVector, Trainer

ROUNDS = 6


class Told:
    """A trainer's place."""

    life, adding = 1, False

    async def correct(self, *_: object) -> bool:
        return True


async def _begin(nursery: trio.Nursery, node: Node) -> None:
    await nursery.start(node.run)
    node.copies.set_genesis(vector())
    await node.rounds.settle_stream()


def _hidden(manifest: Manifest, store: Store, n: int, open_one: Node) -> Node:
    """A node that listens nowhere and dials one that does, as behind a router."""
    where = open_one.transport.addresses[0]
    address = Address(where.kind, where.host, where.port, key(1).peer_id)
    node = make_node(manifest, store, n, bootstrap=(address,))
    node.options = replace(node.options, listen=())
    return node


async def _one_round(node: Node, number: int) -> None:
    record: dict[str, float] = {
        "seq": number,
        "round": number,
        "applied": 0,
        "added": 0,
        "tokens": 1,
    }
    record |= {"seconds": 0.1, "steps": 1}
    y = node.rounds.loom.x + vector(seed=number, scale=0.01) if node.rounds.loom else vector()
    await node.rounds._one_round(cast(Trainer, Told()), TrainedVector(y, record, 1))


def _holds(reader: Node, author: Node) -> bool:
    held, own = reader.copies.followed.get(author.key), author.copies.own
    assert own is not None
    stands = held is not None and held.seq == own.seq
    return stands and held is not None and same(held.copy.vector, own.copy.vector)


async def _until(what: str, true: object, seconds: float = 60.0) -> None:
    assert callable(true)
    with trio.move_on_after(seconds):
        while not true():
            await trio.sleep(0.02)
        return
    raise AssertionError(what)


@in_trio
async def test_entries_of_one_that_cannot_be_reached_come_through_a_mutual_peer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tapestry_p2p.daemon.node.DIGEST_EVERY_S", 3.0)
    manifest = make_manifest(vector(), probation_rounds=0)
    with ExitStack() as stack:
        stores = [Store(tmp_path / f"{n}", 16) for n in (1, 2, 3)]
        for store in stores:
            stack.callback(store.close)
        async with trio.open_nursery() as nursery:
            middle = make_node(manifest, stores[0], 1)
            await _begin(nursery, middle)
            one, other = (_hidden(manifest, stores[n - 1], n, middle) for n in (2, 3))
            for node in (one, other):
                await _begin(nursery, node)
            took = []
            for number in range(1, ROUNDS + 1):
                began = trio.current_time()
                await _one_round(one, number)
                await _until(f"round {number}", lambda: _holds(other, one))
                took.append(trio.current_time() - began)
            assert set(one.transport.connections) == {middle.key}
            assert set(other.transport.connections) == {middle.key}
            assert median(took) < 0.5, "pushed on, not found in a digest"
            status = await Control(other).answer({"do": "status"})
            assert (status["reach"], status["through_others"]) == ("dialled only", 1)
            told = (await Control(other).answer({"do": "peers"}))["peers"]
            ways = {row["id"]: row["way"] for row in told}
            assert ways == {key(1).peer_id: "dialled", key(2).peer_id: "through others"}
            assert (await Control(middle).answer({"do": "status"}))["reach"] == "direct"
            for node in (one, other, middle):
                node.stop()
