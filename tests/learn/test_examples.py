"""The examples of the docs are tasks that do what their pages say."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tapestry_p2p.learn.learner import Program
from tapestry_p2p.learn.load import load
from tapestry_p2p.learn.task import Data, TaskError

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def _example(name: str, data: Data | None = None, **options: Any) -> Any:
    return load(f"{EXAMPLES / name}.py:make_task", options, data or Data([], 7))


def test_vision_learns_and_its_own_head_stays() -> None:
    task = _example("vision", width=4)
    program = Program(task, seed=1, batch_seed=2, schedule_steps=0)
    place = program.fresh(program.genesis)
    for _ in range(150):
        program.advance(place)
    assert task.evaluate(place.params, "test", None)["accuracy"] > 0.6
    own = Program(_example("vision", width=4, own_head=True), 1, 2, 0)
    assert [leaf.path for leaf in own.layout.local_leaves] == ["out/bias", "out/kernel"]
    assert own.layout.parameters == 4 * 10 + 8 * (9 * 4 + 1)


def test_vision_reads_folders_of_pictures(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    random = np.random.default_rng(0)
    for name, low in (("cat", 0), ("dog", 128)):
        (tmp_path / name).mkdir()
        for number in range(20):
            points = random.integers(low, low + 100, (20, 30, 3), dtype=np.uint8)
            image.fromarray(points).save(tmp_path / name / f"{number}.png")
    data = Data([tmp_path], 7)
    task = _example("vision", data, classes="cat,dog", side=6, batch_size=8)
    assert {split: len(rows) for split, rows in task.parts.items()} == {
        "validation": 4,
        "test": 8,
        "train": 28,
    }
    rows = np.concatenate(list(task.parts.values()))
    assert rows.shape == (40, 37)
    bright = rows[:, :-1].mean(axis=1) > 0.42
    assert np.array_equal(bright, rows[:, -1] == 1)
    with pytest.raises(TaskError, match="none of the folders fish, bird"):
        _example("vision", data, classes="fish,bird")


def test_jepa_hides_squares_and_its_target_follows_and_stays() -> None:
    task = _example("jepa", width=8, heads=2, batch_size=8, decay=0.9)
    patches, seen, hidden = task.batches("train", 1)(3)
    assert (patches.shape, seen.shape, hidden.shape) == ((8, 16, 4), (8, 12), (8, 4))
    for row in range(8):
        assert sorted([*seen[row], *hidden[row]]) == list(range(16))
        down, right = np.divmod(hidden[row], 4)
        assert np.ptp(down) == np.ptp(right) == 1
    program = Program(task, seed=1, batch_seed=2, schedule_steps=0)
    assert all(leaf.path.startswith("target/") for leaf in program.layout.local_leaves)
    assert {leaf.path.split("/")[0] for leaf in program.layout.leaves} == {"encoder", "predictor"}
    place = program.fresh(program.genesis)
    program.add(place, np.full(program.layout.parameters, 0.5, np.float32))
    before = jax.tree.map(np.asarray, place.params["target"])
    program.advance(place)
    for old, new, encoder in zip(
        *map(jax.tree.leaves, (before, place.params["target"], place.params["encoder"])),
        strict=True,
    ):
        assert np.allclose(new, old + 0.1 * (encoder - old), atol=1e-5)
    found = task.evaluate(place.params, "validation", None)
    assert 0 <= found["accuracy"] <= 1
    assert found["loss"] > 0
