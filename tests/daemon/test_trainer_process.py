"""The trainer process: started, restarted with patience, stopped in time, never just believed."""

import errno
import itertools
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from daemon_kit import in_mock_time, in_trio, same, vector
from stand_in import PARAMETERS, SCHEMA

from tapestry_p2p.daemon import trainer as module
from tapestry_p2p.daemon.trainer import (
    BACKOFF_S,
    FAILURES,
    STOP_S,
    TrainedVector,
    Trainer,
    TrainerState,
)
from tapestry_p2p.errors import BAD_CONFIG, TapestryError
from tapestry_p2p.link import FAILURE_CODES
from tapestry_p2p.mix.codec import Vector

START = vector(PARAMETERS, seed=4)


@pytest.fixture(autouse=True)
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of the real trainer, which takes seconds to start."""
    script = tmp_path / "python"
    code = Path(__file__).with_name("stand_in.py")
    script.write_text(f'#!/bin/sh\nexec {sys.executable} {code} "$3" "$4"\n')
    script.chmod(0o700)
    monkeypatch.setattr(module.sys, "executable", str(script))  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "BACKOFF_S", (0.01, 0.02))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))


class Rounds:
    """The node's side: orders rounds, answers each vector, keeps what came."""

    def __init__(self, folder: Path, act: str = "train", last: int = 3, **options: Any) -> None:
        self.last = last
        self.begun: list[Vector] = []
        self.memory_mb: list[float] = []  # that each life begins with
        self.came: list[TrainedVector] = []
        self.all_came = trio.Event()
        configure = {
            "task": "language",
            "options": {"act": act, **options},
            "data": [],
            "seed": 1,
            "threads": 1,
            "state_dir": str(folder),
            "cache_dir": str(folder),
            "text_socket": "",
            "schedule_steps": 0,
            "speed": 1.0,
            "judge": None,
        }
        log = folder / "trainer" / "trainer.log"
        self.trainer = Trainer(configure, log, self.begin, PARAMETERS, SCHEMA)

    async def begin(self, trainer: Trainer, genesis: Vector) -> None:
        self.begun.append(genesis)
        self.memory_mb.append(trainer.state.memory_mb)
        await trainer.start(START, len(self.came), 0)
        await trainer.train(len(self.came) + 1, 5, self.last)

    async def answer(self) -> None:
        async for trained in self.trainer.vectors():
            self.came.append(trained)
            if len(self.came) == self.last:
                self.all_came.set()
            correction = np.ones(PARAMETERS, np.float32)
            await self.trainer.correct(trained.record["seq"], correction, trained.life)


@asynccontextmanager
async def running(rounds: Rounds) -> AsyncIterator[Trainer]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rounds.answer)
        nursery.start_soon(rounds.trainer.run)
        yield rounds.trainer
        await rounds.trainer.stop()
        await rounds.trainer.stopped.wait()
        nursery.cancel_scope.cancel()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.sleep(0.01)


def failure(group: BaseExceptionGroup[Any]) -> TapestryError:
    """The one error for the operator inside the groups."""
    found: BaseException | None = group.split(TapestryError)[0]
    while isinstance(found, BaseExceptionGroup):
        assert len(found.exceptions) == 1
        found = found.exceptions[0]
    assert isinstance(found, TapestryError)
    return found


@in_trio
async def test_vectors_come_and_corrections_go(tmp_path: Path) -> None:
    rounds = Rounds(tmp_path)
    async with running(rounds) as trainer:
        await rounds.all_came.wait()
        pid = trainer.state.pid
        assert alive(pid)
        assert trainer.state.isolated
    assert not alive(pid)
    assert [t.record["round"] for t in rounds.came] == [1, 2, 3]
    assert same(rounds.came[0].vector, START)
    assert same(rounds.came[2].vector, START + 1 + 1)
    assert same(rounds.begun[0], np.ones(PARAMETERS, np.float32))
    s = trainer.state
    assert (s.steps, s.tokens, s.loss, s.seconds, s.busy_s) == (15, 150, 1.25, 1.5, 0.75)
    assert s.memory_mb == 12.0
    assert (s.running, s.restarts, s.last_failure) == (False, 0, "")
    assert b"stand-in" in trainer.log_path.read_bytes()
    assert trainer.log_path.stat().st_mode & 0o777 == 0o600


def test_memory_that_another_unit_hides_is_what_the_trainer_told() -> None:
    hidden = TrainerState(running=True, pid=2**22 + 1, memory_mb=12.0)
    assert hidden.resident_bytes == 12e6
    assert replace(hidden, pid=os.getpid()).resident_bytes > 20e6
    assert replace(hidden, running=False).resident_bytes == 0


@in_trio
async def test_a_measure_that_failed_is_known_and_training_goes_on(tmp_path: Path) -> None:
    rounds = Rounds(tmp_path, "cannot measure")
    async with running(rounds) as trainer:
        await rounds.all_came.wait()
    assert trainer.measured.failed
    assert trainer.state.restarts == 0


@in_trio
async def test_a_killed_trainer_is_started_again_and_told_where(tmp_path: Path) -> None:
    rounds = Rounds(tmp_path, "dies in round 2", last=2)
    async with running(rounds) as trainer:
        await rounds.all_came.wait()
        assert trainer.state.restarts == 1
    assert [(t.record["round"], t.life) for t in rounds.came] == [(1, 1), (2, 2)]
    assert len(rounds.begun) == 2
    assert rounds.memory_mb == [0.0, 0.0], "what the last one told would pause the next for ever"
    assert trainer.state.memory_mb == 12.0
    assert trainer.state.last_failure == FAILURES["killed"][0]


@pytest.mark.parametrize(
    ("act", "words"),
    [
        ("dies", "without a word"),
        ("junk", "misunderstood"),
        ("lies", "misunderstood"),
        ("no memory", "misunderstood"),
        ("failed task_error", "raised an error"),
        ("failed nonfinite", "not a number"),
    ],
)
@in_trio
async def test_what_a_restart_may_heal_is_restarted(act: str, words: str, tmp_path: Path) -> None:
    rounds = Rounds(tmp_path, act)
    descriptors = len(os.listdir("/proc/self/fd"))
    async with running(rounds) as trainer:
        await until(lambda: trainer.state.restarts >= 3)
        assert words in trainer.state.last_failure
    assert rounds.begun == []
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 4  # trio's own


@pytest.mark.parametrize("code", [c for c in FAILURE_CODES if not FAILURES[c][1]])
@in_trio
async def test_what_no_restart_can_heal_ends_the_daemon(code: str, tmp_path: Path) -> None:
    rounds = Rounds(tmp_path, f"failed {code}")
    with pytest.raises(BaseExceptionGroup) as raised:
        async with running(rounds):
            await trio.sleep_forever()
    error = failure(raised.value)
    assert error.exit_code == BAD_CONFIG
    assert FAILURES[code][0] in error.message
    assert "trainer.log" in error.message


@pytest.mark.parametrize("other", [{"parameters": 601}, {"schema": "cd" * 32}])
@in_trio
async def test_another_model_than_the_networks_ends_the_daemon(
    other: dict[str, Any], tmp_path: Path
) -> None:
    rounds = Rounds(tmp_path, **other)
    with pytest.raises(BaseExceptionGroup) as raised:
        async with running(rounds):
            await trio.sleep_forever()
    error = failure(raised.value)
    assert error.exit_code == BAD_CONFIG
    assert "schema" in error.message
    assert "\n" not in error.message


def test_every_failure_code_has_words() -> None:
    assert set(FAILURE_CODES) <= set(FAILURES)


@in_trio
async def test_a_deaf_trainer_is_killed_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOP_S", 0.3)
    rounds = Rounds(tmp_path, "deaf")
    async with running(rounds) as trainer:
        await until(lambda: b"stand-in" in (trainer.log_path.read_bytes() if pid(trainer) else b""))
        began = trio.current_time()
        process = trainer.state.pid
    assert 0.2 < trio.current_time() - began < 1.0
    assert not alive(process)


def pid(trainer: Trainer) -> int:
    return trainer.state.pid if trainer.log_path.exists() else 0


@in_trio
async def test_a_daemon_that_fails_leaves_no_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOP_S", 0.3)
    rounds = Rounds(tmp_path, "deaf")
    with pytest.raises(BaseExceptionGroup):  # noqa: PT012
        async with running(rounds) as trainer:
            await until(lambda: trainer.state.running)
            raise ZeroDivisionError
    assert not alive(rounds.trainer.state.pid)


@in_trio
async def test_a_trainer_that_never_says_hello_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HELLO_DEADLINE_S", 0.1)
    monkeypatch.setattr(module, "STOP_S", 0.1)
    async with running(Rounds(tmp_path, "deaf")) as trainer:
        await until(lambda: trainer.state.restarts >= 2)


@pytest.mark.parametrize("what", ["process", "log"])
@in_trio
async def test_a_system_that_cannot_start_it_now_is_asked_again(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [3]

    async def refuse(*args: Any, **options: Any) -> trio.Process:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return await genuine(*args, **options)

    genuine = trio.lowlevel.open_process
    rounds = Rounds(tmp_path)
    if what == "process":
        monkeypatch.setattr(trio.lowlevel, "open_process", refuse)
    else:
        rounds.trainer.log_path.parent.mkdir()
        rounds.trainer.log_path.mkdir()  # cannot be opened
    async with running(rounds) as trainer:
        await until(lambda: trainer.state.restarts >= 3)
        assert "could not be started" in trainer.state.last_failure
        if what == "log":
            trainer.log_path.rmdir()
        await rounds.all_came.wait()


# ---- patience, in time that jumps ----------------------------------------------------------------


def waits(
    monkeypatch: pytest.MonkeyPatch, folder: Path, life: Callable[[int], Awaitable[str]]
) -> Trainer:
    """A trainer whose lives are played by ``life(number)``."""
    monkeypatch.setattr(module, "BACKOFF_S", BACKOFF_S)
    rounds = Rounds(folder)
    number = [0]

    async def one_life() -> str:
        number[0] += 1
        return await life(number[0])

    monkeypatch.setattr(rounds.trainer, "_one_life", one_life)
    return rounds.trainer


@in_mock_time
async def test_the_backoff_grows_and_starts_over_after_a_calm_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[float] = []

    async def life(number: int) -> str:
        began.append(trio.current_time())
        if number == 8:
            await trio.sleep(module.CALM_S + 1)
        if number == 10:
            await trainer.stop()
        return "task_error"

    trainer = waits(monkeypatch, tmp_path, life)
    await trainer.run()
    steps = [round(b - a) for a, b in itertools.pairwise(began)]
    assert steps == [1, 2, 5, 15, 60, 60, 60, 302, 2]


@in_mock_time
async def test_stop_does_not_wait_for_the_backoff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def life(number: int) -> str:
        await trio.lowlevel.checkpoint()
        return "task_error"

    trainer = waits(monkeypatch, tmp_path, life)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trainer.run)
        await trio.sleep(30)  # in the middle of a wait of 60 s
        await trainer.stop()
        await trainer.stopped.wait()
    assert trio.current_time() - began < 31


def test_stopping_fits_into_five_seconds() -> None:
    assert STOP_S <= 3.0


@in_trio
async def test_what_was_made_for_a_life_that_is_over_is_not_sent(tmp_path: Path) -> None:
    rounds = Rounds(tmp_path, last=1)
    async with running(rounds) as trainer:
        await rounds.all_came.wait()
        ones = np.ones(PARAMETERS, np.float32)
        assert await trainer.correct(2, ones, trainer.life)
        sent: list[object] = []
        trainer._put = sent.append  # type: ignore[method-assign,assignment]
        assert not await trainer.correct(2, ones, trainer.life - 1)
        assert await trainer.add(ones, trainer.life - 1) == 0
        assert not sent
