"""What `testnet` plans: its model; with `--links K` what is refused, and when copies are equal."""

from pathlib import Path
from typing import Any

import pytest

from tapestry_p2p.cli.testnet.cluster import Cluster
from tapestry_p2p.cli.testnet.homes import _mixing
from tapestry_p2p.cli.testnet.plan import PRESETS, Plan, make_plan
from tapestry_p2p.errors import USAGE, TapestryError
from tapestry_p2p.mix.topology import CERTIFIED


def plan(tmp_path: Path, **changes: Any) -> Plan:
    options: dict[str, Any] = {
        "members": 6, "byzantine": 0, "tolerate": None, "attack": "mirror", "data": "udhr",
        "languages": "eng", "split": 6, "rounds": 1, "inner_steps": 1, "rule": "cs_plus",
        "codec": "2bit", "model": "tiny", "seed": 0, "out": tmp_path,
    }  # fmt: skip
    return make_plan(**{**options, **changes})


def test_without_links_everyone_follows_everyone(tmp_path: Path) -> None:
    assert _mixing(plan(tmp_path), "cs_plus").all_to_all_max == 17
    assert plan(tmp_path).tolerate == 1


@pytest.mark.parametrize(
    ("own_texts", "rounds", "model", "expected"),
    [
        (True, 50, "", "base"),
        (True, 49, "", "small"),
        (True, 50, "tiny", "tiny"),
        (False, 50, "", "small"),
    ],
)
def test_own_texts_and_many_steps_take_a_model_that_has_room_for_them(
    own_texts: bool, rounds: int, model: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "eng.txt").write_text("a text")
    data = str(tmp_path) if own_texts else "udhr"
    found = plan(tmp_path, data=data, rounds=rounds, inner_steps=20, model=model)
    assert found.model.options == PRESETS[expected]


def test_links_are_used_whatever_the_number_of_members(tmp_path: Path) -> None:
    mixing = _mixing(plan(tmp_path, links=3), "cs_plus")
    assert (mixing.links, mixing.all_to_all_max, mixing.f) == (3, 3, 0)
    assert plan(tmp_path, links=3).promise("cs_plus").word != CERTIFIED
    assert plan(tmp_path, members=17, links=16).tolerate == 1


def test_more_links_than_others_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TapestryError, match="--links 6 < members must hold") as refused:
        plan(tmp_path, links=6)
    assert refused.value.exit_code == USAGE


@pytest.mark.parametrize(
    ("links", "copies", "equal"),
    [
        (0, [1, 1], True),
        (0, [1, None], False),
        (0, [1, 2], False),
        (1, [1, None], True),
        (1, [2, None], False),
        (1, [None, None], False),
    ],
)
def test_copies_are_equal_at_all_who_should_have_one(
    links: int, copies: list[int | None], equal: bool, tmp_path: Path
) -> None:
    cluster = Cluster([], tmp_path / "members.json", lambda members: None, links)
    held = {"a": {"own": 1, "followed": {}}}
    for n, copy in enumerate(copies):
        followed = {} if copy is None else {"a": copy}
        held[str(n)] = {"own": 9, "followed": followed}
    assert cluster._is_equal("a", held) is equal
