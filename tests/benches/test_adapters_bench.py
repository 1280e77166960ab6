"""benches/adapters.py runs; its rows hold bytes and learning to their bounds."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benches.adapters import figures

ROOT = Path(__file__).parents[2]


def _report(parameters: int, rate: float, untrained: float, together: float) -> dict[str, Any]:
    bits = {"untrained": untrained, "together": together, "alone": 3.0}
    return {
        "parameters": parameters,
        "bytes_per_parameter_per_round": rate,
        "members": [{"bits_per_byte": bits}],
    }


def test_its_rows_hold_bytes_and_learning_to_their_bounds() -> None:
    whole = _report(1000, 0.25, 4.0, 2.0)
    rows = {row.figure: row for row in figures(_report(40, 0.3, 4.0, 3.0), whole, judged=True)}
    assert rows["bytes a member and round"].ours == 12
    assert rows["share of the full model's bytes"].met
    assert rows["of the full model's gain"].ours == 50
    worse = {row.figure: row for row in figures(_report(60, 0.3, 4.0, 4.1), whole, judged=True)}
    missed = [name for name, row in worse.items() if row.met is False]
    assert missed == [
        "bytes a member and round",
        "share of the full model's bytes",
        "trained together",
        "of the full model's gain",
    ]


@pytest.mark.integration
def test_the_quick_run_compares_adapters_with_all_weights() -> None:
    done = subprocess.run(
        [sys.executable, "benches/adapters.py", "--quick", "--json"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    rows = {row["figure"]: row for row in json.loads(done.stdout)["rows"]}
    travelling = rows["parameters that travel"]
    assert travelling["ours"] < 0.05 * travelling["baseline"]
    base = rows["the base itself"]
    assert base["ours"] == pytest.approx(base["baseline"])  # both start from the same weights
