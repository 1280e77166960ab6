"""Our own stream after a restart: nothing is signed too early, twice, or below what others saw."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import trio
import trio.testing
from daemon_kit import Author, D, in_trio, key, make_manifest, make_node, same, vector

from tapestry_p2p.daemon import voice
from tapestry_p2p.daemon.copies import copy_root
from tapestry_p2p.daemon.node import Node
from tapestry_p2p.daemon.recovery import Recovered, recover
from tapestry_p2p.daemon.store import FollowedCopy, Store
from tapestry_p2p.daemon.voice import SilencedError
from tapestry_p2p.errors import REFUSED, TapestryError
from tapestry_p2p.gossip import events as ev
from tapestry_p2p.gossip.header import (
    DIFFERENCE,
    GENESIS,
    PROFILE,
    RESUME,
    SignedHeader,
    decode_signed,
)
from tapestry_p2p.gossip.messages import HELLO, Hello, Row, encode_hello
from tapestry_p2p.mix.loom import Difference

MANIFEST = make_manifest(vector(), probation_rounds=0)  # who is new need not be waited for
RING = MANIFEST.streams.ring
PEER = key(200).public_key  # somebody who shows us what it holds


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store", RING)
    yield store
    store.close()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice, "ASK_DEADLINE_S", 0.2)
    monkeypatch.setattr(voice, "SETTLE_S", 0.02)


@asynccontextmanager
async def running(node: Node, genesis: bool = True) -> AsyncIterator[Node]:
    """The node until the block ends; its trainer, if it had one, would have said hello."""
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        if genesis:
            node.copies.set_genesis(vector())
            await node.rounds.settle_stream()
        yield node
        node.stop()


async def settled(node: Node) -> None:
    while node.voice.is_silent() or node.voice.rolled_back:
        await trio.sleep(0.01)


async def shown(node: Node, *heads: SignedHeader) -> None:
    """A peer connects and shows heads."""
    now = trio.current_time()
    await node.act(ev.Connected(PEER, now))
    hello = Hello(MANIFEST.network_id, 1, heads, (), False)
    await node.act(ev.Message(PEER, HELLO, encode_hello(hello), now))


async def publishes(node: Node) -> None:
    """One round of this node, as its trainer would have it."""
    assert node.rounds.loom is not None
    async with node.rounds.speaking:
        y = node.rounds.loom.latest + vector(scale=0.01)
        difference = node.rounds.loom.difference(y)
        await node.rounds.publish_difference(difference, node.rounds.round + 1, 0)
        node.rounds.loom.published(difference, y)
        node.rounds.round += 1


def logged(store: Store) -> list[SignedHeader]:
    state = store.load_own()
    return [] if state is None else [decode_signed(entry.signed) for entry in state.entries]


def kinds(store: Store) -> list[str]:
    return [signed.header.kind for signed in logged(store)]


def past(store: Store, rounds: int = 3) -> Author:
    """The store of a node that was killed after so many rounds."""
    author = Author(network=MANIFEST.network_id).genesis().grow(rounds)
    for entry in author.entries:
        store.append_entry(entry)
    store.save_own(author.seq, rounds, author.copy.vector, author.copy.vector)
    return author


@in_trio
async def test_a_fresh_node_begins_at_once(store: Store) -> None:
    async with running(make_node(MANIFEST, store)) as node:
        assert not node.voice.is_silent()
    assert kinds(store) == [GENESIS, PROFILE]


@in_trio
async def test_a_killed_node_goes_on_at_the_next_seq(store: Store) -> None:
    author = past(store)
    async with running(make_node(MANIFEST, store)) as node:
        await settled(node)
        await publishes(node)
    found = logged(store)
    new = [signed.header.kind for signed in found[4:]]
    assert new in ([DIFFERENCE], [DIFFERENCE, PROFILE], [PROFILE, DIFFERENCE])
    assert [signed.header.seq for signed in found] == list(range(len(found)))
    assert found[4].header.prev == author.signed[-1].header.hash
    assert len({signed.header.incarnation for signed in found}) == 1


@in_trio
async def test_alone_with_a_damaged_store_it_resumes(store: Store) -> None:
    author = past(store)
    found = recover(store, D, 1e6)
    found.rolled_back = True
    async with running(make_node(MANIFEST, store, found=found)) as node:
        await settled(node)
        assert node.copies.own is not None
        assert same(node.copies.own.copy.vector, author.copy.vector)
    resume = logged(store)[4].header
    assert (resume.kind, resume.seq) == (RESUME, 4)
    assert resume.incarnation != author.incarnation
    assert resume.root == copy_root(author.copy)


@in_trio
async def test_alone_with_nothing_left_it_begins_anew(store: Store) -> None:
    """Both states and the log unreadable: it must not end, and end, and end again."""
    found = Recovered(rolled_back=True)
    async with running(make_node(MANIFEST, store, found=found)) as node:
        await settled(node)
        await publishes(node)
    assert [kind for kind in kinds(store) if kind != PROFILE] == [GENESIS, DIFFERENCE]


@in_trio
async def test_it_resumes_above_what_a_peer_shows(store: Store) -> None:
    past(store, rounds=2)
    ahead = Author(network=MANIFEST.network_id).genesis().grow(7)
    async with running(make_node(MANIFEST, store)) as node:
        await shown(node, ahead.signed[-1])
        await settled(node)
        await publishes(node)
    found = [signed.header for signed in logged(store)]
    assert [(h.kind, h.seq) for h in found if h.kind != PROFILE][3:] == [
        (RESUME, 8),
        (DIFFERENCE, found[-1].seq),
    ]
    resume = next(h for h in found if h.kind == RESUME)
    assert resume.prev == ahead.signed[-1].header.hash
    assert resume.incarnation != ahead.incarnation


@in_trio
async def test_a_store_rolled_back_and_killed_again_before_it_saved(store: Store) -> None:
    """The resume is in the log, the state behind it: the copy is the one it resumed with."""
    author = past(store, rounds=2)
    ahead = Author(network=MANIFEST.network_id).genesis().grow(7)
    node = make_node(MANIFEST, store)

    async def killed() -> None:
        raise KeyboardInterrupt

    node.voice.save = killed
    try:
        async with running(node):
            await shown(node, ahead.signed[-1])
            await trio.sleep_forever()
    except* KeyboardInterrupt:
        pass
    found = recover(store, D, 1e6)
    assert (found.seq, found.rolled_back) == (8, False)
    assert same(found.copy, author.copy.vector)


@in_trio
async def test_a_lost_store_resumes_above_its_old_life(store: Store) -> None:
    """Only the key was kept: the genesis of this life is no fork of the old one."""
    old = Author(network=MANIFEST.network_id).genesis().grow(4)
    async with running(make_node(MANIFEST, store)) as node:
        await shown(node, old.signed[-1])
        await trio.sleep(0.05)
        await settled(node)
    found = [signed.header for signed in logged(store)]
    assert [h.seq for h in found if h.kind == RESUME] == [5]
    assert found[0].incarnation != old.incarnation


@in_trio
async def test_no_round_comes_between_unmuting_and_the_resume(store: Store) -> None:
    past(store)
    found = recover(store, D, 1e6)
    found.rolled_back = True
    async with running(make_node(MANIFEST, store, found=found)) as node:
        while node.voice.is_silent():
            await trio.lowlevel.checkpoint()
        await publishes(node)
    assert kinds(store)[4:6] == [RESUME, DIFFERENCE] or kinds(store)[4:7] == [
        RESUME,
        PROFILE,
        DIFFERENCE,
    ]


@in_trio
async def test_silenced_in_the_middle_of_a_round_it_stays_up(store: Store) -> None:
    """A peer shows another life of ours after the round began, before its entry is signed."""
    ahead = Author(network=MANIFEST.network_id).genesis().grow(7)
    async with running(make_node(MANIFEST, store)) as node:
        async with node.rounds.speaking:
            own = node.copies.own
            assert own is not None
            before = own.copy.vector.copy()
            await shown(node, ahead.signed[-1])
            with pytest.raises(SilencedError):
                await node.rounds.publish_difference(Difference(b"x", vector()), 1, 0)
            assert np.array_equal(own.copy.vector, before)
        await trio.sleep(0.05)
        await settled(node)
        await publishes(node)
    assert DIFFERENCE in kinds(store)[-2:]
    assert RESUME in kinds(store)


@in_trio
async def test_a_profile_states_the_root_of_the_copy_it_finds(store: Store) -> None:
    """A round is being published when the profile is due: its copy is what the profile is about."""
    async with running(make_node(MANIFEST, store)) as node, trio.open_nursery() as nursery:
        assert node.rounds.loom is not None
        async with node.rounds.speaking:
            nursery.start_soon(node._publish_profile)
            await trio.testing.wait_all_tasks_blocked(0.01)
            difference = node.rounds.loom.difference(vector(seed=3))
            await node.rounds.publish_difference(difference, 1, 0)
            node.rounds.loom.published(difference, vector(seed=3))
    *_, round_, profile = logged(store)
    assert (round_.header.kind, profile.header.kind) == (DIFFERENCE, PROFILE)
    assert profile.header.root == round_.header.root


@in_trio
async def test_every_proof_against_us_is_cited_before_we_go_on(store: Store) -> None:
    """Restored twice and gone on each time without asking: two forks to own up to."""
    author = past(store, rounds=3)
    twin = Author(network=MANIFEST.network_id).genesis().grow(2)
    forks = []
    for seq in (2, 3):
        other = Author(network=MANIFEST.network_id)
        other.signed, other.entries = list(twin.signed[:seq]), list(twin.entries[:seq])
        other.difference(tokens=99)
        forks.append(other.signed[-1])
    async with running(make_node(MANIFEST, store)) as node:
        await shown(node, *forks)
        await settled(node)
        await publishes(node)
    found = [signed.header for signed in logged(store)]
    cites = [header.cites for header in found if header.kind == RESUME]
    assert len(set(cites)) == len(cites) >= 2
    assert author.seq == 3


@in_trio
async def test_a_live_clone_ends_the_daemon_with_one_line(store: Store) -> None:
    node = make_node(MANIFEST, store)
    ended: list[BaseException] = []
    try:
        async with running(node):
            clone = Author(network=MANIFEST.network_id).genesis().profile()
            clone.signed = logged(store)
            clone.incarnation = clone.signed[-1].header.incarnation
            await shown(node, clone.difference().signed[-1])
    except* TapestryError as group:
        ended += group.exceptions
    assert [error.exit_code for error in ended if isinstance(error, TapestryError)] == [REFUSED]


OTHER = key(201).public_key


def followed_by(store: Store, *peers: bytes) -> Recovered:
    """A killed node's store, with copies of these peers' streams."""
    past(store)
    for number, peer in enumerate(peers):
        author = Author(n=200 + number, network=MANIFEST.network_id).genesis()
        assert author.key == peer
        signed = author.signed[-1].encode()
        store.save_copy(FollowedCopy(peer, 0, signed, author.copy.vector))
    return recover(store, D, 1e6)


async def greets(node: Node, peer: bytes) -> None:
    now = trio.current_time()
    await node.act(ev.Connected(peer, now))
    hello = Hello(MANIFEST.network_id, 1, (), (Row(node.key, 0, 1, 1),), False)  # it knows us
    await node.act(ev.Message(peer, HELLO, encode_hello(hello), now))


@in_trio
@pytest.mark.parametrize("comes", [True, False])
async def test_one_whom_it_follows_may_come_late_and_only_else_it_resumes(
    store: Store, monkeypatch: pytest.MonkeyPatch, comes: bool
) -> None:
    monkeypatch.setattr(voice, "ASK_DEADLINE_S", 5.0)
    monkeypatch.setattr(voice, "OTHERS_S", 5.0 if comes else 0.2)
    found = followed_by(store, PEER, OTHER)
    async with running(make_node(MANIFEST, store, found=found)) as node:
        assert {*node.protocol.followed()} == {PEER, OTHER}
        await greets(node, PEER)
        node.rounds.greeted.set()
        await trio.sleep(0.3 if comes else 0.0)
        assert node.voice.is_silent()
        if comes:
            await greets(node, OTHER)
        await settled(node)
    assert (RESUME in kinds(store)) is not comes
