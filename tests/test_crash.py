"""Crash points: off they do nothing; armed, the process dies at the one that was named."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tapestry_p2p.crash import VARIABLE

ROOT = Path(__file__).parents[1]
PROGRAM = """
from pathlib import Path
from tapestry_p2p import crash
from tapestry_p2p.daemon.files import write_file
crash.arm("node")
for number in range(3):
    write_file(Path({path!r}), b"%d" % number)
print("lived")
"""


def run(path: Path, what: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(path=str(path))],
        env={**os.environ, "PYTHONPATH": str(ROOT), VARIABLE: what},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("what", ["", "trainer:1", "node", "node:0", "node:100"])
def test_off_or_far_away_nothing_happens(tmp_path: Path, what: str) -> None:
    done = run(tmp_path / "file", what)
    assert (done.returncode, done.stdout, done.stderr) == (0, "lived\n", "")


@pytest.mark.parametrize(
    ("number", "held"), [(1, None), (2, None), (3, "0"), (4, "0"), (5, "0"), (7, "1"), (12, "2")]
)
def test_it_dies_there_and_the_file_is_old_or_new(
    tmp_path: Path, number: int, held: str | None
) -> None:
    path = tmp_path / "file"
    done = run(path, f"node:{number}")
    assert done.returncode == -signal.SIGKILL
    assert done.stderr.startswith("crash point: ")
    assert (path.read_text() if path.exists() else None) == held


@pytest.mark.parametrize(
    ("words", "held"), [("before replacing fi", None), ("syncing file", "0"), ("other", "2")]
)
def test_it_dies_at_the_first_point_of_that_name(
    tmp_path: Path, words: str, held: str | None
) -> None:
    path = tmp_path / "file"
    done = run(path, f"node:{words}")
    assert (done.returncode == 0) == (words == "other")
    assert (path.read_text() if path.exists() else None) == held
