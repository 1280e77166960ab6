"""A restarted node starts from the copy as its followers hold it, or says that it fell back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from daemon_kit import Author, D, in_trio, key, make_manifest, make_node, same, vector

from tapestry_p2p.daemon.copies import Followed, copy_root
from tapestry_p2p.daemon.recovery import Recovered, recover
from tapestry_p2p.daemon.store import FollowedCopy, LoggedEntry, Store
from tapestry_p2p.gossip.adoption import Reference, encode_adoption
from tapestry_p2p.gossip.header import ADOPT, DIFFERENCE
from tapestry_p2p.gossip.known import Known
from tapestry_p2p.mix.copy import PublicCopy

RING = 16
NORM_MAX = 1e6
X = vector(seed=77)  # the model, which no follower holds


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store", RING)
    yield store
    store.close()


def log(store: Store, author: Author, saved: int) -> Author:
    """Log the author's entries, as its node did; the state was saved after entry ``saved``."""
    twin = Author()
    for entry, signed in zip(author.entries, author.signed, strict=True):
        store.append_entry(entry)
        if signed.header.kind == DIFFERENCE:
            twin.copy.advance(twin.codec, entry.payload, NORM_MAX)
        if entry.seq == saved:
            store.save_own(saved, signed.header.round, X, twin.copy.vector)
    return author


def found_in(store: Store) -> Recovered:
    return recover(store, D, NORM_MAX)


def held(found: Recovered) -> tuple[int, ...]:
    """The seqs that we are known to have signed."""
    return tuple(signed.header.seq for signed in found.known.own)


def test_a_fresh_start(store: Store) -> None:
    assert found_in(store) == Recovered()


def test_a_clean_end_comes_back_bit_for_bit(store: Store) -> None:
    author = log(store, Author().genesis().profile().grow(3), saved=4)
    found = found_in(store)
    assert (found.seq, found.round, found.rolled_back) == (4, 4, False)
    assert same(found.copy, author.copy.vector)
    assert same(found.x, X)
    assert held(found) == (0, 1, 2, 3, 4)
    assert found.entries == author.entries


@pytest.mark.parametrize("saved", [0, 1, 3])
def test_killed_between_log_and_state_it_is_led_on(store: Store, saved: int) -> None:
    author = log(store, Author().genesis().profile().grow(3), saved=saved)
    found = found_in(store)
    assert (found.seq, found.round, found.rolled_back) == (4, 4, False)
    assert same(found.copy, author.copy.vector)
    assert same(found.x, author.copy.vector)


def test_killed_before_the_first_state_it_asks(store: Store) -> None:
    log(store, Author().genesis(), saved=-1)
    found = found_in(store)
    assert (found.seq, found.copy, found.rolled_back) == (-1, None, True)
    assert held(found) == (0,)


def test_a_profile_moves_no_copy_and_keeps_the_model(store: Store) -> None:
    author = log(store, Author().genesis().grow(2).profile(), saved=2)
    found = found_in(store)
    assert (found.seq, found.rolled_back) == (3, False)
    assert same(found.copy, author.copy.vector)
    assert same(found.x, X)


@pytest.mark.parametrize("saved", [2, 3, 4])
def test_a_resume_in_the_log_is_gone_over(store: Store, saved: int) -> None:
    author = log(store, Author().genesis().grow(2).resume().grow(2), saved=saved)
    found = found_in(store)
    assert (found.seq, found.rolled_back) == (5, False)
    assert same(found.copy, author.copy.vector)
    assert found.known.own[-1].header.incarnation == author.incarnation


def test_a_resume_far_ahead_of_the_copy(store: Store) -> None:
    """An old backup resumed at the head that peers showed, and was killed before it saved."""
    author = Author().genesis().grow(2)
    jump = Author().genesis().grow(2)
    jump.incarnation = bytes(16)
    jump.write("resume", seq=40)
    log(store, author, saved=2)
    store.append_entry(LoggedEntry(40, jump.signed[-1].encode(), b""))
    found = found_in(store)
    assert (found.seq, found.rolled_back) == (40, False)
    assert same(found.copy, author.copy.vector)


def test_the_state_lost(store: Store, tmp_path: Path) -> None:
    author = log(store, Author().genesis().grow(3), saved=3)
    for path in (tmp_path / "store").glob("own.[01]"):
        path.unlink()
    found = found_in(store)
    assert (found.seq, found.copy, found.rolled_back) == (-1, None, True)
    assert found.known.own[-1] == author.signed[-1]  # it will go on above all that it signed


def test_the_log_lost(store: Store, tmp_path: Path) -> None:
    author = log(store, Author().genesis().grow(3), saved=3)
    (tmp_path / "store" / "own.log").unlink()
    found = found_in(store)
    assert (found.seq, found.rolled_back) == (3, True)
    assert same(found.x, X)
    assert found.known.own == (author.signed[-1],)


def test_the_log_lost_behind_the_state(store: Store, tmp_path: Path) -> None:
    author = log(store, Author().genesis().grow(3), saved=3)
    path = tmp_path / "store" / "own.log"
    data = path.read_bytes()
    path.write_bytes(data[: data.index(author.entries[2].signed) - 60])  # cut before entry 2
    found = found_in(store)
    assert (found.seq, found.rolled_back) == (3, True)
    assert held(found) == (0, 1, 3)


def test_an_older_log_is_noticed_by_what_was_known(store: Store, tmp_path: Path) -> None:
    """State and log went back together; what we know of ourselves elsewhere did not."""
    author = Author().genesis().grow(3)
    log(store, author, saved=3)
    store.save_known(Known(own=tuple(author.signed)).encode())
    path = tmp_path / "store" / "own.log"
    data = path.read_bytes()
    path.write_bytes(data[: data.index(author.entries[3].signed) - 60])
    for state in (tmp_path / "store").glob("own.[01]"):
        state.unlink()
    twin = Author().genesis().grow(2)
    store.save_own(2, 2, X, twin.copy.vector)
    found = found_in(store)
    assert (found.seq, found.rolled_back) == (2, True)
    assert held(found) == (0, 1, 2, 3)


def test_everything_lost_but_what_was_known(store: Store) -> None:
    author = Author().genesis().grow(2)
    store.save_known(Known(own=tuple(author.signed)).encode())
    found = found_in(store)
    assert (found.seq, found.rolled_back) == (-1, True)
    assert held(found) == (0, 1, 2)


@pytest.mark.parametrize("wrong", [{"root": bytes(32)}, {"codec": "int8"}, {"codec": "fp32"}])
def test_an_entry_that_does_not_fit_ends_the_replay(store: Store, wrong: dict[str, object]) -> None:
    author = Author().genesis().grow(2)
    author.difference(**wrong)
    author.difference()
    log(store, author, saved=1)
    found = found_in(store)
    assert (found.seq, found.rolled_back) == (2, True)
    assert held(found) == (0, 1, 2, 3, 4)


def test_an_entry_longer_than_the_manifest_allows_ends_the_replay(store: Store) -> None:
    log(store, Author().genesis().grow(2), saved=0)
    found = recover(store, D, 1e-6)
    assert (found.seq, found.rolled_back) == (0, True)


def test_the_state_of_another_model(store: Store) -> None:
    log(store, Author().genesis().grow(2), saved=2)
    found = recover(store, D + 1, NORM_MAX)
    assert (found.seq, found.copy, found.x, found.rolled_back) == (-1, None, None, True)


def test_copies_of_peers_come_with_their_heads(store: Store) -> None:
    author, other = Author(2).genesis().grow(2), Author(3, d=D + 1).genesis()
    for peer in (author, other):
        head = peer.signed[-1].encode()
        store.save_copy(FollowedCopy(peer.key, peer.seq, head, peer.copy.vector))
    found = found_in(store)
    assert [copy.author for copy in found.copies] == [author.key]
    assert found.known.copies == (author.signed[-1],)
    assert not found.rolled_back


def test_what_was_known_in_another_form_is_let_go(store: Store) -> None:
    log(store, Author().genesis(), saved=0)
    store.save_known(b"\x93\x01\x02\x03")
    found = found_in(store)
    assert held(found) == (0,)
    assert not found.rolled_back


def adopted() -> Author:
    """A member whose copy starts elsewhere than at the first vector."""
    author = Author()
    author.copy = PublicCopy(vector(seed=55))
    author.write(ADOPT, b"names some copies")
    return author


def test_a_crash_right_after_the_entry_that_adopts_finds_the_copy_that_it_names(
    store: Store,
) -> None:
    author = adopted()
    store.save_own(-1, 0, X, author.copy.vector)
    store.append_entry(author.entries[0])
    found = found_in(store)
    assert (found.seq, found.rolled_back) == (0, False)
    assert same(found.copy, vector(seed=55))
    assert same(found.x, X)
    store.append_entry(author.difference().entries[1])
    assert same(found_in(store).copy, author.copy.vector)


def test_a_start_that_was_never_signed_is_none(store: Store) -> None:
    store.save_own(-1, 0, X, adopted().copy.vector)
    assert found_in(store) == Recovered()


@in_trio
async def test_a_start_is_durable_before_it_is_signed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[tuple[str, int]] = []
    save, append = store.save_own, store.append_entry

    def saved(seq: int, *rest: Any) -> None:
        order.append(("saved", seq))
        save(seq, *rest)

    def appended(entry: LoggedEntry) -> None:
        order.append(("signed", entry.seq))
        append(entry)

    monkeypatch.setattr(store, "save_own", saved)
    monkeypatch.setattr(store, "append_entry", appended)
    manifest, start = make_manifest(vector()), PublicCopy(vector(seed=55))
    async with trio.open_nursery() as nursery:
        node = make_node(manifest, store)
        await nursery.start(node.run)
        node.copies.set_genesis(vector())
        node.copies.own = Followed(-1, start, copy_root(start))
        node.rounds._recovered_x = X
        reference = Reference(key(2).public_key, 5, bytes(32))
        node.voice.adoption = encode_adoption([reference])
        await node.rounds.settle_stream()
        node.stop()
    assert order[:3] == [("saved", -1), ("signed", 0), ("saved", 0)]
