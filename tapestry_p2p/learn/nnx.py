"""The adapter from a flax.nnx module to the pure functions that a task is made of.

Rule: only `nnx.Param` leaves are parameters. Random state (dropout) is reseeded at every call;
other state (running statistics) is refused, because it would neither be trained nor shared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tapestry_p2p.learn.int8 import dense
from tapestry_p2p.learn.task import Params, TaskError


class NnxModel:
    """A module seen as pure functions of its parameters (nested dicts of arrays).

    ``build(rngs)`` makes the module. TaskError if it holds state other than parameters and
    random streams.
    """

    def __init__(self, build: Callable[[nnx.Rngs], nnx.Module]) -> None:
        self._build = build
        abstract = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
        self._graph, params, random, rest = nnx.split(abstract, nnx.Param, nnx.RngState, ...)
        if jax.tree.leaves(rest):
            raise TaskError("task_error", "the module holds state that is no nnx.Param")
        self._template = params
        if jax.tree.leaves(random):
            random = nnx.split(build(nnx.Rngs(0)), nnx.Param, nnx.RngState)[2]
        self._random = random

    @property
    def shapes(self) -> Params:
        """The parameters as `jax.ShapeDtypeStruct`s."""
        return nnx.to_pure_dict(self._template)

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters by the module's own initialisers, compiled as one function."""

        @jax.jit
        def init(key: jax.Array) -> Params:
            return nnx.to_pure_dict(nnx.state(self._build(nnx.Rngs(key)), nnx.Param))

        return init(key)

    def bind(self, params: Params, key: jax.Array | None = None) -> Any:
        """The module with these parameters (also `Int8`); ``key`` seeds its random streams."""
        state = jax.tree.map(lambda leaf: leaf, self._template)
        nnx.replace_by_pure_dict(state, dense(params))
        random = self._random
        if key is not None:
            random = jax.tree.map(lambda leaf: key if _is_key(leaf) else leaf, random)
        return nnx.merge(self._graph, state, random)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
