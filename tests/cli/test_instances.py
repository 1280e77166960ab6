"""Several networks in one home: which one a verb means, names that are none, ports, completion."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from played_kit import PEER_ID, played
from schema_kit import hold

from tapestry_p2p.cli import main as cli
from tapestry_p2p.cli.instances import ports_of_others
from tapestry_p2p.daemon.config import Config, Listen, dump_config
from tapestry_p2p.daemon.departure import Departure, note
from tapestry_p2p.daemon.manifest import Genesis, Manifest, Network, Schema, Task, dump_manifest
from tapestry_p2p.daemon.paths import Paths, find_paths
from tapestry_p2p.errors import BAD_CONFIG, NO_DAEMON, OK, USAGE
from tapestry_p2p.page import serve
from tapestry_p2p.page.link import LINK_FILE


def _make(name: str, port: int) -> Paths:
    """A member of a network of that name, which never ran."""
    paths = find_paths({**os.environ, "TAPESTRY_NETWORK": name})
    paths.make()
    manifest = Manifest(
        network=Network(name=f"the {name or 'first'}"), task=Task(name="digits"),
        schema=Schema(hash="ab" * 32, parameters=700),
        genesis=Genesis(seed=port, root="cd" * 32),
    )  # fmt: skip
    paths.manifest.write_text(dump_manifest(manifest))
    listen = Listen(addresses=[f"/ip4/0.0.0.0/tcp/{port}"])
    paths.member.write_text(dump_config(Config(listen=listen)))
    return paths


@pytest.fixture
def two(home: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Paths, Paths]:
    monkeypatch.setenv("TAPESTRY_NETWORK", "")  # put back as it was, whatever a verb chose
    return _make("", 11111), _make("choir", 22222)


def test_each_has_folders_of_its_own(two: tuple[Paths, Paths], home: Path) -> None:
    first, choir = two
    assert first.config == home
    assert choir.config == home / "networks" / "choir"
    own = [{p.state, p.runtime, p.trainer, p.key, p.control_socket} for p in two]
    assert not own[0] & own[1]


def test_they_are_listed_with_what_they_do(
    two: tuple[Paths, Paths], capsys: pytest.CaptureFixture[str]
) -> None:
    first, choir = two
    with played(choir.control_socket):
        assert cli.main(["networks", "--json"]) == OK
        rows = hold("networks", capsys.readouterr().out)["networks"]
        assert cli.main(["networks"]) == OK
        said = capsys.readouterr().out
    assert [(row["name"], row["state"]) for row in rows] == [
        ("default", "stopped"),
        ("choir", "training"),
    ]
    assert rows[1]["id"] == PEER_ID
    assert f"…{PEER_ID[-8:]}" in said
    assert cli.main(["networks", "--names"]) == OK
    assert capsys.readouterr().out.split() == ["default", "choir"]
    (first.state / "store").mkdir()
    note(first.state / "store", Departure("ab" * 32, "x", 1, 1))
    choir.manifest.write_text("nonsense")
    assert cli.main(["networks", "--json"]) == OK
    states = [row["state"] for row in json.loads(capsys.readouterr().out)["networks"]]
    assert states[0] == "left"
    assert states[1].startswith("unreadable: ")


def test_a_page_is_listed_without_its_key(
    two: tuple[Paths, Paths], capsys: pytest.CaptureFixture[str]
) -> None:
    page = two[1].page
    page.mkdir(parents=True, exist_ok=True)
    link = {"pid": os.getpid(), "link": "http://127.0.0.1:8421/#hidden"}
    (page / LINK_FILE).write_text(json.dumps(link))
    assert cli.main(["networks"]) == OK
    said = capsys.readouterr().out
    assert cli.main(["networks", "--json"]) == OK
    told = capsys.readouterr().out
    assert [r["page"] for r in hold("networks", told)["networks"]] == ["", "http://127.0.0.1:8421/"]
    assert "http://127.0.0.1:8421/" in said
    assert "hidden" not in said + told


@pytest.mark.parametrize(
    "words",
    [
        "--network choir status", "status --network choir", "status --network=choir",
        "status --json --network choir", "--network=choir status --json",
    ],
)  # fmt: skip
def test_a_verb_asks_the_one_that_is_named(
    words: str, two: tuple[Paths, Paths], capsys: pytest.CaptureFixture[str]
) -> None:
    with played(two[1].control_socket):
        assert cli.main(words.split()) == OK
        assert cli.main(["status"]) == OK, "the choice is kept for what the process starts"
        assert cli.main(["status", "--network", "default"]) == NO_DAEMON
        assert cli.main(["status"]) == NO_DAEMON
    assert PEER_ID[-8:] in capsys.readouterr().out


DAEMON = ["status", "peers", "invite", "pause", "resume", "stop", "metrics", "generate", "eval"]


@pytest.mark.parametrize("verb", DAEMON)
def test_every_verb_that_talks_to_a_daemon_takes_it(verb: str, two: tuple[Paths, Paths]) -> None:
    choir = two[1]
    with played(choir.control_socket, choir.text_socket):
        assert cli.main([verb, "--network", "choir"]) == OK
        assert cli.main([verb, "--network", "default"]) == NO_DAEMON


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("status --network", USAGE, "name is missing"),
        ("status --network nowhere", BAD_CONFIG, "there are: default, choir"),
        ("status --network ../../etc", USAGE, "is no name"),
        ("status --network a/b", USAGE, "is no name"),
        ("status --network=", USAGE, "is no name"),
        ("--network nowhere run", BAD_CONFIG, "tapestry --network nowhere join"),
    ],
)
def test_a_name_that_is_none_is_one_line(
    words: str, code: int, said: str, two: tuple[Paths, Paths], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words.split()) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert said in err


def test_a_new_one_takes_no_port_of_the_others(two: tuple[Paths, Paths]) -> None:
    assert ports_of_others() == {11111, 22222}


def test_pages_stand_beside_one_another(two: tuple[Paths, Paths]) -> None:
    with serve.listen_near(0) as one:
        port = one.getsockname()[1]
        with serve.listen_near(port) as other:
            assert port < other.getsockname()[1] < port + serve.PORT_TRIES


def test_a_real_bash_completes_the_names(
    two: tuple[Paths, Paths], home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["completions", "bash"]) == OK
    source = tmp_path / "source"
    source.write_text(capsys.readouterr().out)
    program = tmp_path / "tapestry"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tapestry_p2p "$@"\n')
    program.chmod(0o755)
    code = (
        f"source {source}; COMP_WORDS=({program} status --network c); COMP_CWORD=3;"
        ' _tapestry_with_networks; echo "${COMPREPLY[@]}"'
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        ["bash", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TAPESTRY_HOME": str(home), "PYTHONPATH": root},
    )
    assert (done.stdout.split(), done.stderr) == (["choir"], "")
