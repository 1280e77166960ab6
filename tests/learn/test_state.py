"""The trainer's own state: whole or not at all, the older generation behind every fault."""

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tapestry_p2p.learn.state import StateStore

TREE = {"moments": np.arange(6, dtype=np.float32).reshape(2, 3), "count": np.int32(0)}


def _tree(value: int) -> dict[str, Any]:
    return {"moments": np.full((2, 3), value, np.float32), "count": np.int32(value)}


def _saved(folder: Path, generations: int) -> StateStore:
    store = StateStore(folder, "same")
    for value in range(1, generations + 1):
        store.save(_tree(value), {"cursor": value})
    return store


def _loaded(folder: Path, identity: str = "same", like: Any = TREE) -> int | None:
    found = StateStore(folder, identity).load(like)
    if found is None:
        return None
    tree, counters = found
    assert int(tree["count"]) == counters["cursor"]
    assert np.array_equal(tree["moments"], np.full((2, 3), counters["cursor"], np.float32))
    return int(counters["cursor"])


def test_the_newest_generation_comes_back(tmp_path: Path) -> None:
    assert _loaded(tmp_path) is None
    for generations in (1, 2, 3):
        _saved(tmp_path, generations)
        assert _loaded(tmp_path) == generations


def test_a_restarted_store_goes_on_counting(tmp_path: Path) -> None:
    _saved(tmp_path, 3)
    store = StateStore(tmp_path, "same")
    assert store.load(TREE)
    store.save(_tree(4), {"cursor": 4})
    assert _loaded(tmp_path) == 4


@pytest.mark.parametrize("fault", ["torn", "flipped", "empty", "longer", "gone"])
def test_a_damaged_file_falls_back_to_the_older(tmp_path: Path, fault: str) -> None:
    _saved(tmp_path, 3)
    newest = tmp_path / "state.1"
    content = newest.read_bytes()
    for place in range(0, len(content), 41):
        flipped = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        damaged = {
            "torn": content[:place],
            "flipped": flipped,
            "empty": b"",
            "longer": content + b"x",
        }
        if fault == "gone":
            newest.unlink(missing_ok=True)
        else:
            newest.write_bytes(damaged[fault])
        assert _loaded(tmp_path) == 2


def test_another_tasks_state_is_not_ours(tmp_path: Path) -> None:
    _saved(tmp_path, 2)
    assert _loaded(tmp_path, identity="other") is None
    assert _loaded(tmp_path, like={"moments": np.zeros((3, 2), np.float32), **TREE}) is not None
    assert _loaded(tmp_path, like={**TREE, "moments": np.zeros((3, 2), np.float32)}) is None


def test_a_failed_save_leaves_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = _saved(tmp_path, 2)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.save(_tree(3), {"cursor": 3})
    assert _loaded(tmp_path) == 2
    assert not list(tmp_path.glob("*.new")), "it would keep the disk full"
    assert not store.due(), "and is not tried again with every round"


def test_it_is_private_and_not_saved_too_often(tmp_path: Path) -> None:
    store = StateStore(tmp_path, "same")
    assert store.due()
    store.save(_tree(1), {"cursor": 1})
    assert not store.due()
    assert stat.S_IMODE((tmp_path / "state.1").stat().st_mode) == 0o600
