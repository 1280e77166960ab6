"""`tapestry new` writes projects that are sound as they are; installed tasks are found by name."""

import os
import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import jax
import pytest

from tapestry_p2p.cli.main import main
from tapestry_p2p.learn import load as loading
from tapestry_p2p.learn.task import Data, TaskError
from tapestry_p2p.learn.vector import Layout

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path / "my-model"
    assert main(["new", str(folder), *request.param]) == 0
    return folder


both = pytest.mark.parametrize("project", [[], ["--linen"]], indirect=True, ids=["nnx", "linen"])


@both
def test_a_new_project_is_a_task_of_its_kind(project: Path) -> None:
    code = project / "my_model_task.py"
    task = loading.load(f"{code}:make_task", {}, Data([project / "data"], 1))
    assert task.name == "my-model"
    assert "@" not in (project / "README.md").read_text()
    params = task.init(jax.random.key(1))
    loss, _ = task.loss(params, task.batches("train", 1)(0), jax.random.key(0))
    assert 5 < float(loss) < 6  # ln 256 = 5.55
    bare: Any = loading.load(f"{code}:make_task", {}, Data([], 1, needed=False))
    assert Layout(bare.model.shapes).schema == Layout(params).schema


@both
def test_ruff_has_nothing_to_say(project: Path) -> None:
    for words in (["check", "--select", "E,F,I,W,B"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, "--isolated", "--line-length", "100", "."],
            cwd=project,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.integration
@both
def test_its_own_tests_pass(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "6 passed" in done.stdout


@pytest.mark.parametrize("name", ["My-Model", "-x", "a b", "1st"])
def test_a_name_that_no_package_may_have_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", "--", str(tmp_path / name)]) == 2
    assert "cannot name a project" in capsys.readouterr().err


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    assert main(["new", str(tmp_path / "mine")]) == 1
    assert "not an empty folder" in capsys.readouterr().err


def offered(monkeypatch: pytest.MonkeyPatch, *values: str) -> None:
    """Packages that offer a task ``mine``."""
    found = EntryPoints(EntryPoint("mine", value, loading.GROUP) for value in values)
    monkeypatch.setattr(loading, "entry_points", lambda **chosen: found.select(**chosen))


def test_a_task_of_an_installed_package_is_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    offered(monkeypatch, "tapestry_p2p.learn.tasks.digits:make_task")
    assert loading.load("mine", {}, Data([], 1)).name == "digits"


def test_a_name_that_two_packages_offer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    offered(monkeypatch, "one:make_task", "two:make_task")
    with pytest.raises(TaskError, match="2 installed packages"):
        loading.load("mine", {}, Data([], 1))


def test_an_unknown_name_says_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    offered(monkeypatch, "tapestry_p2p.learn.tasks.digits:make_task")
    with pytest.raises(TaskError, match="'language', 'mine'"):
        loading.load("yours", {}, Data([], 1))
