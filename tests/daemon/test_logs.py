"""The log: a flood becomes few lines, nothing obeys, nothing forges a line, files stay small."""

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tapestry_p2p.cli import log as verb
from tapestry_p2p.cli import main as cli
from tapestry_p2p.daemon import logs
from tapestry_p2p.errors import NOT_READY, OK

FLOOD = 1_000_000
LINES_MAX = 100
NASTY = "\x1b[31mred\r\n2026-01-01 ERROR forged\u202e\0\u2028" + "x" * 500


@pytest.fixture
def put_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in list(root.handlers):
        root.removeHandler(handler)
        if isinstance(handler, logs.Front):
            handler.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)


@pytest.fixture
def stream(put_back: None, tmp_path: Path) -> io.StringIO:
    made = io.StringIO()
    logs.install(tmp_path / "log", "text", made)
    logging.getLogger().setLevel("DEBUG")
    return made


def rows(folder: Path) -> list[dict[str, object]]:
    return list(verb.read(folder / "log" / logs.FILE_NAME))


@pytest.mark.parametrize("seconds", [1.0, 2300.0])
def test_a_million_refusals_are_a_hundred_lines(seconds: float) -> None:
    """In virtual time: a flood at full speed, and one that lasts for most of an hour."""
    now = 0.0
    limit = logs.Limit(lambda: now)
    written = told = 0
    for _ in range(FLOOD):
        now += seconds / FLOOD
        more = limit.more(("tapestry.node", 30, "dropping %s: %s"))
        if more is not None:
            written, told = written + 1, told + more
    assert logs.AT_ONCE <= written <= LINES_MAX
    now += logs.EVERY_S
    last = limit.more(("tapestry.node", 30, "dropping %s: %s"))
    assert last is not None
    assert written + told + last == FLOOD, "every one was counted"


def test_a_flood_through_the_loggers(stream: io.StringIO, tmp_path: Path) -> None:
    before = logs.COUNTS.held_back
    log = logging.getLogger("tapestry.node")
    for number in range(50_000):
        log.warning("dropping %s: %s", f"peer {number}", NASTY)
        log.debug("dial %s: %s", number, NASTY)
    lines = stream.getvalue().splitlines()
    assert len(lines) == len(rows(tmp_path)) == 2 * logs.AT_ONCE <= LINES_MAX
    assert logs.COUNTS.held_back - before == 100_000 - len(lines)


def test_one_flood_hides_no_other_kind(stream: io.StringIO) -> None:
    for _ in range(10_000):
        logging.getLogger("tapestry.node").warning("dropping %s", "x")
    logging.getLogger("tapestry").error("the disk is full")
    assert stream.getvalue().splitlines()[-1].endswith("ERROR tapestry: the disk is full")


def test_the_next_line_tells_how_many_there_were(
    put_back: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, made = 0.0, io.StringIO()
    front = logs.install(tmp_path, "text", made)
    front._limit = logs.Limit(lambda: now)
    log = logging.getLogger("tapestry")
    for _ in range(logs.AT_ONCE + 7):
        log.error("no")
    now = logs.EVERY_S
    log.error("no")
    assert made.getvalue().splitlines()[-1].endswith("no (7 more like this)")


def test_kinds_are_bounded() -> None:
    limit = logs.Limit(lambda: 0.0)
    written = sum(limit.more(("x", 20, f"made up {n}")) is not None for n in range(10_000))
    assert written <= logs.KINDS_MAX + logs.AT_ONCE
    assert len(limit._rows) <= logs.KINDS_MAX + 1


def test_nothing_that_a_peer_says_is_obeyed_or_forges_a_line(
    stream: io.StringIO, tmp_path: Path
) -> None:
    logging.getLogger("tapestry.node").warning("dropping %s: %s", NASTY, ValueError(NASTY))
    logging.getLogger("tapestry").warning(NASTY.replace("%", "%%"))
    text = stream.getvalue()
    assert text.count("\n") == 2
    assert all(c.isprintable() or c == "\n" for c in text)
    first = text.splitlines()[0]
    assert "\\x1b[31mred\\r\\n" in first
    assert first.count("x") < 2 * logs.FOREIGN_CHARS_MAX
    assert "x" * logs.FOREIGN_CHARS_MAX not in first
    assert len(max(text.splitlines(), key=len)) < 2 * logs.LINE_CHARS_MAX
    assert [row["level"] for row in rows(tmp_path)] == ["warning", "warning"]


def test_a_trace_is_kept_and_cannot_forge_a_line(stream: io.StringIO, tmp_path: Path) -> None:
    try:
        raise ValueError("first\n2026-01-01 ERROR tapestry: forged")
    except ValueError:
        logging.getLogger("tapestry").exception("a request failed")
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("a request failed")
    assert all(line.startswith("    ") for line in lines[1:])
    assert any("test_logs.py" in line for line in lines)
    (row,) = rows(tmp_path)
    trace = row["trace"]
    assert isinstance(trace, list)
    assert "ValueError: first" in trace


def test_a_template_that_does_not_fit_is_told(put_back: None, tmp_path: Path) -> None:
    made = io.StringIO()
    front = logs.install(tmp_path, "text", made)
    front.emit(logging.LogRecord("tapestry", 30, "", 0, "%d of %d", ("one",), None))
    assert "%d of %d ('one',)" in made.getvalue()


def test_json_lines(put_back: None, tmp_path: Path) -> None:
    made = io.StringIO()
    logs.install(tmp_path, "json", made)
    logging.getLogger("tapestry").error("größer als %s", 3)
    row = json.loads(made.getvalue())
    assert row["message"] == "größer als 3"
    assert row["level"] == "error"
    assert set(row) == {"at", "level", "logger", "message"}


def test_the_journal_gets_priorities_and_no_file(put_back: None, tmp_path: Path) -> None:
    folder, path = tmp_path / "log", tmp_path / "journal"
    folder.mkdir()
    (folder / logs.FILE_NAME).write_text("old\n")
    code = (
        "import logging, pathlib; from tapestry_p2p.daemon import logs;"
        f"logs.install(pathlib.Path({str(folder)!r}), 'text');"
        "logging.getLogger('tapestry').error('no'); logging.getLogger().setLevel('INFO');"
        "logging.getLogger('tapestry').info('yes')"
    )
    with path.open("wb") as file:
        status = os.fstat(file.fileno())
        stream = f"{status.st_dev}:{status.st_ino}"
        environ = {**os.environ, "JOURNAL_STREAM": stream}
        subprocess.run([sys.executable, "-c", code], stderr=file, check=True, env=environ)
    assert path.read_text() == "<3>tapestry: no\n<6>tapestry: yes\n"
    assert not (folder / logs.FILE_NAME).exists()


def test_files_stay_small_and_private(
    put_back: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "FILE_BYTES_MAX", 2000)
    logs.install(tmp_path, "text", io.StringIO())
    for number in range(400):
        logging.getLogger("tapestry").error(f"kind {number}")
    files = list(tmp_path.iterdir())
    assert len(files) == 1 + logs.FILES_KEPT
    assert all(path.stat().st_size <= 2000 and path.stat().st_mode & 0o077 == 0 for path in files)
    numbers = [str(row["message"]) for row in verb.read(tmp_path / logs.FILE_NAME)]
    assert numbers == [f"kind {n}" for n in range(400 - len(numbers), 400)]


def test_a_disk_that_refuses_costs_the_file_only(put_back: None, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file where the folder should be")
    made = io.StringIO()
    logs.install(tmp_path / "log", "text", made)
    logging.getLogger("tapestry").error("still told")
    assert "no log file" in made.getvalue()
    assert made.getvalue().endswith("still told\n")


def test_a_log_of_another_process_is_rotated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trainer.log"
    logs.rotate(path)
    path.write_text("x" * 50)
    logs.rotate(path)
    assert path.exists()
    monkeypatch.setattr(logs, "FILE_BYTES_MAX", 10)
    logs.rotate(path)
    assert [each.name for each in tmp_path.iterdir()] == ["trainer.log.1"]


# ---- the verb ------------------------------------------------------------------------------------


def test_the_verb_shows_the_last_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TAPESTRY_HOME", str(tmp_path))
    assert cli.main(["log"]) == NOT_READY
    assert "journalctl --user -u tapestry" in capsys.readouterr().err
    folder = tmp_path / "state" / "log"
    folder.mkdir(parents=True)
    levels = ("info", "warning", "error")
    made = [
        {"at": f"t{n}", "level": levels[n % 3], "logger": "tapestry", "message": f"number {n}"}
        for n in range(9)
    ]
    lines = [*map(json.dumps, made), "[1]", '{"half":', '{"at": 1}']
    (folder / logs.FILE_NAME).write_text("\n".join(lines))
    assert cli.main(["log", "--lines", "2"]) == OK
    shown = capsys.readouterr().out
    assert shown == "t7 WARNING tapestry: number 7\nt8 ERROR tapestry: number 8\n"
    assert cli.main(["log", "--level", "error", "--json"]) == OK
    shown = capsys.readouterr().out
    assert [json.loads(line)["message"][-1] for line in shown.splitlines()] == ["2", "5", "8"]
    monkeypatch.delenv("TAPESTRY_HOME")
    monkeypatch.setenv("TAPESTRY_SERVICE", "ana")
    assert cli.main(["log"]) == NOT_READY
    assert "journalctl -u tapestry@ana -u tapestry-trainer@ana" in capsys.readouterr().err


def test_the_verb_follows_over_a_rotation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "FOLLOW_S", 0.0)
    path = tmp_path / logs.FILE_NAME

    def line(n: int) -> str:
        return json.dumps({"at": "t", "level": "info", "logger": "x", "message": str(n)}) + "\n"

    path.write_text(line(0))
    followed = verb._followed(path)
    steps: Iterator[Callable[[], object]] = iter(
        [
            lambda: path.write_text(line(0) + line(1)[:10]),
            lambda: path.write_text(line(0) + line(1) + line(2)),
            lambda: (path.rename(tmp_path / "old"), path.write_text(line(3))),
        ]
    )
    monkeypatch.setattr("time.sleep", lambda _: next(steps)())
    found = []
    for row in followed:
        found.append(row["message"])
        if len(found) == 3:
            break
    assert found == ["1", "2", "3"]
