"""A name is no identity: the id stands beside it in every verb, and look-alikes are pointed out."""

import json
from pathlib import Path
from typing import Any

import pytest
from schema_kit import hold

from tapestry_p2p.cli import main as cli
from tapestry_p2p.errors import OK
from tapestry_p2p.gossip.identity import Identity
from tapestry_p2p.page.names import called, mixed_scripts

US, BO, EVE = (Identity(bytes([n]) * 32).peer_id for n in (1, 2, 3))
ROW: dict[str, Any] = {
    "id": BO, "name": "Bo", "languages": [], "connected": True, "way": "direct", "address": "a",
    "head": 3, "copy": 3, "round": 2, "fresh": True, "weight_zero": False, "probation": 0,
    "coefficient": 1.0, "distance": 0.1,
}  # fmt: skip


def _peers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *names: str
) -> tuple[str, list[dict[str, Any]]]:
    """What `peers` says of members with these names, as text and as JSON; ours is Ana."""
    ids = [BO, EVE]
    rows = [{**ROW, "id": ids[n], "name": name} for n, name in enumerate(names)]
    answers = {"peers": {"peers": rows}, "status": {"id": US, "name": "Ana"}}
    monkeypatch.setattr("tapestry_p2p.cli.member.ask", lambda _, asked: answers[asked["do"]])
    assert cli.main(["peers"]) == OK
    said = capsys.readouterr().out
    assert cli.main(["peers", "--json"]) == OK
    return said, hold("peers", capsys.readouterr().out)["peers"]


def test_the_id_stands_beside_every_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said, rows = _peers(monkeypatch, capsys, "Bo", "")
    assert f"Bo …{BO[-8:]}  round" in said
    assert f"(no name) …{EVE[-8:]}" in said
    assert "warning" not in said
    assert all(not row["alike"] and not row["like_you"] for row in rows)


@pytest.mark.parametrize("name", ["Ana", "ana", "Аnа", "A\u200bna", "\u202eAna", "Ana.", "Ａｎａ"])
def test_a_name_like_ours_is_pointed_out(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said, rows = _peers(monkeypatch, capsys, name)
    assert "looks like yours" in said
    assert rows[0]["like_you"]


def test_two_of_one_name_are_pointed_out_by_their_ids(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said, rows = _peers(monkeypatch, capsys, "Oslo", "0sl0")
    assert f"looks like that of …{EVE[-8:]}" in said
    assert f"looks like that of …{BO[-8:]}" in said
    assert [row["alike"] for row in rows] == [[EVE], [BO]]


def test_mixed_letters_are_pointed_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said, rows = _peers(monkeypatch, capsys, "Mаria")
    assert "mixes Cyrillic and Latin letters" in said
    assert rows[0]["mixed_scripts"] == ["CYRILLIC", "LATIN"]


@pytest.mark.parametrize(
    "name",
    [
        "Zoë", "Đỗ Thị Ánh", "अनुष्का", "نورا", "小明", "こんにちは世界", "カタカナと漢字 Tokyo",
        "한국어 漢字", "Олена", "Αθήνα", "ไทย", "Tamás 3", "𝐁𝐨", "ㄅㄆㄇ 注音", "O’Neil-3", "",
        "...",
    ],
)  # fmt: skip
def test_what_languages_write_together_is_no_mixture(name: str) -> None:
    assert mixed_scripts(name) == []


@pytest.mark.parametrize("name", ["pаypal", "Ωmega", "Αna", "اna", "Теsт", "한a小б"])
def test_what_none_writes_together_is(name: str) -> None:
    assert len(mixed_scripts(name)) >= 2


NASTY = ["\x1b[2J\x1b[31mAna", "a\r\nb", "\u202eanA", "\u2066x\u2069", "a\u0301" * 40, "A" * 5000]


@pytest.mark.parametrize("name", NASTY, ids=ascii)
def test_a_nasty_name_cannot_speak_to_the_terminal(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said, _ = _peers(monkeypatch, capsys, name)
    assert all(c.isprintable() or c == "\n" for c in said)
    line = said.splitlines()[0]
    assert len(line) < 200
    assert f"…{BO[-8:]}" in line


def test_the_invite_says_from_whom_and_into_what(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    link = f"tapestry:{'ab' * 32}?a=/ip4/127.0.0.1/tcp/1/p2p/{US}"
    us = {"id": US, "name": "A\u202ena", "network": "Chöir", "network_id": "ab" * 32}
    answers = {"invite": {"link": link}, "status": us}
    monkeypatch.setattr("tapestry_p2p.cli.member.ask", lambda _, asked: answers[asked["do"]])
    assert cli.main(["invite"]) == OK
    captured = capsys.readouterr()
    assert captured.out == f"{link}\n", "a script reads it"
    assert f"Chöir …{'ab' * 4}" in captured.err
    assert f"Ana …{US[-8:]}" in captured.err
    assert cli.main(["invite", "--json"]) == OK
    assert json.loads(capsys.readouterr().out) == {"link": link}


def test_called_never_leaves_the_id_out() -> None:
    assert called("\u202e", US) == f"(no name) …{US[-8:]}"
