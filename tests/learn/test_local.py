"""Parameters that never leave: trained, kept and used here, and no byte of them handed on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from hypothesis import given
from hypothesis import strategies as st
from trainer_kit import Node

from tapestry_p2p.learn.judge import Judge
from tapestry_p2p.learn.keep import Keeper
from tapestry_p2p.learn.learner import Program
from tapestry_p2p.learn.linen import LinenModel
from tapestry_p2p.learn.load import load
from tapestry_p2p.learn.nnx import NnxModel
from tapestry_p2p.learn.task import Data, TaskError, layout_of, local_patterns
from tapestry_p2p.learn.vector import Layout, matches

# Two regressions that share nothing but the batch: what one learns cannot show in the other.
APART = '''
import jax.numpy as jnp
import numpy as np
import optax


class Apart:
    """Shared a and own b, each fitted to its half; `start` is where the own part begins."""

    name = "apart"
    local_filter = ["own/*"]

    def __init__(self, start):
        self.start = start

    def init(self, key):
        return {"own": {"b": jnp.full(5, self.start)}, "shared": {"a": jnp.zeros(3)}}

    def loss(self, params, batch, key):
        ours = jnp.mean((batch @ params["shared"]["a"] - 1) ** 2)
        return ours + jnp.sum((params["own"]["b"] - 2) ** 2), {}

    def batches(self, split, seed):
        return lambda cursor: np.random.default_rng([seed, cursor]).normal(size=(8, 3))

    def optimizer(self, schedule_steps):
        return optax.adam(0.05)

    def evaluate(self, params, split, paths):
        return {"loss": float(jnp.sum(params["own"]["b"]))}


def make_task(options, data):
    return Apart(float(options.get("start", 0.0)))
'''

NAMES = st.sampled_from(["head", "body", "own", "a", "b"])
TREES = st.dictionaries(
    NAMES,
    st.dictionaries(
        NAMES, st.integers(1, 3).map(lambda n: np.zeros((n, 2), np.float32)), min_size=1
    )
    | st.integers(1, 3).map(lambda n: np.zeros(n, np.float32)),
    min_size=1,
)
PATTERNS = st.lists(st.sampled_from(["own*", "*/b", "head", "a*", "body/?"]), max_size=3)


def _filled(tree: Any, seed: int) -> Any:
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(leaf.dtype), tree)


def _paths(tree: Any) -> list[str]:
    return [leaf.path for leaf in Layout(tree).leaves]


@given(TREES, PATTERNS, st.integers(0, 99))
def test_no_byte_of_a_staying_leaf_is_in_what_travels(
    tree: Any, patterns: list[str], seed: int
) -> None:
    patterns = [each for each in patterns if any(matches(path, [each]) for path in _paths(tree))]
    if all(matches(path, patterns) for path in _paths(tree)):
        with pytest.raises(ValueError, match="nothing is left"):
            Layout(tree, patterns)
        return
    layout = Layout(tree, patterns)
    params, other = _filled(tree, seed), _filled(tree, seed + 1)
    # The same travelling leaves with other staying ones: the same bytes, numpy and compiled.
    mixed = layout.unflatten(layout.flatten(params), other)
    assert layout.flatten(mixed).tobytes() == layout.flatten(params).tobytes()
    assert np.asarray(layout.ravel(mixed)).tobytes() == layout.flatten(params).tobytes()
    assert layout.schema == Layout(tree, patterns).schema
    for leaf in layout.leaves:
        assert not matches(leaf.path, patterns)
    # Nothing is lost at home, and what comes from outside moves no staying leaf.
    back = layout.unflatten(layout.whole(params))
    assert jax.tree.all(jax.tree.map(np.array_equal, back, params))
    step = layout.step(np.ones(layout.parameters, np.float32))
    moved = jax.tree.map(np.add, params, step)
    assert np.array_equal(layout.whole(moved)[layout.parameters :],
                          layout.whole(params)[layout.parameters :])  # fmt: skip
    assert len(layout.whole(params)) == sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_the_hash_covers_what_travels_alone() -> None:
    def layout(size: int) -> Layout:
        return Layout({"body": np.zeros(3), "head": np.zeros(size)}, ["head"])

    assert layout(2).schema == layout(5).schema == Layout({"body": np.zeros(3)}).schema
    assert layout(2).whole_schema != layout(5).whole_schema


@pytest.mark.parametrize(
    ("patterns", "said"), [(["haed/*"], "matches none of body, head"), (["*"], "nothing is left")]
)
def test_a_slip_of_the_pen_publishes_nothing(patterns: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Layout({"body": np.zeros(3), "head": np.zeros(2)}, patterns)


def test_without_the_own_part_there_is_no_tree() -> None:
    layout = Layout({"body": np.zeros(3), "head": np.zeros(2)}, ["head"])
    with pytest.raises(ValueError, match="local parameters"):
        layout.unflatten(np.zeros(3, np.float32))


@pytest.mark.parametrize("wrong", ["head/*", [1], lambda path: True, {"head": 1}])
def test_a_filter_that_is_no_list_of_patterns_is_refused(wrong: Any) -> None:
    class Named:
        local_filter = wrong

    with pytest.raises(TaskError, match="local_filter"):
        local_patterns(Named())  # type: ignore[arg-type]


class _Nnx(nnx.Module):  # type: ignore[misc]
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.body = nnx.Linear(4, 3, rngs=rngs)
        self.head = nnx.Linear(3, 2, rngs=rngs)


class _Linen(linen.Module):  # type: ignore[misc]
    @linen.compact  # type: ignore[untyped-decorator]
    def __call__(self, inputs: jax.Array) -> jax.Array:
        body = linen.Dense(3, name="body")(inputs)
        return linen.Dense(2, name="head")(body)


@pytest.mark.parametrize("model", [NnxModel(_Nnx), LinenModel(_Linen(), jnp.zeros((1, 4)))])
def test_an_own_head_in_either_flax(model: Any) -> None:
    class Headed:
        local_filter = ("head/*",)

    params = model.init(jax.random.key(0))
    layout = layout_of(Headed(), params)  # type: ignore[arg-type]
    assert [leaf.path for leaf in layout.leaves] == ["body/bias", "body/kernel"]
    assert [leaf.path for leaf in layout.local_leaves] == ["head/bias", "head/kernel"]


def _program(folder: Path, options: dict[str, Any] | None = None) -> Program:
    (folder / "apart.py").write_text(APART)
    task = load(f"{folder / 'apart.py'}:make_task", options or {}, Data([], 7))
    return Program(task, seed=1, batch_seed=2, schedule_steps=0)


def test_the_own_part_trains_and_lasts_and_corrections_pass_it_by(tmp_path: Path) -> None:
    program = _program(tmp_path)
    place = program.fresh(program.genesis)
    for _ in range(10):
        program.advance(place)
    own = np.asarray(place.params["own"]["b"])
    assert (own > 0.3).all()
    program.add(place, np.full(3, 9, np.float32))
    assert np.array_equal(place.params["own"]["b"], own)
    Keeper(tmp_path, program, Judge(None, program)).save(place, place.cursor)

    again = Keeper(tmp_path, program, Judge(None, program))
    resumed = again.resume(np.full(3, 5, np.float32), 10)
    assert np.array_equal(resumed.params["own"]["b"], own)
    assert np.array_equal(resumed.params["shared"]["a"], np.full(3, 5, np.float32))


def test_a_testnet_judges_the_own_part_as_it_was_at_the_checkpoint(tmp_path: Path) -> None:
    program = _program(tmp_path)
    spec = {"texts": {}, "own": "own", "every_steps": 1, "sovereign_from_step": 5}
    judge = Judge(spec, program)
    place = program.fresh(program.genesis)
    program.advance(place)
    judge.corrected(place, last=False)  # its loss, the sum of the own part, only grows from here
    then = float(place.params["own"]["b"].sum())
    for _ in range(3):
        program.advance(place)
    judge.corrected(place, last=True)
    assert judge.arm("together", lambda: None)["loss"]["own"] == then
    Keeper(tmp_path, program, judge).save(place, place.cursor)
    assert Keeper(tmp_path, program, Judge(spec, program)).restored


def test_a_trainer_hands_over_the_same_bytes_whatever_its_own_part_is(
    make_node: Callable[..., Node], tmp_path: Path
) -> None:
    (tmp_path / "apart.py").write_text(APART)
    task = f"{tmp_path / 'apart.py'}:make_task"
    seen, kept = [], []
    for start in (0.0, -7.5):
        node = make_node(f"at{start}", task=task, options={"start": start}, batch_seed=3)
        hello = node.expect("hello")
        assert hello["parameters"] == 3
        vectors = []
        for round_ in (1, 2, 3):
            node.train(round_, 4, round_)
            record = node.expect("vector")
            vectors.append(node.vector(record).tobytes())
            node.correct(record["seq"], np.full(3, 0.25, np.float32))
            node.expect("applied")
        seen.append((hello["schema"], hello["genesis_digest"], vectors))
        kept.append(node.ask(do="evaluate")["loss"]["own"])
        out = tmp_path / f"out{start}"
        out.mkdir()
        assert node.ask(do="export", path=str(out))["parameters"] == 3
        assert b"own/b" not in b"".join(file.read_bytes() for file in out.iterdir())
        assert node.hang_up() == 0
    assert seen[0] == seen[1]
    assert kept[0] > 0.5
    assert kept[1] < -20
