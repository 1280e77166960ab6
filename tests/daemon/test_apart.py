"""Trainers that another unit starts: they report at the node's socket, one after the other."""

import os
import socket
import stat
import sys
from pathlib import Path

import pytest
import trio
from daemon_kit import in_trio, same, vector
from stand_in import PARAMETERS, SCHEMA

from tapestry_p2p.daemon.apart import Door
from tapestry_p2p.daemon.trainer import TrainedVector, Trainer
from tapestry_p2p.errors import FAILURE, TapestryError
from tapestry_p2p.mix.codec import Vector

START = vector(PARAMETERS, seed=4)
STAND_IN = Path(__file__).with_name("stand_in.py")


class Unit:
    """A node whose trainers are started by hand, and what they handed over."""

    def __init__(self, folder: Path, act: str) -> None:
        self.door = Door(folder / "trainer.sock")
        self.path = folder / "trainer.sock"
        self.came: list[TrainedVector] = []
        self.begun = 0
        configure = {
            "task": "language", "options": {"act": act}, "data": [], "seed": 1, "threads": 1,
            "state_dir": str(folder), "cache_dir": str(folder), "text_socket": "",
            "schedule_steps": 0, "speed": 1.0, "judge": None,
        }  # fmt: skip
        self.trainer = Trainer(
            configure, folder / "log", self.begin, PARAMETERS, SCHEMA, door=self.door
        )

    async def begin(self, trainer: Trainer, _genesis: Vector) -> None:
        self.begun += 1
        await trainer.start(START, len(self.came), 0)
        await trainer.train(len(self.came) + 1, 5, 2)

    async def answer(self) -> None:
        async for trained in self.trainer.vectors():
            self.came.append(trained)
            correction = vector(PARAMETERS, scale=0.0)
            await self.trainer.correct(trained.record["seq"], correction, trained.life)

    async def start_one(self) -> trio.Process:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, str(STAND_IN), "--link", str(self.path)]
        return await trio.lowlevel.open_process(command, env=environment)

    async def until(self, count: int) -> None:
        while len(self.came) < count:
            await trio.sleep(0.01)


@in_trio
async def test_the_next_trainer_that_reports_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tapestry_p2p.daemon.trainer.BACKOFF_S", (0.01,))
    unit = Unit(tmp_path, "dies in round 2")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(unit.answer)
        nursery.start_soon(unit.trainer.run)
        first = await unit.start_one()
        await first.wait()
        assert not unit.trainer.stopped.is_set()
        second = await unit.start_one()
        await unit.until(2)
        assert unit.trainer.state.pid == second.pid
        await unit.trainer.stop()
        await unit.trainer.stopped.wait()
        assert await second.wait() == 0
        nursery.cancel_scope.cancel()
    unit.door.close()
    assert [(t.record["round"], t.life) for t in unit.came] == [(1, 1), (2, 2)]
    assert unit.begun == 2
    assert unit.trainer.state.restarts == 1
    assert same(unit.came[1].vector, START)


@in_trio
async def test_told_to_stop_it_waits_for_no_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tapestry_p2p.daemon.trainer.STOP_S", 0.05)
    unit = Unit(tmp_path, "train")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(unit.trainer.run)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(5):
            await unit.trainer.stop()
            await unit.trainer.stopped.wait()
    unit.door.close()


@in_trio
async def test_the_door_is_for_this_user_alone_and_goes_with_the_node(tmp_path: Path) -> None:
    door = Door(tmp_path / "trainer.sock")
    assert stat.S_IMODE((tmp_path / "trainer.sock").stat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as ours:
        ours.connect(str(tmp_path / "trainer.sock"))
        link, pid = await door.trainer()
        link.close()
        assert pid == os.getpid()
    door.close()
    assert not (tmp_path / "trainer.sock").exists()


@in_trio
async def test_another_user_is_not_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    door = Door(tmp_path / "trainer.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as theirs:
        theirs.connect(str(tmp_path / "trainer.sock"))
        real = os.getuid()
        with monkeypatch.context() as patched, trio.move_on_after(0.2) as waited:
            patched.setattr(os, "getuid", lambda: real + 1)
            await door.trainer()
        assert waited.cancelled_caught
        assert theirs.recv(1) == b"", "its link is closed"
    door.close()


def test_a_path_that_is_too_long_is_named(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    with pytest.raises(TapestryError, match="shorter TAPESTRY_HOME") as found:
        Door(folder / "trainer.sock")
    assert found.value.exit_code == FAILURE
