"""`tapestry new` writes projects that are sound as they are; installed tasks are found by name."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import jax
import pytest

from tapestry_p2p.cli.main import main
from tapestry_p2p.cli.testnet import plan
from tapestry_p2p.daemon.manifest import load_manifest
from tapestry_p2p.errors import TapestryError
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
    assert "7 passed" in done.stdout


@pytest.mark.integration
@both
def test_its_testnet_runs_without_an_edit(project: Path) -> None:
    words = "testnet --members 3 --model my_model_task.py:make_task --data data --rounds 2"
    done = subprocess.run(
        [sys.executable, "-m", "tapestry_p2p", *words.split(), "--inner-steps", "3", "--json"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    members = json.loads(done.stdout)["members"]
    assert [row["name"] for row in members] == ["english", "french", "german"]
    assert all(row["rounds"] == 2 and row["copies_equal"] for row in members)


def installed(project: Path, where: Path) -> Path:
    """What pip makes of the project: its module, and the entry points of its pyproject.toml."""
    named = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    about = where / f"{named['name'].replace('-', '_')}-{named['version']}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {named['name']}\nVersion: {named['version']}\n"
    )
    lines = [f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in rows.items())
             for group, rows in named["entry-points"].items()]  # fmt: skip
    (about / "entry_points.txt").write_text("\n".join(lines))
    shutil.copy(project / "my_model_task.py", where)
    return where


@pytest.mark.integration
@pytest.mark.parametrize("project", [[]], indirect=True)
def test_an_installed_project_founds_a_network_by_its_name(project: Path, tmp_path: Path) -> None:
    site = installed(project, tmp_path / "site")
    home = tmp_path / "home"
    words = ["init", "--home", home, "--task", "my-model", "--data", project / "data"]
    done = subprocess.run(
        [sys.executable, "-m", "tapestry_p2p", *map(str, words), "--task-option", "own_head=true"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{site}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    manifest = load_manifest(home / "network.toml")
    assert (manifest.task.name, manifest.task.file) == ("my-model", "")
    assert manifest.schema.parameters == 256 * 16 + (16 * 16 + 1) * 64  # without the own head


def test_a_testnet_takes_an_installed_task_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    named = EntryPoints([EntryPoint("mine", "mine:make_task", loading.GROUP)])
    monkeypatch.setattr(plan, "entry_points", lambda **chosen: named.select(**chosen))
    assert plan.find_model("mine") == plan.Model("mine", {})
    with pytest.raises(TapestryError, match="nor the name of an installed task"):
        plan.find_model("yours")


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
