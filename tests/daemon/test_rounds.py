"""Rounds as the node goes through them: nothing is lost, given twice, or waited for in vain."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import trio
import trio.testing
from daemon_kit import in_trio, make_manifest, make_node, vector

from tapestry_p2p.daemon import rounds as module
from tapestry_p2p.daemon.node import Node
from tapestry_p2p.daemon.store import Store
from tapestry_p2p.daemon.trainer import TrainedVector, Trainer
from tapestry_p2p.daemon.voice import SilencedError
from tapestry_p2p.gossip.fetch import (
    ChunkRequest,
    LeavesRequest,
    ManifestRequest,
    encode_request,
)
from tapestry_p2p.gossip.header import GENESIS
from tapestry_p2p.mix.codec import Vector

MANIFEST = make_manifest(vector())
LAST = 3


class Told:
    """A trainer's place: notes what the node tells it, and which of its lives that was for."""

    def __init__(self) -> None:
        self.life, self.begun = 1, True
        self.adding = False
        self.corrections: dict[int, Vector] = {}
        self.additions: list[Vector] = []
        self.dies = False

    async def correct(self, seq: int, correction: Vector, life: int) -> bool:
        self.life += self.dies
        if life == self.life:
            self.corrections[seq] = correction
        return life == self.life

    async def add(self, addition: Vector, life: int) -> int:
        self.life += self.dies
        if life != self.life:
            return 0
        self.additions.append(addition)
        return len(self.additions)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store", MANIFEST.streams.ring)
    yield store
    store.close()


@pytest.fixture(autouse=True)
def short_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPEAK_POLL_S", 0.01)


async def made(nursery: trio.Nursery, store: Store, **options: Any) -> Node:
    """A running node that knows the first vector."""
    node = make_node(MANIFEST, store, rounds=LAST, **options)
    await nursery.start(node.run)
    node.copies.set_genesis(vector())
    await node.rounds.settle_stream()
    return node


def trained(seq: int, round_: int) -> TrainedVector:
    record = {"seq": seq, "round": round_, "applied": 0, "added": 0, "tokens": 1, "seconds": 0.1}
    record["steps"] = 5
    return TrainedVector(vector(seed=seq, scale=0.01) + vector(), record, 1)


@in_trio
async def test_the_last_round_waits_until_it_may_be_published(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = True
    told = Told()
    async with trio.open_nursery() as nursery:
        node = await made(nursery, store)
        speaks = node.voice.is_silent
        monkeypatch.setattr(node.voice, "is_silent", lambda kind=GENESIS: silent or speaks())
        await node.rounds._one_round(cast(Trainer, told), trained(1, LAST - 1))
        assert list(told.corrections) == [1]
        assert not node.rounds.finished.is_set()
        nursery.start_soon(node.rounds._one_round, cast(Trainer, told), trained(2, LAST))
        await trio.testing.wait_all_tasks_blocked(0.005)
        assert list(told.corrections) == [1]
        silent = False
        await node.rounds.finished.wait()
        assert node.rounds.round == LAST
        node.stop()


@in_trio
async def test_rounds_for_which_the_upload_has_no_room_are_held_by_the_next_one(
    store: Store,
) -> None:
    told = Told()
    async with trio.open_nursery() as nursery:
        node = await made(nursery, store)
        rounds, cost = node.rounds, 3600.0
        rounds.uplink_s = lambda size: cost if size else 0.0
        await rounds._one_round(cast(Trainer, told), trained(1, 1))
        entries = node.entries_published
        await rounds._one_round(cast(Trainer, told), trained(2, 2))
        assert (rounds.round, rounds.kept_back, node.entries_published) == (1, 1, entries)
        assert list(told.corrections) == [1, 2]
        assert not told.corrections[2].any()
        await rounds._one_round(cast(Trainer, told), trained(3, LAST))
        assert (rounds.round, rounds.kept_back, node.entries_published) == (LAST, 1, entries + 1)
        assert rounds.finished.is_set()  # the last one holds it all, whatever it costs
        head = node.protocol.head(node.key)
        assert head is not None
        assert head.header.tokens == 3  # one a round, those of the one kept back too
        node.stop()


@in_trio
async def test_what_is_pending_is_added_once_where_another_life_turns_up_in_between(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, silent = Told(), False
    async with trio.open_nursery() as nursery:
        node = await made(nursery, store)
        rounds, pending = node.rounds, vector(seed=5)

        async def publish(event: object) -> None:
            nonlocal silent
            silent = True
            raise SilencedError

        monkeypatch.setattr(node.voice, "is_silent", lambda kind=GENESIS: silent)
        monkeypatch.setattr(node.voice, "publish", publish)
        rounds._unapplied[7] = pending
        expected = trained(1, 1).vector + pending
        await rounds._one_round(cast(Trainer, told), trained(1, 1))
        assert rounds.loom is not None
        assert np.array_equal(rounds.loom.latest, expected)
        assert (rounds.kept_back, rounds._untold_tokens) == (1, 1)
        node.stop()


@in_trio
async def test_a_correction_for_a_life_that_ended_is_not_waited_for(store: Store) -> None:
    told = Told()
    async with trio.open_nursery() as nursery:
        node = await made(nursery, store)
        await node.rounds._one_round(cast(Trainer, told), trained(1, 1))
        assert list(node.rounds._unapplied) == [1]
        told.dies = True
        await node.rounds._one_round(cast(Trainer, told), trained(2, 2))
        assert list(node.rounds._unapplied) == [1]  # ``begin`` of its next life clears it
        assert node.rounds.round == 2
        node.stop()


@in_trio
async def test_news_are_mixed_after_a_restart_too(store: Store) -> None:
    """Nothing is trained any more, but what neighbours publish still counts."""
    told = Told()
    async with trio.open_nursery() as nursery:
        node = await made(nursery, store)
        nursery.start_soon(node.rounds.mix_news, cast(Trainer, told))
        node.rounds.moved.set()
        await trio.sleep(0.1)
        assert not told.additions  # no round yet, nothing to add to
        node.rounds.round = LAST
        told.begun = False
        node.rounds.moved.set()
        await trio.sleep(0.1)
        assert not told.additions  # it does not know yet where to start
        told.begun = True
        node.rounds.moved.set()
        while not told.additions:
            await trio.sleep(0.01)
        assert list(node.rounds._unadded) == [1]
        node.stop()
        nursery.cancel_scope.cancel()


@in_trio
async def test_whole_copies_are_counted_apart_from_entries(store: Store) -> None:
    async with trio.open_nursery() as nursery:
        node = await made(nursery, store)
        await node.rounds._one_round(cast(Trainer, Told()), trained(1, 1))
        own, traffic = node.copies.own, node.transport.traffic
        assert own is not None
        before = traffic.useful_sent
        leaves = LeavesRequest(node.key, own.seq, own.root)
        _, body = await node.serve(b"peer", encode_request(leaves))
        assert len(body) == traffic.keyframe_sent > 0
        assert traffic.useful_sent == before
        (name,) = next(iter(node.copies.chunks._own.values()))
        _, chunk = await node.serve(b"peer", encode_request(ChunkRequest(name, 0, 10)))
        assert traffic.useful_sent == before + len(chunk) == before + 10
        await node.serve(b"peer", encode_request(ManifestRequest(MANIFEST.network_id)))
        await node.serve(b"peer", b"junk")
        assert (traffic.useful_sent, traffic.keyframe_sent) == (before + 10, len(body))
        node.stop()
