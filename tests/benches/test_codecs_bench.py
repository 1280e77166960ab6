"""benches/codecs.py runs, and its rows hold what the codecs claim; speeds are for its readers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tapestry_p2p.mix.codec import CODECS, payload_bytes

ROOT = Path(__file__).parents[2]


def test_the_quick_run_writes_every_codec_beside_the_floors(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "benches/codecs.py", "--quick", "--out", tmp_path],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=True, timeout=120,
    )  # fmt: skip
    result = json.loads((tmp_path / "codecs.json").read_text())
    rows = {row["name"]: row for row in result["rows"]}
    assert set(rows) == {*CODECS, "memcpy", "a += b", "fresh bytes", "hivemind 8 bit"}
    assert done.stdout == (tmp_path / "codecs.md").read_text()
    d = result["parameters"]
    for codec in CODECS:
        assert rows[codec]["bytes_per_parameter"] == pytest.approx(payload_bytes(codec, d) / d)
        assert rows[codec]["encode"] > 0
        assert rows[codec]["add"] > 0
    assert rows["fp32"]["loss_gaussian"] == 0
    # 256 bins over six deviations: a step of 6/256, so its square over 12, and tails beyond three
    assert 4.5e-5 < rows["hivemind 8 bit"]["loss_gaussian"] < 3e-4
    assert rows["int8"]["loss_heavy"] < rows["hivemind 8 bit"]["loss_heavy"]
