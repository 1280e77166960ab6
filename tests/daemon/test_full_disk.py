"""A disk that refuses: the node says so, shows nothing it has not stored, goes on when it may."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from daemon_kit import in_trio, make_manifest, make_node, vector

from tapestry_p2p.daemon import disk as module
from tapestry_p2p.daemon.node import Node
from tapestry_p2p.daemon.status import Control
from tapestry_p2p.daemon.store import LoggedEntry, Store
from tapestry_p2p.gossip import effects as ef

MANIFEST = make_manifest(vector())


class Full:
    """A store whose disk is full as long as it is told so."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full, self.refused = False, 0
        self._append, self._save = store.append_entry, store.save_own
        monkeypatch.setattr(store, "append_entry", self.append_entry)
        monkeypatch.setattr(store, "save_own", self.save_own)

    def _check(self) -> None:
        if self.full:
            self.refused += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def append_entry(self, entry: LoggedEntry) -> None:
        self._check()
        self._append(entry)

    def save_own(self, *state: object) -> None:
        self._check()
        self._save(*state)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store", MANIFEST.streams.ring)
    yield store
    store.close()


@pytest.fixture
def disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> Full:
    monkeypatch.setattr(module, "RETRY_S", 0.02)
    return Full(store, monkeypatch)


async def made(nursery: trio.Nursery, store: Store) -> Node:
    node = make_node(MANIFEST, store)
    await nursery.start(node.run)
    node.copies.set_genesis(vector())
    await node.rounds.settle_stream()
    return node


async def round_of(node: Node) -> None:
    assert node.rounds.loom is not None
    async with node.fetcher.mixing:
        y = node.rounds.loom.latest + vector(scale=0.01)
        difference = node.rounds.loom.difference(y)
        await node.rounds.publish_difference(difference, node.rounds.round + 1, 0)
        node.rounds.loom.published(difference, y)


@in_trio
async def test_an_entry_waits_for_room_and_is_shown_after_it(
    store: Store, disk: Full, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with trio.open_nursery() as nursery:
        node = await made(nursery, store)
        seq = node.copies.own.seq if node.copies.own else -1
        order: list[str] = []
        perform = node._perform

        async def noted(effect: ef.Effect) -> None:
            await perform(effect)
            if isinstance(effect, ef.Persist | ef.Send):
                order.append(type(effect).__name__)

        monkeypatch.setattr(node, "_perform", noted)
        disk.full = True
        nursery.start_soon(round_of, node)
        while disk.refused < 3:
            await trio.sleep(0.01)
        status = await Control(node).answer({"do": "status"})
        assert status["state"] == "degraded"
        assert "No space left" in status["fault"]
        assert status["seq"] == seq
        assert order == []
        disk.full = False
        while node.copies.own is None or node.copies.own.seq == seq:
            await trio.sleep(0.01)
        assert (await Control(node).answer({"do": "status"}))["fault"] == ""
        assert order[0] == "Persist"
        node.stop()
    state = store.load_own()
    assert state is not None
    assert [entry.seq for entry in state.entries] == list(range(seq + 2))


@in_trio
async def test_it_ends_in_time_on_a_full_disk(store: Store, disk: Full) -> None:
    ended = trio.Event()
    async with trio.open_nursery() as nursery:
        node = make_node(MANIFEST, store)
        await nursery.start(node.run_and_then, ended.set)
        node.copies.set_genesis(vector())
        await node.rounds.settle_stream()
        disk.full = True
        nursery.start_soon(round_of, node)
        while not disk.refused:
            await trio.sleep(0.01)
        began = trio.current_time()
        node.stop()
        await ended.wait()
        assert trio.current_time() - began < 4.5
        nursery.cancel_scope.cancel()
