"""The adapter from a flax.linen module to the pure functions that a task is made of.

Rule: only the collection `params` is trained and shared. A module with other state (running
statistics) is refused, because it would neither be trained nor shared. Beside nnx.py, with the same
layout rules: nested dicts of arrays, in the order of their paths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from flax import linen

from tapestry_p2p.learn.int8 import dense
from tapestry_p2p.learn.task import Params, TaskError


class LinenModel:
    """A module seen as pure functions of its parameters (nested dicts of arrays).

    ``example``: arguments of one call (arrays or `jax.ShapeDtypeStruct`), by whose shapes the
    parameters are made. ``streams``: names of the random streams it asks for besides ``params``.
    TaskError if it has no parameters, or state besides them.
    """

    def __init__(
        self, module: linen.Module, *example: Any, streams: Sequence[str] = ("dropout",)
    ) -> None:
        self._module = module
        self._example = example
        self._streams = tuple(streams)
        variables = jax.eval_shape(self._init, jax.random.key(0))
        others = sorted(set(variables) - {"params"})
        if others or "params" not in variables:
            held = f"state in {', '.join(others)}" if others else "no parameters"
            raise TaskError("task_error", f"the module holds {held}: only params are shared")
        self._shapes = variables["params"]

    @property
    def shapes(self) -> Params:
        """The parameters as `jax.ShapeDtypeStruct`s."""
        return self._shapes

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters by the module's own initialisers, compiled as one function."""
        return jax.jit(lambda key: self._init(key)["params"])(key)

    def apply(
        self, params: Params, *inputs: Any, key: jax.Array | None = None, **named: Any
    ) -> Any:
        """The module's call on ``inputs``; ``key`` seeds its random streams, each differently."""
        rngs = None if key is None else self._keys(key)
        return self._module.apply({"params": dense(params)}, *inputs, rngs=rngs, **named)

    def _init(self, key: jax.Array) -> Any:
        example = jax.tree.map(lambda leaf: jax.numpy.zeros(leaf.shape, leaf.dtype), self._example)
        return self._module.init({"params": key, **self._keys(key)}, *example)

    def _keys(self, key: jax.Array) -> dict[str, jax.Array]:
        return {name: jax.random.fold_in(key, place) for place, name in enumerate(self._streams)}
