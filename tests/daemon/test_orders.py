"""Orders to fetch: one that comes again waits for the answer under way, a newer entry ends it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import trio
from daemon_kit import Author, in_mock_time, make_manifest, make_node, vector

from tapestry_p2p.daemon.node import Node
from tapestry_p2p.daemon.store import Store
from tapestry_p2p.gossip import effects as ef
from tapestry_p2p.gossip import events as ev
from tapestry_p2p.gossip.header import Header, SignedHeader, decode_signed

MANIFEST = make_manifest(vector())
ONE, OTHER = bytes(32), b"o" * 32


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "state" / "store", MANIFEST.streams.ring)
    yield store
    store.close()


def entries(count: int) -> tuple[bytes, list[SignedHeader]]:
    """An author, and the first differences of it."""
    author = Author(network=MANIFEST.network_id).genesis()
    for _ in range(count):
        author.difference()
    signed = [decode_signed(entry.signed) for entry in author.entries[1:]]
    return signed[0].header.author, signed


class Slow:
    """Sources that answer after an hour; what was asked of them, and what was told of it."""

    def __init__(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[int, bytes]] = []
        self.now = 0
        self.told: list[ev.Event] = []
        monkeypatch.setattr(node.fetcher, "entry", self.entry)
        monkeypatch.setattr(node, "act", self.act)

    async def entry(self, author: bytes, header: Header, sources: Sequence[bytes]) -> bytes:
        self.asked.append((header.seq, sources[0]))
        self.now += 1
        try:
            await trio.sleep(3600)
        finally:
            self.now -= 1
        return b"root"

    async def act(self, event: ev.Event) -> None:
        await trio.lowlevel.checkpoint()
        self.told.append(event)


@in_mock_time
async def test_an_order_that_comes_again_waits_for_its_answer_and_a_newer_one_ends_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node(MANIFEST, store)
    slow = Slow(node, monkeypatch)
    author, (first, second) = entries(2)
    async with trio.open_nursery() as nursery:
        for _ in range(20):  # the protocol gives an order up after two minutes
            nursery.start_soon(node._fetch, ef.Fetch(author, first, (ONE, OTHER)))
            await trio.sleep(120)
        assert slow.asked == [(first.header.seq, ONE)]
        nursery.start_soon(node._fetch, ef.Fetch(author, first, (OTHER, ONE)))
        await trio.sleep(1)
        assert slow.now == 2, "another source may be quicker"
        await trio.sleep(1200)
        assert slow.told == [ev.Applied(author, first.header.seq, b"root", 3600.0)]
        nursery.start_soon(node._fetch, ef.Fetch(author, second, (ONE,)))
        await trio.sleep(1)
        assert slow.now == 1, "what nobody waits for any more is given up"
        await trio.sleep(7200)
    assert [event.seq for event in slow.told if isinstance(event, ev.Applied)] == [
        first.header.seq,
        second.header.seq,
    ]
    assert not node._fetching
