"""Files that survive a crash: whatever is damaged, the last whole generation comes back."""

import errno
import os
from pathlib import Path

import pytest

from tapestry_p2p.daemon.files import DamagedError, Mark, Pair, seal, unseal, write_file

OLD, NEW = b"the generation before", b"the newest generation"


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Two generations, as a running program left them."""
    pair = Pair(tmp_path / "own")
    assert pair.load() is None
    pair.save(OLD)
    pair.save(NEW)
    return pair


def loaded(folder: Path) -> tuple[bytes | None, bool]:
    """What a restarted program finds, and whether it had to fall back."""
    pair = Pair(folder / "own")
    return pair.load(), pair.fell_back


def newest(folder: Path) -> Path:
    return max((folder / "own.0", folder / "own.1"), key=lambda p: unseal(p.read_bytes())[0])


def test_the_newest_comes_back(pair: Pair, tmp_path: Path) -> None:
    assert loaded(tmp_path) == (NEW, False)
    assert oct(newest(tmp_path).stat().st_mode & 0o777) == "0o600"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes for others")
def test_what_root_writes_belongs_to_whom_the_folder_belongs(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    os.chown(folder, 1234, 1235)
    write_file(folder / "own.0", b"by a verb")
    mark = Mark(folder / "own.seq")
    mark.note(3)
    mark.close()
    for path in folder.iterdir():
        found = path.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (1234, 1235, 0o600)


def test_a_restarted_program_never_writes_over_the_newest(pair: Pair, tmp_path: Path) -> None:
    for number in range(3):
        restarted = Pair(tmp_path / "own")
        before = restarted.load()
        restarted.save(b"%d" % number)
        newest(tmp_path).unlink()
        assert loaded(tmp_path) == (before, False)
        restarted.save(b"%d" % number)


def test_every_cut_of_the_newest_falls_back(pair: Pair, tmp_path: Path) -> None:
    path = newest(tmp_path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert loaded(tmp_path) == (OLD, True)


def test_every_flipped_byte_of_the_newest_falls_back(pair: Pair, tmp_path: Path) -> None:
    path = newest(tmp_path)
    whole = path.read_bytes()
    for position in range(len(whole)):  # magic, digest, number, body
        for bit in (0x01, 0x80):
            flipped = bytearray(whole)
            flipped[position] ^= bit
            path.write_bytes(flipped)
            assert loaded(tmp_path) == (OLD, True), position


def test_a_longer_file_is_damaged_too(pair: Pair, tmp_path: Path) -> None:
    with newest(tmp_path).open("ab") as file:
        file.write(b"\0")
    assert loaded(tmp_path) == (OLD, True)


def test_after_a_fall_back_the_damaged_one_is_replaced(pair: Pair, tmp_path: Path) -> None:
    newest(tmp_path).write_bytes(b"rubbish")
    restarted = Pair(tmp_path / "own")
    assert restarted.load() == OLD
    restarted.save(b"next")
    assert loaded(tmp_path) == (b"next", False)


def test_both_damaged_is_nothing_and_said_so(pair: Pair, tmp_path: Path) -> None:
    for name in ("own.0", "own.1"):
        (tmp_path / name).write_bytes(b"rubbish")
    assert loaded(tmp_path) == (None, True)


def test_the_file_of_another_program_is_not_ours() -> None:
    with pytest.raises(DamagedError):
        unseal(b"PK\x03\x04" + bytes(100))
    assert unseal(seal(7, b"")) == (7, b"")


@pytest.mark.parametrize("name", ["write", "fsync", "replace"])
def test_a_refusing_disk_leaves_what_was_there(
    name: str, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    files = sorted(tmp_path.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(os, name, refuse)
        with pytest.raises(OSError, match="No space"):
            pair.save(b"does not fit")
    assert loaded(tmp_path) == (NEW, False)
    assert sorted(tmp_path.iterdir()) == files  # a draft left behind would fill the disk further
    pair.save(b"fits again")
    assert loaded(tmp_path) == (b"fits again", False)


def test_a_draft_of_a_killed_program_is_no_generation(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "own.0.new").write_bytes(seal(99, b"never renamed")[:-1])
    assert loaded(tmp_path) == (NEW, False)


def test_a_written_file_is_private(tmp_path: Path) -> None:
    write_file(tmp_path / "x", b"1")
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600


def test_a_mark_whose_next_write_is_torn_keeps_the_highest(tmp_path: Path) -> None:
    """Also when numbers jump by an even step, as a resume lets them, and after a restart."""
    path = tmp_path / "mark"
    mark = Mark(path)
    noted = -1
    for number in (0, 1, 5, 9, 11, 12, 40):
        before = path.read_bytes() if path.exists() else b""
        mark.note(number)
        after = path.read_bytes()
        assert Mark(path).load() == number
        for cut in (0, 7, 40):  # of the sector that was written now
            start = next(
                at for at in range(0, len(after), 512)
                if after[at : at + 512] != before[at : at + 512]
            )  # fmt: skip
            torn = before.ljust(len(after), b"\0")
            path.write_bytes(torn[:start] + after[start : start + cut] + torn[start + cut :])
            assert Mark(path).load() == noted
        path.write_bytes(after)
        noted = number
        if number == 9:
            mark.close()
            mark = Mark(path)
    mark.close()
