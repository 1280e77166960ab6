"""Ending in every way and at every moment: in time, with the right status, and nothing left."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from integration_kit import (
    TINY,
    alive,
    answered,
    environment,
    left_behind,
    members,
    started,
    tapestry,
    until,
)

pytestmark = pytest.mark.integration

STOP_S = 5.0
TETHER_S = 10.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.json"
    path.write_text(json.dumps(TINY))
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of one, which trains without an end."""
    home = tmp_path_factory.mktemp("one") / "home"
    options = [word for key, value in TINY.items() for word in ("--task-option", f"{key}={value}")]
    done = tapestry(home, "init", "--name", "One", *options)
    assert done.returncode == 0, done.stderr
    return home


MOMENTS = ("at once", "while it starts", "while it trains", "while its trainer is away")


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_member_ends_in_time(moment: str, home: Path) -> None:
    environ = environment(home, TAPESTRY_BUDGET__THREADS="1")
    with started(home / "node.log", "run", **environ) as process:
        until(lambda: answered(home, "status"), "an answer")
        trainer = until(lambda: answered(home, "status")["trainer"]["pid"], "a trainer")
        if moment != "at once":
            until(lambda: "jax" in Path(f"/proc/{trainer}/maps").read_text(), "jax to be loaded")
        if moment in MOMENTS[2:]:
            round_ = answered(home, "status")["round"]
            until(lambda: answered(home, "status")["round"] > round_ + 1, "a round")
        if moment == "while its trainer is away":
            os.kill(trainer, signal.SIGKILL)
            until(lambda: not answered(home, "status")["trainer"]["running"], "it to be missed")
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(3 * STOP_S) == 0
        assert time.monotonic() - began < STOP_S
        assert not alive(trainer)
    assert left_behind(home) == []
    assert "Traceback" not in (home / "node.log").read_text()


def test_a_killed_node_takes_its_trainer_along(home: Path) -> None:
    environ = environment(home, TAPESTRY_BUDGET__THREADS="1")
    with started(home / "node.log", "run", **environ) as process:
        until(lambda: answered(home, "status").get("trainer", {}).get("steps"), "training")
        process.kill()
        process.wait()
        until(lambda: not left_behind(home), "the trainer to go", TETHER_S)


def test_stop_is_a_verb_and_an_end(home: Path) -> None:
    environ = environment(home, TAPESTRY_BUDGET__THREADS="1")
    with started(home / "node.log", "run", **environ) as process:
        until(lambda: answered(home, "status"), "an answer")
        assert tapestry(home, "stop").returncode == 0
        assert process.wait(2 * STOP_S) == 0
    assert not (home / "run" / "control.sock").exists()


# ---- testnets ------------------------------------------------------------------------------------


def words_for(out: Path, model: Path, rounds: int) -> list[str]:
    options = {
        "--members": 2,
        "--rounds": rounds,
        "--inner-steps": 20,
        "--model": model,
        "--languages": "eng,fra",
        "--out": out,
    }
    return ["testnet", *(str(word) for pair in options.items() for word in pair)]


def training(out: Path) -> bool:
    return bool(members(out)) and all(row["round"] > 2 for row in members(out))


def starting(out: Path) -> bool:
    return bool(members(out)) and all(row["trainer_pid"] for row in members(out))


def judging(out: Path) -> bool:
    return (out / "run" / "central").exists()


PHASES = {"start": (starting, 10_000), "gossip": (training, 10_000), "judge": (judging, 60)}


@pytest.mark.parametrize("phase", list(PHASES))
def test_ctrl_c_leaves_nothing(phase: str, model: Path, tmp_path: Path) -> None:
    reached, rounds = PHASES[phase]
    out = tmp_path / "out"
    words = words_for(out, model, rounds)
    with started(tmp_path / "log", *words, **environment(tmp_path / "home")) as process:
        until(lambda: reached(out), f"the {phase}")
        assert left_behind(out)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert time.monotonic() - began < 2 * STOP_S
    assert left_behind(out) == []
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_killed_testnet_leaves_nothing_for_long(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = words_for(out, model, 10_000)
    with started(tmp_path / "log", *words, **environment(tmp_path / "home")) as process:
        until(lambda: training(out), "training")
        process.kill()
        process.wait()
        until(lambda: not left_behind(out), "everybody to go", TETHER_S)
