"""A member of another network: both sides say so, with both ids, and both go on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import trio
from daemon_kit import in_trio, make_manifest, make_node, vector

from tapestry_p2p.daemon.manifest import Network
from tapestry_p2p.daemon.node import Node
from tapestry_p2p.daemon.status import Control
from tapestry_p2p.daemon.store import Store

OURS = make_manifest(vector())
THEIRS = msgspec.structs.replace(OURS, network=Network(name="another"))


@asynccontextmanager
async def two(folder: Path) -> AsyncIterator[tuple[Node, Node]]:
    """A node of each network; the second was told the first one's address."""
    stores = [Store(folder / name, OURS.streams.ring) for name in ("a", "b")]
    try:
        async with trio.open_nursery() as nursery:
            a = make_node(OURS, stores[0], 1)
            await nursery.start(a.run)
            address = replace(a.transport.addresses[0], peer_id=a.identity.peer_id)
            b = make_node(THEIRS, stores[1], 2, bootstrap=(address,))
            await nursery.start(b.run)
            for node in (a, b):
                node.copies.set_genesis(vector())
                await node.rounds.settle_stream()
            yield a, b
            a.stop()
            b.stop()
    finally:
        for store in stores:
            store.close()


@in_trio
async def test_both_say_so_and_neither_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = (m.network_id.hex()[:16] for m in (OURS, THEIRS))
    wanted = [
        f"network {other} wire 1, ours is {one}",
        f"network {one} wire 1, ours is {other}",
    ]
    async with two(tmp_path) as (a, b):
        while not all(text in caplog.text for text in wanted):
            await trio.sleep(0.05)
        await trio.sleep(0.5)
        for node in (a, b):
            status = await Control(node).answer({"do": "status"})
            assert status["following"] == 0
            assert status["peers"] == 0
            assert status["verdicts"]["ignore"]["other_network"] >= 1
            assert not status["verdicts"].get("reject")
        assert caplog.text.count("dropping") <= 4  # it is not asked again and again
