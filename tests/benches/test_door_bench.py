"""benches/door.py runs, small: everybody gets in who should, nobody else. Times are for readers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# how long it took says more about this machine than about the door
TIMES = ("p99", "worst", "slowest", "after s", "while one", "failed at first", "MB")


@pytest.mark.integration
def test_the_small_run_reaches_every_bound_that_is_no_time() -> None:
    done = subprocess.run(
        [sys.executable, "benches/door.py", "--quick", "--json"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    found = json.loads(done.stdout)
    seen = {row["case"] for row in found["rows"]} | set(found["skipped"])
    assert seen == {"reconnects", "idle", "offers", "stopped"}
    assert set(found["skipped"]) <= {"idle"}, found["skipped"]
    for row in found["rows"]:
        if not any(word in row["what"] for word in TIMES):
            assert row["reached"], row
    assert sum(row["case"] == "offers" for row in found["rows"]) >= 9
