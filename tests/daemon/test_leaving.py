"""A goodbye through real nodes: mark, entry, told; a crash between; a stopped member's; back."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio
from daemon_kit import in_trio, key, make_manifest, make_node, vector

from tapestry_p2p import crash
from tapestry_p2p.daemon.address import Address
from tapestry_p2p.daemon.departure import MARK, Departure, come_back, departure, need_member, note
from tapestry_p2p.daemon.leaving import _leave_stopped, leave
from tapestry_p2p.daemon.node import Node, NodeOptions
from tapestry_p2p.daemon.status import Control
from tapestry_p2p.daemon.store import Store, peek_entries, read_entries
from tapestry_p2p.errors import FAILURE, NOT_READY, REFUSED, TEMPORARY, TapestryError
from tapestry_p2p.gossip.header import decode_signed

MANIFEST = make_manifest(vector(), probation_rounds=0)
LEAVER = key(1)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[list[Store]]:
    made = [Store(tmp_path / str(n), MANIFEST.streams.ring) for n in range(2)]
    yield made
    for store in made:
        store.close()


async def _two(nursery: trio.Nursery, stores: list[Store]) -> tuple[Node, Node]:
    """Two members that follow each other."""
    nodes = [make_node(MANIFEST, store, n + 1) for n, store in enumerate(stores)]
    for node in nodes:
        await nursery.start(node.run)
        node.copies.set_genesis(vector())
        await node.rounds.settle_stream()
    one, other = nodes
    assert await one.transport.dial(other.key, [other.transport.addresses[0]])
    await _until(lambda: one.key in other.copies.followed and other.key in one.copies.followed)
    return one, other


async def _until(true: Callable[[], bool]) -> None:
    while not true():
        await trio.sleep(0.02)


def _kinds(store: Store) -> list[str]:
    return [decode_signed(entry.signed).header.kind for entry in read_entries(store.directory)]


@in_trio
async def test_a_running_member_leaves_and_comes_back(stores: list[Store]) -> None:
    async with trio.open_nursery() as nursery:
        one, other = await _two(nursery, stores)
        found = await Control(one).answer({"do": "leave"})
        assert found["id"] == LEAVER.peer_id
        assert (found["told"], found["known"], found["network"]) == (1, 1, "test")
        assert other.protocol.weight_zero(one.key)
        assert one.key not in other.protocol.members()
        assert one.key not in other.copies.followed
        assert other.protocol.statistics()["accept"]["leave"] == 1
        other.stop()
    assert _kinds(stores[0])[-1] == "leave"
    noted = departure(stores[0].directory)
    assert noted == Departure(MANIFEST.network_id.hex(), "test", found["entry"], 1)
    with pytest.raises(TapestryError, match="tapestry join") as caught:
        need_member(stores[0].directory)
    assert caught.value.exit_code == REFUSED
    come_back(stores[0].directory)
    need_member(stores[0].directory)
    async with trio.open_nursery() as nursery:
        one, other = (make_node(MANIFEST, store, n + 1) for n, store in enumerate(stores))
        for node in (one, other):
            node.copies.set_genesis(vector())
            await nursery.start(node.run)
            await node.rounds.settle_stream()
        await other.transport.dial(one.key, [one.transport.addresses[0]])
        await _until(lambda: one.key in other.copies.followed)
        await _until(lambda: not other.protocol.weight_zero(one.key))
        await _until(lambda: one.key in other.protocol.members())  # its profile comes after that
        for node in (one, other):
            node.stop()
    kinds = _kinds(stores[0])
    assert kinds[kinds.index("leave") + 1] == "resume"


@in_trio
async def test_a_stopped_member_tells_those_whom_it_knows(stores: list[Store]) -> None:
    async with trio.open_nursery() as nursery:
        one, other = await _two(nursery, stores)
        one.stop()
        await _until(lambda: not other.protocol.greeted())
        bound = other.transport.addresses[0]
        at = Address(bound.kind, bound.host, bound.port, key(2).peer_id)
        options = NodeOptions(listen=(Address("ip4", "127.0.0.1", 0),), bootstrap=(at,))
        for _ in range(2):  # the second time nothing is signed: it tells the same again
            found, known = await _leave_stopped(MANIFEST, options, bytes([1]) * 32, stores[0])
            assert (found.told, known) == (1, 1)
        assert other.protocol.weight_zero(one.key)
        other.stop()
    assert _kinds(stores[0]).count("leave") == 1


@pytest.mark.parametrize("where", ["before the entry", "after the entry"])
@in_trio
async def test_after_a_crash_it_does_not_run_and_leaving_goes_on(
    where: str, stores: list[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark is durable first; after the entry nobody has been told when the power fails."""
    async with trio.open_nursery() as nursery:
        one, other = await _two(nursery, stores)
        one.stop()
        await _until(lambda: not other.protocol.greeted())
        note(stores[0].directory, Departure(MANIFEST.network_id.hex(), "test"))
        alone = NodeOptions(listen=(Address("ip4", "127.0.0.1", 0),))
        monkeypatch.setattr("tapestry_p2p.daemon.leaving.MEET_S", 0.2)
        monkeypatch.setattr("tapestry_p2p.daemon.voice.ASK_DEADLINE_S", 0.2)
        monkeypatch.setattr("tapestry_p2p.daemon.leaving.TELL_S", 0.2)
        if where == "after the entry":
            await _leave_stopped(MANIFEST, alone, bytes([1]) * 32, stores[0])
            note(stores[0].directory, Departure(MANIFEST.network_id.hex(), "test"))
        with pytest.raises(TapestryError, match="perhaps nobody has heard yet"):
            need_member(stores[0].directory)
        monkeypatch.undo()
        bound = other.transport.addresses[0]
        at = Address(bound.kind, bound.host, bound.port, key(2).peer_id)
        options = replace(alone, bootstrap=(at,))
        found, _ = await _leave_stopped(MANIFEST, options, bytes([1]) * 32, stores[0])
        assert found.told == 1
        assert other.protocol.weight_zero(one.key)
        assert not other.protocol.snapshot().proofs
        other.stop()
    assert _kinds(stores[0]).count("leave") == 1


@in_trio
async def test_who_never_published_has_nothing_to_say(stores: list[Store]) -> None:
    found, known = await _leave_stopped(MANIFEST, NodeOptions(), bytes(32), stores[0])
    assert (found.entry, found.told, known) == (-1, 0, 0)
    assert departure(stores[0].directory) == found
    assert peek_entries(stores[0].directory) == []


@in_trio
async def test_while_it_asks_what_others_know_it_says_try_again_and_notes_nothing(
    stores: list[Store],
) -> None:
    async with trio.open_nursery() as nursery:
        one, other = await _two(nursery, stores)
        one.stop()
        other.stop()
    async with trio.open_nursery() as nursery:
        again = make_node(MANIFEST, stores[0], 1)
        await nursery.start(again.run)
        with pytest.raises(TapestryError, match="try again") as caught:
            await leave(again)
        assert caught.value.exit_code == NOT_READY
        assert departure(stores[0].directory) is None
        again.stop()


@in_trio
async def test_a_disk_that_refuses_the_mark_keeps_the_member(
    stores: list[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path, found: Departure) -> None:
        raise OSError(28, "No space left on device")

    async with trio.open_nursery() as nursery:
        one, other = await _two(nursery, stores)
        monkeypatch.setattr("tapestry_p2p.daemon.leaving.note", refuse)
        with pytest.raises(TapestryError, match="No space") as caught:
            await leave(one)
        assert caught.value.exit_code == TEMPORARY
        assert not one.protocol.stopped
        one.stop()
        other.stop()
    assert "leave" not in _kinds(stores[0])


@pytest.mark.parametrize("content", [b"", b"{}", b"nonsense", b"\xff" * 9])
def test_a_mark_that_cannot_be_read_is_no_leave_to_run(content: bytes, tmp_path: Path) -> None:
    (tmp_path / MARK).write_bytes(content)
    with pytest.raises(TapestryError, match="cannot be read") as caught:
        need_member(tmp_path)
    assert caught.value.exit_code == FAILURE


def test_the_mark_is_whole_or_not_there_at_every_crash_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Departure("ab" * 32, "test", 7, 0)
    held: list[Departure | None] = []

    def stop_at(wanted: str, name: str) -> None:
        if name == wanted:
            raise KeyboardInterrupt  # whatever ends the process there

    for wanted in ("before writing left", "before replacing left", "before syncing left"):
        monkeypatch.setattr(crash, "point", partial(stop_at, wanted))
        with pytest.raises(KeyboardInterrupt):
            note(tmp_path, said)
        held.append(departure(tmp_path))
    assert held == [None, None, said]
