"""benches/chaos.py: planted faults miss their bounds; three members in namespaces, a storm."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benches.chaos import ROWS, Result, Size, figures
from benches.chaos_switch import Switch, mac

ROOT = Path(__file__).parents[2]
CALM = Result(
    "calm", seconds=60.0, rounds=60.0, losses=[4.0, 4.0], pairs=1000, equal=True,
    grown={"node fds": 0.0, "tasks": 0.0, "node MB": 1.0}, happened={"carried": 10},
)  # fmt: skip
LOSS = replace(CALM, name="loss", happened={"lost": 10})
HURT = {
    "... of the calm run's rounds": {"rounds": 5.0},
    "living and held for dead, of looks": {"dead": 1},
    "copies equal at the end": {"equal": False},
    "all together again after the faults, s": {"back_s": 61.0},
    "node fds, more than before": {"grown": {"node fds": 5.0}},
    "node MB, more than before": {"grown": {"node MB": 31.0}},
    "lost (must happen)": {"happened": {"carried": 10}},
}


def missed(result: Result) -> list[str]:
    """What a result's figures miss."""
    return [figure.what for figure in figures(result, CALM) if not figure.reached]


def test_a_sound_result_reaches_every_bound() -> None:
    assert missed(CALM) == []
    assert missed(LOSS) == []


@pytest.mark.parametrize("what", HURT)
def test_each_planted_fault_misses_its_bound_and_no_other(what: str) -> None:
    assert missed(replace(LOSS, **HURT[what])) == [what]  # type: ignore[arg-type]


def test_a_worse_loss_is_missed_in_a_long_run_alone() -> None:
    worse = replace(LOSS, losses=[4.2, 4.2])
    assert missed(worse) == ["held-out loss, of the calm run's"]
    assert missed(replace(worse, judged=False)) == []


def test_every_fault_has_a_count_that_says_it_happened() -> None:
    assert all(row.happened for row in ROWS.values())
    assert Size().members == 8


def test_the_switch_blocks_loses_delays_and_lets_frames_overtake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Port:
        def __init__(self) -> None:
            self.got: list[bytes] = []

        def send(self, frame: bytes) -> None:
            self.got.append(frame)

    now = [0.0]
    monkeypatch.setattr("benches.chaos_switch.time.monotonic", lambda: now[0])
    ports = [Port(), Port()]
    monkeypatch.setattr(Switch, "_open", staticmethod(lambda name: ports[int(name)]))
    switch = Switch(["0", "1"])
    frame = bytes(10) + mac(1) + mac(0) + b"\x08\x00"
    switch.set_weather({"blocked": [[0, 1]]})
    switch._send_off(0, 1, frame)
    switch._send_off(1, 0, frame)
    switch._let_go()
    assert (len(ports[1].got), len(ports[0].got)) == (0, 1)
    switch.set_weather({"loss": 0.5, "delay_s": [1.0, 2.0]})
    for number in range(1000):
        switch._send_off(0, 1, frame + number.to_bytes(2, "big"))
    switch._let_go()
    assert ports[1].got == [], "nothing is due before its time"
    now[0] = 2.0
    switch._let_go()
    assert 400 < len(ports[1].got) < 600
    assert ports[1].got != sorted(ports[1].got)
    assert switch.counts["overtaken"] > 100
    assert switch.counts["lost"] + len(ports[1].got) == 1000


@pytest.mark.integration
def test_three_members_weather_a_storm() -> None:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    done = subprocess.run(
        [sys.executable, "benches/chaos.py", "--quick", "--row", "storm", "--json"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False, timeout=600,
    )  # fmt: skip
    if done.stderr.startswith("SKIPPED"):
        pytest.skip(done.stderr.strip())
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert {row["row"] for row in found["rows"]} == {"calm", "storm"}
    # how fast and how soon says more about this machine than about the members
    times = ("of the calm run's rounds", "after the faults, s")
    for row in found["rows"]:
        assert row["reached"] or any(word in row["what"] for word in times), row
