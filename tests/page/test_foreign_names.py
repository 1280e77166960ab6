"""Strings of peers: cleaned, bounded, never alone, and look-alikes named."""

import json
import unicodedata
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from page_kit import PEER, STATUS, FakeMember

from tapestry_p2p.page import facts
from tapestry_p2p.page.board import Board
from tapestry_p2p.page.names import NAME_CHARS_MAX, alike, clean, short, skeleton

NASTY = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\u202eanA", "A\u200bna",
    "\x1b[2J",
    "a\r\nevent: state\r\ndata: {}", "a\n\ndata: x", "\u2066Ana\u2069", "\ufeffAna", "A\u0000na",
    "a\u0301\u0301\u0301\u0301\u0301\u0301", "\u3164", "\U000e0041na", "\ud800", "A" * 5000,
    "\u2028x",
    "{{7*7}}", "${7*7}", "javascript:alert(1)", '"><svg onload=alert(1)>', "\u115f\u1160", "\x85x",
    "\u061cAna", "A\u00adna", "\u180eAna", "\u2800", "\uffa0x", "\ue000", "\U0010ffff", "&lt;b&gt;",
]  # fmt: skip


@pytest.mark.parametrize("name", NASTY, ids=ascii)
def test_a_nasty_name_is_one_short_visible_line_everywhere(name: str) -> None:
    status = {**STATUS, "name": name, "network": name, "fault": name, "state": f"stopped: {name}"}
    peer = {**PEER, "name": name, "languages": [name] * 50, "address": name}
    member = FakeMember(status, [peer])
    board = Board(member)
    trio.run(board.look)
    _, parts = board.news(0)
    told = {"state", "neighbours", "left", "log", "gain", "languages", "loss"}
    assert {part for part, _ in parts} <= told
    assert {"state", "neighbours", "log", "languages"} <= {part for part, _ in parts}
    for _, text in parts:
        assert "\n" not in text
        assert "\r" not in text
        for found in strings(json.loads(text)):
            assert all(unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in found)
            assert len(found) <= 300
    row = json.loads(dict(parts)["neighbours"])["rows"][0]
    assert row["short"] == PEER["id"][-8:]
    assert len(row["name"]) <= NAME_CHARS_MAX
    assert len(row["languages"]) <= 8


def strings(value: Any) -> list[str]:
    """All strings in a JSON value."""
    if isinstance(value, str):
        return [value]
    inside = list(value.values()) if isinstance(value, dict) else value
    return [text for each in inside for text in strings(each)] if isinstance(inside, list) else []


@given(st.text())
def test_cleaning_is_short_visible_and_done_at_once(text: str) -> None:
    found = clean(text)
    assert len(found) <= NAME_CHARS_MAX
    assert found == found.strip()
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in found)
    assert clean(found) == found


@pytest.mark.parametrize("text", ["Ana", "Zoë", "अनुष्का", "نورا", "小明", "O’Neil-3", "Đỗ Thị Ánh"])
def test_an_honest_name_stays(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ana", "Аnа"), ("Ana", "ana"), ("Ana", "A n a"), ("Ana", "A-na"), ("paypal", "pаypаl"),
        ("Paul", "PauI"), ("Paul", "Pau1"), ("modern", "modem"), ("Zoe", "Zoë"), ("Oslo", "0sl0"),
        ("Ana", "\u202eAna"), ("Ana", "A\u200bna"), ("Ana", "Ａｎａ"), ("vvim", "wim"), ("Ana",
        "Ana."),
        ("Nina", "Νina"), ("Bo", "𝐁𝐨"), ("kate", "κate"),
    ],
)  # fmt: skip
def test_names_that_look_alike_are_found(one: str, other: str) -> None:
    assert alike([("1", one), ("2", other)]) == {"1": ["2"], "2": ["1"]}


@pytest.mark.parametrize(
    ("one", "other"), [("Ana", "Anna"), ("Bo", "Ba"), ("", ""), ("...", "---"), ("小明", "小红")]
)
def test_names_that_differ_are_not(one: str, other: str) -> None:
    assert alike([("1", one), ("2", other)]) == {}


def test_a_name_like_ours_is_told() -> None:
    peers = {"peers": [{**PEER, "name": "Аna"}]}
    row = facts.neighbours(peers, STATUS, facts.Cuts())["rows"][0]
    assert row["like_you"]
    assert row["alike"] == [short(STATUS["id"])]
    assert skeleton("Аna") == skeleton("Ana")


def test_letters_that_no_language_mixes_are_told() -> None:
    peers = {"peers": [{**PEER, "name": "Mаria"}, {**PEER, "name": "Олена"}]}
    rows = facts.neighbours(peers, STATUS, facts.Cuts())["rows"]
    assert {row["name"]: row["mixed"] for row in rows} == {"Mаria": True, "Олена": False}
