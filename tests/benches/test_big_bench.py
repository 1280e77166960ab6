"""benches/big.py and overlap.py measure real processes; their bounds are for a quiet machine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benches.big import SMALL, Seen, rows_of
from benches.big_members import KINDS, Peaks, Wanted, memory
from benches.big_stand_in import FRAME, genesis_root, pattern
from benches.overlap import Look
from benches.overlap import rows_of as overlap_rows
from tapestry_p2p.daemon.copies import copy_root
from tapestry_p2p.mix.copy import PublicCopy

ROOT = Path(__file__).parents[2]


def test_the_kernel_tells_the_kinds_apart(tmp_path: Path) -> None:
    before = memory(os.getpid())
    held = np.ones(8 << 20, np.uint8)
    (tmp_path / "file").write_bytes(bytes(8 << 20))
    mapped = np.memmap(tmp_path / "file", np.uint8)
    assert int(mapped.sum()) == 0
    after = memory(os.getpid())
    assert set(after) == set(KINDS)
    assert after["anonymous"] - before["anonymous"] > 0.9 * len(held)
    assert after["mapped"] - before["mapped"] > 0.9 * len(mapped)
    assert memory(1 << 30) == {}


def test_rows_are_what_grows_with_the_model() -> None:
    small, big = Peaks(), Peaks()
    for peaks, size in ((small, SMALL), (big, SMALL + 1000)):
        for process in ("node", "trainer"):
            for kind in KINDS:
                peaks.most[f"{process}, {kind}"] = 1e6 + 3.0 * size
        peaks.most["anonymous and shared"] = 1e6 + 30.0 * size
        peaks.most["with mapped files"] = 1e6 + 60.0 * size
    wanted = Wanted(SMALL + 1000, 3, rounds=4)
    rows = rows_of(wanted, Seen(big, 8.0, 4, True, 0), Seen(small, 1.0, 4, True, 0))
    found = {row.figure: (row.ours, row.met) for row in rows}
    assert found["anonymous and shared memory of a member"] == (30.0, True)
    assert found["the same with mapped files"] == (60.0, False)
    assert found["trainer, mapped"] == (3.0, None)
    rows = rows_of(wanted, Seen(big, 8.0, 3, False, 1), Seen(small, 1.0, 4, True, 0))
    missed = [row.figure for row in rows if row.met is False]
    assert missed == [
        "the same with mapped files",
        "rounds done by every member",
        "members whose copies differ at the end",
        "trainers that died",
    ]


def test_overlap_is_of_the_rounds_between_two_looks() -> None:
    first = Look(100.0, 5.0, 50.0, 1.0, 50.0, 60.0, 1)
    last = Look(300.0, 9.0, 249.0, 11.0, 249.0, 260.0, 5)
    found = {row.figure: (row.ours, row.met) for row in overlap_rows(first, last)}
    assert found["trainer_busy_share"] == (0.995, True)
    assert found["the node's CPU time, share of a core"] == (0.02, True)
    assert found["a round"] == (50.0, None)


@pytest.mark.parametrize("parameters", [77, FRAME, 3 * FRAME + 5])
def test_the_stand_ins_first_vector(parameters: int) -> None:
    whole = np.resize(pattern(), parameters)
    assert copy_root(PublicCopy(whole)) == genesis_root(parameters)


def figures(bench: str, *words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, f"benches/{bench}.py", "--quick", "--json", *words],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False, timeout=600,
    )  # fmt: skip
    assert done.stdout, done.stderr[-3000:]
    return {row["figure"]: row for row in json.loads(done.stdout)["rows"]}


@pytest.mark.integration
@pytest.mark.parametrize("words", [(), ("--stand-in",)])
def test_members_end_with_the_same_bits(words: tuple[str, ...]) -> None:
    found = figures("big", *words)
    for name in (
        "rounds done by every member",
        "members whose copies differ at the end",
        "trainers that died",
    ):
        assert found[name]["met"], name
    assert found["node, anonymous"]["ours"] > 0


@pytest.mark.integration
def test_a_member_trains_beside_its_neighbour() -> None:
    found = figures("overlap")
    assert 0.5 < found["trainer_busy_share"]["ours"] <= 1
    assert found["the node's CPU time, share of a core"]["ours"] > 0
