"""The launcher ./tapestry, in a folder of its own, with an installer that only pretends.

Real shell, real Python and real venvs; no package is fetched.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("sh", "cat", "cksum", "dirname", "readlink", "uname", "mkdir", "rm", "sleep", "env", "mv")
FAKE_UV = """#!/bin/sh
echo "uv $*" >>"$FAKE_LOG"
case $1 in
    --version) exit 0 ;;
    venv) for last in "$@"; do :; done; exec "$FAKE_PYTHON" -m venv --without-pip "$last" ;;
    pip) [ -z "${FAKE_SLOW:-}" ] || sleep "$FAKE_SLOW"; exit "${FAKE_STATUS:-0}" ;;
esac
"""
FAKE_MAIN = """import os, sys
print("ran", sys.argv[1:], os.environ["PYTHONSAFEPATH"])
"""


class Machine:
    """A copy of the launcher and a PATH that holds what we put there."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a project"
        self.bin = folder / "bin"
        self.log = folder / "log"
        self.home = folder / "home"
        for name in ("requirements.txt", "requirements-build.txt", "requirements-uv.txt"):
            (self.root / name).parent.mkdir(exist_ok=True)
            (self.root / name).write_text(f"# {name}\n")
        shutil.copy(ROOT / "tapestry", self.root / "tapestry")
        package = self.root / "tapestry_p2p" / "cli"
        package.mkdir(parents=True)
        (package / "main.py").write_text(FAKE_MAIN)
        self.bin.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool) or "/bin/false")

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def with_python(self, name: str = "python3") -> None:
        self.program(name, f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')

    def with_uv(self) -> None:
        self.program("uv", FAKE_UV)

    def start(self, *words: str, at: str = "", **environ: str) -> "subprocess.Popen[str]":
        command = [at or str(self.root / "tapestry"), *words]
        surroundings = {
            "PATH": str(self.bin),
            "HOME": str(self.home),
            "FAKE_LOG": str(self.log),
            "FAKE_PYTHON": sys.executable,
            **environ,
        }
        return subprocess.Popen(
            command,
            env=surroundings,
            cwd="/",
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def run(self, *words: str, at: str = "", **environ: str) -> "subprocess.CompletedProcess[str]":
        process = self.start(*words, at=at, **environ)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def set_ups(self) -> int:
        return self.log.read_text().count("uv venv") if self.log.exists() else 0


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def ready(machine: Machine) -> Machine:
    machine.with_python()
    machine.with_uv()
    assert machine.run("first").returncode == 0
    return machine


def test_the_first_run_sets_up_and_the_second_does_not(machine: Machine) -> None:
    machine.with_python()
    machine.with_uv()
    first = machine.run("status", "--json", "two words")
    assert first.stdout == "ran ['status', '--json', 'two words'] 1\n"
    assert "setting up" in first.stderr
    second = machine.run("status")
    assert (second.returncode, second.stdout, second.stderr) == (0, "ran ['status'] 1\n", "")
    assert machine.set_ups() == 1


def test_pins_are_installed_by_hash_from_wheels_without_their_own_dependencies(
    ready: Machine,
) -> None:
    installs = [line for line in ready.log.read_text().splitlines() if " pip install " in line]
    assert [line.split()[-1] for line in installs] == ["requirements-build.txt", "requirements.txt"]
    for line in installs:
        assert "--no-deps --require-hashes" in line
    assert "--only-binary :all:" in installs[1]


def test_a_ready_project_starts_at_once(ready: Machine) -> None:
    began = time.monotonic()
    ready.run("version")
    assert time.monotonic() - began < 1


def test_it_runs_through_links_and_from_anywhere(ready: Machine, tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to(ready.root / "tapestry")
    (tmp_path / "two").symlink_to("one")
    assert ready.run("x", at=str(tmp_path / "two")).stdout == "ran ['x'] 1\n"
    assert ready.set_ups() == 1


def test_changed_pins_are_installed(ready: Machine) -> None:
    (ready.root / "requirements.txt").write_text("# other\n")
    assert ready.run("x").returncode == 0
    assert ready.set_ups() == 2


def test_a_moved_project_is_set_up_again(ready: Machine, tmp_path: Path) -> None:
    ready.root = ready.root.rename(tmp_path / "moved")
    assert ready.run("x").stdout == "ran ['x'] 1\n"
    assert ready.set_ups() == 2


def test_a_python_that_went_away_is_replaced(ready: Machine) -> None:
    python = ready.root / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/gone/python3")
    assert ready.run("x").stdout == "ran ['x'] 1\n"


def test_another_python_that_is_asked_for_is_taken(ready: Machine) -> None:
    assert ready.run("x", TAPESTRY_PYTHON=sys.executable).returncode == 0
    assert ready.set_ups() == 2
    assert ready.run("x").returncode == 0  # and kept afterwards
    assert ready.set_ups() == 2


def test_two_at_once_set_up_once(machine: Machine) -> None:
    machine.with_python()
    machine.with_uv()
    pair = [machine.start(name, FAKE_SLOW="0.5") for name in ("one", "two")]
    results = [process.communicate(timeout=60) for process in pair]
    assert [process.returncode for process in pair] == [0, 0]
    assert sorted(out for out, _ in results) == ["ran ['one'] 1\n", "ran ['two'] 1\n"]
    assert "another set-up of this folder is under way" in results[0][1] + results[1][1]
    assert machine.set_ups() == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_set_up_that_is_broken_off_is_done_anew(machine: Machine, number: int) -> None:
    machine.with_python()
    machine.with_uv()
    process = machine.start("one", FAKE_SLOW="30")
    deadline = time.monotonic() + 20
    while not machine.log.exists() or "pip install" not in machine.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, number)
    process.communicate(timeout=20)
    assert process.returncode != 0
    assert machine.run("x").stdout == "ran ['x'] 1\n"
    assert machine.set_ups() == 2


def test_a_failed_installation_says_what_to_do(machine: Machine) -> None:
    machine.program(
        "python3", f'#!/bin/sh\n[ "$2" != venv ] || exit 1\nexec {sys.executable} "$@"\n'
    )
    machine.with_uv()
    failed = machine.run("x", FAKE_STATUS="1")
    assert failed.returncode == 1
    assert "check the network" in failed.stderr
    assert failed.stdout == ""
    machine.with_python()
    assert machine.run("x").returncode == 0


def test_behind_a_proxy_uv_is_tried_with_the_systems_certificates(machine: Machine) -> None:
    machine.with_python()
    trusts = 'pip) [ -n "${UV_SYSTEM_CERTS:-}" ] || exit 1'
    machine.program("uv", FAKE_UV.replace("pip) ", f"{trusts}; "))
    done = machine.run("x")
    assert done.returncode == 0, done.stderr
    assert "trying again with this system's certificates" in done.stderr
    assert machine.set_ups() == 2


def test_without_python_it_says_what_to_install(machine: Machine) -> None:
    failed = machine.run("x")
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1
    assert "Python 3.11, 3.12 or 3.13 is needed" in failed.stderr


def test_an_old_python_is_passed_over(machine: Machine) -> None:
    machine.program("python3", "#!/bin/sh\nexit 1\n")
    machine.with_python("python3.11")
    machine.with_uv()
    assert machine.run("x").returncode == 0


def test_a_python_without_venv_says_what_to_install(machine: Machine) -> None:
    machine.program(
        "python3",
        f'#!/bin/sh\ncase $2 in *ensurepip*) exit 1 ;; esac\nexec {sys.executable} "$@"\n',
    )
    failed = machine.run("x")
    assert failed.returncode == 1
    assert "apt install python3-venv" in failed.stderr
    machine.with_uv()  # which needs none
    assert machine.run("x").returncode == 0


@pytest.mark.parametrize("name", ["/gone/python", "false"])
def test_a_wrong_choice_of_python_is_named(machine: Machine, name: str) -> None:
    failed = machine.run("x", TAPESTRY_PYTHON=name)
    assert failed.returncode == 1
    assert f"TAPESTRY_PYTHON={name} is no Python" in failed.stderr


def test_a_home_that_cannot_be_written_is_left_alone(machine: Machine) -> None:
    machine.with_python()
    machine.program("uv", FAKE_UV.replace('"uv $*"', '"uv $* cache=$UV_CACHE_DIR"'))
    machine.home.write_text("no folder")
    assert machine.run("x").returncode == 0
    assert f"cache={machine.root / '.uv' / 'cache'}" in machine.log.read_text()
    assert machine.home.read_text() == "no folder"


def test_the_tests_are_run_in_order_and_stop_at_the_first_failure(ready: Machine) -> None:
    for name, status in (("ruff", 0), ("mypy", 3), ("pytest", 0)):
        site = next((ready.root / ".venv" / "lib").glob("python*")) / "site-packages"
        (site / f"{name}.py").write_text(
            f"import sys; print('{name}', *sys.argv[1:]); sys.exit({status})"
        )
    done = ready.run("test", "-k", "some thing")
    assert done.stdout.splitlines() == ["ruff format --check .", "ruff check .", "mypy"]
    assert done.returncode == 3
    (site / "mypy.py").write_text("print('mypy')")
    done = ready.run("test", "-k", "some thing")
    assert done.stdout.splitlines()[-1] == "pytest -m not integration -k some thing"
    assert done.returncode == 0


def test_it_is_a_posix_script() -> None:
    dash = shutil.which("dash") or shutil.which("sh")
    assert dash is not None
    subprocess.run([dash, "-n", str(ROOT / "tapestry")], check=True)
    subprocess.run([dash, "-n", str(ROOT / ".ci" / "run")], check=True)


def test_the_pins_name_no_address_and_every_one_has_a_hash() -> None:
    for name in ("requirements.txt", "requirements-build.txt", "requirements-uv.txt"):
        text = (ROOT / name).read_text()
        assert "://" not in text
        pins = [line for line in text.splitlines() if line and line[0] not in " #"]
        assert pins
        for pin in pins:
            assert "==" in pin
            assert pin.endswith("\\")
