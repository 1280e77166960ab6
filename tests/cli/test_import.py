"""`import` takes what holds, nothing else; `generate` and `eval` use a folder without a daemon."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_kit import ANA, EVE, TEXT, World
from safetensors.numpy import load_file, save

from tapestry_p2p.cli import folder as f
from tapestry_p2p.cli.main import main
from tapestry_p2p.learn.offline import answer
from tapestry_p2p.learn.task import TaskError


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def exported(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world.export(tmp_path_factory.mktemp("exported") / "roses")


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_what_holds_is_kept_under_its_name(
    exported: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(capsys, "import", str(exported))
    assert found["name"] == "roses"
    assert found["member"] == ANA.peer_id
    assert (home / "models" / "roses" / f.MODEL).read_bytes() == (exported / f.MODEL).read_bytes()
    assert main(["import", str(exported)]) == 1
    assert main(["import", str(exported), "--name", "more"]) == 0
    assert sorted(path.name for path in (home / "models").iterdir()) == ["more", "roses"]


@pytest.mark.parametrize("what", ["flip", "link", "other member"])
def test_what_does_not_hold_is_refused(
    what: str, exported: Path, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "model"))
    words = ["--member", EVE.peer_id] if what == "other member" else []
    if what == "flip":
        with (folder / f.INT8).open("r+b") as file:
            file.seek(-1, 2)
            file.write(b"\x55")
    elif what == "link":
        (folder / "more").symlink_to("/etc/passwd")
    assert main(["import", str(folder), *words]) == 6
    assert list((home / "models").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["import", "/nowhere"], 1),
        (["import", "/nowhere", "--name", "../up"], 2),
        (["generate", "a", "--model", "unknown"], 78),
        (["generate", "a", "--int8"], 2),
        (["eval", "--data", "x.txt"], 2),
        (["verify", "/nowhere"], 1),
        (["export", "/proc/nowhere"], 1),
        (["generate", "a"], 3),
        (["eval"], 3),
    ],
)
def test_exit_statuses(
    words: list[str], status: int, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == status
    assert capsys.readouterr().err.count("\n") == (words[0] != "verify")


def asked(folder: Path, do: str, int8: bool, **more: Any) -> dict[str, Any]:
    """What the process for folders is asked, answered in this one."""
    config = f.read_json(folder / f.CONFIG)
    request = {"do": do, "task": config["task"], "file": folder / (f.INT8 if int8 else f.MODEL)}
    common = {name: config[name] for name in ("options", "schema")}
    return answer({**request, **common, "data_seed": config["seed"], **more})


def test_generate_without_a_daemon(
    exported: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("generate", "ring", "--model", str(exported), "--bytes", "9", "--int8")
    small = told(capsys, *words, "--seed", "7")
    more = {"prompt": "ring", "bytes": 9, "temperature": 0.8, "seed": 7}
    again = asked(exported, "generate", True, **more)
    exact = asked(exported, "generate", False, **more)
    assert small["text"] == again["text"]
    assert small["weights_bytes"] < 0.5 * exact["weights_bytes"]
    assert asked(exported, "generate", False, **{**more, "bytes": 0})["exit_code"] == 2


def test_eval_without_a_daemon(exported: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(TEXT)
    exact, small = (
        asked(exported, "evaluate", int8, data=[str(text)])["bits_per_byte"]["held out"]
        for int8 in (False, True)
    )
    assert exact == pytest.approx(small, rel=0.01)
    assert 5 < exact < 11
    with pytest.raises(TaskError, match="needs a text file"):
        asked(exported, "evaluate", False)


def test_a_model_of_another_schema_is_refused(exported: Path) -> None:
    more = {"prompt": "", "bytes": 1, "temperature": 0, "seed": 0, "schema": "00" * 32}
    with pytest.raises(TaskError, match="another model"):
        asked(exported, "generate", False, **more)


def test_a_part_that_never_leaves_lies_beside_the_folder(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(local="norm/*")
    folder = world.export(tmp_path / "mine")
    assert "norm/scale" not in load_file(folder / f.MODEL)
    assert "| not in it | norm\\/scale |" in (folder / f.CARD).read_text()
    assert main(["verify", str(folder)]) == 0
    words = ("generate", "ring", "--bytes", "4", "--temperature", "0")
    text = told(capsys, *words, "--model", str(folder))["text"]
    assert told(capsys, "import", str(folder), "--name", "kept")["name"] == "kept"
    assert told(capsys, *words, "--model", "kept")["text"] == text
    assert told(capsys, *words, "--model", "kept", "--int8")["text"]

    other = {"norm/scale": np.zeros(3, np.float32)}
    f.beside(folder).write_bytes(save(other))
    assert main([*words, "--model", str(folder)]) == 78
    f.beside(folder).unlink()
    assert main([*words, "--model", str(folder)]) == 78
    assert capsys.readouterr().err.count("norm/scale never left the member") == 2


def test_code_of_its_own_is_run_only_if_it_is_trusted(
    exported: Path, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "model"))
    (folder / "evil.py").write_text("open('/tmp/never', 'w')")
    config = {**f.read_json(folder / f.CONFIG), "task": "evil.py:make", "task_digest": "00" * 32}
    f.write_json(folder / f.CONFIG, config)
    assert main(["generate", "a", "--model", str(folder)]) == 6
    assert "--trust-code" in capsys.readouterr().err
    assert main(["generate", "a", "--model", str(folder), "--trust-code"]) == 6
    assert "is not the code" in capsys.readouterr().err
