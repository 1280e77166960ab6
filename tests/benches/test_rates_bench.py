"""benches/rates.py measures real nodes; the bounds of a minute are for a quiet machine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benches.rates import windows

ROOT = Path(__file__).parents[2]


def test_every_window_counts() -> None:
    counted = [(0.0, 0), (1.0, 10), (2.0, 40), (3.0, 50)]
    assert windows(counted, 1.0) == [10, 30, 10]
    assert windows(counted, 2.0) == [20, 20]
    assert windows(counted, 9.0) == []


def rows(case: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "benches/rates.py", "--quick", "--cases", case, "--json"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.mark.integration
def test_limits_are_kept_on_the_sockets() -> None:
    found = {row["what"]: row["figure"] for row in rows("sockets")}
    assert found["connections lost"] == 0
    fullest = [figure for what, figure in found.items() if "fullest" in what]
    emptiest = [figure for what, figure in found.items() if "emptiest" in what]
    assert len(fullest) == len(emptiest) == 3
    assert max(fullest) <= 1.25
    assert min(emptiest) >= 0.7


@pytest.mark.integration
def test_a_metered_member_takes_part() -> None:
    found = rows("member")
    assert len(found) == 5
    assert [row["what"] for row in found if not row["reached"]] == []
