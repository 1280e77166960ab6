"""A disk that refuses: the node says so, shows nothing it has not stored, goes on when it may."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from daemon_kit import Author, D, in_trio, make_manifest, make_node, vector

from tapestry_p2p.daemon import disk as module
from tapestry_p2p.daemon.audit import AuditLog, left_by, verify
from tapestry_p2p.daemon.node import Node
from tapestry_p2p.daemon.run import health_of
from tapestry_p2p.daemon.service import ROUND_STUCK_S
from tapestry_p2p.daemon.status import Control
from tapestry_p2p.daemon.store import LoggedEntry, Store
from tapestry_p2p.daemon.trainer import Trainer
from tapestry_p2p.daemon.transport import TransportError
from tapestry_p2p.gossip import effects as ef
from tapestry_p2p.gossip import events as ev
from tapestry_p2p.gossip.messages import HELLO, Hello, encode_hello
from tapestry_p2p.mix.codec import Vector

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
    async with node.rounds.speaking:
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
async def test_gossip_goes_on_while_an_entry_waits_and_never_shows_it(
    store: Store, disk: Full, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = Author(2, network=MANIFEST.network_id).genesis().grow(3)
    sent: list[bytes] = []

    class Listening:
        """A connection that notes what it is given."""

        address = "/ip4/127.0.0.1/tcp/1"

        def send(self, _channel: str, data: bytes) -> None:
            sent.append(data)

        async def fetch(self, _request: bytes, _most: int) -> tuple[bytes, bytes]:
            raise TransportError("nothing to be had")

    async with trio.open_nursery() as nursery:
        node = await made(nursery, store)
        own = node.copies.own
        monkeypatch.setitem(node.transport.connections, peer.key, Listening())
        disk.full = True
        nursery.start_soon(round_of, node)
        while disk.refused < 2:
            await trio.sleep(0.01)
        head = node.protocol.head(node.key)
        assert head is not None
        assert own is not None
        assert head.header.seq == own.seq + 1, "signed, and not stored"
        now = trio.current_time()
        hello = Hello(MANIFEST.network_id, 1, (peer.signed[-1],), (), False)
        with trio.fail_after(2):
            await node.act(ev.Connected(peer.key, now, "/ip4/127.0.0.1/tcp/1"))
            await node.act(ev.Message(peer.key, HELLO, encode_hello(hello), now))
            for later in range(40):  # digests are due, and whatever is asked for again
                await node.act(ev.Tick(now + later))
        seen = node.protocol.head(peer.key)
        assert seen is not None
        assert seen.header.seq == 4 - 1
        assert sent, "something was said meanwhile"
        assert not any(head.signature in data for data in sent)
        disk.full = False
        while own.seq != head.header.seq:
            await trio.sleep(0.01)
        await node.act(ev.Disconnected(peer.key, now + 60))
        await node.act(ev.Connected(peer.key, now + 60, "/ip4/127.0.0.1/tcp/1"))
        monkeypatch.undo()  # the transport closes real connections
        node.stop()
    assert any(head.signature in data for data in sent), "then it is shown"


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


@in_trio
async def test_a_round_that_waits_for_the_disk_is_no_hang(store: Store, disk: Full) -> None:
    async with trio.open_nursery() as nursery:
        node = await made(nursery, store)
        health = health_of(node)
        disk.full = True
        nursery.start_soon(_hold_rounds, node)
        while not node.disk.fault or not node.rounds.working:
            await trio.sleep(0.01)
        assert health.good(0)
        assert health.good(10 * ROUND_STUCK_S)
        node.disk.fault = ""
        assert health.good(10 * ROUND_STUCK_S + 1)
        assert not health.good(12 * ROUND_STUCK_S), "without that excuse it is one"
        disk.full = False
        nursery.cancel_scope.cancel()


@in_trio
async def test_a_round_that_waits_for_the_trainer_is_no_hang(store: Store, tmp_path: Path) -> None:
    """It may compile for long; its own watchdog knows when that is too long."""

    async def begin(trainer: Trainer, genesis: Vector) -> None: ...

    async with trio.open_nursery() as nursery:
        node = await made(nursery, store)
        node.trainer = Trainer({}, tmp_path / "log", begin, D, "")
        node.trainer.adding = True  # it has not said yet that it added the last news
        health = health_of(node)
        async with node.rounds._rounding:
            assert health.good(0)
            assert health.good(10 * ROUND_STUCK_S)
            node.trainer.adding = False
            assert health.good(10 * ROUND_STUCK_S + 1)
            assert not health.good(12 * ROUND_STUCK_S)
        nursery.cancel_scope.cancel()


async def _hold_rounds(node: Node) -> None:
    async with node.rounds._rounding:
        await round_of(node)


@in_trio
async def test_it_starts_and_ends_while_the_audit_log_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    author = Author(network=MANIFEST.network_id).genesis().grow(2)
    for entry in author.entries:
        store.append_entry(entry)
    store.save_own(author.seq, 2, author.copy.vector, author.copy.vector)
    refused = 0

    def refuse(_self: AuditLog, _left: object, _at: float) -> None:
        nonlocal refused
        refused += 1
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(AuditLog, "append", refuse)
    monkeypatch.setattr(module, "RETRY_S", 0.02)
    ended = trio.Event()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            node = make_node(MANIFEST, store)
            await nursery.start(node.run_and_then, ended.set)
            assert node.transport.addresses
            while not refused:
                await trio.sleep(0.01)
            node.stop()
            await ended.wait()


@in_trio
async def test_whatever_is_published_is_in_the_audit_log(store: Store) -> None:
    async with trio.open_nursery() as nursery:
        node = await made(nursery, store)
        await round_of(node)
        node.stop()
    state = store.load_own()
    assert state is not None
    signed = {
        left.seq: left.header for left in (left_by(e.signed, e.payload) for e in state.entries)
    }
    assert len(signed) >= 2
    assert verify(store.directory, signed).faults == []
    assert len(verify(store.directory, {}).rows) == len(signed)
