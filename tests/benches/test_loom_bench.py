"""benches/loom.py runs and goes on where it was stopped; rivals and world mean what they say."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benches import loom_rivals as rivals
from benches.loom_setup import Field, Setup
from benches.loom_tables import Case, Results, rows
from benches.loom_world import SYNCHRONOUS, Condition, World
from tapestry_p2p.mix.loom import LoomSettings

ROOT = Path(__file__).parents[2]
SMALL = Setup(task="digits", members=8, rounds=3, inner_steps=5, rate=0.01)


def bench(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "benches/loom.py", "--quick", "--seeds", "1", *words],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=True, timeout=300,
    )  # fmt: skip
    return done.stdout


def test_a_quick_run_is_kept_and_not_run_again(tmp_path: Path) -> None:
    words = ("--tables", "digits", "--only", "synchronous", "--out", str(tmp_path))
    text = bench(*words)
    assert "| Loom 2bit |" in text
    (kept,) = tmp_path.glob("*.json")
    found = json.loads(kept.read_text())
    assert all(0 <= run["mean"] <= 100 and run["bytes"] > 0 for run in found.values())
    written = kept.stat().st_mtime_ns
    assert bench(*words) == text
    assert kept.stat().st_mtime_ns == written


@pytest.fixture(scope="module")
def learning() -> Field:
    return Field(SMALL, 0)


@pytest.mark.parametrize("eta", [1.0, 1.5])
def test_a_synchronous_world_of_exact_copies_is_diloco(learning: Field, eta: float) -> None:
    exact = LoomSettings(codec="fp32", eta=eta, mu=0.0)
    world = World(learning, exact, SYNCHRONOUS, SMALL)
    world.run()
    x = learning.start()
    one = rivals.DiLoCo(x, eta, 0.0)
    for done in range(SMALL.rounds):
        x = one.round(learning.crowd.train(x, SMALL.inner_steps, done * SMALL.inner_steps))
    for member in world.members.values():
        np.testing.assert_allclose(member.x, x[0], atol=2e-5)


def test_every_condition_takes_the_same_steps_in_all(learning: Field) -> None:
    crowd = learning.crowd
    for condition in (
        Condition("speeds", speeds=(1.0, 0.5, 0.25), staggered=True),
        Condition("late joiners", joiners=1 / 4),
        Condition("missed", missed=0.5),
    ):
        world = World(learning, LoomSettings(), condition, SMALL)
        world.run()
        taken = int(crowd._cursors.sum())
        assert taken == pytest.approx(SMALL.members * SMALL.steps, rel=0.1)
        assert len(world.members) == SMALL.members


def test_mirrors_break_the_mean_and_not_the_rule(learning: Field) -> None:
    attacked = Condition("attacked", hostile=1 / 8)
    found = {}
    for rule, f in (("mean", 0), ("cs_plus", 1)):
        world = World(learning, LoomSettings(rule=rule, f=f), attacked, SMALL)
        world.run()
        assert len(world.members) == 7
        moved = world._models().mean(axis=0) - learning.genesis
        found[rule] = float(np.linalg.norm(moved))
    quiet = World(learning, LoomSettings(f=1), Condition("absent", absent=1 / 8), SMALL)
    quiet.run()
    goal = float(np.linalg.norm(quiet._models().mean(axis=0) - learning.genesis))
    assert found["mean"] < 0.7 * goal < found["cs_plus"]


def test_a_late_copy_comes_as_many_rounds_later(learning: Field) -> None:
    world = World(learning, LoomSettings(codec="fp32"), Condition("late", late=1), SMALL)
    learning.start()
    for tick in range(10):
        world._begin(tick)
        world._end(tick + 1)
        if tick == 4:
            first = world.members[0].loom.own.vector.copy()
            assert np.array_equal(world.members[1].copies[0].vector, learning.genesis)
    np.testing.assert_array_equal(world.members[1].copies[0].vector, first)


def test_gossip_without_momentum_keeps_the_mean_and_pairs_meet() -> None:
    x = np.zeros((8, 3), np.float32)
    y = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
    for one in (rivals.Gossip(x, 1.0, 0.0), rivals.NoLoCo(x, 0, 0.0, 1.0)):
        np.testing.assert_allclose(one.round(y).mean(axis=0), y.mean(axis=0), atol=1e-6)
    paired = rivals.NoLoCo(x, 0, 0.0, 1.0).round(y)
    assert len(np.unique(paired.round(5), axis=0)) == 4


def test_sparse_sends_little_and_forgets_nothing() -> None:
    x = np.zeros((2, 640), np.float32)
    y = np.random.default_rng(0).standard_normal((2, 640)).astype(np.float32)
    one = rivals.SparseLoCo(x, 1.0, 1.0)
    total = np.zeros(640, np.float32)
    for _ in range(400):
        after = one.round(x + y / np.float32(400))
        total += y.mean(axis=0) / 400
        x = after
    assert one.bytes < 0.03
    assert np.linalg.norm(after[0] - total) < 0.5 * np.linalg.norm(total)


def test_a_row_shows_its_best_setting_over_all_seeds() -> None:
    def run(*_: object) -> None:
        raise AssertionError

    setup = Setup()
    cases = [Case("A", f"a {i}", "here", setup, seed, run) for i in (1, 2) for seed in (0, 1)]  # type: ignore[arg-type]
    losses = iter((1.0, 9.0, 3.0, 4.0))
    names = ("members", "own", "apart", "bytes", "seconds")
    found: Results = {c.key: {"mean": next(losses), **dict.fromkeys(names, 0.0)} for c in cases}
    ((row, condition, best),) = rows(cases, found, setup)
    assert (row, condition) == ("A", "here")
    assert best is not None
    assert (best.method, best.values["mean"]) == ("a 2", 3.5)
