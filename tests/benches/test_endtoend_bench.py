"""benches/endtoend.py: the rivals' learner learns the digits, ours reaches the target."""

import argparse
from pathlib import Path

import numpy as np
import pytest

from benches.endtoend import FIRST, OURS, Run, measure, rows
from benches.endtoend_learner import Learner
from tapestry_p2p.data import digits_csv


def records() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.loadtxt(digits_csv().decode().splitlines(), delimiter=",", dtype=np.float32)


def test_the_rivals_learner_names_digits() -> None:
    learner = Learner(records()[:1200], 1)
    before = learner.vector
    learner.train(300)
    assert learner.accuracy(records()[1200:]) > 0.9
    learner.vector = before
    assert np.array_equal(learner.vector, before)


def test_who_never_gets_there_misses_the_bound() -> None:
    run = Run(first_s=1.0, first_cpu_s=1.0, target_s=None, cpu_s=2.0, wire_mb=None)
    found = {row.figure: row for row in rows({OURS: [run]})}
    assert found[f"{OURS}: launch to first mixed round"].met is True
    assert found[f"{OURS}: launch to 95 %"].met is False
    assert found[f"{OURS}: CPU to 95 %, all members"].met is None


@pytest.mark.integration
def test_two_members_reach_the_target(tmp_path: Path) -> None:
    options = argparse.Namespace(members=2, steps=20, repeats=1, only=OURS)
    found = measure(options, tmp_path, [])
    assert set(found) == {FIRST, OURS}
    for runs in found.values():
        assert runs[0].target_s is not None
        assert runs[0].first_s is not None
        assert runs[0].first_s <= runs[0].target_s
        assert runs[0].phases
