"""The tasks that come with the package, and how a user brings another."""

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from trainer_kit import TINY, text_file

from tapestry_p2p import corpus
from tapestry_p2p import data as shipped
from tapestry_p2p.learn.learner import Program
from tapestry_p2p.learn.load import load
from tapestry_p2p.learn.nnx import NnxModel
from tapestry_p2p.learn.task import Data, TaskError, learning_rates
from tapestry_p2p.learn.tasks.language import Language


def _language(path: Path, **options: Any) -> Language:
    task = load("language", {**TINY, **options}, Data([path], 7))
    assert isinstance(task, Language)
    return task


def _program(task: Any, steps: int = 0) -> Program:
    return Program(task, seed=1, batch_seed=2, schedule_steps=steps)


def test_the_presets_have_the_sizes_that_the_docs_give(tmp_path: Path) -> None:
    path = text_file(tmp_path)
    for layers, width, parameters in ((2, 48, 67_824), (2, 52, 78_468), (3, 40, 68_120)):
        task = load("language", {"layers": layers, "width": width}, Data([path], 7))
        assert _program(task).layout.parameters == parameters


def test_held_out_text_is_never_drawn_and_counts_every_byte_once(tmp_path: Path) -> None:
    text = shipped.udhr("rus")
    (tmp_path / "rus.txt").write_bytes(text)
    task = _language(tmp_path / "rus.txt", noise=0.0)
    train, validation, test = (corpus.join(part) for part in corpus.split_held_out(text, 7))
    source = task.batches("train", 0)
    for cursor in range(40):
        for row in source(cursor)[0]:
            assert row.astype(np.uint8).tobytes() in train
    flat = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), task.model.shapes)
    for split, held_out in (("validation", validation), ("test", test)):
        found = task.evaluate(flat, split, None)  # a model that knows nothing: 8 bits a byte
        assert found["bits_per_byte"] == pytest.approx(8, abs=1e-5)
        share = len(held_out) / len(held_out.decode())
        assert found["bits_per_char"] == pytest.approx(8 * share, rel=1e-5)


def test_noise_changes_what_is_seen_and_never_what_is_asked(tmp_path: Path) -> None:
    path = text_file(tmp_path)
    options: dict[str, Any] = {"batch_size": 64, "context": 64}
    clean = _language(path, noise=0.0, **options).batches("train", 3)(0)
    noisy = _language(path, noise=0.25, **options).batches("train", 3)(0)
    assert np.array_equal(clean[1], noisy[1])
    assert 0.1 < np.mean(clean[0] != noisy[0]) < 0.25
    unseen = _language(path, noise=0.25, **options).batches("validation", 3)(0)
    assert np.array_equal(unseen[0][:, 1:], unseen[1][:, :-1])


def test_files_are_drawn_by_size_or_evenly(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a" * 1000)
    (tmp_path / "b").write_bytes(b"b" * 9000)
    for draw, share in (("by_size", 0.9), ("evenly", 0.5)):
        options = {**TINY, "draw": draw, "batch_size": 50}
        task = load("language", options, Data([tmp_path / "a", tmp_path / "b"], 7, False))
        rows = np.concatenate([task.batches("train", 0)(cursor)[1] for cursor in range(20)])
        assert abs(np.mean(rows == ord("b")) - share) < 0.05


def test_genesis_and_batches_follow_from_their_seeds(tmp_path: Path) -> None:
    task = _language(text_file(tmp_path))
    one, same, other = (task.init(jax.random.key(seed)) for seed in (1, 1, 2))
    layout = _program(task).layout
    assert np.array_equal(layout.flatten(one), layout.flatten(same))
    assert not np.array_equal(layout.flatten(one), layout.flatten(other))
    source, again = task.batches("train", 5), task.batches("train", 5)
    assert all(np.array_equal(source(cursor), again(cursor)) for cursor in (3, 0, 3))
    assert not np.array_equal(source(0), source(1))


def test_the_model_sees_no_future(tmp_path: Path) -> None:
    task = _language(text_file(tmp_path))
    model = task.model.bind(task.init(jax.random.key(0)))
    text = np.arange(16)[None] + 97
    changed = text.copy()
    changed[0, 9:] = 32
    before, after = model(text), model(changed)
    assert np.array_equal(before[0, :9], after[0, :9])
    assert not np.allclose(before[0, 9:], after[0, 9:])


def test_language_learns_and_generates(tmp_path: Path) -> None:
    task = _language(text_file(tmp_path), learning_rate=0.01, width=32)
    program = _program(task, 150)
    place = program.fresh(program.genesis)
    before = task.evaluate(place.params, "test", None)["bits_per_byte"]
    while not program.over(place):
        program.advance(place)
    assert task.evaluate(place.params, "test", None)["bits_per_byte"] < before / 2
    said = task.generate(place.params, "warp", 30, 0.0, 1)
    assert said == task.generate(place.params, "warp", 30, 0.0, 2)  # cold: the likeliest bytes
    assert task.generate(place.params, "warp", 30, 1.0, 1)


def test_digits_learns() -> None:
    task = load("digits", {}, Data([], 7))
    program = _program(task, 150)
    place = program.fresh(program.genesis)
    while not program.over(place):
        program.advance(place)
    evaluate = task.evaluate  # type: ignore[attr-defined]
    assert evaluate(place.params, "test", None)["accuracy"] > 0.9


def test_digits_reads_a_members_own_records(tmp_path: Path) -> None:
    lines = shipped.digits_csv().splitlines(keepends=True)
    (tmp_path / "mine.csv").write_bytes(b"".join(lines[:500]))
    task = load("digits", {}, Data([tmp_path / "mine.csv"], 7))
    assert task.batches("train", 0)(0).shape == (32, 65)


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("language", None, "data_missing"),
        ("language", b"short", "data_too_small"),
        ("digits", b"1,2,3\n", "data_unreadable"),
        ("digits", b"", "data_too_small"),
        ("digits", b",".join([b"nan"] * 65), "data_unreadable"),
    ],
)
def test_bad_data_has_a_code(tmp_path: Path, name: str, content: bytes | None, code: str) -> None:
    path = tmp_path / "data"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TaskError) as raised:
        load(name, {}, Data([path], 7))
    assert raised.value.code == code


def test_a_folder_stands_for_the_texts_in_it(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"no \.txt") as raised:
        load("language", TINY, Data([tmp_path], 7))
    assert raised.value.code == "data_unreadable"
    (tmp_path / "below").mkdir()
    files = [tmp_path / "below" / "a.txt", text_file(tmp_path, 3000)]
    files[0].write_bytes(bytes(range(65, 91)) * 100)
    (tmp_path / "notes.md").write_text("no text to learn from")
    folder, named = (load("language", TINY, Data(paths, 7)) for paths in ([tmp_path], files))
    sources = [task.batches("train", 1) for task in (folder, named)]
    assert all(np.array_equal(sources[0](cursor), sources[1](cursor)) for cursor in range(5))


@pytest.mark.parametrize(
    "options",
    [{"colour": 1}, {"layers": "two"}, {"layers": 0}, {"width": 50}, {"draw": "x"}, {"noise": 1.0}],
)
def test_bad_options_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(TaskError) as raised:
        load("language", {**TINY, "heads": 2, **options}, Data([text_file(tmp_path)], 7))
    assert raised.value.code == "task_error"


OWN_TASK = """
import jax.numpy as jnp

class Own:
    name = "own"
    {extra}
    def init(self, key): return {{"w": jnp.ones(3)}}
    def loss(self, params, batch, key): return jnp.sum(params["w"] * batch), {{}}
    def batches(self, split, seed): return lambda cursor: jnp.full(3, cursor)

def make_task(options, data): return Own()
def nothing(options, data): return None
"""


def test_a_users_file_is_a_task(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN_TASK.format(extra=""))
    task = load(f"{tmp_path / 'own.py'}:make_task", {}, Data([], 7))
    program = _program(task)
    place = program.fresh(program.genesis)
    assert program.advance(place) == 0
    assert program.tokens_per_batch == 3


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("weaving", "task_not_found"),
        ("{}/nowhere.py:make_task", "task_not_found"),
        ("{}/own.py:absent", "task_not_found"),
        ("{}/own.py:nothing", "task_error"),
        ("{}/private.py:make_task", "task_error"),
    ],
)
def test_what_is_no_task_has_a_code(tmp_path: Path, name: str, code: str) -> None:
    (tmp_path / "own.py").write_text(OWN_TASK.format(extra=""))
    private = OWN_TASK.format(extra="local_filter = staticmethod(lambda path: True)")
    (tmp_path / "private.py").write_text(private)
    with pytest.raises(TaskError) as raised:
        load(name.format(tmp_path), {}, Data([], 7))
    assert raised.value.code == code


class _WithDropout(nnx.Module):  # type: ignore[misc]
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.linear = nnx.Linear(4, 4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        return self.dropout(self.linear(inputs))


class _WithStatistics(nnx.Module):  # type: ignore[misc]
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm = nnx.BatchNorm(4, rngs=rngs)


def test_an_nnx_module_becomes_pure_functions() -> None:
    model = NnxModel(_WithDropout)
    params = model.init(jax.random.key(0))
    assert sorted(params["linear"]) == ["bias", "kernel"]
    outputs = [
        jax.jit(lambda params, key: model.bind(params, key)(jnp.ones(4)))(params, key)
        for key in (jax.random.key(1), jax.random.key(1), jax.random.key(2))
    ]
    assert np.array_equal(outputs[0], outputs[1])
    assert not np.array_equal(outputs[0], outputs[2])


def test_running_statistics_are_refused() -> None:
    with pytest.raises(TaskError, match=r"nnx\.Param"):
        NnxModel(_WithStatistics)


def test_the_learning_rate_warms_up_and_ends_at_zero() -> None:
    cosine = learning_rates(0.1, 10, "cosine", 100)
    assert 0 < cosine(0) < 0.02
    assert math.isclose(cosine(10), 0.1, rel_tol=1e-5)
    assert cosine(100) < 1e-6
    assert cosine(1000) < 1e-6
    for endless in (learning_rates(0.1, 10, "cosine", 0), learning_rates(0.1, 10, "constant", 100)):
        assert math.isclose(endless(5000), 0.1, rel_tol=1e-5)
