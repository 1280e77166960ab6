"""The first command of the README, as a stranger types it: it ends well, with a valid report."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from integration_kit import environment
from jsonschema import Draft202012Validator

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PATIENCE_S = 600.0


def test_demo_ends_with_a_valid_report(tmp_path: Path) -> None:

    out = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "tapestry_p2p", "demo", "--json", "--out", str(out)],
        env=environment(tmp_path / "home"),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    schema = json.loads((ROOT / "docs" / "schemas" / "demo.json").read_bytes())
    assert [error.message for error in Draft202012Validator(schema).iter_errors(report)] == []
    assert sum(row["byzantine"] for row in report["members"]) == 1
