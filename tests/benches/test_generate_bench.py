"""benches/generate.py runs, and eight bits keep what they promise; speeds are for readers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benches.generate import judge, table

ROOT = Path(__file__).parents[2]


@pytest.mark.integration
def test_the_quick_run_compares_both_files() -> None:
    done = subprocess.run(
        [sys.executable, "benches/generate.py", "--quick", "--json"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=True, timeout=300,
    )  # fmt: skip
    exact, small = json.loads(done.stdout)
    assert (exact["weights"], small["weights"]) == ("float32", "int8")
    assert exact["weights_bytes"] == 4 * exact["parameters"]
    assert small["weights_bytes"] < 0.5 * exact["weights_bytes"]
    assert small["loss"] == pytest.approx(exact["loss"], rel=0.01)
    assert 3 < exact["loss"] < 7.9  # it has learned something
    assert exact["tokens_per_s"] > 0
    assert small["needed_bytes"] >= small["weights_bytes"]
    assert small["goal"] == (small["needed_ratio"] <= 0.5 or small["speed_ratio"] >= 1.5)


@pytest.mark.parametrize(
    ("change", "goal"),
    [
        ({}, True),
        ({"loss": 2.03}, False),
        ({"needed_bytes": 60}, False),
        ({"needed_bytes": 60, "tokens_per_s": 20.0}, True),
    ],
)
def test_the_goal_is_missed_where_it_is_missed(change: dict[str, float], goal: bool) -> None:
    common = {"size": "x", "parameters": 25, "file_bytes": 1, "memory_bytes": 100}
    exact = {
        **common,
        "weights": "float32",
        "loss": 2.0,
        "needed_bytes": 100,
        "tokens_per_s": 10.0,
    }
    small = {**exact, "weights": "int8", "needed_bytes": 30, **change}
    judge(exact, small)
    assert small["goal"] is goal
    assert ("MISSED" in table([exact, small])) is not goal
