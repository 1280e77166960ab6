"""`doctor`: each thing that can be wrong is named with what to do, and mended only where proven."""

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benches.torn import ENTRIES, NETWORK, RING, Author, lived
from tapestry_p2p.cli import doctor as verb
from tapestry_p2p.cli.main import main
from tapestry_p2p.daemon import machine
from tapestry_p2p.daemon.config import Budget, Config, Data, Listen
from tapestry_p2p.daemon.examine import NOTE, OK, PROBLEM, Finding, examine
from tapestry_p2p.daemon.files import seal
from tapestry_p2p.daemon.keyfile import make_key
from tapestry_p2p.daemon.manifest import (
    Genesis,
    Manifest,
    Network,
    Schema,
    Streams,
    Task,
    dump_manifest,
)
from tapestry_p2p.daemon.paths import find_paths
from tapestry_p2p.daemon.store import Store
from tapestry_p2p.daemon.upgrade import FORMAT
from tapestry_p2p.errors import TapestryError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def lived_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that a node has written for a while."""
    folder = tmp_path_factory.mktemp("doctor") / "store"
    lived(folder, ENTRIES)
    return folder


@pytest.fixture
def home(tmp_path: Path, lived_once: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stopped member with that store."""
    monkeypatch.setenv("TAPESTRY_HOME", str(tmp_path))
    manifest = Manifest(
        network=Network(name="test"), task=Task(name="digits"),
        schema=Schema(hash="ab" * 32, parameters=700), genesis=Genesis(seed=1, root="cd" * 32),
        streams=Streams(ring=RING, ttl=RING),
    )  # fmt: skip
    (tmp_path / "network.toml").write_text(dump_manifest(manifest))
    (tmp_path / "tapestry.toml").write_text('[listen]\naddresses = ["/ip4/127.0.0.1/tcp/0"]\n')
    paths = find_paths()
    paths.make()
    make_key(paths.key)
    shutil.copytree(lived_once, paths.state / "store")
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = main(["doctor", "--json", *words])
    return code, json.loads(capsys.readouterr().out)


def of(found: dict[str, Any], name: str) -> dict[str, Any]:
    rows = [row for row in found["findings"] if row["name"] == name]
    return next((row for row in rows if row["verdict"] != OK), rows[0])


def test_all_is_well_with_a_member_that_was_stopped(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = told(capsys)
    audit = of(found, "audit")
    assert audit["verdict"] == PROBLEM, "the store was made without an audit log"
    others = [r for r in found["findings"] if r["verdict"] == PROBLEM and r["name"] != "audit"]
    assert others == []
    assert code == 4
    looked = {row["name"] for row in found["findings"]}
    assert looked >= set(
        "python daemon files disk clock key cores data ports reachable isolation lock format own"
        " known copies log mark past audit leftovers replay".split()
    )
    assert all(row["next"] for row in found["findings"] if row["verdict"] == PROBLEM)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def both(folder: Path, name: str) -> None:
    for path in folder.glob(f"{name}.[01]"):
        flip(path)


def both_sectors(path: Path) -> None:
    path.write_bytes(bytes(len(path.read_bytes())))


DAMAGE: dict[str, tuple[Callable[[Path], object], str, str, bool]] = {
    # what is done -> finding, verdict, whether --repair mends it
    "a generation": (lambda s: flip(s / "own.1"), "own", PROBLEM, True),
    "both generations": (lambda s: both(s, "own"), "own", PROBLEM, False),
    "what is known": (lambda s: flip(s / "known.0"), "known", PROBLEM, True),
    "a copy": (lambda s: flip(next((s / "copies").glob("*"))), "copies", PROBLEM, True),
    "an earlier state": (lambda s: flip(next((s / "past").glob("*.past"))), "past", PROBLEM, True),
    "the log": (lambda s: flip(s / "own.log"), "log", PROBLEM, False),
    "the log's end": (
        lambda s: (s / "own.log").write_bytes((s / "own.log").read_bytes()[:-900]),
        "mark", PROBLEM, False,
    ),
    "the mark": (lambda s: both_sectors(s / "own.seq"), "mark", NOTE, False),
    "a draft": (lambda s: (s / "own.0.new").write_bytes(b"half"), "leftovers", NOTE, True),
    "a strange file": (lambda s: (s / "notes.txt").write_text("hm"), "leftovers", NOTE, False),
    "a newer format": (
        lambda s: (s / "format").write_bytes(seal(FORMAT + 1, b"")), "format", PROBLEM, False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", list(DAMAGE))
def test_damage_is_named_and_mended_only_where_it_is_proven(
    what: str, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "wall", lambda _status: Finding("isolation", OK, "quickly"))
    damage, name, verdict, mends = DAMAGE[what]
    store = home / "state" / "store"
    damage(store)
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    _, found = told(capsys)
    assert of(found, name)["verdict"] == verdict, found
    assert found["repaired"] == []
    _, found = told(capsys, "--repair")
    assert (of(found, name)["verdict"] == OK) == mends, found
    assert any(line.startswith(f"{name}:") for line in found["repaired"]) == mends
    if not mends:
        left = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
        assert left == before, "nothing was touched that cannot be proven wrong"


def test_after_a_repair_the_member_starts_from_what_is_whole(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = home / "state" / "store"
    flip(store / "own.1")
    (store / "own.0.new").write_bytes(b"half")
    told(capsys, "--repair")
    assert not (store / "own.1").exists()
    _, found = told(capsys)
    assert of(found, "replay")["verdict"] == OK


def test_an_older_store_is_looked_at_and_not_brought_up(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = home / "state" / "store"
    (store / "format").unlink()
    _, found = told(capsys)
    assert (of(found, "format")["verdict"], of(found, "format")["words"][:8]) == (NOTE, "format 1")
    assert not (store / "format").exists()


def test_a_forged_entry_and_a_gap_are_found(tmp_path: Path) -> None:
    author, store = Author(1), Store(tmp_path, RING)
    entries = [author.write() for _ in range(4)]
    for entry in (entries[0], entries[1], entries[3]):
        store.append_entry(entry)
    store.close()
    log = next(found for found in examine(tmp_path) if found.name == "log")
    assert (log.verdict, "after a gap" in log.words) == (PROBLEM, True)
    assert NETWORK


def test_a_running_member_is_looked_at_and_not_repaired(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status = {
        "state": "training", "fault": "", "sockets": 2, "peers": 3, "following": 3,
        "trainer": {"pid": 7, "last_failure": "the task raised an error"},
        "trainer_isolated": True, "isolation": "own network namespace (root)",
    }  # fmt: skip
    monkeypatch.setattr(verb, "_status", lambda _paths: status)
    holds = Store(home / "state" / "store", RING)
    _, found = told(capsys)
    holds.close()
    assert "direct: 2 of 3 connections were opened by others" in of(found, "reachable")["words"]
    assert "the task raised an error" in of(found, "daemon")["words"]
    status |= {"sockets": 0, "through_others": 2}
    words = of(told(capsys)[1], "reachable")["words"]
    assert words.startswith("dialled only")
    assert "2 members are read through others" in words
    assert main(["doctor", "--repair"]) == 1
    assert "stop it first" in capsys.readouterr().err


@pytest.mark.parametrize("manifest", ["as it was", "broken"])
def test_a_locked_store_is_not_repaired(manifest: str, home: Path) -> None:
    store = home / "state" / "store"
    holds = Store(store, RING)
    (store / "own.0.new").write_bytes(b"being written just now")
    if manifest == "broken":
        (home / "network.toml").write_text(manifest)
    assert main(["doctor", "--repair"]) == 75
    holds.close()
    assert (store / "own.0.new").exists()


def test_what_cannot_be_read_is_not_proven_wrong(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state, opened = home / "state" / "store" / "own.1", Path.open

    def refused(path: Path, *words: Any, **more: Any) -> Any:
        if path == state:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, *words, **more)

    monkeypatch.setattr(Path, "open", refused)
    assert main(["doctor", "--repair"]) == 1
    assert "Permission denied" in capsys.readouterr().err
    assert state.exists()


def test_nobody_can_start_while_it_mends(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "wall", lambda _status: Finding("isolation", OK, "quickly"))
    store = home / "state" / "store"
    (store / "own.0.new").write_bytes(b"half")
    mend, tried = verb._mend, list[str]()

    def mended(found: Finding) -> bool:
        with pytest.raises(TapestryError, match="another daemon"):
            Store(store, RING)
        tried.append(found.name)
        return mend(found)

    monkeypatch.setattr(verb, "_mend", mended)
    _, found = told(capsys, "--repair")
    assert "leftovers" in tried
    assert found["repaired"]
    Store(store, RING).close()


def test_a_newer_store_is_left_as_it_is(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = home / "state" / "store"
    (store / "format").write_bytes(seal(FORMAT + 1, b""))
    for path in (store / "past").iterdir():
        path.write_bytes(b"sealed in a way that only the newer version knows")
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    told(capsys, "--repair")
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


def test_a_machine_too_busy_to_tell_of_its_wall_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "ISOLATION_S", 0.001)
    assert machine.wall({}).verdict == NOTE


@pytest.mark.parametrize(
    ("finding", "verdict"),
    [
        (machine.reachability({"state": "training", "sockets": 0, "peers": 2}), NOTE),
        (machine.reachability({"state": "training", "sockets": 0, "peers": 0}), PROBLEM),
        (machine.state({"state": "degraded", "fault": "full"}), PROBLEM),
        (machine.cores(Config(budget=Budget(threads=1000))), NOTE),
        (machine.python(), OK),
        (machine.disk(Path("/nonexistent"), 10, 0), PROBLEM),
        (machine.disk(Path.cwd(), 1 << 40, 4), PROBLEM),
    ],
)
def test_what_the_machine_lacks_is_said(finding: Finding, verdict: str) -> None:
    assert finding.verdict == verdict
    assert bool(finding.next) == (verdict != OK)


def test_a_port_that_is_taken_and_data_that_is_missing_are_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = Listen(addresses=[f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"])
        (found,) = machine.ports(Config(listen=listen), {})
    assert found.verdict == PROBLEM
    manifest = Manifest(
        network=Network(name="test"), task=Task(name="language"),
        schema=Schema(hash="ab" * 32, parameters=7), genesis=Genesis(seed=1, root="cd" * 32),
    )  # fmt: skip
    text = tmp_path / "text.txt"
    text.write_text("some words")
    for paths, verdict in (([str(text)], OK), ([str(tmp_path / "none")], PROBLEM), ([], PROBLEM)):
        assert machine.data(Config(data=Data(paths=paths)), manifest).verdict == verdict


def test_it_loads_neither_jax_nor_libp2p(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom tapestry_p2p.cli.main import main\nmain(['doctor'])\n"
        "sys.exit(any(name in sys.modules for name in ('jax', 'libp2p')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "TAPESTRY_HOME": str(tmp_path)}, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "network.toml is missing" in done.stdout
