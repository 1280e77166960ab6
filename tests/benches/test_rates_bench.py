"""benches/rates.py measures real nodes; the bounds of a minute are for a quiet machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benches.rates import windows

ROOT = Path(__file__).parents[2]


def test_every_window_counts() -> None:
    counted = [(0.0, 0), (1.0, 10), (2.0, 40), (3.0, 50)]
    assert windows(counted, 1.0) == [10, 30, 10]
    assert windows(counted, 2.0) == [20, 20]
    assert windows(counted, 9.0) == []


@pytest.mark.integration
def test_limits_are_kept_on_the_sockets() -> None:
    done = subprocess.run(
        [sys.executable, "benches/rates.py", "--quick", "--cases", "sockets", "--json"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    rows = {row["what"]: row["figure"] for row in json.loads(done.stdout)}
    assert rows["connections lost"] == 0
    fullest = [figure for what, figure in rows.items() if "fullest" in what]
    emptiest = [figure for what, figure in rows.items() if "emptiest" in what]
    assert len(fullest) == len(emptiest) == 3
    assert max(fullest) <= 1.25
    assert min(emptiest) >= 0.7
