"""Adapters on frozen weights: the base never moves, only adapters are trained and shared."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy
from flax import linen, nnx
from trainer_kit import Node

from tapestry_p2p.learn.base import Base, Started, on_base, read, tree_of
from tapestry_p2p.learn.learner import Program
from tapestry_p2p.learn.linen import LinenModel
from tapestry_p2p.learn.load import load
from tapestry_p2p.learn.lora import Adapted
from tapestry_p2p.learn.nnx import NnxModel
from tapestry_p2p.learn.offline import answer
from tapestry_p2p.learn.task import Data, TaskError
from tapestry_p2p.learn.vector import Layout, leaves_of

INPUTS, WIDTH = 12, 10


class _Nnx(nnx.Module):  # type: ignore[misc]
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.body = nnx.Linear(INPUTS, WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, 8, rngs=rngs)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        return self.head(jax.nn.relu(self.body(inputs)))


class _Linen(linen.Module):  # type: ignore[misc]
    @linen.compact  # type: ignore[untyped-decorator]
    def __call__(self, inputs: jax.Array) -> jax.Array:
        body = jax.nn.relu(linen.Dense(WIDTH, name="body")(inputs))
        return linen.Dense(8, name="head")(body)


class _Fit:
    """Fits a fixed linear map of random inputs."""

    name = "fit"

    def __init__(self, kind: str, local: tuple[str, ...] = ()) -> None:
        self.local_filter = local
        if kind == "nnx":
            built = NnxModel(_Nnx)
            self.model: Any = built
            self._call: Any = lambda params, inputs: built.bind(params)(inputs)
        else:
            made = LinenModel(_Linen(), jnp.zeros((1, INPUTS)))
            self.model = made
            self._call = made.apply

    def init(self, key: jax.Array) -> Any:
        return self.model.init(key)

    def loss(self, params: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, Any]:
        wanted = batch @ np.random.default_rng(0).normal(size=(INPUTS, 8)).astype(np.float32)
        return jnp.mean((self._call(params, batch) - wanted) ** 2), {}

    def batches(self, split: str, seed: int) -> Any:
        def batch(cursor: int) -> Any:
            random = np.random.default_rng([seed, cursor])
            return random.normal(size=(16, INPUTS)).astype(np.float32)

        return batch

    def optimizer(self, schedule_steps: int) -> optax.GradientTransformation:
        return optax.adam(0.02)


def _base(task: Any, seed: int = 5) -> dict[str, Any]:
    return {
        path: np.asarray(leaf) for path, leaf in leaves_of(task.init(jax.random.key(seed))).items()
    }


@pytest.fixture(params=["nnx", "linen"])
def task(request: pytest.FixtureRequest) -> _Fit:
    return _Fit(request.param)


def test_only_adapters_are_trained_and_the_base_stands_still(task: _Fit) -> None:
    base = _base(task)
    adapted = Adapted(task, base, rank=2, alpha=4.0)
    program = Program(adapted, seed=1, batch_seed=2, schedule_steps=0)
    assert [(leaf.path, leaf.shape) for leaf in program.layout.leaves] == [
        ("adapters/body/kernel/a", (INPUTS, 2)),
        ("adapters/body/kernel/b", (2, WIDTH)),
        ("adapters/head/kernel/a", (WIDTH, 2)),
        ("adapters/head/kernel/b", (2, 8)),
    ]
    place = program.fresh(program.genesis)
    first = leaves_of(adapted.whole(place.params))
    assert all(np.array_equal(first[path], base[path]) for path in base)
    assert sum(leaf.size for leaf in jax.tree.leaves(place.moments)) < 3 * program.layout.parameters
    losses = [program.advance(place) for _ in range(60)]
    assert losses[-1] < 0.8 * losses[0]
    for path, leaf in base.items():
        assert np.asarray(adapted.frozen[path]).tobytes() == leaf.tobytes()
    trained = leaves_of(adapted.whole(place.params))
    a, b = (np.asarray(leaf) for leaf in jax.tree.leaves(place.params["adapters"]["body/kernel"]))
    assert np.allclose(trained["body/kernel"], base["body/kernel"] + 2.0 * (a @ b), atol=1e-6)
    assert np.array_equal(trained["body/bias"], base["body/bias"])


def test_the_base_is_not_compiled_in(task: _Fit) -> None:
    program = Program(Adapted(task, _base(task), 2, 2.0), 1, 2, 0)
    place = program.fresh(program.genesis)
    lowered = program._step.lower(
        place.params, place.moments, program.source(0), program._key, 0, program._frozen
    )
    kernel = "0x" + np.asarray(_base(task)["body/kernel"]).tobytes().hex()[:64].upper()
    assert kernel not in lowered.as_text()


def test_the_same_seed_gives_the_same_adapters(task: _Fit) -> None:
    adapted = Adapted(task, _base(task), 2, 2.0)
    layout = Layout(adapted.init(jax.random.key(1)))
    one, same, other = (layout.flatten(adapted.init(jax.random.key(k))) for k in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_what_the_base_lacks_is_trained_whole_and_what_is_local_stays() -> None:
    task = _Fit("nnx", local=("body/*", "head/bias"))
    base = {path: leaf for path, leaf in _base(task).items() if path.startswith("body")}
    program = Program(Adapted(task, base, 2, 2.0), 1, 2, 0)
    assert [leaf.path for leaf in program.layout.leaves] == ["rest/head/kernel"]
    assert [leaf.path for leaf in program.layout.local_leaves] == [
        "adapters/body/kernel/a",
        "adapters/body/kernel/b",
        "rest/head/bias",
    ]


def test_nothing_to_adapt_is_an_error_that_says_so(task: _Fit) -> None:
    for rank, adapt in ((8, ["head/*"]), (2, ["haed/*"]), (50, ["*"])):
        with pytest.raises(TaskError, match="lower the rank"):
            Adapted(task, _base(task), rank, 1.0, adapt)


def _file(path: Path, tensors: dict[str, Any]) -> Base:
    path.write_bytes(safetensors.numpy.save(tensors))
    return Base(path, hashlib.sha256(path.read_bytes()).hexdigest())


def test_a_training_starts_from_the_file(task: _Fit, tmp_path: Path) -> None:
    base = _base(task)
    found = on_base(task, _file(tmp_path / "base.safetensors", base))
    assert isinstance(found, Started)
    started = leaves_of(found.init(jax.random.key(1)))
    assert all(np.array_equal(started[path], base[path]) for path in base)
    del base["head/bias"]
    partly = on_base(task, _file(tmp_path / "part.safetensors", base)).init(jax.random.key(1))
    assert np.array_equal(partly["body"]["kernel"], base["body/kernel"])
    assert found.batches("train", 1)(0).shape == (16, INPUTS)


def test_another_file_is_refused_and_so_is_one_that_does_not_fit(tmp_path: Path) -> None:
    task = _Fit("nnx")
    good = _file(tmp_path / "base.safetensors", _base(task))
    content = bytearray(good.path.read_bytes())
    content[-1] ^= 1
    good.path.write_bytes(content)
    with pytest.raises(TaskError) as raised:
        on_base(task, good)
    assert raised.value.code == "base_missing"
    with pytest.raises(TaskError) as raised:
        on_base(task, Base(tmp_path / "nowhere", good.digest))
    assert raised.value.code == "base_missing"
    (tmp_path / "junk").write_bytes(b"\xff" * 100)
    junk = Base(tmp_path / "junk", hashlib.sha256(b"\xff" * 100).hexdigest())
    with pytest.raises(TaskError, match="no safetensors file"):
        on_base(task, junk)
    strange = _file(tmp_path / "strange", {"wte": np.zeros((2, 2), np.float32)})
    with pytest.raises(TaskError, match="not one name is the same"):
        on_base(task, strange)
    wide = _file(tmp_path / "wide", {"body/kernel": np.zeros((2, 2), np.float32)})
    with pytest.raises(TaskError, match=r"\(2, 2\) in the base and \(12, 10\)"):
        on_base(task, wide)


def test_names_and_widths_of_others_are_translated(tmp_path: Path) -> None:
    class Translating(_Fit):
        def from_base(self, tensors: Any) -> Any:
            return {"body": {"kernel": tensors["h.0.weight"].T}}

    import safetensors.flax

    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(WIDTH, INPUTS)), jnp.bfloat16)
    path = tmp_path / "half"
    path.write_bytes(safetensors.flax.save({"h.0.weight": kernel, "step": jnp.zeros(1, jnp.int32)}))
    base = Base(path, hashlib.sha256(path.read_bytes()).hexdigest(), rank=2, alpha=2.0)
    assert list(read(base)) == ["h.0.weight"]
    found = tree_of(Translating("nnx"), read(base))
    assert found["body/kernel"].dtype == np.float32
    assert np.array_equal(found["body/kernel"], np.asarray(kernel, np.float32).T)
    params = on_base(Translating("nnx"), base).init(jax.random.key(0))
    assert list(params["rest"]) == ["body/bias", "head/bias", "head/kernel"]


def test_adapters_of_a_built_in_task_are_judged_merged() -> None:
    task: Any = load("digits", {}, Data([], 7))
    program = Program(task, seed=1, batch_seed=2, schedule_steps=0)
    place = program.fresh(program.genesis)
    for _ in range(50):
        program.advance(place)
    base = {path: np.asarray(leaf) for path, leaf in leaves_of(place.params).items()}
    adapted: Any = Adapted(task, base, 2, 2.0)
    same = adapted.evaluate(adapted.init(jax.random.key(3)), "test", None)
    assert same == task.evaluate(place.params, "test", None)
    assert not hasattr(adapted, "generate")
    assert adapted.tokens_per_batch == task.tokens_per_batch
    shared = adapted.sharing(Data([], 7, content=task.records["train"][:100]))
    assert len(shared.records["train"]) == 100
    assert "Adapters of rank 2 on frozen weights." in adapted.card


def test_a_trainer_shares_adapters_alone(make_node: Callable[..., Node], tmp_path: Path) -> None:
    task: Any = load("digits", {}, Data([], 7))
    params = task.init(jax.random.key(9))
    file = _file(
        tmp_path / "base", {path: np.asarray(leaf) for path, leaf in leaves_of(params).items()}
    )
    base = {
        "path": str(file.path),
        "digest": file.digest,
        "rank": 2,
        "alpha": 2.0,
        "adapt": ["hidden/*"],
    }
    node = make_node(task="digits", options={}, base=base)
    assert node.expect("hello")["parameters"] == 2 * (64 + 32)
    node.train(1, 3, 2)
    assert len(node.run(2)) == 2
    assert node.ask(do="evaluate")["accuracy"]["own"] >= 0
    told = node.ask(do="export", path=str(tmp_path))
    asked = {"task": "digits", "options": {}, "data_seed": 7, "do": "evaluate", "schema": ""}
    found = answer({**asked, "file": str(tmp_path / "whole.safetensors")})
    score = told["scores"]["model.safetensors"]["accuracy"]["own"]
    assert found["accuracy"]["held out"] == pytest.approx(score)
    assert node.hang_up() == 0
    wrong = make_node("wrong", task="digits", options={}, base={**base, "digest": "0" * 64})
    assert wrong.expect("failed")["code"] == "base_missing"
