"""benches/wire.py runs, and every stack carries all bytes; speeds are for its readers."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FEW = ["--mb", "3", "--repeat", "1", "--seconds", "0.4", "--connections", "3"]


def test_every_stack_carries_all_bytes() -> None:
    done = subprocess.run(
        [sys.executable, "benches/wire.py", *FEW, "--json"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=True, timeout=120,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert set(found["one_way"]) == {"TCP", "TLS", "libp2p", "tapestry"}
    assert all(run["mb_per_s"] > 0 for run in found["one_way"].values())
    assert found["both_ways"]["received_mb_per_s"] > 0
    assert found["both_ways"]["sent_mb_per_s"] > 0
    assert found["both_ways"]["pings"] == found["both_ways"]["streams"] > 0
    assert found["idle"]["connections"] == 3
