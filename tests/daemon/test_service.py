"""What the service manager is told: ready when it is so, alive as long as rounds move."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from daemon_kit import in_mock_time, in_trio

from tapestry_p2p.daemon.service import (
    ROUND_STUCK_S,
    Health,
    feed,
    notify,
    obey_reload,
    watchdog_s,
)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The other end of $NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


def told(manager: socket.socket) -> list[str]:
    words = []
    while True:
        try:
            words.append(manager.recv(100).decode())
        except BlockingIOError:
            return words


def test_a_word_is_a_datagram(manager: socket.socket, tmp_path: Path) -> None:
    assert notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "notify")})
    assert told(manager) == ["READY=1"]


def test_an_abstract_socket_is_named_with_an_at() -> None:
    name = f"tapestry-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name)
        assert notify("READY=1", {"NOTIFY_SOCKET": "@" + name})
        assert sock.recv(100) == b"READY=1"


def test_without_a_manager_nothing_is_sent(tmp_path: Path) -> None:
    assert not notify("READY=1", {})
    assert not notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "gone")})


def test_a_manager_that_reads_nothing_holds_nobody_up(
    manager: socket.socket, tmp_path: Path
) -> None:
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    words = [notify("WATCHDOG=1", environ) for _ in range(2_000)]
    assert words[0]
    assert not words[-1]
    assert len(told(manager)) == sum(words)


def test_the_watchdog_is_ours_or_none() -> None:
    assert watchdog_s({}) == 0
    assert watchdog_s({"WATCHDOG_USEC": "60000000"}) == 60
    assert watchdog_s({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}) == 60
    assert watchdog_s({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}) == 0
    assert watchdog_s({"WATCHDOG_USEC": "soon"}) == 0


def test_a_round_that_stands_still_is_no_good_health() -> None:
    state = {"working": False, "round": 1}
    health = Health(lambda: bool(state["working"]), lambda: state["round"])
    assert health.good(0)
    assert health.good(10 * ROUND_STUCK_S), "idle: waiting for the trainer is no fault of ours"
    state["working"] = True
    assert health.good(10 * ROUND_STUCK_S + 1)
    assert not health.good(11 * ROUND_STUCK_S + 1)
    state["round"] = 2
    assert health.good(11 * ROUND_STUCK_S + 2)


@in_mock_time
async def test_the_watchdog_is_fed_until_a_round_hangs(
    manager: socket.socket, tmp_path: Path
) -> None:
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000000"}
    with trio.move_on_after(750):
        await feed(Health(lambda: False, lambda: 0), environ)
    assert told(manager) == ["WATCHDOG=1"] * 8
    with trio.move_on_after(4 * ROUND_STUCK_S):
        await feed(Health(lambda: True, lambda: 0), environ)
    assert len(told(manager)) == ROUND_STUCK_S / 100


@in_trio
async def test_a_hangup_reads_the_configuration_again() -> None:
    seen: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(obey_reload, lambda: seen.append(1))
        await trio.testing.wait_all_tasks_blocked()
        os.kill(os.getpid(), signal.SIGHUP)
        while not seen:
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
