"""What a member says it is doing, before and after its trainer trains."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import trio
from daemon_kit import in_trio, make_manifest, make_node, vector

from tapestry_p2p.daemon.status import Control
from tapestry_p2p.daemon.store import Store


@in_trio
async def test_a_member_trains_once_its_trainer_was_told_where_to_start(tmp_path: Path) -> None:
    manifest = make_manifest(vector())
    store = Store(tmp_path / "store", manifest.streams.ring)
    node = make_node(manifest, store)
    control = Control(node)
    trainer: Any = SimpleNamespace(begun=False, state=SimpleNamespace(running=True))
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        assert control.health() == (False, "starting")  # nobody knows the first vector yet
        node.copies.set_genesis(vector())
        await node.rounds.settle_stream()
        node.trainer = trainer
        assert control.health() == (False, "starting")  # the trainer compiles
        trainer.begun = True
        assert control.health() == (True, "training")
        trainer.state.running = False
        assert control.health() == (False, "trainer is being restarted")
        node.trainer = None
        node.stop()
    store.close()
