"""The units are valid, closed as far as they promise, and installed where systemd looks."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tapestry_p2p.cli.main import main
from tapestry_p2p.cli.service import GPU, NODE, PAGE, PYTHON, TRAINER, USER, unit
from tapestry_p2p.daemon.paths import find_paths
from tapestry_p2p.errors import BAD_CONFIG, OK, USAGE, TapestryError

ROOT = Path(__file__).parents[2]
EXPOSURE_MAX = {NODE: 1.2, TRAINER: 0.4, PAGE: 1.0}
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine"
)


@pytest.mark.parametrize("name", [NODE, USER])
def test_starts_that_fail_for_a_while_end_no_member(name: str) -> None:
    lines = unit(name).splitlines()
    assert "StartLimitIntervalSec=0" in lines
    assert "Restart=on-failure" in lines
    assert "RestartPreventExitStatus=6 78" in lines, "what no restart heals"


def analyzed(*words: object) -> str:
    done = subprocess.run(
        ["systemd-analyze", "--no-pager", *map(str, words)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.stdout + done.stderr


def installed(folder: Path, *words: str) -> Path:
    assert main(["service", "install", *words, "--root", str(folder)]) == OK
    return folder / "etc/systemd/system"


def test_the_folder_systemd_holds_them() -> None:
    for name in (NODE, TRAINER, PAGE, USER, GPU):
        assert (ROOT / "systemd" / name).read_text("utf-8") == unit(name)


@needs_systemd
@pytest.mark.parametrize("name", [NODE, TRAINER, PAGE])
def test_systemd_finds_nothing_wrong_and_little_open(name: str, tmp_path: Path) -> None:
    folder = installed(tmp_path, "ana", "--data", str(tmp_path), "--gpu")
    found = analyzed("verify", folder / NODE, folder / TRAINER, folder / PAGE)
    assert found == ""
    found = analyzed("security", "--offline=true", folder / name)
    level = re.search(r"exposure level .*: ([0-9.]+)", found)
    assert level is not None, found
    assert float(level[1]) <= EXPOSURE_MAX[name]


@needs_systemd
def test_systemd_sees_what_is_wrong(tmp_path: Path) -> None:
    folder = installed(tmp_path, "ana")
    broken = folder / NODE
    broken.write_text(broken.read_text().replace("PrivateDevices", "PrivateDevice"))
    assert "PrivateDevice" in analyzed("verify", broken)


def test_data_is_for_the_trainer_and_hidden_from_the_node(tmp_path: Path) -> None:
    folder = installed(tmp_path, "ana", "--data", "/srv/texts", "--data", "/srv/more")
    trainer = (folder / "tapestry-trainer@ana.service.d/data.conf").read_text()
    node = (folder / "tapestry@ana.service.d/data.conf").read_text()
    assert trainer.split() == [
        "[Service]", "BindReadOnlyPaths=/srv/texts", "BindReadOnlyPaths=/srv/more"
    ]  # fmt: skip
    page = (folder / "tapestry-page@ana.service.d/data.conf").read_text()
    assert "InaccessiblePaths=-/srv/texts" in node
    assert page == node
    assert "PrivateNetwork=yes" in unit(TRAINER)
    assert not (folder / "tapestry-trainer@ana.service.d/gpu.conf").exists()


def test_units_name_the_python_that_wrote_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = installed(tmp_path, "ana")
    for name in (NODE, TRAINER, PAGE):
        text = (folder / name).read_text()
        assert f"ExecStart={sys.executable} -m" in text
        assert PYTHON not in text or sys.executable == PYTHON
    assert main(["service", "print"]) == OK
    assert "PrivateNetwork=yes" in capsys.readouterr().out
    assert main(["service", "print", "--user"]) == OK
    assert "WantedBy=default.target" in capsys.readouterr().out


def test_a_user_unit_goes_into_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert main(["service", "install", "--user"]) == OK
    assert (tmp_path / "systemd/user" / USER).exists()


@pytest.mark.parametrize("name", ["", "a b", "../etc", "x" * 21])
def test_a_name_that_no_unit_can_have_is_refused(name: str, tmp_path: Path) -> None:
    assert main(["service", "install", name, "--root", str(tmp_path)]) == USAGE
    if name:
        with pytest.raises(TapestryError) as found:
            find_paths({"TAPESTRY_SERVICE": name})
        assert found.value.exit_code == BAD_CONFIG


def test_a_member_of_the_system_has_the_folders_of_its_units() -> None:
    paths = find_paths({"TAPESTRY_SERVICE": "ana", "CREDENTIALS_DIRECTORY": "/run/c"})
    node, trainer = unit(NODE).replace("%i", "ana"), unit(TRAINER).replace("%i", "ana")
    assert str(paths.state) == "/var/lib/tapestry/ana"
    assert "StateDirectory=tapestry/ana" in node
    assert f"--link {paths.trainer_socket}" in trainer
    assert "RuntimeDirectory=tapestry/ana" in node
    assert str(paths.text_socket) == "/run/tapestry-trainer/ana/text.sock"
    assert "RuntimeDirectory=tapestry-trainer/ana" in trainer
    page = unit(PAGE).replace("%i", "ana")
    assert str(paths.page) == "/run/tapestry-page/ana"
    assert "RuntimeDirectory=tapestry-page/ana" in page
    assert "StateDirectory" not in page
    assert "LoadCredential" not in page
    for blind in (trainer, page):
        assert "InaccessiblePaths=-/etc/tapestry/ana/key.pem" in blind
    assert "InaccessiblePaths=-/etc/tapestry" not in node
    users = [re.search(r"^User=(.*)$", text, re.MULTILINE) for text in (node, trainer, page)]
    assert len({found[1] for found in users if found}) == 1, "it may open both sockets"
    assert str(paths.key) == "/run/c/key.pem"
    assert "LoadCredential=key.pem:/etc/tapestry/ana/key.pem" in node
    assert find_paths({"TAPESTRY_SERVICE": "ana"}).key == Path("/etc/tapestry/ana/key.pem")
