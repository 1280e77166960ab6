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
MINORS = (11, 12, 13)
NEEDED = ("numpy", "msgpack", "cryptography")  # by the simulator
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


def others() -> dict[str, str]:
    """Other Pythons of this machine that we support, on the path or pyenv's: version, program."""
    names = [shutil.which(f"python3.{minor}") for minor in MINORS]
    if pyenv := shutil.which("pyenv"):
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=True).stdout
        names += map(str, sorted(Path(root.strip(), "versions").glob("3.*/bin/python")))
    found = {}
    for path in filter(None, names):
        asked = [path, "-c", "import sys; print(sys.version_info.minor)"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        if done.returncode == 0 and int(done.stdout) in {*MINORS} - {sys.version_info.minor}:
            found[done.stdout.strip()] = path  # a shim of pyenv may be there and lead nowhere
    return found


@pytest.mark.integration
def test_other_pythons_tell_the_same_story(tmp_path: Path) -> None:
    pythons = others()
    if not pythons:
        pytest.skip(f"of Python 3.{MINORS} there is but this one here")
    traces = {}
    for minor, path in pythons.items():
        python = str(tmp_path / minor / "bin" / "python")
        subprocess.run([path, "-m", "venv", str(tmp_path / minor)], check=True)
        command = [python, "-m", "pip", "install", "--quiet", *NEEDED]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{', '.join(NEEDED)} cannot be fetched: {done.stderr.strip()[-200:]}")
        traces[minor] = told(python, "0")[0]
    pinned = json.loads(PATH.read_text())[str(SEEDS[0])]["trace"]
    assert traces == dict.fromkeys(pythons, pinned)


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
