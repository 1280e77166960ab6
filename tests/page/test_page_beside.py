"""A page that fails, ends or cannot start costs the node a log line, and ends with the node."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tapestry_p2p.daemon import beside

STAYS = "import os, sys; open(sys.argv[1], 'a').write(str(os.getpid())); sys.stdin.read()"
FAILS = "import sys; open(sys.argv[1], 'a').write('x'); sys.exit('no')"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "AGAIN_S", 0.01)


def play(monkeypatch: pytest.MonkeyPatch, *command: str) -> None:
    """Start this instead of a page."""
    monkeypatch.setattr(beside, "command", lambda port: list(command))


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it is true, not for ever."""
    with trio.fail_after(30):
        while not condition():
            await trio.sleep(0.02)


def test_it_is_started_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = tmp_path / "starts"
    play(monkeypatch, sys.executable, "-c", FAILS, str(starts))

    async def watch() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(beside.keep_page, 0, tmp_path)
            await until(lambda: starts.exists() and len(starts.read_text()) >= 3)
            nursery.cancel_scope.cancel()

    trio.run(watch)
    assert (tmp_path / beside.LOG_NAME).stat().st_mode & 0o777 == 0o600


def test_a_page_that_cannot_start_is_only_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    play(monkeypatch, "/nowhere/python")

    async def watch() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(beside.keep_page, 0, tmp_path)
            await until(lambda: caplog.text.count("the page ended") >= 2)
            nursery.cancel_scope.cancel()

    trio.run(watch)


def test_it_ends_with_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = tmp_path / "starts"
    play(monkeypatch, sys.executable, "-c", STAYS, str(starts))

    async def watch() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(beside.keep_page, 0, tmp_path)
            await until(lambda: starts.exists() and starts.read_text() != "")
            nursery.cancel_scope.cancel()

    trio.run(watch)
    pid = int(starts.read_text())
    assert not Path(f"/proc/{pid}").exists()


def test_the_command_is_the_verb() -> None:
    verb = ["-m", "tapestry_p2p", "page", "--tether"]
    assert beside.command(8421)[1:] == [*verb, "--port", "8421"]
    assert beside.command(8420)[1:] == verb, "the usual one, or the next that is free"
