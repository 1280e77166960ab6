"""`tapestry simulate`: what it says first, what it writes, what it refuses, how it fails."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from tapestry_p2p.cli import main as cli
from tapestry_p2p.errors import FAILURE, OK, USAGE
from tapestry_p2p.sim import chaos, experiment

SMALL = ["simulate", "--members", "4"]
QUICK = [*SMALL, "--rounds", "6"]


def run(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The report of a run that must succeed, and nothing but it on stdout."""
    assert cli.main([*words, "--json"]) == OK
    captured = capsys.readouterr()
    assert captured.err.startswith("seed ")
    found: dict[str, Any] = json.loads(captured.out)
    return found


def test_seed_and_options_are_said_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*QUICK, "--seed", "7", "--loss", "0.1", "--speeds", "1,0.5"]) == OK
    captured = capsys.readouterr()
    first = captured.out.splitlines()[0]
    assert first.startswith("seed 7: quadratics, 4 members, complete, cs_plus f 0 (CERTIFIED)")
    assert "loss 0.1" in first
    assert "speeds 1,0.5" in first
    assert captured.err == "", "progress is for a terminal"
    assert "trace " in captured.out


def test_a_report_holds_curve_exercise_and_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SMALL, "--byzantine", "1", "--attack", "equivocate", "--rounds", "12"]
    report = run([*words, "--out", str(tmp_path)], capsys)
    assert report == json.loads((tmp_path / "curves.json").read_text())
    assert report["broken"] == []
    assert report["exercise"]["fork proofs"] > 0
    assert report["drawn"] == ["equivocate"]
    rounds = [point["round"] for point in report["curve"]]
    assert rounds == sorted(set(rounds))
    assert rounds[-1] == 12
    assert len(report["curve"][0]["members"]["distance"]) == 3
    assert report["curve"][-1]["mean"]["distance"] < report["curve"][0]["mean"]["distance"]
    assert ElementTree.parse(tmp_path / "curves.svg").getroot().tag.endswith("svg")
    again = run(words, capsys)
    assert (again["trace"], again["bits"]) == (report["trace"], report["bits"])


def test_faults_are_healed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    report = run([*SMALL, "--loss", "0.1", "--churn", "1", "--rounds", "20"], capsys)
    assert report["healed_at"] == 20
    assert report["curve"][-1]["round"] == 20 + experiment.HEAL_ROUNDS
    assert report["drawn"] == ["lose_frames", "churn"]
    assert all(report["exercise"][what] for what in ("lost", "crashed", "restarted"))


@pytest.mark.parametrize("topology", ["ring", "regular:3", "keyed:3"])
def test_sparse_topologies(topology: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = run(["simulate", "--members", "6", "--rounds", "8", "--topology", topology], capsys)
    assert report["broken"] == []


def test_the_protocol_alone(capsys: pytest.CaptureFixture[str]) -> None:
    report = run(["simulate", "--task", "protocol", "--members", "4", "--rounds", "20"], capsys)
    assert report["exercise"]["rounds mixed"] == 0
    assert report["exercise"]["entries applied"] > 4 * 3 * 15
    assert report["cpu_s"] > 0


def test_learning_in_the_loop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["simulate", "--task", "digits", "--members", "4", "--rounds", "8", "--inner-steps"]
    report = run([*words, "8", "--split", "iid", "--out", str(tmp_path)], capsys)
    first, last = report["curve"][0]["mean"], report["curve"][-1]["mean"]
    assert last["loss"] < 0.5 * first["loss"]
    assert last["accuracy"] > first["accuracy"] + 0.3


def test_average_compares_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["simulate", "--task", "average", "--members", "7", "--byzantine", "1"]
    words += ["--attack", "mirror", "--rounds", "10", "--out", str(tmp_path)]
    report = run(words, capsys)
    assert report["worst"]["cs_plus"] < report["worst"]["mean"]
    assert (tmp_path / "curves.svg").exists()
    assert cli.main(words) == OK
    assert "mirror" in capsys.readouterr().out


def test_chaos_says_what_it_drew_before_it_happens(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["simulate", "--task", "chaos", "--seed", "2", "--runs", "1"]) == OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("seed 2: ")
    assert "faults: " in lines[0]
    assert lines[-1].startswith("reached: delivered")


def test_a_fault_that_never_happened_fails_the_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(chaos.EXERCISES, "slow_members", ("a_thing_that_never_is",))
    assert cli.main([*QUICK, "--speeds", "0.5"]) == FAILURE
    assert "BROKEN: never happened: slow_members" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--task", "nothing"], "task must be one of"),
        (["--members", "1"], "members - byzantine >= 2"),
        (["--members", "3", "--byzantine", "2"], "members - byzantine >= 2"),
        (["--byzantine", "-1"], "byzantine >= 0"),
        (["--rounds", "0"], "rounds >= 1"),
        (["--runs", "0"], "runs >= 1"),
        (["--inner-steps", "0"], "inner-steps >= 1"),
        (["--loss", "1"], "loss <= 0.9"),
        (["--churn", "-1"], "churn"),
        (["--codec", "3bit"], "codec must be one of"),
        (["--rule", "magic"], "rule must be one of"),
        (["--tolerate", "-2"], "tolerate >= 0"),
        (["--members", "6", "--tolerate", "2"], "members > 3f does not hold: 6 <= 6"),
        (["--speeds", "fast"], "speeds must be numbers"),
        (["--speeds", "1,0"], "0 < speed <= 1"),
        (["--members", "2", "--speeds", "1,1,1"], "3 speeds for 2"),
        (["--attack", "mirror"], "needs --byzantine"),
        (["--byzantine", "1", "--attack", "magic"], "attack must be one of"),
        (["--byzantine", "1", "--attack", "spectral"], "no process can play it"),
        (["--byzantine", "1", "--attack", "label_flip"], "needs a task with labels"),
        (["--topology", "star"], "choose from"),
        (["--topology", "keyed:9"], "2 <= K < members"),
        (["--topology", "keyed:4", "--tolerate", "2"], "3 * tolerate <= K"),
        (["--members", "7", "--topology", "two-worlds"], "two equal halves"),
        (["--task", "digits", "--split", "thirds"], "partition must be one of"),
        (["--task", "digits", "--split", "dirichlet:x"], "split"),
        (["--task", "language", "--members", "40"], "texts"),
        (["--task", "average", "--attack", "magic"], "choose from"),
    ],
)
def test_what_is_impossible_is_refused_in_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["simulate", *words]) == USAGE
    err = capsys.readouterr().err
    assert err.startswith("tapestry: ")
    assert err.count("\n") == 1
    assert said in err


def test_data_that_is_missing_is_a_failure_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["simulate", "--task", "fashion"]) == FAILURE
    assert "tapestry data fashion" in capsys.readouterr().err
