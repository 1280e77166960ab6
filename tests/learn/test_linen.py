"""A flax.linen model becomes a task, from the adapter to a real trainer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from trainer_kit import Node

from tapestry_p2p.learn.learner import Program
from tapestry_p2p.learn.linen import LinenModel
from tapestry_p2p.learn.load import load
from tapestry_p2p.learn.task import Data, TaskError
from tapestry_p2p.learn.vector import Layout

EXAMPLE = f"{Path(__file__).parents[2] / 'docs/examples/linen_digits.py'}:make_task"


class _Net(nn.Module):  # type: ignore[misc]
    @nn.compact  # type: ignore[untyped-decorator]
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        hidden = nn.Dropout(0.5, deterministic=not train)(nn.Dense(4)(inputs))
        noise = 0 if not train else jax.random.normal(self.make_rng("noise"), hidden.shape)
        return nn.Dense(2)(hidden + 0 * noise)


class _WithStatistics(nn.Module):  # type: ignore[misc]
    @nn.compact  # type: ignore[untyped-decorator]
    def __call__(self, inputs: jax.Array) -> jax.Array:
        return nn.BatchNorm(use_running_average=False)(nn.Dense(3)(inputs))


class _Empty(nn.Module):  # type: ignore[misc]
    @nn.compact  # type: ignore[untyped-decorator]
    def __call__(self, inputs: jax.Array) -> jax.Array:
        return inputs


def test_a_linen_module_becomes_pure_functions() -> None:
    model = LinenModel(_Net(), jnp.ones((1, 4)), streams=("dropout", "noise"))
    params = model.init(jax.random.key(0))
    assert Layout(params).schema == Layout(model.shapes).schema
    assert [leaf.path for leaf in Layout(params).leaves] == [
        "Dense_0/bias",
        "Dense_0/kernel",
        "Dense_1/bias",
        "Dense_1/kernel",
    ]
    same = model.init(jax.random.key(0))
    assert np.array_equal(params["Dense_0"]["kernel"], same["Dense_0"]["kernel"])
    outputs = [
        jax.jit(lambda params, key: model.apply(params, jnp.ones((8, 4)), train=True, key=key))(
            params, jax.random.key(seed)
        )
        for seed in (1, 1, 2)
    ]
    assert np.array_equal(outputs[0], outputs[1])
    assert not np.array_equal(outputs[0], outputs[2])
    quiet = model.apply(params, jnp.ones((8, 4)))
    assert np.array_equal(quiet, model.apply(params, jnp.ones((8, 4)), key=jax.random.key(3)))


@pytest.mark.parametrize(
    ("module", "said"), [(_WithStatistics(), "batch_stats"), (_Empty(), "no parameters")]
)
def test_a_module_that_cannot_be_shared_is_refused(module: nn.Module, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        LinenModel(module, jnp.ones((1, 3)))


def test_the_example_learns(tmp_path: Path) -> None:
    task: Any = load(EXAMPLE, {}, Data([], 7))
    program = Program(task, seed=1, batch_seed=2, schedule_steps=200)
    place = program.fresh(program.genesis)
    while not program.over(place):
        program.advance(place)
    assert task.evaluate(place.params, "test", None)["accuracy"] > 0.8
    eights = tmp_path / "eights.csv"
    eights.write_text("".join(f"{','.join(['3'] * 64)},{digit}\n" for digit in (8, 8, 8)))
    assert task.evaluate(place.params, "test", [eights])["accuracy"] in (0.0, 1.0)  # all alike


def test_a_trainer_trains_the_example(make_node: Callable[..., Node]) -> None:
    node = make_node(task=EXAMPLE, options={"width": 8})
    assert node.expect("hello")["parameters"] == 65 * 8 + 9 * 10
    node.train(1, 3, 2)
    told = node.run(2)
    assert [record["round"] for record in told] == [1, 2]
    assert node.ask(do="evaluate")["accuracy"]["own"] >= 0
    assert node.hang_up() == 0
