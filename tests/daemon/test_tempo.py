"""Adaptive H and a trainer's silence: what was measured decides, within bounds, and no clock."""

from pathlib import Path

import msgspec
import pytest
from daemon_kit import in_trio, make_manifest, vector
from test_trainer_process import Rounds, running, stand_in, until

from tapestry_p2p.cli.main import main
from tapestry_p2p.daemon import tempo, trainer
from tapestry_p2p.daemon.config import Budget, Config, dump_config
from tapestry_p2p.daemon.keyfile import make_key
from tapestry_p2p.daemon.manifest import Training, dump_manifest
from tapestry_p2p.daemon.paths import find_paths
from tapestry_p2p.daemon.run import run
from tapestry_p2p.daemon.tempo import (
    LOOK_S,
    SILENCE_FIRST_S,
    SILENCE_LEAST_S,
    SILENCE_MOST_S,
    SILENCE_TIMES,
    Silence,
    Tempo,
)
from tapestry_p2p.daemon.trainer import FAILURES
from tapestry_p2p.errors import BAD_CONFIG, TapestryError

__all__ = ["stand_in"]  # the fixture


def rounds_of(tempo: Tempo, step_s: float, count: int) -> float:
    """So many rounds at that speed; how long the last one took."""
    for _ in range(count):
        seconds = tempo.steps * step_s
        tempo.took(tempo.steps, seconds)
    return tempo.steps * step_s


def test_a_round_keeps_its_wanted_time_as_load_changes() -> None:
    tempo = Tempo(steps=50, round_s=10.0)
    for step_s in (0.2, 0.4, 0.1, 0.15, 0.3):
        assert rounds_of(tempo, step_s, 12) == pytest.approx(10.0, rel=0.15), step_s


def test_it_stays_within_four_times_the_networks_number() -> None:
    tempo = Tempo(steps=50, round_s=10.0)
    rounds_of(tempo, 1e-4, 20)
    assert tempo.steps == 200
    rounds_of(tempo, 100.0, 20)
    assert tempo.steps == 12


@pytest.mark.parametrize("wrong", [5e-324, 1e-310, 1e308])
def test_a_time_that_was_measured_wrongly_is_forgotten_within_some_rounds(wrong: float) -> None:
    for before in (0, 5):
        tempo = Tempo(steps=50, round_s=10.0)
        rounds_of(tempo, 0.2, before)
        tempo.took(tempo.steps, wrong)
        assert 12 <= tempo.steps <= 200
        assert rounds_of(tempo, 0.2, 8) == pytest.approx(10.0, rel=0.15)


def test_noise_is_not_worth_telling() -> None:
    tempo = Tempo(steps=50, round_s=10.0)
    told = [tempo.took(50, 50 * 0.2 * factor) for factor in (1.0, 1.05, 0.95, 1.03, 0.98)]
    assert told == [False] * 5


def test_without_a_wanted_time_it_is_the_networks_number_always() -> None:
    tempo = Tempo(steps=50, round_s=0.0)
    assert not any(tempo.took(50, seconds) for seconds in (0.1, 100.0))
    assert not Tempo(50, 1.0).took(0, 1.0)
    assert tempo.steps == 50


# ---- silence ---------------------------------------------------------------------------------


def looks_until(silence: Silence) -> int:
    looks = 1
    while not silence.looked(owes=True):
        looks += 1
    return looks


def test_silence_is_measured_by_the_rounds_that_were_seen() -> None:
    silence = Silence()
    assert looks_until(silence) * LOOK_S == pytest.approx(SILENCE_FIRST_S, abs=2 * LOOK_S)
    silence.heard(round_s=1.0)
    assert silence.allowed_s == SILENCE_LEAST_S
    silence.heard(round_s=60.0)
    assert silence.allowed_s == SILENCE_TIMES * 60.0
    assert looks_until(silence) * LOOK_S == pytest.approx(SILENCE_TIMES * 60.0, abs=2 * LOOK_S)
    assert silence.allowed_s == 2 * SILENCE_TIMES * 60.0, "it was too short for this machine"


def test_each_life_may_take_long_until_its_first_round_and_none_for_ever() -> None:
    silence = Silence()
    silence.heard(round_s=1.0)
    silence.began()
    silence.heard()
    assert silence.allowed_s == SILENCE_FIRST_S, "it compiles, or reads its state"
    silence.heard(round_s=1.0)
    assert silence.allowed_s == SILENCE_LEAST_S
    silence.heard(round_s=1e308)
    assert silence.allowed_s == SILENCE_MOST_S


def test_whoever_owes_nothing_may_be_silent_for_ever() -> None:
    silence = Silence()
    assert not any(silence.looked(owes=False) for _ in range(10_000))
    assert looks_until(silence) * LOOK_S > SILENCE_FIRST_S / 2


def test_a_machine_that_slept_is_one_look() -> None:
    """Three hours away between two looks: nothing here reads a clock that could tell."""
    silence = Silence()
    silence.heard(round_s=1.0)
    assert not silence.looked(owes=True)


@in_trio
async def test_a_trainer_that_hangs_is_named_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "LOOK_S", 0.02)
    monkeypatch.setattr(trainer, "STOP_S", 0.1)
    monkeypatch.setattr(tempo, "SILENCE_LEAST_S", 10 * LOOK_S)
    rounds = Rounds(tmp_path, "hangs in round 2", last=1000)
    async with running(rounds) as subject:
        await until(lambda: subject.state.restarts == 1)
        assert subject.state.last_failure == FAILURES["hang"][0]
        await until(lambda: len(rounds.begun) == 2)


@in_trio
async def test_a_trainer_that_waits_for_us_or_has_finished_does_not_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "LOOK_S", 0.01)
    monkeypatch.setattr(
        tempo, "SILENCE_LEAST_S", 40 * LOOK_S
    )  # a busy machine's, until it finished
    looks: list[bool] = []
    looked = Silence.looked

    def noted(silence: Silence, owes: bool) -> bool:
        looks.append(owes)
        return looked(silence, owes)

    monkeypatch.setattr(Silence, "looked", noted)
    rounds = Rounds(tmp_path, last=3)
    async with running(rounds) as subject:
        await rounds.all_came.wait()
        looks.clear()
        await until(lambda: len(looks) > 60)
        assert not any(looks)
        assert subject.state.restarts == 0


# ---- configuration ---------------------------------------------------------------------------


def test_a_network_whose_schedule_counts_steps_allows_no_wanted_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TAPESTRY_HOME", str(tmp_path))
    paths = find_paths()
    paths.make()
    make_key(paths.key)
    manifest = make_manifest(vector())
    scheduled = msgspec.structs.replace(manifest, training=Training(schedule_steps=100))
    paths.manifest.write_text(dump_manifest(scheduled))
    paths.member.write_text(dump_config(Config(budget=Budget(round_s=20.0))))
    with pytest.raises(TapestryError, match="schedule counts") as caught:
        run(paths)
    assert caught.value.exit_code == BAD_CONFIG
    assert main(["config", "check"]) == BAD_CONFIG
    assert "schedule counts" in capsys.readouterr().err
