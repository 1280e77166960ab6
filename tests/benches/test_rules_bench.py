"""benches/rules.py runs: every rule beside the memory's floor; byzfl missing is said, not fatal."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tapestry_p2p.mix.rules import RULES

ROOT = Path(__file__).parents[2]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "benches/rules.py", *words],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=True, timeout=120,
    )  # fmt: skip


def test_the_quick_run_measures_every_rule(tmp_path: Path) -> None:
    done = run("--quick", "--out", str(tmp_path))
    assert done.stdout == (tmp_path / "rules.md").read_text()
    rows = json.loads((tmp_path / "rules.json").read_text())["rows"]
    found = {row["rule"]: row for row in rows}
    floor = found.pop("two passes (floor)")
    assert set(found) > set(RULES)
    for row in found.values():
        assert row["ms"] > 0
        assert row["floors"] == pytest.approx(row["ms"] / floor["ms"])


def test_without_byzfl_it_says_so_and_measures_the_rest(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder can be made below a file")
    done = run("--quick", "--threads", "2", "--byzfl", "--venv", str(blocked / "venv"))
    assert "byzfl cannot be had here" in done.stderr
    assert "cs_plus" in done.stdout
