"""A member's mistakes: each is one line that says what to do, its own status, and no damage."""

import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from integration_kit import TINY, answered, environment, started, tapestry, until

from tapestry_p2p.daemon.files import Mark
from tapestry_p2p.errors import BAD_CONFIG, FAILURE, TEMPORARY

pytestmark = pytest.mark.integration

# What root may do in spite of a file's mode, CAP_DAC_OVERRIDE (1) and CAP_DAC_READ_SEARCH (2), goes
# by PR_CAPBSET_DROP (24): refused to who has none to give up.
READING_GIVEN_UP = "import ctypes; [ctypes.CDLL(None).prctl(24, cap, 0, 0, 0) for cap in (1, 2)]"
AT_ONCE_S = 10.0  # what needs no trainer is told without one


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A member that has trained a little and ended well."""
    home = tmp_path_factory.mktemp("made") / "home"
    options = [word for key, value in TINY.items() for word in ("--task-option", f"{key}={value}")]
    assert tapestry(home, "init", "--name", "One", *options).returncode == 0
    with started(home.parent / "log", "run", **environment(home)) as process:
        until(lambda: answered(home, "status").get("round", 0) > 2, "a few rounds")
        process.terminate()
        assert process.wait(20) == 0
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "home"))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, (old, text)
    path.write_text(text.replace(old, new, 1))


def without_section(path: Path, section: str) -> str:
    """The text of a TOML file without one of its sections."""
    blocks = path.read_text().split("\n[")
    return "\n[".join(block for block in blocks if not block.startswith(section + "]"))


def put(path: Path, section: str, text: str) -> None:
    path.write_text(without_section(path, section) + f"\n[{section}]\n{text}\n")


def write(path: Path, text: str) -> None:
    path.write_text(text)


Damage = Callable[[Path], None]


def key_is_a_folder(home: Path) -> None:
    (home / "state" / "key.pem").unlink()
    (home / "state" / "key.pem").mkdir()


def store_is_a_file(home: Path) -> None:
    shutil.rmtree(home / "state" / "store")
    (home / "state" / "store").write_text("a file")


def member(section: str, text: str) -> Damage:
    """That section of tapestry.toml becomes ``text``."""
    return lambda home: put(home / "tapestry.toml", section, text)


# what, how, exit status, words of the line
MISTAKES: dict[str, tuple[Damage, int, str]] = {
    "unknown manifest key": (
        lambda home: edit(home / "network.toml", "[mixing]", "[mixing]\nspeed = 3"),
        BAD_CONFIG,
        "mixing",
    ),
    "manifest that is no TOML": (
        lambda home: write(home / "network.toml", "[network\n"),
        BAD_CONFIG,
        "network.toml",
    ),
    "manifest missing": (lambda home: (home / "network.toml").unlink(), BAD_CONFIG, "network.toml"),
    "impossible f": (
        lambda home: put(home / "network.toml", "mixing", "f = 6"),
        BAD_CONFIG,
        "19 > 17",
    ),
    "another network": (
        lambda home: edit(home / "network.toml", "width = 16", "width = 20"),
        BAD_CONFIG,
        "put the old one back",
    ),
    "unknown config key": (member("budget", "cores = 2"), BAD_CONFIG, "budget"),
    "config value out of bounds": (member("budget", "threads = -1"), BAD_CONFIG, "threads"),
    "address that is none": (
        member("listen", 'addresses = ["0.0.0.0:4001"]'),
        BAD_CONFIG,
        "0.0.0.0:4001",
    ),
    "peer that is nobody": (
        member("bootstrap", 'peers = ["/ip4/127.0.0.1/tcp/1/p2p/xyz"]'),
        BAD_CONFIG,
        "xyz",
    ),
    "unknown attack": (member("testing", 'attack = "nice"'), BAD_CONFIG, "nice"),
    "data missing": (member("data", 'paths = ["no such file"]'), BAD_CONFIG, "no such file"),
    "no data named": (member("data", "paths = []"), BAD_CONFIG, "data.paths"),
    "key that is none": (
        lambda home: write(home / "state" / "key.pem", "secret"),
        BAD_CONFIG,
        "key.pem",
    ),
    "key open to others": (
        lambda home: (home / "state" / "key.pem").chmod(0o644),
        BAD_CONFIG,
        "key.pem",
    ),
    "key missing": (lambda home: (home / "state" / "key.pem").unlink(), BAD_CONFIG, "key.pem"),
    "key that is a folder": (key_is_a_folder, BAD_CONFIG, "key.pem"),
    "store that cannot be": (store_is_a_file, TEMPORARY, "state directory"),
}


def too_little_data(home: Path) -> None:
    write(home / "small.txt", "few words")
    put(home / "tapestry.toml", "data", 'paths = ["small.txt"]')


def data_is_a_folder(home: Path) -> None:
    (home / "folder").mkdir()
    put(home / "tapestry.toml", "data", 'paths = ["folder"]')


def another_schema(home: Path) -> None:
    """Before anything was signed: its task has other options than the network's schema tells of."""
    shutil.rmtree(home / "state" / "store")
    edit(home / "network.toml", "width = 16", "width = 20")


# the same, but it takes a trainer to find out
DEEPER: dict[str, tuple[Damage, int, str]] = {
    "data smaller than a batch": (too_little_data, BAD_CONFIG, "smaller than one batch"),
    "data that cannot be read": (data_is_a_folder, BAD_CONFIG, "data"),
    "another schema": (another_schema, BAD_CONFIG, "schema"),
}


def contents(home: Path) -> dict[str, bytes]:
    """Every file that a member must not lose."""
    return {
        str(path.relative_to(home)): path.read_bytes()
        for path in home.rglob("*")
        if path.is_file() and path.name not in ("lock", "trainer.log") and "cache" not in path.parts
    }


def fails(home: Path, status: int, words: str) -> list[str]:
    """Run the member; the lines it said, of which the last is the reason. Nothing is lost."""
    before = contents(home)
    before_seq = Mark(home / "state" / "store" / "own.seq").load()
    done = tapestry(home, "run")
    lines = done.stderr.strip().splitlines()
    assert done.returncode == status, done.stderr
    assert lines[-1].startswith("tapestry: ")
    assert words in lines[-1]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    after = contents(home)
    for name, data in before.items():
        if name.endswith("own.seq"):  # two sectors written in turn: at least as far as before
            assert Mark(home / name).load() >= before_seq
            continue
        assert after[name].startswith(data), name  # logs of what we signed may have grown
        assert len(after[name]) == len(data) or name.endswith(("own.log", ".jsonl")), name
    return lines


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_a_mistake_is_one_line_at_once(mistake: str, home: Path) -> None:
    damage, status, words = MISTAKES[mistake]
    damage(home)
    began = time.monotonic()
    assert len(fails(home, status, words)) == 1
    assert time.monotonic() - began < AT_ONCE_S


@pytest.mark.parametrize("mistake", list(DEEPER))
def test_a_mistake_that_the_trainer_finds_is_one_line(mistake: str, home: Path) -> None:
    damage, status, words = DEEPER[mistake]
    damage(home)
    lines = fails(home, status, words)
    assert sum(line.startswith("tapestry: ") for line in lines) == 1


def test_a_port_that_is_taken(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        address = f"/ip4/0.0.0.0/tcp/{taken.getsockname()[1]}"
        put(home / "tapestry.toml", "listen", f'addresses = ["{address}"]')
        assert address in fails(home, FAILURE, "choose another port")[-1]


def test_a_second_daemon_on_one_state_directory(home: Path) -> None:
    with started(home.parent / "log", "run", **environment(home)) as first:
        until(lambda: answered(home, "status"), "an answer")
        done = tapestry(home, "run")
        assert done.returncode == TEMPORARY
        assert done.stderr.startswith("tapestry: another daemon already runs")
        assert done.stderr.count("\n") == 1
        assert answered(home, "status"), "the first one lost its socket"
        first.terminate()
        assert first.wait(20) == 0


def test_a_key_that_may_not_be_read(home: Path) -> None:
    key = home / "state" / "key.pem"
    key.chmod(0)
    try:
        done = tapestry(home, "run", first=READING_GIVEN_UP)
    finally:
        key.chmod(0o600)
    assert done.returncode == BAD_CONFIG, done.stderr
    assert done.stderr.startswith("tapestry: ")
    assert "key.pem cannot be read" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_copy_of_the_home_goes_on_where_it_was(home: Path) -> None:
    with started(home.parent / "log", "run", **environment(home)) as process:
        until(lambda: answered(home, "status").get("round", 0) > 4, "further rounds")
        process.terminate()
        assert process.wait(20) == 0
