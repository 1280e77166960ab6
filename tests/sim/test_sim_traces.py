"""The same seed gives the same trace: twice, in other processes, and on every Python version.

The traces in tests/vectors/traces.json are pinned: whoever runs these tests on another Python, or
on another machine, compares with them. make_traces.py says when they may change.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from make_traces import PATH, SEEDS, traces

from tapestry_p2p.sim.cluster import Cluster, Plan
from tapestry_p2p.sim.network import Weather
from tapestry_p2p.sim.quadratics import Matrix, Quadratics

ROOT = Path(__file__).parents[2]
NEEDED = "import numpy, msgpack, cryptography"
PROGRAM = f"""
from tapestry_p2p.sim.story import draw, tell
outcome = tell(draw({SEEDS[0]}))
print(outcome.trace, outcome.bits)
"""


def test_the_traces_are_the_pinned_ones() -> None:
    assert traces() == json.loads(PATH.read_text())


def told(python: str, hash_seed: str) -> list[str]:
    """Trace and bits of one story, from a process of its own."""
    environ = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [python, "-c", PROGRAM], capture_output=True, text=True, check=True, env=environ
    )
    return done.stdout.split()


def test_two_processes_with_different_hash_seeds_agree_to_the_last_bit() -> None:
    assert told(sys.executable, "1") == told(sys.executable, "2")


def others() -> list[str]:
    """Other Pythons of this machine that could run the simulator."""
    version = f"python3.{sys.version_info.minor}"
    names = [f"python3.{minor}" for minor in (11, 12, 13) if f"python3.{minor}" != version]
    found = [path for path in map(shutil.which, names) if path]
    found += os.environ.get("TAPESTRY_OTHER_PYTHONS", "").split()
    return [
        path
        for path in found
        if subprocess.run([path, "-c", NEEDED], capture_output=True, check=False).returncode == 0
    ]


def test_other_pythons_tell_the_same_story() -> None:
    pythons = others()
    if not pythons:
        pytest.skip("no other Python here that has numpy, msgpack and cryptography")
    pinned = json.loads(PATH.read_text())[str(SEEDS[0])]["trace"]
    assert {python: told(python, "0")[0] for python in pythons} == dict.fromkeys(pythons, pinned)


class Nudged(Quadratics):
    """Arithmetic on another machine: the last bits differ."""

    def train(self, x: Matrix, steps: int, first_step: int, who: Sequence[int]) -> Matrix:
        return super().train(x, steps, first_step, who) * np.float32(1 + 3e-7)


def test_no_arithmetic_stands_in_the_trace() -> None:
    plan = Plan(seed=3, honest=4, byzantine=1, d=300, weather=Weather(loss=0.05))
    runs = [Cluster(plan, kind(4, 300, 0.3, 3)) for kind in (Quadratics, Nudged)]
    for cluster in runs:
        cluster.run(20.0)
    assert runs[0].bits() != runs[1].bits()
    assert runs[0].world.trace == runs[1].world.trace


def test_another_seed_is_another_trace() -> None:
    pinned = json.loads(PATH.read_text())
    assert len({row["trace"] for row in pinned.values()}) == len(SEEDS)
