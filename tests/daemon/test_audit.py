"""The log of what left: every entry, in a chain that shows each change, through crashes."""

import json
from pathlib import Path
from typing import Any

import pytest
from daemon_kit import Author

from tapestry_p2p.daemon import audit as module
from tapestry_p2p.daemon.audit import AuditLog, Left, left_by, numbered, verify

AT = 1.7e9


def lefts(count: int) -> list[Left]:
    author = Author().genesis().grow(count - 1)
    return [left_by(entry.signed, entry.payload) for entry in author.entries]


def signed(entries: list[Left]) -> dict[int, str]:
    return {left.seq: left.header for left in entries}


@pytest.fixture
def made(tmp_path: Path) -> list[Left]:
    entries = lefts(5)
    log = AuditLog(tmp_path)
    for left in entries:
        log.append(left, AT + left.seq)
    return entries


def test_what_left_is_in_it_with_size_and_hashes(tmp_path: Path, made: list[Left]) -> None:
    found = verify(tmp_path, signed(made))
    assert found.faults == []
    assert [row["kind"] for row in found.rows] == ["genesis"] + ["difference"] * 4
    assert found.rows[2]["header"] == made[2].header
    assert found.rows[2]["payload_bytes"] == made[2].payload_bytes > 0
    assert found.rows[0]["at"] == "2023-11-14T22:13:20+00:00"
    assert oct((tmp_path / "audit-0.jsonl").stat().st_mode & 0o777) == "0o600"


@pytest.mark.parametrize("number", range(5))
def test_a_changed_line_is_seen(tmp_path: Path, made: list[Left], number: int) -> None:
    path = tmp_path / "audit-0.jsonl"
    lines = path.read_text().splitlines()
    row = json.loads(lines[number])
    lines[number] = json.dumps({**row, "payload_bytes": 1, "header": "0" * 64})
    path.write_text("\n".join(lines) + "\n")
    assert verify(tmp_path, signed(made)).faults


@pytest.mark.parametrize("number", range(5))
def test_a_line_taken_out_is_seen(tmp_path: Path, made: list[Left], number: int) -> None:
    path = tmp_path / "audit-0.jsonl"
    lines = path.read_text().splitlines()
    del lines[number]
    path.write_text("\n".join(lines) + "\n")
    assert verify(tmp_path, signed(made)).faults


def test_all_but_the_newest_line_taken_out_is_seen_and_noted_again(
    tmp_path: Path, made: list[Left]
) -> None:
    path = tmp_path / "audit-0.jsonl"
    path.write_text(path.read_text().splitlines()[-1] + "\n")
    assert len(verify(tmp_path, signed(made)).faults) == 2
    AuditLog(tmp_path).catch_up(made, AT)
    assert {row["seq"] for row in verify(tmp_path, {}).rows} == {0, 1, 2, 3, 4}


def test_a_new_file_whose_first_line_was_refused_goes_on_the_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FILE_BYTES_MAX", 700)
    entries = lefts(9)
    log = AuditLog(tmp_path)
    real, refused = open, 0

    def refuse(path: Path, *words: Any, **more: Any) -> Any:
        nonlocal refused
        file = real(path, *words, **more)
        if "ab" in words and path.stat().st_size == 0 and not refused and path.name != module.FIRST:
            refused += 1
            file.close()
            raise OSError(28, "No space left on device")
        return file

    monkeypatch.setattr(module, "open", refuse, raising=False)
    for left in entries:
        try:
            log.append(left, AT)
        except OSError:
            log.append(left, AT)
    assert refused
    assert len(numbered(tmp_path)) > 1
    assert verify(tmp_path, signed(entries)).faults == []


def test_an_entry_that_the_store_holds_and_the_log_does_not(
    tmp_path: Path, made: list[Left]
) -> None:
    assert "7 to 7" in verify(tmp_path, {**signed(made), 7: "ab"}).faults[0]


def test_after_a_crash_half_a_line_goes_and_what_is_missing_comes(
    tmp_path: Path, made: list[Left]
) -> None:
    path = tmp_path / "audit-0.jsonl"
    whole = path.read_bytes()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        log = AuditLog(tmp_path)
        log.catch_up(made, AT)
        log.catch_up(made, AT)
        found = verify(tmp_path, signed(made))
        assert found.faults == []
        assert sorted(row["seq"] for row in found.rows) == [0, 1, 2, 3, 4]


def test_a_disk_that_took_half_a_line_is_no_fault(
    tmp_path: Path, made: list[Left], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AuditLog(tmp_path)
    (sixth,) = lefts(6)[5:]
    real = open

    def half(path: Path, *words: object, **more: object) -> object:
        with real(path, "ab") as file:
            file.write(b'{"half')
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module, "open", half, raising=False)
        with pytest.raises(OSError, match="space"):
            log.append(sixth, AT)
    log.append(sixth, AT)
    assert verify(tmp_path, {**signed(made), **signed([sixth])}).faults == []


def test_it_stays_small_and_what_is_left_is_a_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FILE_BYTES_MAX", 1500)
    monkeypatch.setattr(module, "FILES_MAX", 3)
    entries = lefts(40)
    log = AuditLog(tmp_path)
    for left in entries:
        log.append(left, AT)
    assert len(numbered(tmp_path)) == 3
    found = verify(tmp_path, signed(entries))
    assert found.faults == []
    assert found.rows[-1]["seq"] == 39
    assert found.rows[0]["seq"] > 10
    AuditLog(tmp_path).catch_up(entries, AT)
    assert len(verify(tmp_path, {}).rows) == len(found.rows), "what was let go stays gone"
