"""The parameters in training: inner steps, corrections, and the way back to the last good vector.

Rule: all JAX of training is here. A learner is (params, optimizer state, step, cursor); the batch
and the randomness of a step follow from the cursor alone. Knows nothing of rounds or links.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from tapestry_p2p.learn.task import BatchSource, Task, optimizer_of, tokens_of
from tapestry_p2p.learn.vector import Layout, Params

InnerStep = Callable[[Params, Any, Any, jax.Array, jax.Array], tuple[Params, Any, jax.Array]]


@dataclass
class Place:
    """A point of a training: everything that a learner is. Arrays are never shared."""

    params: Params
    moments: Any  # optax state
    step: int  # place in the learning-rate schedule
    cursor: int  # batches drawn


class Program:
    """A task's training step, compiled once and used by every learner of this process."""

    def __init__(self, task: Task, seed: int, batch_seed: int, schedule_steps: int) -> None:
        self.task = task
        self.schedule_steps = schedule_steps
        self.genesis_params = task.init(jax.random.key(seed % (1 << 32)))
        self.layout = Layout(self.genesis_params)
        self.genesis = self.layout.flatten(self.genesis_params)
        self.source: BatchSource = task.batches("train", batch_seed)
        self.tokens_per_batch = tokens_of(task, self.source(0))
        self._optimizer = optimizer_of(task, schedule_steps)
        self._key = jax.random.key(batch_seed % (1 << 32))
        self._step = jax.jit(inner_step(task, self._optimizer), donate_argnums=(0, 1))
        self._copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))
        self._fresh = jax.jit(self._optimizer.init)
        self._add = jax.jit(lambda params, by: jax.tree.map(lambda a, b: a + b, params, by))

    def fresh(self, vector: NDArray[np.float32], step: int = 0, cursor: int = 0) -> Place:
        """A training that begins at float32[d] with no moments."""
        params = self.params(vector)
        moments = with_schedule_at(self._fresh(params), step)
        return Place(params, moments, step, cursor)

    def params(self, vector: NDArray[np.float32]) -> Params:
        """The tree of float32[d] on the device."""
        return self._copy(self.layout.unflatten(vector))

    def copy(self, place: Place) -> Place:
        """The same point in arrays of its own."""
        params, moments = self._copy((place.params, place.moments))
        return Place(params, moments, place.step, place.cursor)

    def advance(self, place: Place) -> float:
        """One inner step in place; the loss before it."""
        place.params, place.moments, loss = self._step(
            place.params, place.moments, self.source(place.cursor), self._key, place.cursor
        )
        place.step += 1
        place.cursor += 1
        return float(loss)

    def add(self, place: Place, correction: NDArray[np.float32]) -> None:
        """Add float32[d] to the parameters."""
        place.params = self._add(place.params, self.layout.unflatten(correction))

    def over(self, place: Place) -> bool:
        """Whether the schedule has an end and this is it."""
        return 0 < self.schedule_steps <= place.step

    def compile(self) -> None:
        """Compile (or load from the cache) what every step needs, on throw-away arrays."""
        place = self.fresh(self.genesis)
        self.advance(place)
        self.add(place, self.genesis)
        self.copy(place)


def inner_step(task: Task, optimizer: optax.GradientTransformation) -> InnerStep:
    """One inner step as a pure function, to be compiled: for one learner here, for many in crowd.

    (params, moments, batch, key, cursor) -> (params, moments, loss before the step).
    """

    def step(
        params: Params, moments: Any, batch: Any, key: jax.Array, cursor: jax.Array
    ) -> tuple[Params, Any, jax.Array]:
        def loss_of(params: Params) -> tuple[jax.Array, Any]:
            return task.loss(params, batch, jax.random.fold_in(key, cursor))

        (loss, _), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, moments = optimizer.update(gradients, moments, params)
        return optax.apply_updates(params, updates), moments, loss

    return step


class Average:
    """A running average of vectors, that the local user is shown where training has no end.

    With a constant learning rate the newest parameters jitter around a better point; their average
    is near it (Polyak and Juditsky 1992), as a decay to zero would be. The memory grows to
    `MEMORY` vectors, so what was learned first is forgotten.
    """

    MEMORY = 20

    def __init__(self, vector: NDArray[np.float32]) -> None:
        self.vector = vector  # float32[d]
        self._seen = 0

    def follow(self, vector: NDArray[np.float32]) -> None:
        """Take in the newest float32[d]."""
        self._seen += 1
        keep = np.float32(min(1 - 1 / self.MEMORY, self._seen / (self._seen + 9)))
        self.vector = keep * self.vector + (1 - keep) * vector


def with_schedule_at(moments: Any, step: int) -> Any:
    """The optimizer state with every optax schedule at ``step``; moments are kept."""

    def is_schedule(node: Any) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    def at_step(node: Any) -> Any:
        return node._replace(count=jnp.full_like(node.count, step)) if is_schedule(node) else node

    return jax.tree.map(at_step, moments, is_leaf=is_schedule)
