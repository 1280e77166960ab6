"""The state directory: an entry that was shown is never lost unseen, and no seq is signed twice."""

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon_kit import Author, key, same, vector

from tapestry_p2p.daemon import files
from tapestry_p2p.daemon import store as module
from tapestry_p2p.daemon.files import Mark
from tapestry_p2p.daemon.store import FollowedCopy, LoggedEntry, OwnState, Store
from tapestry_p2p.errors import TEMPORARY, TapestryError

RING = 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def opened(folder: Path) -> Iterator[Callable[[], Store]]:
    """Open the store anew, as a restarted daemon does."""
    current: list[Store] = []

    def again() -> Store:
        while current:
            current.pop().close()
        current.append(Store(folder, RING))
        return current[0]

    yield again
    while current:
        current.pop().close()


def entries(count: int) -> list[LoggedEntry]:
    """Small ones, so that every byte of a log of them can be tried."""
    return [LoggedEntry(seq, b"signed %d" % seq, bytes([seq]) * 9) for seq in range(count)]


def written(store: Store, count: int, saved: int) -> list[LoggedEntry]:
    """A log of ``count`` entries; the state was saved after entry ``saved``."""
    made = entries(count)
    for entry in made:
        store.append_entry(entry)
        if entry.seq == saved:
            save(store, saved)
    return made


def save(store: Store, seq: int) -> None:
    store.save_own(seq, seq * 10, vector(5, seed=seq), vector(5, seed=seq + 100))


def loaded(store: Store) -> OwnState:
    state = store.load_own()
    assert state is not None
    return state


def test_a_fresh_directory_holds_nothing(opened: Callable[[], Store], folder: Path) -> None:
    store = opened()
    assert store.load_own() is None
    assert store.load_copies() == []
    assert store.load_known() is None
    assert folder.stat().st_mode & 0o777 == 0o700


def test_what_was_written_comes_back(opened: Callable[[], Store]) -> None:
    made = written(opened(), 3, saved=1)
    state = loaded(opened())
    assert (state.seq, state.round, state.head, state.rolled_back) == (1, 10, b"signed 1", False)
    assert state.entries == made
    assert same(state.x, vector(5, seed=1))
    assert same(state.copy, vector(5, seed=101))


def test_a_restarted_store_goes_on_in_the_same_log(opened: Callable[[], Store]) -> None:
    made = entries(6)
    for entry in made:
        store = opened()
        store.load_own()
        store.append_entry(entry)
    assert loaded_entries(opened()) == made


def loaded_entries(store: Store) -> list[LoggedEntry]:
    return loaded(store).entries


# ---- crashes -----------------------------------------------------------------------------------


def test_half_a_record_at_the_end_was_never_shown(
    opened: Callable[[], Store], folder: Path
) -> None:
    made = written(opened(), 2, saved=0)
    log, mark = folder / "own.log", folder / "own.seq"
    begin, marked = log.stat().st_size, mark.read_bytes()
    opened().append_entry(LoggedEntry(2, b"signed 2", b"x"))
    whole, shown = log.read_bytes(), mark.read_bytes()
    for length in range(begin, len(whole)):
        log.write_bytes(whole[:length])
        for mark_bytes, was_shown in ((marked, False), (shown, True)):
            mark.write_bytes(mark_bytes)
            state = loaded(opened())
            assert state.entries == made
            assert state.rolled_back == was_shown, length


def test_the_whole_log_lost_before_the_first_state_is_known_for_it(
    opened: Callable[[], Store], folder: Path
) -> None:
    opened().append_entry(LoggedEntry(0, b"signed 0", b""))
    (folder / "own.log").unlink()
    assert loaded(opened()).rolled_back


def test_a_log_whose_replacing_was_not_synced_is_synced_before_its_entry_counts(
    opened: Callable[[], Store], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = written(opened(), 3, saved=0)
    log = folder / "own.log"
    data = bytearray(log.read_bytes())
    data[100] ^= 1
    log.write_bytes(data)
    store, synced = opened(), list[Path]()
    store.load_own()

    def refused(_path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    entry = LoggedEntry(3, b"signed 3", b"x")
    with monkeypatch.context() as patch:
        patch.setattr(files, "sync_directory", refused)
        with pytest.raises(OSError, match="Input/output"):
            store.append_entry(entry)
    monkeypatch.setattr(module, "sync_directory", synced.append)
    store.append_entry(entry)
    assert synced == [folder]
    assert loaded_entries(store)[-1] == entry
    assert len(loaded_entries(store)) == len(made)


def test_that_log_and_mark_are_there_is_synced_however_often_it_was_refused(
    opened: Callable[[], Store], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (entry,), store, tried = entries(1), opened(), list[Path]()
    monkeypatch.setattr(module, "sync_directory", lambda _path: None)

    def refused(path: Path) -> None:
        tried.append(path)
        if len(tried) in (1, 3):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(files, "sync_directory", refused)
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output"):
            store.append_entry(entry)
    store.append_entry(entry)
    assert tried == [folder] * 4, "the log's and the mark's, each once more"
    assert [each.seq for each in loaded_entries(opened())] == [0]


def test_an_entry_whose_mark_was_refused_is_logged_once(
    opened: Callable[[], Store], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, entry = opened(), LoggedEntry(0, b"signed 0", b"")

    def refuse(_self: Mark, _number: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(Mark, "note", refuse)
        with pytest.raises(OSError, match="Input/output"):
            store.append_entry(entry)
    store.append_entry(entry)
    assert loaded_entries(opened()) == [entry]


def test_after_half_a_record_the_log_goes_on_whole(
    opened: Callable[[], Store], folder: Path
) -> None:
    made = written(opened(), 2, saved=1)
    with (folder / "own.log").open("ab") as file:
        file.write(b"\0\0\0\x60 half")
    store = opened()
    store.load_own()
    store.append_entry(LoggedEntry(2, b"signed 2", b"x"))
    state = loaded(opened())
    assert [entry.seq for entry in state.entries] == [0, 1, 2]
    assert state.entries[:2] == made
    assert not state.rolled_back


@pytest.mark.parametrize("saved", [0, 2])
def test_no_flipped_byte_of_the_log_goes_unseen(
    saved: int, opened: Callable[[], Store], folder: Path
) -> None:
    made = written(opened(), 3, saved=saved)
    log = folder / "own.log"
    whole = log.read_bytes()
    for position in range(len(whole)):
        for bit in (0x01, 0x80):
            flipped = bytearray(whole)
            flipped[position] ^= bit
            log.write_bytes(flipped)
            state = loaded(opened())
            assert state.rolled_back, position
            assert all(entry in made for entry in state.entries)


def test_what_was_signed_after_a_damaged_entry_is_known(
    opened: Callable[[], Store], folder: Path
) -> None:
    made = written(opened(), 3, saved=0)
    log = folder / "own.log"
    data = bytearray(log.read_bytes())
    data[data.index(made[1].payload)] ^= 1
    log.write_bytes(data)
    assert loaded_entries(opened()) == [made[0], made[2]]


def test_damage_is_seen_until_the_next_entry(opened: Callable[[], Store], folder: Path) -> None:
    """A crash after the damage was found, before a resume was signed, must not hide it."""
    made = written(opened(), 3, saved=0)
    log = folder / "own.log"
    data = bytearray(log.read_bytes())
    data[data.index(made[1].payload)] ^= 1
    log.write_bytes(data)
    for _ in range(3):
        assert loaded(opened()).rolled_back
    store = opened()
    store.load_own()
    resume = LoggedEntry(3, b"signed a resume", b"")
    store.append_entry(resume)
    save(store, 3)
    state = loaded(opened())
    assert not state.rolled_back
    assert state.entries == [made[0], made[2], resume]


@pytest.mark.parametrize("lost", [["own.0", "own.1"], ["own.log"]])
def test_a_lost_half_is_said(lost: list[str], opened: Callable[[], Store], folder: Path) -> None:
    made = written(opened(), 2, saved=1)
    for name in lost:
        (folder / name).unlink(missing_ok=True)
    state = loaded(opened())
    assert state.rolled_back
    assert (state.entries == made) == ("own.log" not in lost)
    assert (state.head == b"signed 1") == ("own.log" in lost)


def test_both_generations_damaged_and_no_log_is_no_fresh_start(
    opened: Callable[[], Store], folder: Path
) -> None:
    written(opened(), 1, saved=0)
    for path in [*folder.glob("own.[01]"), folder / "own.log"]:
        path.write_bytes(path.read_bytes()[:-1] if path.suffix != ".log" else b"")
    assert loaded(opened()).rolled_back


def test_an_older_generation_is_led_on_by_the_log(
    opened: Callable[[], Store], folder: Path
) -> None:
    store = opened()
    for entry in entries(4):
        store.append_entry(entry)
        save(store, entry.seq)
    (folder / "own.1").write_bytes(b"rubbish")  # of four saves the last
    state = loaded(opened())
    assert (state.seq, [entry.seq for entry in state.entries]) == (2, [0, 1, 2, 3])
    assert not state.rolled_back


# ---- a disk that refuses ---------------------------------------------------------------------


class Disk:
    """os.write and os.fsync that fail as told, after writing part of what was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.write_fails = self.fsync_fails = self.truncate_fails = False
        self._write, self._fsync, self._truncate = os.write, os.fsync, os.ftruncate
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr(os, "ftruncate", self.truncate)

    def write(self, fd: int, data: Any) -> int:
        if self.write_fails and len(data) < 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._write(fd, data[: max(1, len(data) // 2)])

    def fsync(self, fd: int) -> None:
        if self.fsync_fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._fsync(fd)

    def truncate(self, fd: int, length: int) -> None:
        if self.truncate_fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._truncate(fd, length)


@pytest.mark.parametrize("failing", ["write_fails", "fsync_fails"])
@pytest.mark.parametrize("crash", [False, True])
def test_a_refused_entry_leaves_no_half_record(
    failing: str, crash: bool, opened: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened()
    made = written(store, 2, saved=1)
    third = LoggedEntry(2, b"signed 2", bytes(100))
    disk = Disk(monkeypatch)
    setattr(disk, failing, True)
    for _ in range(2):
        with pytest.raises(OSError, match=r"No space|Input/output"):
            store.append_entry(third)
    setattr(disk, failing, False)
    if crash:
        store = opened()
        state = loaded(store)
        assert state.entries[:2] == made
        assert not state.rolled_back
    store.append_entry(third)
    store.append_entry(LoggedEntry(3, b"signed 3", b"x"))
    state = loaded(opened())
    assert [entry.seq for entry in state.entries] in ([0, 1, 2, 3], [0, 1, 2, 2, 3])
    assert not state.rolled_back


def test_a_disk_that_cannot_even_cut_off_half_a_record(
    opened: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened()
    written(store, 1, saved=0)
    disk = Disk(monkeypatch)
    disk.write_fails = disk.truncate_fails = True
    for _ in range(2):
        with pytest.raises(OSError, match=r"No space|Input/output"):
            store.append_entry(entries(2)[1])
    disk.write_fails = disk.truncate_fails = False
    store.append_entry(entries(2)[1])
    state = loaded(opened())
    assert state.entries == entries(2)
    assert not state.rolled_back


def test_the_log_stays_small(opened: Callable[[], Store], folder: Path) -> None:
    store = opened()
    sizes = []
    for entry in entries(20 * RING):
        store.append_entry(entry)
        save(store, entry.seq)
        sizes.append((folder / "own.log").stat().st_size)
    assert max(sizes) < 1.1 * max(sizes[: 5 * RING])  # later seqs take a digit more
    state = loaded(opened())
    assert state.entries == entries(20 * RING)[-len(state.entries) :]
    assert len(state.entries) >= 2 * RING
    assert not state.rolled_back


@pytest.mark.parametrize("saved", [-1, 1])
def test_what_no_saved_state_covers_stays_in_the_log(
    saved: int, opened: Callable[[], Store]
) -> None:
    """Saving is slow or fails: every entry since is there to be replayed."""
    store = opened()
    for entry in entries(9 * RING):
        store.append_entry(entry)
        if entry.seq <= saved:
            save(store, entry.seq)
    state = loaded(opened())
    assert state.entries[-1].seq == 9 * RING - 1
    assert state.entries[0].seq <= saved + 1
    assert len(state.entries) == state.entries[-1].seq - state.entries[0].seq + 1


def test_a_full_disk_does_not_lose_an_entry_by_making_the_log_small(
    opened: Callable[[], Store], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = opened()
    made = entries(4 * RING + 3)
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_file", refuse)
        for entry in made:
            store.append_entry(entry)
    save(store, made[-1].seq)
    state = loaded(opened())
    assert state.entries == made
    assert not state.rolled_back


# ---- one daemon at a time ----------------------------------------------------------------------


def test_a_second_daemon_is_refused_and_changes_nothing(
    opened: Callable[[], Store], folder: Path
) -> None:
    store = opened()
    written(store, 1, saved=0)
    with pytest.raises(TapestryError, match="another daemon already runs") as refused:
        Store(folder, RING)
    assert refused.value.exit_code == TEMPORARY
    assert len(loaded_entries(store)) == 1


def test_a_killed_daemon_leaves_no_lock(folder: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from tapestry_p2p.daemon.store import Store;"
        f"Store(Path({str(folder)!r}), 4); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -9
    Store(folder, RING).close()


def test_a_place_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TapestryError, match="cannot use the state directory") as refused:
        Store(tmp_path / "file" / "store", RING)
    assert refused.value.exit_code == TEMPORARY


# ---- what is known of others -------------------------------------------------------------------


def test_followed_copies_come_back_and_are_dropped(opened: Callable[[], Store]) -> None:
    author = Author().genesis()
    other = key(9).public_key
    store = opened()
    for name in (author.key, other):
        store.save_copy(FollowedCopy(name, 0, author.entries[0].signed, author.copy.vector))
    found = {copy.author: copy for copy in opened().load_copies()}
    assert set(found) == {author.key, other}
    assert same(found[other].vector, author.copy.vector)
    opened().drop_copy(other)
    assert [copy.author for copy in opened().load_copies()] == [author.key]


def test_a_damaged_copy_is_the_older_one_or_none(opened: Callable[[], Store], folder: Path) -> None:
    name = key(1).public_key
    store = opened()
    for seq in (5, 6):
        store.save_copy(FollowedCopy(name, seq, b"signed", vector(5, seed=seq)))
    older, newer = sorted((folder / "copies").iterdir())
    newer.write_bytes(newer.read_bytes()[:-1])
    assert [copy.seq for copy in opened().load_copies()] == [5]
    older.write_bytes(b"")
    assert opened().load_copies() == []


def test_strange_files_among_the_copies_are_let_lie(
    opened: Callable[[], Store], folder: Path
) -> None:
    store = opened()
    store.save_copy(FollowedCopy(key(1).public_key, 1, b"signed", vector(5)))
    whole = next((folder / "copies").iterdir())
    (folder / "copies" / "backup.0").write_bytes(whole.read_bytes())
    (folder / "copies" / "0123.1").write_bytes(whole.read_bytes())
    assert [copy.author for copy in opened().load_copies()] == [key(1).public_key]


def test_what_the_protocol_knew_comes_back(opened: Callable[[], Store]) -> None:
    opened().save_known(b"heads")
    store = opened()
    assert store.load_known() == b"heads"
    store.save_known(b"more heads")
    assert opened().load_known() == b"more heads"


def test_a_log_whose_compaction_is_refused_at_the_end_is_gone_on_with(
    opened: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened()
    made = entries(4 * RING + 3)
    sync, refused = files.sync_directory, 0

    def refuse(path: Path) -> None:
        nonlocal refused
        sync(path)
        if store._logged > 4 * RING:
            refused += 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(files, "sync_directory", refuse)
    for entry in made:
        store.append_entry(entry)
        if entry.seq % 3 == 0:
            with contextlib.suppress(OSError):
                save(store, entry.seq)
    assert refused
    seqs = [entry.seq for entry in loaded_entries(opened())]
    assert seqs == list(range(seqs[0], len(made)))
