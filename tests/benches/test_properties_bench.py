"""benches/properties.py runs, counts what it tried, and says no where it must."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "benches/properties.py", *words],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip


def test_the_quick_run_tries_the_three_inequalities_and_every_control(tmp_path: Path) -> None:
    done = run("--quick", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == (tmp_path / "properties.md").read_text()
    result = json.loads((tmp_path / "properties.json").read_text())
    rows = {row["law"]: row for row in result["rows"]}
    assert {*rows} == {"split", "contraction", "drift"}
    assert all(row["examples"] == 200 and 0 < row["worst"] <= 1 for row in rows.values())
    assert None not in result["controls"].values()
    assert sum("planted" in name for name in result["controls"]) >= 2


def test_nothing_tried_is_no_success() -> None:
    assert run("--examples", "0").returncode == 1
    assert run("--quick", "--rules", "median", "--laws", "split").returncode == 1
    assert run("--quick", "--rules", "unknown").returncode == 2
