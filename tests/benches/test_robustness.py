"""benches/robustness.py runs, goes on where it was stopped, and its worlds mean what they say."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benches.robustness_attacks import ATTACKS_TABLE, HONEST, INNER, World, crowds_of
from benches.robustness_attacks import Case as AttackCase
from benches.robustness_docs import write_docs
from benches.robustness_ios import ALONE, ARMS, IDEAS, IOS, PUBLISHED
from benches.robustness_store import Store
from benches.robustness_worlds import Arm, Neighbourhoods, deserted
from tapestry_p2p.sim.attacks import Aim, Scene
from tapestry_p2p.sim.graphs import two_castle

ROOT = Path(__file__).parents[2]


def bench(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "benches/robustness.py", *words],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=True, timeout=240,
    )  # fmt: skip
    return done.stdout


def test_a_quick_run_is_kept_and_not_run_again(tmp_path: Path) -> None:
    where = "TwoCastle separated small / cs_plus, settling / sign_flip"
    only = ("--table", "ios", "--quick", "--iterations", "2", "--only", where)
    text = bench(*only, "--out", str(tmp_path))
    assert "**TwoCastle, separated, small start**" in text
    (kept,) = tmp_path.glob("*.json")
    found = json.loads(kept.read_text())
    assert {key.split(" / ")[2] for key in found} == {"sign_flip", "sign_flip hidden"}
    assert all(0 <= run["worst"] <= run["mean"] <= 100 for run in found.values())
    written = kept.stat().st_mtime_ns
    assert bench(*only, "--out", str(tmp_path)) == text
    assert kept.stat().st_mtime_ns == written


def test_loom_rounds_take_a_poisoned_member_and_one_that_sends_no_numbers() -> None:
    settings = ATTACKS_TABLE.settings(True, 1, 1)
    for attack in ("label_flip", "nan"):
        case = AttackCase("digits", 1.0, attack, "", 0, settings)
        found = ATTACKS_TABLE.run(case, None)
        assert 0 < found.worst <= found.mean <= 100


def test_loom_rounds_with_settling_leave_out_who_stays_where_it_was() -> None:
    settings = ATTACKS_TABLE.settings(True, 1, 1)
    case = AttackCase("digits", 0.1, "zero", "", 0, settings, settling=True)
    crowd, poisoned = crowds_of(case.task, case.alpha, INNER, 0, None)
    world = World(crowd, poisoned, case.attack, Aim(), 0)
    world.round(0)
    world.settle()
    hostile = {who for out in world.left_out for who in out if who >= HONEST}
    assert hostile == {HONEST, HONEST + 1, HONEST + 2}


def test_tables_ask_for_every_rule_and_attack_once() -> None:
    tables: list[Any] = [IOS, IDEAS, ATTACKS_TABLE]
    for table in tables:
        for quick in (False, True):
            settings = table.settings(quick, None, None)
            keys = [case.key for case in table.cases(settings)]
            assert len(set(keys)) == len(keys)
    settings = IOS.settings(False, None, None)
    asked = {(case.arm.name, case.attack) for case in IOS.cases(settings)}
    assert asked >= {(arm.name, attack) for arm in ARMS for attack in ("none", *PUBLISHED)}
    assert (ALONE.name, "none") in asked


def test_a_table_is_the_mean_over_seeds_and_says_what_is_missing() -> None:
    settings = IOS.settings(False, None, 2)
    cases = [c for c in IOS.cases(settings) if c.arm.name == "gts" and c.attack == "none"]
    found = {case.key: {"mean": 80.0 + case.seed, "worst": 70.0 + case.seed} for case in cases}
    lines = IOS.render(settings, found)
    row = next(line for line in lines if line.startswith("| `gts` | 80.5 / 70.0"))
    assert "not run" in row


def scene(rule: str, x: np.ndarray) -> Scene:
    return Scene(two_castle(), x, rule, 2, np.random.default_rng(0), aim=Aim("fixed"))


def test_who_is_absent_pulls_nothing_and_keeps_no_weight() -> None:
    x = np.random.default_rng(1).standard_normal((10, 6)).astype(np.float32)
    quiet = deserted(two_castle())
    assert quiet.byzantine_count.sum() == 0
    still = Scene(quiet, x, "mean", 2, np.random.default_rng(0))
    after = Neighbourhoods(Arm("mean", "mean"), 10, 2).mixed(still, np.full_like(x, 9), x)
    np.testing.assert_allclose(after.mean(axis=0), x.mean(axis=0), atol=1e-6)


def test_whom_a_settling_found_is_left_out_of_later_rounds() -> None:
    x = np.random.default_rng(1).standard_normal((10, 6)).astype(np.float32)
    liars, close = np.full_like(x, 50), np.zeros_like(x)
    arm = Arm("settling", "cs_plus", settle_every=10)
    everyone = Neighbourhoods(arm, 10, 2)
    now = scene("cs_plus", x)
    bad, good = int(now.graph.byzantine_count.sum()), 0
    before = everyone.mixed(now, close, close)
    everyone.settled(now, liars)
    assert everyone.left_out(now.graph.byzantine_count.tolist()) == (bad, good)
    there, elsewhere = (everyone.mixed(now, lie, close) for lie in (liars, close))
    np.testing.assert_array_equal(there, elsewhere)
    assert not np.array_equal(before, elsewhere)


def test_results_of_two_runs_at_once_are_all_kept(tmp_path: Path) -> None:
    first, second = Store(tmp_path / "a.json"), Store(tmp_path / "a.json")
    first.add("one", {"mean": 1})
    second.add("two", {"mean": 2})
    third = Store(tmp_path / "a.json")
    assert "one" in third
    assert third["two"] == {"mean": 2}


def test_a_table_goes_between_its_marks_or_nowhere(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- ios -->\nold\n<!-- end ios -->\nafter\n")
    write_docs(page, "ios", "new")
    assert page.read_text() == "before\n<!-- ios -->\n\nnew\n\n<!-- end ios -->\nafter\n"
    with pytest.raises(ValueError, match="no marks"):
        write_docs(page, "attacks", "new")
