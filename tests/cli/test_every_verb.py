"""Every verb: help with an example and every exit status, valid JSON, statuses that are tested.

One table for all of them. A verb without a row fails, so a new one cannot be forgotten.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from export_kit import World
from played_kit import played
from schema_kit import SCHEMAS, hold, stopped_member

from tapestry_p2p.cli import main as cli
from tapestry_p2p.daemon.config import Config, dump_config
from tapestry_p2p.daemon.departure import Departure, note
from tapestry_p2p.daemon.paths import Paths, find_paths
from tapestry_p2p.daemon.retirement import write_retirement
from tapestry_p2p.daemon.store import take_lock
from tapestry_p2p.gossip.identity import Identity

ROOT = Path(__file__).parents[2]
USUAL = {0, 1, 2, 3, 78}  # what they mean is said once, in errors.py and the manual pages

# verb -> (where it is, words, exit status). Where: nothing, member (stopped), running (played),
# locked (another process has the store), left, folder (with an exported model)
ROWS: dict[str, list[tuple[str, str, int]]] = {
    "demo": [("nothing", "--out /proc/nowhere", 1)],
    "testnet": [("nothing", "--members 1 --out OUT", 2)],
    "simulate": [
        ("nothing", "--members 4 --rounds 3", 0),
        ("nothing", "--task average --members 6 --rounds 3 --topology ring", 0),
        ("nothing", "--task nonsense", 2),
    ],
    "init": [("member", "", 6), ("nothing", "--data /nowhere", 78)],
    "join": [("nothing", "tapestry:nonsense", 2), ("member", "MANIFEST", 6)],
    "config": [("nothing", "", 0)],
    "config check": [("member", "", 0), ("nothing", "", 78)],
    "config show": [("member", "", 0), ("nothing", "", 78)],
    "config example": [("nothing", "", 0)],
    "data": [("nothing", "", 0)],
    "data list": [("nothing", "", 0)],
    "data udhr": [("nothing", "--out OUT", 0), ("nothing", "--out /proc/nowhere", 1)],
    "data debian": [("nothing", "--languages de", 2)],
    "data fashion": [("nothing", "", 2)],
    "new": [("nothing", "OUT", 0), ("nothing", "/proc/nowhere", 1)],
    "leave": [("running", "", 0), ("nothing", "", 78), ("locked", "", 75)],
    "retire": [("running", "END", 0), ("nothing", "END", 3), ("nothing", "/nowhere", 78)],
    "networks": [("member", "", 0)],
    "id": [("member", "", 0), ("nothing", "", 78)],
    "paths": [("nothing", "", 0)],
    "run": [("nothing", "", 78), ("left", "", 6)],
    "status": [("running", "", 0), ("nothing", "", 3), ("asking", "", 4)],
    "peers": [("running", "", 0), ("nothing", "", 3)],
    "page": [("nothing", "--port 80", 2)],
    "invite": [("running", "", 0), ("nothing", "", 3)],
    "generate": [("running", "a", 0), ("nothing", "a", 3), ("folder", "a --model nowhere", 78)],
    "eval": [("running", "", 0), ("nothing", "", 3)],
    "export": [("nothing", "OUT", 78), ("member", "OUT", 3), ("member", ".", 1)],
    "pause": [("running", "", 0), ("nothing", "", 3)],
    "resume": [("running", "", 0), ("nothing", "", 3)],
    "stop": [("running", "", 0), ("nothing", "", 3)],
    "rollback": [("member", "", 0), ("member", "--rounds 99999", 6)],
    "audit": [("member", "", 0), ("spoilt", "--verify", 1)],
    "log": [("nothing", "", 4)],
    "metrics": [("running", "", 0), ("nothing", "", 3)],
    "bugreport": [("member", "--output OUT.zip", 0), ("member", "--output /proc/nowhere.zip", 1)],
    "doctor": [("nothing", "", 4), ("locked", "--repair", 75)],
    "service": [("nothing", "", 0)],
    "service print": [("nothing", "", 0)],
    "service install": [("nothing", "ana --root OUT", 0), ("nothing", "", 2)],
    "verify": [("folder", "FOLDER", 0), ("nothing", "nowhere", 1)],
    "import": [("folder", "FOLDER", 0), ("nothing", "nowhere", 1)],
    "completions": [("nothing", "bash", 0), ("nothing", "tcsh", 2)],
    "man": [("nothing", "--out OUT", 0), ("nothing", "--out /proc/nowhere", 1)],
    "version": [("nothing", "", 0)],
}
ELSEWHERE = {  # status 0 takes a network, or minutes: where a test sees it
    "demo": "tests/integration/test_demo.py",
    "testnet": "tests/cli/test_testnet_plan.py",
    "init": "tests/cli/test_newcomers.py",
    "join": "tests/cli/test_newcomers.py",
    "data debian": "tests/cli/test_data.py",
    "data fashion": "tests/cli/test_data.py",
    "run": "tests/cli/test_by_hand.py",
    "page": "tests/page/test_page_process.py",
    "export": "tests/cli/test_taken_away.py",
    "log": "tests/cli/test_taken_away.py",
    "doctor": "tests/cli/test_doctor.py",
}
SPOKEN = [(verb, *row) for verb, rows in ROWS.items() for row in rows]


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """Every verb's help, subverbs too, as the parser writes it."""
    parts = re.split(
        r"^###? tapestry (.+)$",
        cli.make_app(in_full=None).generate_docs(),
        flags=re.MULTILINE,
    )[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_an_own_option_network_is_left_to_its_verb(helps: dict[str, str]) -> None:
    """`main` takes --network from all other verbs: theirs would never be heard."""
    own = {verb for verb, text in helps.items() if re.search(r"^\* `.*--network\b", text, re.M)}
    assert own == set(cli.OWN_NETWORK)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture
def put(
    world: World, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """The words that stand for files, and an empty folder to be in."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "thing").touch()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("TAPESTRY_BUDGET__THREADS", "1")
    end = tmp_path / "end.txt"
    write_retirement(end, bytes(32), Identity(bytes(32)))
    return {
        "OUT": str(tmp_path / "out"),
        "FOLDER": str(tmp_path / "roses"),
        "END": str(end),
        "MANIFEST": str(home / "network.toml"),
    }


def _member(where: str) -> Paths:
    paths = stopped_member(dump_config(Config()))
    store = paths.state / "store"
    if where == "spoilt":
        (path,) = store.glob("audit-*.jsonl")
        path.write_bytes(path.read_bytes().replace(b'"seq":3', b'"seq":4'))
    if where == "left":
        note(store, Departure("ab" * 32, "test", 3, 1))
    return paths


def _said(where: str, words: list[str], world: World, put: dict[str, str], json: bool) -> int:
    given = [put.get(word.removesuffix(".zip"), word) for word in words]
    given = [p + ".zip" if w.endswith("OUT.zip") else p for w, p in zip(words, given, strict=True)]
    line = [*given, *(["--json"] if json else [])]
    if where == "folder":
        world.export(Path(put["FOLDER"]))
    if where in ("nothing", "folder"):
        return cli.main(line)
    paths = _member(where)
    if where in ("running", "asking"):
        with played(paths.control_socket, paths.text_socket, state=_STATE[where]):
            return cli.main(line)
    if where == "locked":
        lock = take_lock(paths.state / "store")
        try:
            return cli.main(line)
        finally:
            os.close(lock)
    return cli.main(line)


_STATE = {"running": "training", "asking": "asking peers what they know of us"}


def test_every_verb_is_in_the_table(helps: dict[str, str]) -> None:
    assert set(ROWS) == set(helps)
    for verb, rows in ROWS.items():
        codes = {code for _, _, code in rows}
        seen = 0 in codes or verb in ELSEWHERE
        assert seen, f"{verb}: where does it end well?"
    for verb, place in ELSEWHERE.items():
        assert verb.split()[-1] in (ROOT / place).read_text(), f"{verb} in {place}"


@pytest.mark.parametrize("verb", ROWS)
def test_help_has_an_example_and_words_for_every_option(verb: str, helps: dict[str, str]) -> None:
    text = helps[verb]
    assert re.search(rf"Example: (sudo )?tapestry {verb}\b", text), "an example"
    options = re.findall(r"^\* `(?:[A-Z_-]+, )?(--[a-z-]+)[^:]*: *(.*)$", text, re.MULTILINE)
    assert all(what.strip() for _, what in options), options
    unusual = {code for _, _, code in ROWS[verb]} - USUAL
    for code in unusual:
        assert re.search(rf"[Ee]xit status.*\b{code}\b", text, re.DOTALL), f"{code} is not said"


@pytest.mark.parametrize("verb", [verb for verb in ROWS if verb not in ("config", "data")])
def test_an_unknown_option_is_wrong_usage(
    verb: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*verb.split(), "--nonsense"]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(("verb", "where", "words", "code"), SPOKEN)
def test_the_exit_status_says_what_happened(
    verb: str,
    where: str,
    words: str,
    code: int,
    world: World,
    put: dict[str, str],
    helps: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    json = "--json" in helps[verb]
    found = _said(where, [*verb.split(), *words.split()], world, put, json)
    captured = capsys.readouterr()
    assert found == code, captured
    if captured.out and json:
        hold(verb.replace(" ", "-"), captured.out)
    assert captured.out or code or verb in ("pause", "resume", "stop"), "it says nothing"
    if code not in (0, 4) and not captured.out:
        last = captured.err.splitlines()[-1]
        assert last.startswith("tapestry: ")
        assert len(last) < 400


@pytest.mark.parametrize("verb", ROWS)
def test_json_has_a_schema(verb: str, helps: dict[str, str]) -> None:
    path = SCHEMAS / f"{verb.replace(' ', '-')}.json"
    assert path.exists() == ("--json" in helps[verb])


# ---- how soon -----------------------------------------------------------------------------------

STATUS_S, OURS_CPU_S = 0.5, 0.15
IDLE_S = 0.06  # in which an interpreter starts; where it takes longer the machine has other work
RUNS = 5


def _took(words: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of a process, the least of some runs."""
    wall, cpu = [], []
    for _ in range(RUNS):
        began, spent = time.perf_counter(), sum(os.times()[2:4])
        done = subprocess.run([sys.executable, *words], capture_output=True, check=False)
        wall.append(time.perf_counter() - began)
        cpu.append(sum(os.times()[2:4]) - spent)
        assert done.returncode == 0, done.stderr
    return min(wall), min(cpu)


@pytest.mark.parametrize("words", ["status", "status --json", "peers --json"])
def test_a_script_that_polls_is_answered_at_once(words: str, home: Path) -> None:
    """Half a second at most, and little more work than an interpreter that does nothing."""
    paths = find_paths()
    with played(paths.control_socket):
        bare, bare_cpu = _took(["-c", "pass"])
        wall, cpu = _took(["-m", "tapestry_p2p", *words.split()])
    assert cpu < STATUS_S
    assert cpu - bare_cpu < OURS_CPU_S
    assert wall < STATUS_S * max(1.0, bare / IDLE_S)
