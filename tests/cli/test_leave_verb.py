"""`leave` and the way back: what is said, which status, what may still be used, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from export_kit import World
from schema_kit import hold

from tapestry_p2p.cli import main as cli
from tapestry_p2p.daemon.config import Config, dump_config
from tapestry_p2p.daemon.departure import Departure, departure, note
from tapestry_p2p.daemon.keyfile import load_key, make_key
from tapestry_p2p.daemon.manifest import Manifest, dump_manifest, parse_manifest
from tapestry_p2p.daemon.paths import Paths, find_paths
from tapestry_p2p.errors import (
    BAD_CONFIG,
    FAILURE,
    NO_DAEMON,
    OK,
    REFUSED,
    TEMPORARY,
    USAGE,
    TapestryError,
)
from tapestry_p2p.gossip.identity import Identity


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture
def member(world: World, home: Path) -> Paths:
    """A member's files; it never ran."""
    paths = find_paths()
    paths.make()
    paths.manifest.write_text(dump_manifest(world.manifest))
    paths.member.write_text(dump_config(Config()))
    make_key(paths.key)
    (paths.state / "store").mkdir()
    return paths


def _network(paths: Paths) -> Manifest:
    return parse_manifest(paths.manifest.read_bytes())


def _left(paths: Paths) -> None:
    network_id = _network(paths).network_id.hex()
    note(paths.state / "store", Departure(network_id, "test", 7, 1))


def _answers(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    def ask(path: Path, request: dict[str, Any], timeout_s: float = 0.0) -> dict[str, Any]:
        if request["do"] == "status":
            raise TapestryError("no trainer is asked here", NO_DAEMON)
        told = {"id": "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA", "network": "N"}
        return {**told, "network_id": "ab" * 32, "entry": 9, "known": 3, "told": 3, **changes}

    monkeypatch.setattr("tapestry_p2p.cli.leaving.ask", ask)


def test_a_running_member_says_it_itself(
    member: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _answers(monkeypatch)
    assert cli.main(["leave", "--json"]) == OK
    found = hold("leave", capsys.readouterr().out)
    assert (found["told"], found["model"]) == (3, "")
    assert cli.main(["leave"]) == OK
    said = capsys.readouterr().out
    assert "…ABCD" not in said
    assert "by entry 9" in said
    assert "tapestry join" in said


def test_if_nobody_was_reached_it_says_so(
    member: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _answers(monkeypatch, told=0)
    assert cli.main(["leave"]) == TEMPORARY
    assert "again tells them" in capsys.readouterr().err


def test_one_that_never_spoke_just_stops_being_one(
    member: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["leave", "--json"]) == OK
    found = hold("leave", capsys.readouterr().out)
    assert (found["entry"], found["told"]) == (-1, 0)
    assert cli.main(["run"]) == REFUSED
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "has left" in said
    assert "tapestry join" in said


@pytest.mark.parametrize("verb", ["status", "peers", "pause", "invite"])
def test_verbs_that_find_no_daemon_say_that_it_has_left(
    verb: str, member: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([verb]) == NO_DAEMON
    assert "tapestry run" in capsys.readouterr().err
    _left(member)
    assert cli.main([verb]) == NO_DAEMON
    assert "has left" in capsys.readouterr().err


def test_a_service_that_is_down_cannot_be_spoken_for(
    monkeypatch: pytest.MonkeyPatch, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TAPESTRY_HOME")
    monkeypatch.setenv("TAPESTRY_SERVICE", "nobody-here")
    assert cli.main(["leave"]) == NO_DAEMON
    assert "systemctl start" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["link", "file", "folder"])
def test_it_comes_back_as_who_it_was(
    way: str, member: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = load_key(member.key)
    before = {path.name: path.read_bytes() for path in (member.manifest, member.member)}
    _left(member)
    place = f"/ip4/192.0.2.7/tcp/4001/p2p/{Identity(bytes(32)).peer_id}"
    checkout = tmp_path / "git" / "network.toml"
    checkout.parent.mkdir()
    checkout.write_bytes(before["network.toml"])
    link = f"tapestry:{_network(member).network_id.hex()}?a={place}"
    given = {"link": link, "file": str(checkout), "folder": str(checkout.parent)}[way]
    assert cli.main(["join", given]) == OK
    captured = capsys.readouterr()
    assert "is back in" in captured.out
    assert (place in captured.err) == (way == "link")
    assert departure(member.state / "store") is None
    assert load_key(member.key) == key
    assert {p.name: p.read_bytes() for p in (member.manifest, member.member)} == before
    assert cli.main(["join", given]) == REFUSED, "it is a member again"


def test_with_another_networks_link_it_stays_away(
    member: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    _left(member)
    address = f"/ip4/192.0.2.7/tcp/4001/p2p/{Identity(bytes(32)).peer_id}"
    assert cli.main(["join", f"tapestry:{'cd' * 32}?a={address}"]) == REFUSED
    assert "--home" in capsys.readouterr().err
    assert departure(member.state / "store") is not None


def test_its_model_is_exported_and_used_without_a_daemon(
    world: World, member: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _left(member)
    assert cli.main(["export", str(tmp_path / "early")]) == NO_DAEMON, "none was taken along"
    (member.state.parent / "models").mkdir()
    folder = world.export(member.state.parent / "models" / "left")
    taken = folder.with_name(f"left-{_network(member).network_id.hex()[:8]}")
    folder.rename(taken)
    lineage = json.loads((taken / "lineage.json").read_text())
    facts = {"entry": 3, "member": lineage["member"]["id"]}
    taken.with_suffix(".json").write_text(json.dumps(facts))
    target = tmp_path / "mine"
    for other in (["--copy"], ["--model", "sovereign"]):
        assert cli.main(["export", str(target), *other]) == FAILURE
        assert "took the shared model along" in capsys.readouterr().err
        assert not target.exists()
    assert cli.main(["export", str(target)]) == OK
    capsys.readouterr()
    assert cli.main(["verify", str(target), "--json"]) == OK
    assert hold("verify", capsys.readouterr().out)["holds"]
    assert cli.main(["generate", "ring a ", "--bytes", "4", "--json"]) == OK
    hold("generate", capsys.readouterr().out)


# ---- joining by a file --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        ("https://example.org/network.toml", USAGE, "clone the repository"),
        ("git@example.org:us/net.git", USAGE, "clone the repository"),
        ("nowhere/network.toml", USAGE, "no invite link"),
        ("nonsense.toml", BAD_CONFIG, "nonsense.toml"),
    ],
)
def test_what_is_no_network_is_said_so(
    given: str,
    status: int,
    said: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nonsense.toml").write_text("x = ")
    assert cli.main(["join", given, "--yes"]) == status
    assert said in capsys.readouterr().err
    assert not home.exists()
