"""Pauses: the trainer ends and comes back, for each reason, and the operator's word is kept."""

import os
from dataclasses import replace
from datetime import time
from pathlib import Path

import pytest
import trio
from daemon_kit import in_mock_time, in_trio
from test_trainer_process import START, Rounds, alive, running, stand_in, until

from tapestry_p2p.daemon.config import Budget
from tapestry_p2p.daemon.pauses import (
    BATTERY,
    BUSY_LOOKS,
    CALM_LOOKS,
    DISK,
    DISK_LOOK_S,
    DISK_PATIENCE_S,
    HOURS,
    LOAD,
    OPERATOR,
    Pauses,
    Sight,
    Watcher,
    govern,
    look,
    on_battery,
    watch_disk,
    within,
)

__all__ = ["stand_in"]  # the fixture

NOON = Sight(time(12), on_battery=False, load=0.0)


@in_trio
async def test_a_pause_ends_the_process_and_training_goes_on_after_it(tmp_path: Path) -> None:
    rounds = Rounds(tmp_path, last=1000)
    pauses = Pauses(tmp_path / "paused")
    async with running(rounds) as trainer, trio.open_nursery() as nursery:
        nursery.start_soon(govern, pauses, trainer)
        await until(lambda: len(rounds.came) >= 2)
        pid = trainer.state.pid
        pauses.tell(pause=True)
        await until(lambda: not alive(pid))
        assert not trainer.state.running
        seen = len(rounds.came)
        for _ in range(30):
            await trio.sleep(0.01)
        assert len(rounds.came) == seen
        assert str(pauses) == "by you"
        pauses.tell(pause=False)
        await until(lambda: len(rounds.came) > seen)
        assert trainer.state.pid != pid
        assert trainer.state.restarts == 0
        assert trainer.state.last_failure == ""
        nursery.cancel_scope.cancel()


@in_trio
async def test_a_pause_that_is_over_before_the_process_is_gone_is_no_failure(
    tmp_path: Path,
) -> None:
    rounds = Rounds(tmp_path, last=1000)
    async with running(rounds) as trainer:
        for life in range(1, 4):
            await until(lambda: trainer.state.running)
            seen = len(rounds.came)
            await until(lambda seen=seen: len(rounds.came) > seen)  # type: ignore[misc]
            await trainer.hold()
            trainer.release()
            await until(lambda life=life: trainer.life > life)  # type: ignore[misc]
        assert trainer.state.restarts == 0


@in_trio
async def test_a_member_that_is_told_to_stop_does_so_in_a_pause(tmp_path: Path) -> None:
    rounds = Rounds(tmp_path)
    await rounds.trainer.hold()
    with trio.fail_after(10):
        async with running(rounds):
            pass
    assert rounds.came == []


def test_the_operators_word_survives_a_restart(tmp_path: Path) -> None:
    Pauses(tmp_path / "paused").tell(pause=True)
    again = Pauses(tmp_path / "paused")
    assert str(again) == "by you"
    again.tell(pause=False)
    assert not Pauses(tmp_path / "paused").reasons


@pytest.mark.parametrize(
    ("hours", "now", "inside"),
    [
        ("", "03:00", True),
        ("20:00-07:30", "20:00", True),
        ("20:00-07:30", "03:00", True),
        ("20:00-07:30", "07:30", False),
        ("20:00-07:30", "12:00", False),
        ("09:00-17:00", "16:59", True),
        ("09:00-17:00", "17:00", False),
    ],
)
def test_hours_go_over_midnight(hours: str, now: str, inside: bool) -> None:
    assert within(hours, time.fromisoformat(now)) is inside


@pytest.mark.parametrize("hours", ["8-17", "24:00-07:00", "20:00", "20:00-07:30 "])
def test_hours_that_nobody_can_read_are_refused(hours: str) -> None:
    with pytest.raises(ValueError, match="20:00-07:30"):
        Budget(hours=hours)


def test_each_reason_comes_and_goes(tmp_path: Path) -> None:
    pauses = Pauses(tmp_path / "paused")
    watcher = Watcher(pauses, Budget(hours="09:00-17:00", battery=False, load_max=1.5))
    watcher.judge(NOON)
    assert not pauses.reasons
    watcher.judge(replace(NOON, now=time(18), on_battery=True))
    assert set(pauses.reasons) == {HOURS, BATTERY}
    watcher.judge(NOON)
    assert not pauses.reasons
    for _ in range(BUSY_LOOKS):
        assert LOAD not in pauses.reasons
        watcher.judge(replace(NOON, load=2.0))
    for _ in range(CALM_LOOKS):
        assert LOAD in pauses.reasons, "one calm look is not yet calm"
        watcher.judge(NOON)
    assert not pauses.reasons


def test_without_such_wishes_nothing_stops_it(tmp_path: Path) -> None:
    pauses = Pauses(tmp_path / "paused")
    watcher = Watcher(pauses, Budget())
    for _ in range(10):
        watcher.judge(Sight(time(3), on_battery=True, load=99.0))
    assert not pauses.reasons


def test_mains_that_is_off_is_battery(tmp_path: Path) -> None:
    assert not on_battery(tmp_path), "a server has neither"
    for name, kind in (("AC", "Mains"), ("BAT0", "Battery")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "type").write_text(kind + "\n")
    (tmp_path / "AC" / "online").write_text("0\n")
    assert on_battery(tmp_path)
    (tmp_path / "AC" / "online").write_text("1\n")
    assert not on_battery(tmp_path)


def test_a_pause_for_another_reason_is_no_time_to_judge_the_load(tmp_path: Path) -> None:
    """What our own trainer did to the load fades for minutes after it ended."""
    pauses = Pauses(tmp_path / "paused")
    watcher = Watcher(pauses, Budget(load_max=1.0))
    pauses.tell(pause=True)
    for _ in range(20):
        watcher.judge(replace(NOON, load=8.0))
    assert set(pauses.reasons) == {OPERATOR}


def test_our_own_share_of_the_load_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (3.5, 9.0, 9.0))
    assert look(3).load == pytest.approx(0.5)
    assert look(8).load == 0


@in_trio
async def test_news_that_a_paused_trainer_never_took_hold_nobody_up(tmp_path: Path) -> None:
    rounds = Rounds(tmp_path, last=1000)
    async with running(rounds) as trainer:
        await until(lambda: len(rounds.came) >= 1)
        life = trainer.life
        assert await trainer.add(START, life) == 1  # the stand-in never says that it added it
        async with trio.open_nursery() as nursery:
            waited = trio.Event()

            async def one_more() -> None:
                assert await trainer.add(START, life) == 0
                waited.set()

            nursery.start_soon(one_more)
            await trainer.hold()
            with trio.fail_after(10):
                await waited.wait()
        with trio.fail_after(5):
            assert await trainer.add(START, life) == 0


@in_mock_time
async def test_a_disk_that_refuses_for_long_ends_training_and_a_short_refusal_does_not(
    tmp_path: Path,
) -> None:
    pauses, fault = Pauses(tmp_path / "paused"), [""]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_disk, pauses, lambda: fault[0])
        for seconds, seen in ((DISK_PATIENCE_S - 5, {}), (10, {DISK: "it is full"})):
            fault[0] = "it is full"
            await trio.sleep(seconds)
            assert pauses.reasons == seen
        fault[0] = ""
        await trio.sleep(2 * DISK_LOOK_S)
        assert pauses.reasons == {}
        nursery.cancel_scope.cancel()
