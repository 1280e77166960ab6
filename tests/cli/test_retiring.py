"""`retire`: which way the signed end of a key goes, and what is said where it cannot."""

import json
from pathlib import Path
from typing import Any

import pytest

from tapestry_p2p.cli import main as cli
from tapestry_p2p.daemon.address import Address
from tapestry_p2p.daemon.retirement import write_retirement
from tapestry_p2p.errors import BAD_CONFIG, NO_DAEMON, OK, USAGE
from tapestry_p2p.gossip.header import SignedHeader
from tapestry_p2p.gossip.identity import Identity

STOLEN = Identity(bytes(range(32)))
ADDRESS = f"/ip4/192.0.2.7/tcp/4001/p2p/{Identity(bytes(32)).peer_id}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "retire.txt"
    write_retirement(path, bytes(32), STOLEN)
    return path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPESTRY_HOME", str(tmp_path / "home"))


def test_through_the_running_member(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[dict[str, Any]] = []

    def ask(path: Path, request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request)
        return {"id": STOLEN.peer_id, "told": 3}

    monkeypatch.setattr("tapestry_p2p.cli.retiring.ask", ask)
    assert cli.main(["retire", str(file)]) == OK
    assert [request["do"] for request in asked] == ["retire"]
    assert f"{STOLEN.peer_id} is retired" in capsys.readouterr().out


def test_to_addresses(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def give(signed: SignedHeader, addresses: tuple[Address, ...]) -> list[str]:
        assert signed.header.author == STOLEN.public_key
        assert [str(address) for address in addresses] == [ADDRESS]
        return [ADDRESS]

    monkeypatch.setattr("tapestry_p2p.daemon.give.give", give)
    assert cli.main(["retire", str(file), "--to", ADDRESS, "--json"]) == OK
    assert json.loads(capsys.readouterr().out) == {"id": STOLEN.peer_id, "told": 1}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["FILE"], NO_DAEMON),
        (["FILE", "--to", "/ip4/192.0.2.7/tcp/4001"], USAGE),
        (["FILE", "--to", "nowhere"], USAGE),
        (["/nowhere"], BAD_CONFIG),
        ([], USAGE),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], code: int, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(file) if word == "FILE" else word for word in words]
    assert cli.main(["retire", *words]) == code
    assert capsys.readouterr().err.count("\n") == 1
