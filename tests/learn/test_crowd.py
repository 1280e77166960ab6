"""A crowd learns as its members' trainers would, each with moments and cursor of its own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trainer_kit import TINY, text_file

from tapestry_p2p.learn.crowd import Crowd, Matrix
from tapestry_p2p.learn.learner import Program
from tapestry_p2p.learn.load import load
from tapestry_p2p.learn.task import Data

DIGITS = load("digits", {}, Data([], 7))


def _records() -> Any:
    return DIGITS.records["train"]  # type: ignore[attr-defined]


def _start(crowd: Crowd) -> Matrix:
    return np.repeat(crowd.genesis[None], crowd.members, axis=0)


def _trained(task: Any, batch_seed: int, steps: int, schedule_steps: int) -> Any:
    program = Program(task, seed=1, batch_seed=batch_seed, schedule_steps=schedule_steps)
    place = program.fresh(program.genesis)
    for _ in range(steps):
        program.advance(place)
    return program.layout.flatten(place.params)


def test_a_crowd_of_one_learns_as_a_trainer(tmp_path: Path) -> None:
    path = text_file(tmp_path, 3000)
    crowd = Crowd("language", [path], options=TINY, seed=1, batch_seeds=[2], schedule_steps=40)
    task = load("language", TINY, Data([path], 1))
    x = crowd.train(crowd.train(_start(crowd), 3, 0), 9, 3)
    assert np.allclose(x[0], _trained(task, 2, 12, 40), atol=1e-6)


def test_members_differ_only_by_data_and_seed() -> None:
    records = _records()
    parts = [records[:300], records[300:700], records[:300]]
    crowd = Crowd("digits", parts, seed=1, batch_seeds=[4, 5, 4], schedule_steps=30, lr=0.02)
    x = crowd.train(_start(crowd), 30, 0)
    assert np.array_equal(x[0], x[2])
    for member in (0, 1):
        task = load("digits", {"learning_rate": 0.02}, Data([], 1, content=parts[member]))
        assert np.allclose(x[member], _trained(task, 4 + member, 30, 30), atol=1e-5)


def test_some_members_train_while_the_others_stay() -> None:
    parts = np.array_split(_records(), 5)
    together = Crowd("digits", parts, seed=1)
    apart = Crowd("digits", parts, seed=1)
    x = together.train(_start(together), 8, 0)
    y = _start(apart)
    y[[3, 0, 1]] = apart.train(y[[3, 0, 1]], 5, 0, who=[3, 0, 1])
    y[[4, 2]] = apart.train(y[[4, 2]], 8, 0, who=[4, 2])
    y[[0, 1, 3]] = apart.train(y[[0, 1, 3]], 3, 5, who=[0, 1, 3])
    assert np.allclose(x, y, atol=1e-6)
    assert np.isfinite(together.losses).all()
    with pytest.raises(ValueError, match="one row each"):
        apart.train(y[:2], 1, 0, who=[3, 3])


def test_a_crowd_that_is_rewound_begins_again() -> None:
    crowd = Crowd("digits", np.array_split(_records(), 3), seed=1)
    first = crowd.train(_start(crowd), 6, 0)
    later = crowd.train(_start(crowd), 6, 0)
    crowd.rewind()
    again = crowd.train(_start(crowd), 6, 0)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, later)


def test_softmax_regression_by_plain_sgd_takes_the_steps_of_the_formula() -> None:
    records = _records()[:100]
    crowd = Crowd(
        "digits",
        [records],
        options={"model": "linear", "centred": True},
        batch=32,
        lr=lambda t: 0.9 / (t + 1) ** 0.5,
        weight_decay=0.01,
        seed=3,
    )
    assert len(crowd.genesis) == 650
    x = np.random.default_rng(0).normal(size=(1, 650)).astype(np.float32)
    want = x[0].astype(np.float64)
    source = crowd.tasks[0].batches("train", 3 * 1009)
    for t in range(3):
        batch = source(t)
        bias, kernel = want[:10], want[10:].reshape(64, 10)
        pictures = 2 * batch[:, :64].astype(np.float64) / 16 - 1
        scores = pictures @ kernel + bias
        share = np.exp(scores - scores.max(1, keepdims=True))
        share /= share.sum(1, keepdims=True)
        share[np.arange(32), batch[:, 64].astype(int)] -= 1
        gradient = np.concatenate([share.mean(0), (pictures.T @ share / 32).ravel()])
        want = want - 0.9 / np.sqrt(t + 1) * (gradient + 0.01 * want)
    assert np.allclose(crowd.train(x, 3, 0)[0], want, atol=1e-4)


def test_every_model_is_judged_as_the_task_judges(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    texts = [text_file(tmp_path, 3000).read_bytes(), bytes(range(65, 91)) * 100]
    crowd = Crowd("language", texts, options=TINY, seed=1)
    x = crowd.train(_start(crowd), 20, 0)
    each = crowd.evaluate_each(x, "validation")["loss"]
    assert each.shape == (2, 2)
    assert each[0, 0] < each[1, 0]
    assert each[1, 1] < each[0, 1]  # each knows its own text better
    assert np.allclose(crowd.evaluate(x, "validation")["loss"], each.mean(axis=1))
    pictures = Crowd("digits", np.array_split(_records(), 2), seed=7)
    found = pictures.evaluate(_start(pictures))
    assert found["accuracy"].shape == (2,)
    assert found["accuracy"][0] == found["accuracy"][1] < 0.5


def test_a_crowd_needs_members() -> None:
    with pytest.raises(ValueError, match="needs a member"):
        Crowd("digits", [])
