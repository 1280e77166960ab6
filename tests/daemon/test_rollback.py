"""Earlier states: which are kept, each of them had again bit for bit, and a new entry for it."""

import contextlib
import errno
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trio
from daemon_kit import Author, in_trio, key, make_manifest, make_node, same, vector

from tapestry_p2p import crash
from tapestry_p2p.cli.main import main
from tapestry_p2p.daemon import files
from tapestry_p2p.daemon import node as module
from tapestry_p2p.daemon.address import Address
from tapestry_p2p.daemon.copies import copy_root
from tapestry_p2p.daemon.manifest import dump_manifest
from tapestry_p2p.daemon.past import FILES_MAX, NEWEST, Kept, Past, worth_keeping
from tapestry_p2p.daemon.recovery import recover
from tapestry_p2p.daemon.rollback import earlier, in_words, lay_down, rounds_back, stretches
from tapestry_p2p.daemon.status import Control
from tapestry_p2p.daemon.store import Store, peek_entries
from tapestry_p2p.errors import REFUSED, TEMPORARY, USAGE, TapestryError
from tapestry_p2p.gossip.header import RESUME, decode_signed
from tapestry_p2p.mix.codec import Vector
from tapestry_p2p.mix.copy import PublicCopy

MANIFEST = make_manifest(vector())
RING, NORM_MAX = MANIFEST.streams.ring, MANIFEST.limits.norm_max


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "state" / "store", RING)
    yield store
    store.close()


def lived(store: Store, rounds: int) -> dict[int, Vector]:
    """A store after so many rounds, saved after each; the copy after each."""
    author = Author(network=MANIFEST.network_id).genesis()
    store.append_entry(author.entries[0])
    after = {}
    for round_ in range(1, rounds + 1):
        author.difference()
        store.append_entry(author.entries[-1])
        copy = author.copy.vector
        after[round_] = copy.copy()
        store.save_own(author.seq, round_, copy, copy)
    return after


# ---- what is kept --------------------------------------------------------------------------------


def test_the_newest_are_kept_and_ever_sparser_ones() -> None:
    seqs = [16 * n for n in range(1, 1000)]
    kept = sorted(worth_keeping(seqs, 16))
    assert kept[-NEWEST:] == seqs[-NEWEST:]
    assert len(kept) <= FILES_MAX
    back = [seqs[-1] - seq for seq in kept[:-NEWEST]]
    assert any(128 <= b <= 256 for b in back)
    assert any(1024 <= b <= 2048 for b in back)


def test_however_long_it_runs_few_are_kept_and_none_that_was_let_go_is_wanted_again() -> None:
    kept: set[int] = set()
    for n in range(1, 3000):
        before = kept
        kept = worth_keeping({*kept, 16 * n}, 16)
        assert kept - before <= {16 * n}
        assert len(kept) <= FILES_MAX
    assert min(kept) < 16 * 2999 - 1000, "and some of them are old"


def test_rollbacks_push_no_round_out_that_is_kept_otherwise(store: Store) -> None:
    now = 5 * RING
    lived(store, now)
    author = Author(network=MANIFEST.network_id).genesis().grow(now)
    for back in (3, 3, 7, 20, 2 * RING):
        copy, _ = earlier(store, back, now, NORM_MAX)
        author.copy = PublicCopy(copy)
        store.save_own(author.seq, now, copy, copy, reverted=True)
        store.append_entry(author.resume().entries[-1])
        store.save_own(author.seq, now, copy, copy)
        possible = rounds_back(stretches(store.past, stored(store)), now)
        assert set(range(1, 2 * RING + 1)) <= set(possible), back
    assert len(store.past.kept()) <= FILES_MAX


def test_a_kept_copy_is_read_as_it_was_and_damage_is_seen(tmp_path: Path) -> None:
    past = Past(tmp_path / "past", 4)
    assert past.due(0)
    past.keep(3, 2, vector(seed=1))
    assert past.kept() == [Kept(3, 2)]
    assert not past.due(3)
    assert past.due(4)
    assert same(past.load(Kept(3, 2)), vector(seed=1))
    path = tmp_path / "past" / "3.2.past"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(Exception, match="digest"):
        past.load(Kept(3, 2))


def test_every_round_of_the_last_two_rings_is_had_again_bit_for_bit(store: Store) -> None:
    after = lived(store, 7 * RING)
    possible = rounds_back(stretches(store.past, stored(store)), 7 * RING)
    assert set(range(1, 2 * RING + 1)) <= set(possible)
    assert max(possible) > 4 * RING, "and sparse ones before"
    for back in possible:
        copy, round_ = earlier(store, back, 7 * RING, NORM_MAX)
        assert round_ == 7 * RING - back
        assert same(copy, after[round_])


def stored(store: Store) -> list:  # type: ignore[type-arg]
    state = store.load_own()
    assert state is not None
    return state.entries


def test_what_is_not_kept_is_refused_with_what_is_possible(store: Store) -> None:
    lived(store, 5)
    with pytest.raises(TapestryError, match="possible: 1 to 4 rounds back") as caught:
        earlier(store, 5, 5, NORM_MAX)
    assert caught.value.exit_code == REFUSED
    with pytest.raises(TapestryError) as caught:
        earlier(store, 0, 5, NORM_MAX)
    assert caught.value.exit_code == USAGE


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ([], "nothing yet"),
        ([1], "1 rounds"),
        ([1, 2, 3], "1 to 3 rounds"),
        ([1, 2, 9, 40, 41], "1 to 2, 9 and 40 to 41 rounds"),
    ],
)
def test_it_is_said_in_words(numbers: list[int], told: str) -> None:
    assert in_words(numbers) == told


# ---- a stopped member ----------------------------------------------------------------------------


def kinds(store: Store) -> list[str]:
    return [decode_signed(signed).header.kind for signed in peek_entries(store.directory)]


async def speaking_node(nursery: trio.Nursery, store: Store) -> module.Node:
    """A running node that has taken up its stream and stated what it goes on from."""
    node = make_node(MANIFEST, store)
    await nursery.start(node.run)
    node.copies.set_genesis(vector())
    await node.rounds.settle_stream()
    while node.voice.is_silent() or node.voice.reverted or node.voice.rolled_back:
        await trio.sleep(0.01)
    return node


@in_trio
async def test_a_stopped_member_begins_there_and_states_it(store: Store) -> None:
    after = lived(store, 2 * RING)
    assert lay_down(store, 7, len(vector()), NORM_MAX) == (2 * RING, 2 * RING - 7)
    found = recover(store, len(vector()), NORM_MAX)
    assert found.reverted
    assert not found.rolled_back
    async with trio.open_nursery() as nursery:
        node = await speaking_node(nursery, store)
        own = node.copies.own
        assert own is not None
        assert same(own.copy.vector, after[2 * RING - 7])
        node.stop()
    resume = decode_signed(peek_entries(store.directory)[2 * RING + 1]).header
    assert resume.kind == RESUME
    assert resume.seq == 2 * RING + 1
    assert resume.root == copy_root(PublicCopy(after[2 * RING - 7]))
    again = recover(store, len(vector()), NORM_MAX)
    assert not again.reverted
    assert again.copy is not None
    assert same(again.copy, after[2 * RING - 7])


def test_killed_between_the_resume_and_the_save_it_stands_there_all_the_same(store: Store) -> None:
    lived(store, 9)
    lay_down(store, 3, len(vector()), NORM_MAX)
    found = recover(store, len(vector()), NORM_MAX)
    assert found.copy is not None
    author = Author(network=MANIFEST.network_id).genesis().grow(9)
    author.copy = PublicCopy(found.copy)
    store.append_entry(author.resume().entries[-1])
    again = recover(store, len(vector()), NORM_MAX)
    assert (again.seq, again.reverted, again.rolled_back) == (found.seq + 1, False, False)
    assert same(again.copy, found.copy)


def test_killed_at_any_step_it_was_not_begun_or_is_stated_by_the_next_start(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after = lived(store, 9)

    class Killed(BaseException):
        pass

    met: list[str] = []
    for step in range(1, 40):
        shutil.copytree(store.directory, tmp_path / str(step))
        killed = Store(tmp_path / str(step), RING)
        points = itertools.count(1)

        def point(name: str, points: Iterator[int] = points, step: int = step) -> None:
            if next(points) == step:
                met.append(name)
                raise Killed

        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            patch.setattr(crash, "point", point)
            roll_back_and_state(killed)
        killed.close()
        again = Store(tmp_path / str(step), RING)
        found = recover(again, len(vector()), NORM_MAX)
        again.close()
        stated = RESUME in kinds(again)
        assert not found.rolled_back
        assert found.seq == 9 + stated
        assert not (stated and found.reverted)
        assert same(found.copy, after[6] if stated or found.reverted else after[9]), met
        if len(met) < step:
            break
    assert "after writing own.1" in met
    assert "after appending to own.log" in met
    assert "after writing own.0" in met


def roll_back_and_state(store: Store) -> None:
    lay_down(store, 3, len(vector()), NORM_MAX)
    found = recover(store, len(vector()), NORM_MAX)
    assert found.copy is not None
    author = Author(network=MANIFEST.network_id).genesis().grow(9)
    author.copy = PublicCopy(found.copy)
    store.append_entry(author.resume().entries[-1])
    store.save_own(found.seq + 1, found.round, found.copy, found.copy)


@in_trio
async def test_stopped_before_it_could_be_stated_it_is_stated_the_next_time(store: Store) -> None:
    after = lived(store, 9)
    lay_down(store, 3, len(vector()), NORM_MAX)
    nobody = Address("ip4", "127.0.0.1", 9, key(5).peer_id)
    async with trio.open_nursery() as nursery:
        node = make_node(MANIFEST, store, bootstrap=(nobody,))
        await nursery.start(node.run)
        node.copies.set_genesis(vector())
        await node.rounds.settle_stream()
        assert node.voice.is_silent(), "it asks first"
        node.stop()
    assert RESUME not in kinds(store)
    found = recover(store, len(vector()), NORM_MAX)
    assert found.reverted
    assert found.copy is not None
    assert same(found.copy, after[6])


def test_a_damaged_store_asks_its_peers_first(store: Store) -> None:
    lived(store, 9)
    log = store.directory / "own.log"
    log.write_bytes(log.read_bytes()[:-200])
    with pytest.raises(TapestryError, match="run the member first"):
        lay_down(store, 3, len(vector()), NORM_MAX)


# ---- a running member ----------------------------------------------------------------------------


@in_trio
async def test_a_running_member_states_it_at_once_and_can_go_back_once_more(store: Store) -> None:
    after = lived(store, 2 * RING)
    async with trio.open_nursery() as nursery:
        node = await speaking_node(nursery, store)
        control = Control(node)
        before = len(peek_entries(store.directory))
        told = await control.answer({"do": "rollback", "rounds": 4})
        assert told["taken"] == 2 * RING - 4
        assert told["seq"] == before
        assert node.rounds.loom is not None
        assert same(node.rounds.loom.latest, after[2 * RING - 4])
        told = await control.answer({"do": "rollback", "rounds": 9})
        own = node.copies.own
        assert own is not None
        assert same(own.copy.vector, after[2 * RING - 9])
        for wrong in (10_000, 0, "x"):
            with pytest.raises(TapestryError):
                await control.answer({"do": "rollback", "rounds": wrong})
        assert kinds(store)[-2:] == [RESUME, RESUME]
        node.stop()
    headers = [decode_signed(signed).header for signed in peek_entries(store.directory)]
    assert [header.seq for header in headers] == list(range(len(headers)))
    assert len({header.incarnation for header in headers[-2:]}) == 2


@in_trio
async def test_whoever_cannot_wait_for_it_is_told_so_and_it_is_done_all_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    lived(store, 9)
    monkeypatch.setattr(module, "ANSWER_S", 0.01)
    async with trio.open_nursery() as nursery:
        node = await speaking_node(nursery, store)
        async with node.rounds.speaking:  # a save, say
            told = await node.roll_back(3)
        assert told == {"round": 9, "under_way": 1}
        while RESUME not in kinds(store):
            await trio.sleep(0.01)
        node.stop()


@in_trio
async def test_a_member_that_still_asks_rolls_nothing_back(store: Store) -> None:
    lived(store, 9)
    async with trio.open_nursery() as nursery:
        node = make_node(MANIFEST, store)
        await nursery.start(node.run)
        with pytest.raises(TapestryError, match="still starting"):
            await Control(node).answer({"do": "rollback", "rounds": 1})
        node.stop()


# ---- the verb ------------------------------------------------------------------------------------


def test_the_verb_on_a_stopped_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TAPESTRY_HOME", str(tmp_path))
    (tmp_path / "network.toml").write_text(dump_manifest(MANIFEST))
    store = Store(tmp_path / "state" / "store", RING)
    after = lived(store, 9)
    assert main(["rollback", "--rounds", "3"]) == 75, "another daemon holds it"
    store.close()
    capsys.readouterr()
    assert main(["rollback", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"round": 9, "rounds": list(range(1, 9))}
    assert main(["rollback", "--rounds", "300"]) == REFUSED
    assert main(["rollback", "--rounds", "3"]) == 0
    assert "the state of round 6" in capsys.readouterr().out
    store = Store(tmp_path / "state" / "store", RING)
    found = recover(store, len(vector()), NORM_MAX)
    store.close()
    assert found.copy is not None
    assert np.array_equal(found.copy, after[6])


def test_a_stopped_member_whose_disk_is_full_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TAPESTRY_HOME", str(tmp_path))
    (tmp_path / "network.toml").write_text(dump_manifest(MANIFEST))
    store = Store(tmp_path / "state" / "store", RING)
    lived(store, 9)
    store.close()

    def full(_fd: int, _data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_all", full)
        assert main(["rollback", "--rounds", "3"]) == TEMPORARY
    assert "nothing was changed" in capsys.readouterr().err
    store = Store(tmp_path / "state" / "store", RING)
    found = recover(store, len(vector()), NORM_MAX)
    store.close()
    assert (found.round, found.reverted) == (9, False)
