"""Small pictures in idx files: read strictly, shared out, learned from."""

import gzip
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tapestry_p2p.data import idx
from tapestry_p2p.learn.crowd import Crowd
from tapestry_p2p.learn.load import load
from tapestry_p2p.learn.task import Data, TaskError

RANDOM = np.random.default_rng(0)


def write(folder: Path, count: int, names: tuple[str, str] = idx.TRAIN) -> Path:
    """A set in which the class is the brightest row of the picture."""
    labels = RANDOM.integers(0, 10, count).astype(np.uint8)
    pictures = RANDOM.integers(0, 80, (count, 28, 28)).astype(np.uint8)
    pictures[np.arange(count), 2 * labels + 3] += 120
    folder.mkdir(exist_ok=True)
    (folder / names[0]).write_bytes(idx.pack(pictures.shape, pictures.tobytes()))
    (folder / names[1]).write_bytes(idx.pack(labels.shape, labels.tobytes()))
    return folder


def _records(data: Data) -> Any:
    return load("fashion", {}, data).records  # type: ignore[attr-defined]


def test_records_are_held_out_by_the_seed(tmp_path: Path) -> None:
    own = _records(Data([write(tmp_path / "a", 1000)], 7))
    assert [len(own[split]) for split in ("train", "validation", "test")] == [700, 100, 200]
    write(tmp_path / "a", 300, idx.TEST)
    with_test = _records(Data([tmp_path / "a"], 7))
    assert [len(part) for part in with_test.values()] == [900, 100, 300]
    whole = _records(Data([tmp_path / "a"], 7, hold_out=False))
    assert [len(part) for part in whole.values()] == [1000, 0, 300]
    joined = np.concatenate([with_test["train"], with_test["validation"]])
    assert sorted(map(bytes, joined)) == sorted(map(bytes, whole["train"]))


@pytest.mark.parametrize(("model", "parameters"), [("linear", 7850), ("mlp", 25_450)])
def test_both_models_learn(tmp_path: Path, model: str, parameters: int) -> None:
    write(tmp_path / "a", 600)
    write(tmp_path / "a", 200, idx.TEST)
    rest: Any = {"options": {"model": model}, "lr": 0.003, "schedule_steps": 60}
    crowd = Crowd.of_pictures("fashion", 2, paths=[tmp_path / "a"], seed=1, **rest)
    assert len(crowd.genesis) == parameters
    x = np.repeat(crowd.genesis[None], 2, axis=0)
    before = crowd.evaluate(x)["accuracy"]
    x = crowd.train(x, 60, 0)
    assert (crowd.evaluate(x)["accuracy"] > before + 0.5).all()


def test_poisoned_members_are_taught_the_mirrored_class(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a", 600)]
    clean, poisoned = (
        Crowd.of_pictures("fashion", 5, "labels", paths=paths, poisoned=who, batch=8)
        for who in ((), (1,))
    )
    labels = [
        [set(task.records["train"][:, -1].tolist()) for task in crowd.tasks]  # type: ignore[attr-defined]
        for crowd in (clean, poisoned)
    ]
    assert labels[0] == [{0, 5}, {1, 6}, {2, 7}, {3, 8}, {4, 9}]
    assert labels[1] == [{0, 5}, {8, 3}, {2, 7}, {3, 8}, {4, 9}]
    with pytest.raises(ValueError, match="partition must be"):
        Crowd.of_pictures("digits", 2, "fairly")


def test_other_files_are_judged_when_asked(tmp_path: Path) -> None:
    task: Any = load("fashion", {}, Data([write(tmp_path / "a", 500)], 7))
    other = write(tmp_path / "b", 50, idx.TEST)
    params = task.init(jax.random.key(0))
    whole = task.evaluate(params, "test", [other])
    assert whole["accuracy"] * 50 == pytest.approx(round(whole["accuracy"] * 50))


def test_idx_comes_back_as_it_went() -> None:
    for shape in ((6,), (2, 3), (1, 2, 3)):
        packed = idx.pack(shape, b"abcdef")
        assert idx.parse(packed) == (shape, b"abcdef")
        assert idx.parse(gzip.decompress(packed)) == (shape, b"abcdef")
        assert packed == idx.pack(shape, b"abcdef")
    with pytest.raises(ValueError, match="are not"):
        idx.pack((7,), b"abcdef")


HEAD = b"\0\0\x08\x01\0\0\0\x03"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no idx file"),
        (b"\0\0\x0d\x01\0\0\0\0", "no idx file"),
        (b"\0\0\x08\x00", "0 axes"),
        (b"\0\0\x08\x04" + bytes(16), "4 axes"),
        (HEAD[:6], "1 axes"),
        (HEAD + b"ab", "3 bytes promised, 2 held"),
        (HEAD + b"abcd", "3 bytes promised, 4 held"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "promised"),
        (gzip.compress(HEAD + b"abc")[:-3], "torn"),
        (gzip.compress(HEAD + b"abc") + b"x", "follows"),
        (b"\x1f\x8b\x08\x00junkjunkjunk", "broken"),
    ],
)
def test_a_malformed_file_is_refused_in_words(content: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        idx.parse(content)


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idx, "BYTES_MAX", 1000)
    with pytest.raises(ValueError, match="too large"):
        idx.parse(gzip.compress(HEAD + bytes(5000)))


@pytest.mark.parametrize(
    ("pictures", "labels", "code"),
    [
        (None, None, "data_unreadable"),
        (idx.pack((2, 28, 28), bytes(1568)), idx.pack((3,), bytes(3)), "data_unreadable"),
        (idx.pack((2, 14, 14), bytes(392)), idx.pack((2,), bytes(2)), "data_unreadable"),
        (idx.pack((2, 28, 28), bytes(1568)), idx.pack((2,), b"\x0a\x00"), "data_unreadable"),
        (idx.pack((2, 28, 28), bytes(1568)), idx.pack((2,), bytes(2)), "data_too_small"),
        (b"text", idx.pack((2,), bytes(2)), "data_unreadable"),
    ],
)
def test_bad_folders_have_a_code(
    tmp_path: Path, pictures: bytes | None, labels: bytes | None, code: str
) -> None:
    for name, content in zip(idx.TRAIN, (pictures, labels), strict=True):
        if content is not None:
            (tmp_path / name).write_bytes(content)
    with pytest.raises(TaskError) as raised:
        load("fashion", {}, Data([tmp_path], 7))
    assert raised.value.code == code


def test_without_a_folder_it_says_where_to_get_one() -> None:
    with pytest.raises(TaskError, match="tapestry data fashion") as raised:
        load("fashion", {}, Data([], 7))
    assert raised.value.code == "data_missing"
