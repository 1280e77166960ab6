"""benches/torn.py: the store survives every disk it makes; the bench sees one that does not."""

from pathlib import Path
from random import Random

import pytest

from benches import torn
from benches.torn_disk import Left
from tapestry_p2p.daemon.files import Mark, Pair


def tried(folder: Path, count: int) -> list[torn.Row]:
    life = torn.lived(folder / "life", 14)

    def check(left: Left, told: dict[str, int], damaged: bool) -> str:
        left.write_to(folder / "left")
        return torn.wrong(folder / "left", life, told, damaged)

    random = Random(3)
    with torn.unsynced():
        return [
            torn.prefixes(life, check),
            torn.reorderings(life, check, count, random),
            torn.flips(life, check, count, random),
            torn.truncations(life, check),
        ]


def test_old_or_new_and_never_neither(tmp_path: Path) -> None:
    for row in tried(tmp_path, 120):
        assert row.tried > 10, row.name
        assert not row.wrong, f"{row.name}: {row.first}"


def test_a_store_without_marks_is_found_to_lose_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Mark, "note", lambda _self, _number: None)
    truncations = tried(tmp_path, 5)[-1]
    assert truncations.wrong
    assert "is lost" in truncations.first


def test_a_store_with_one_generation_is_found_to_lose_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Pair.save

    def over_the_newest(self: Pair, body: bytes) -> None:
        self._number += 1
        save(self, body)

    monkeypatch.setattr(Pair, "save", over_the_newest)
    assert any(row.wrong for row in tried(tmp_path, 120))


def test_a_disk_that_refuses_a_call_loses_nothing(tmp_path: Path) -> None:
    with torn.unsynced():
        row = torn.refusals(tmp_path, 18, step=8)
    assert row.tried > 80
    assert not row.wrong, row.first
