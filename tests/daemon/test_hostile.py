"""Every hostile program against a running node: it serves an honest peer on, and stays itself."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from daemon_kit import in_trio, key, make_manifest, make_node, vector

from tapestry_p2p.daemon.address import Address
from tapestry_p2p.daemon.store import Store
from tapestry_p2p.gossip.identity import peer_id_of
from tapestry_p2p.sim.hostile.stranger import Victim, find_victim
from tapestry_p2p.sim.hostile.table import PROGRAMS

MANIFEST = make_manifest(vector())
FRIENDS = tuple(peer_id_of(key(n).public_key) for n in (1, 2))


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[list[Store]]:
    made = [Store(tmp_path / str(n), MANIFEST.streams.ring) for n in range(2)]
    yield made
    for store in made:
        store.close()


def attacked_for(name: str) -> float:
    return {"late_publisher": 3.5}.get(name, 1.0)


@pytest.mark.parametrize("name", PROGRAMS)
@in_trio
async def test_a_node_under_attack_goes_on(name: str, stores: list[Store]) -> None:
    tally: Counter[str] = Counter()
    async with trio.open_nursery() as nursery:
        nodes = [
            make_node(MANIFEST, store, n + 1, trusted=FRIENDS) for n, store in enumerate(stores)
        ]
        for node in nodes:
            await nursery.start(node.run)
            node.copies.set_genesis(vector())
            await node.rounds.settle_stream()
        victims = []
        for node in nodes:
            bound = node.transport.addresses[0]
            address = Address(bound.kind, bound.host, bound.port, peer_id_of(node.key))
            victims.append(await find_victim(str(address), MANIFEST.network_id))
        assert all(isinstance(victim, Victim) for victim in victims)

        with trio.move_on_after(attacked_for(name)):
            await PROGRAMS[name](victims, tally)
        assert tally.total(), "it did nothing"
        us, other = nodes
        assert tally["accepted"] == 0
        began = time.monotonic()
        with trio.fail_after(8):
            while not us.protocol.greeted() or other.key not in us.transport.connections:
                await other.transport.dial(us.key, [us.transport.addresses[0]])
                await trio.sleep(0.05)
        assert time.monotonic() - began < 8
        with trio.fail_after(8):
            while us.protocol.weight_zero(other.key):
                await trio.sleep(0.05)
        for one, peer in ((us, other), (other, us)):
            proofs = one.protocol.snapshot().proofs
            assert peer.key not in {proof.author for proof in proofs}
        for node in nodes:
            tables = node.protocol.statistics()["tables"]
            assert tables["streams"] <= 64
            assert tables["members"] <= 256
            node.stop()


@in_trio
async def test_a_fork_is_proved_at_every_node(stores: list[Store]) -> None:
    """Each of the two is shown another entry; they compare, and both give it weight 0."""
    async with trio.open_nursery() as nursery:
        nodes = [make_node(MANIFEST, store, n + 1) for n, store in enumerate(stores)]
        victims = []
        for node in nodes:
            await nursery.start(node.run)
            node.copies.set_genesis(vector())
            await node.rounds.settle_stream()
            bound = node.transport.addresses[0]
            address = Address(bound.kind, bound.host, bound.port, peer_id_of(node.key))
            victims.append(await find_victim(str(address), MANIFEST.network_id))
        assert await nodes[0].transport.dial(nodes[1].key, [nodes[1].transport.addresses[0]])

        def proved() -> bool:
            return all(node.protocol.statistics()["accept"].get("fork") for node in nodes)

        async with trio.open_nursery() as attack:
            attack.start_soon(PROGRAMS["forker"], victims, Counter())
            with trio.fail_after(20):
                while not proved():
                    await trio.sleep(0.05)
            attack.cancel_scope.cancel()
        for node in nodes:
            node.stop()
