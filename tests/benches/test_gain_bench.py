"""benches/gain.py runs, and its bounds are those that it states."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import jax
import pytest

from benches.gain import cut, name_of, rows
from tapestry_p2p.cli.testnet.plan import PRESETS
from tapestry_p2p.learn.load import load
from tapestry_p2p.learn.task import Data

ROOT = Path(__file__).parents[2]


def _report(*bits: tuple[float, float, float]) -> dict[str, Any]:
    arms = ("alone", "together", "sovereign")
    members = [
        {"name": f"m{i}", "bits_per_byte": dict(zip(arms, row, strict=True))}
        for i, row in enumerate(bits)
    ]
    return {"members": members}


def test_a_mean_eight_percent_below_and_nobody_worse_is_asked_for() -> None:
    assert all(row.met is not False for row in rows(_report((3, 3, 2.7), (2, 2, 1.8)), bounds=True))
    little = rows(_report((3, 2.8, 2.8), (2, 1.9, 1.9)), bounds=True)
    assert [row.figure for row in little if row.met is False] == ["mean: sovereign"]
    one = rows(_report((3, 3, 2), (2, 2, 2.02)), bounds=True)
    assert [row.figure for row in one if row.met is False] == ["m1: sovereign"]


def test_a_text_is_cut_between_lines_from_the_start_or_from_all_over() -> None:
    text = b"".join(b"line %03d\n" % number for number in range(1000))
    assert cut(text, 90, "first") == text[:90]
    spread = cut(text, 90, "spread").splitlines()
    numbers = [int(line.split()[1]) for line in spread]
    assert len(spread) == 10
    assert numbers == sorted(numbers)
    assert numbers[0] < 100 < 800 < numbers[-1]
    assert cut(text, 10**6, "spread") == text


def test_the_page_tells_runs_of_models_apart(tmp_path: Path) -> None:
    run = {"quick": False, "kb": 30, "cut": "spread"}
    assert name_of(Namespace(**run, model="small")) == "gain-30-spread-small"
    assert name_of(Namespace(**run, model="my/own.toml")) == "gain-30-spread-own"
    text = tmp_path / "text.txt"
    text.write_bytes(b"a line of text\n" * 200)
    task = load("language", PRESETS["base"], Data([text], 0))
    sizes = [leaf.size for leaf in jax.tree.leaves(task.init(jax.random.key(0)))]
    assert sum(sizes) == 267_912


@pytest.mark.integration
def test_the_quick_run_prints_every_member() -> None:
    done = subprocess.run(
        [sys.executable, "benches/gain.py", "--quick", "--json"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=True, timeout=600,
    )  # fmt: skip
    found = {row["figure"]: row for row in json.loads(done.stdout)["rows"]}
    assert {"fra: sovereign", "deu_1996: together", "mean: sovereign"} <= found.keys()
    for row in found.values():
        assert 1 < row["ours"] < 9
        assert 1 < row["baseline"] < 9
        assert row["met"] is None
