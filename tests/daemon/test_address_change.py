"""A member that comes back at another address finds its peers, and they learn where it is now."""

from pathlib import Path

import pytest
import trio
from daemon_kit import in_trio, make_manifest, make_node, vector

from tapestry_p2p.daemon import node as module
from tapestry_p2p.daemon import voice
from tapestry_p2p.daemon.address import Address
from tapestry_p2p.daemon.node import Node
from tapestry_p2p.daemon.store import Store
from tapestry_p2p.gossip.identity import peer_id_of

MANIFEST = make_manifest(vector(), probation_rounds=0)


async def started(nursery: trio.Nursery, node: Node, ended: trio.Event) -> Node:
    await nursery.start(node.run_and_then, ended.set)
    node.copies.set_genesis(vector())
    await node.rounds.settle_stream()
    return node


async def knows(node: Node, of: Node) -> None:
    """Until its member table tells where the other listens now."""
    while True:
        profile = node.protocol.members().get(of.key)
        if profile and set(profile.addresses) >= {str(a) for a in of.transport.addresses}:
            return
        await trio.sleep(0.02)


@in_trio
async def test_it_dials_whom_it_knew_and_tells_its_new_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DIGEST_EVERY_S", 0.3)
    monkeypatch.setattr(voice, "OTHERS_S", 0.5)
    stores = [Store(tmp_path / name, MANIFEST.streams.ring) for name in ("a", "b")]
    gone = trio.Event()
    async with trio.open_nursery() as nursery:
        a = await started(nursery, make_node(MANIFEST, stores[0], 1), gone)
        (where,) = a.transport.addresses
        bootstrap = Address("ip4", where.host, where.port, peer_id_of(a.key))
        b = make_node(MANIFEST, stores[1], 2, bootstrap=(bootstrap,))
        await started(nursery, b, trio.Event())
        await knows(b, a)
        await knows(a, b)
        while b.key not in a.copies.followed:
            await trio.sleep(0.02)
        a.stop()
        await gone.wait()
        again = make_node(MANIFEST, stores[0], 1)  # it is told of nobody
        await started(nursery, again, trio.Event())
        assert again.transport.addresses[0].port != where.port
        while b.key not in again.protocol.greeted():
            await trio.sleep(0.02)
        await knows(b, again)
        again.stop()
        b.stop()
    for store in stores:
        store.close()
