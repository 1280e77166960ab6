"""A bug report holds what helps, and no byte of a key, of the data, or of where things lie."""

import base64
import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tapestry_p2p.cli import bugreport
from tapestry_p2p.cli import main as cli
from tapestry_p2p.daemon.copies import copy_root
from tapestry_p2p.daemon.keyfile import load_key, make_key
from tapestry_p2p.daemon.logs import FILE_NAME
from tapestry_p2p.daemon.manifest import Genesis, Manifest, Network, Schema, Task, dump_manifest
from tapestry_p2p.daemon.paths import Paths, find_paths
from tapestry_p2p.errors import FAILURE, OK
from tapestry_p2p.mix.copy import PublicCopy

CANARY = "Qx7vRt2LmZ9pWc4K"  # in names and contents of what must not be told
PEER_HOST = "203.0.113.77"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A member that ran, with secrets wherever one may hold any."""
    user = tmp_path / "users" / "anastasia"
    monkeypatch.setenv("HOME", str(user))
    monkeypatch.setenv("TAPESTRY_HOME", str(user / "member"))
    paths = find_paths()
    paths.make()
    make_key(paths.key)
    genesis = np.zeros(8, np.float32)
    manifest = Manifest(
        network=Network(name="test"),
        task=Task(name="language"),
        schema=Schema(hash="ab" * 32, parameters=8),
        genesis=Genesis(seed=1, root=copy_root(PublicCopy(genesis)).hex()),
    )
    paths.manifest.write_text(dump_manifest(manifest))
    data = user / f"diary-{CANARY}"
    data.mkdir()
    (data / "a.txt").write_text(f"my secret is {CANARY}\n" * 100)
    elsewhere = tmp_path / f"elsewhere-{CANARY}.txt"
    elsewhere.write_text(CANARY)
    paths.member.write_text(
        f'[data]\npaths = ["{data}", "{elsewhere}"]\n[budget]\nthreads = 3\n'
        f'[listen]\nannounce = ["/dns/{CANARY}.example/tcp/1"]\n[log]\nlevel = "debug"\n'
    )
    paths.log.mkdir()
    rows = [
        {"at": "t", "level": "info", "logger": "tapestry.node", "message": message}
        for message in (
            f"connected to 12D3KooW at /ip4/{PEER_HOST}/tcp/4001",
            f"dial /dns4/{CANARY}.example/tcp/1: refused by {PEER_HOST}",
            f"cannot write to {paths.state}/store: no space",
            "connected to 12D3KooW at /ip4/127.0.0.1/tcp/4001",
        )
    ]
    (paths.log / FILE_NAME).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (paths.trainer / "trainer.log").write_text(f"ValueError: cannot read {CANARY}")
    (paths.trainer / f"cursor-{CANARY}").write_text(CANARY)
    return paths


def parts_of(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def answer(_: Path, request: dict[str, Any], *__: Any) -> dict[str, Any]:
    """What a running member would answer."""
    if request["do"] == "metrics":
        return {"text": "tapestry_rounds_total 7\n"}
    return {"state": "training", "trainer": {"last_failure": ""}, "following": 0, "peers": 1}


@pytest.mark.parametrize("runs", [True, False])
def test_no_secret_is_in_it(
    home: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: bool
) -> None:
    if runs:
        monkeypatch.setattr(bugreport, "ask", answer)
    target = tmp_path / "report.zip"
    assert cli.main(["bugreport", "--output", str(target)]) == OK
    parts = parts_of(target)
    whole = "\n".join([*parts, *parts.values()])
    seed = load_key(home.key)
    pem = home.key.read_text().splitlines()[1]
    for secret in (
        CANARY, PEER_HOST, "anastasia", str(tmp_path), seed.hex(), pem,
        base64.b64encode(seed).decode(), seed.decode("latin-1"),
    ):  # fmt: skip
        assert secret not in whole, secret
        assert secret.encode() not in target.read_bytes()


def test_what_helps_is_in_it(
    home: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bugreport, "ask", answer)
    target = tmp_path / "report.zip"
    assert cli.main(["bugreport", "--output", str(target), "--json"]) == OK
    said = capsys.readouterr()
    assert json.loads(said.out) == {"path": str(target), "parts": list(parts_of(target))}
    assert "look into it" in said.err
    parts = parts_of(target)
    assert "tapestry 0." in parts["about.txt"]
    assert "numpy" in parts["about.txt"]
    assert "budget.threads = 3 (tapestry.toml)" in parts["config.txt"]
    assert "data.paths is set, not shown" in parts["config.txt"]
    assert "network id " in parts["network.txt"]
    assert json.loads(parts["status.json"])["state"] == "training"
    assert "tapestry_rounds_total 7" in parts["metrics.txt"]
    assert "ok       key" in parts["doctor.txt"]
    assert "key.pem" in parts["files.txt"]
    assert parts["log.txt"].splitlines() == [
        "t INFO tapestry.node: connected to 12D3KooW at /ip4/(hidden)/tcp/4001",
        "t INFO tapestry.node: dial /dns4/(hidden)/tcp/1: refused by (hidden)",
        "t INFO tapestry.node: cannot write to $STATE/store: no space",
        "t INFO tapestry.node: connected to 12D3KooW at /ip4/127.0.0.1/tcp/4001",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "dial /dns4/ana.example/tcp/1: all attempts to connect to ana.example:1 failed",
            "dial /dns4/(hidden)/tcp/1: all attempts to connect to (hidden) failed",
        ),
        ("refused by [2001:db8::7]:4001", "refused by [(hidden)]:4001"),
        ("::ffff:203.0.113.7 and fe80::1", "::ffff:(hidden) and (hidden)"),
        ("at 12:30:01 on ::1, or [::]", "at 12:30:01 on ::1, or [::]"),
        ("data /d/to Ana.txt cannot be read: no", "data $DATA cannot be read: no"),
        ("/d holds no file", "$DATA holds no file"),
        ("tapestry.toml: x: 'ana.example' is none", "tapestry.toml: x: '(hidden)' is none"),
        ("$TAPESTRY_X__Y: '[\"/ana' is no TOML", "$TAPESTRY_X__Y: '(hidden)' is no TOML"),
        ("budget.upload = '1 MB/s' ($TAPESTRY_X__Y)", "budget.upload = '1 MB/s' ($TAPESTRY_X__Y)"),
    ],
)  # fmt: skip
def test_what_is_hidden_in_a_line(home: Paths, text: str, shown: str) -> None:
    assert bugreport.hide(text, home, ["/d"]) == shown


def test_a_name_that_is_not_ascii_is_hidden_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    user = tmp_path / "jürgen"
    monkeypatch.setenv("HOME", str(user))
    monkeypatch.setenv("TAPESTRY_HOME", str(user / "member"))
    fault = f"cannot write to {user}/member/state/store: no space"
    monkeypatch.setattr(bugreport, "ask", lambda *_: {"fault": fault, "text": ""})
    status = bugreport.collect(find_paths())["status.json"]
    assert json.loads(status)["fault"] == "cannot write to $STATE/store: no space"
    assert "rgen" not in status


def test_a_part_that_breaks_costs_itself_alone(
    home: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hangs(_: Paths) -> str:
        raise subprocess.TimeoutExpired("python", 20.0)

    monkeypatch.setattr(bugreport, "_doctor", hangs)
    parts = bugreport.collect(home)
    assert parts["doctor.txt"] == "not to be had: TimeoutExpired\n"
    assert "key.pem" in parts["files.txt"]


def test_a_part_that_cannot_be_had_says_why(home: Paths) -> None:
    home.member.write_text("[nonsense]\n")
    home.manifest.unlink()
    parts = bugreport.collect(home)
    assert "no daemon answers" in parts["status.json"]
    assert parts["config.txt"].startswith("not to be had: tapestry.toml: [nonsense]")
    assert parts["network.txt"].startswith("not to be had: $CONFIG/network.toml is missing")


def test_no_file_is_overwritten(
    home: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "report.zip"
    target.write_text("mine")
    assert cli.main(["bugreport", "--output", str(target)]) == FAILURE
    assert "cannot be written: File exists" in capsys.readouterr().err
    assert target.read_text() == "mine"
