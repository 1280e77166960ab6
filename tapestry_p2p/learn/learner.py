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

from tapestry_p2p.learn.task import BatchSource, Task, layout_of, optimizer_of, tokens_of
from tapestry_p2p.learn.vector import Params

FAR = 3.0  # times the distance of the newest vector from the average

InnerStep = Callable[..., tuple[Params, Any, jax.Array]]


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
        self.layout = layout_of(task, self.genesis_params)
        self.genesis = self.layout.flatten(self.genesis_params)
        self.whole_genesis = self.layout.whole(self.genesis_params)
        self.source: BatchSource = task.batches("train", batch_seed)
        self.tokens_per_batch = tokens_of(task, self.source(0))
        self._frozen = getattr(task, "frozen", None)
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

    def params(self, vector: NDArray[np.float32], own: Params | None = None) -> Params:
        """The tree of float32[d] on the device, its local leaves from ``own``, else genesis'."""
        own = self.genesis_params if own is None else own
        return self._copy(self.layout.unflatten(vector, own))

    def copy(self, place: Place) -> Place:
        """The same point in arrays of its own."""
        params, moments = self._copy((place.params, place.moments))
        return Place(params, moments, place.step, place.cursor)

    def advance(self, place: Place) -> float:
        """One inner step in place; the loss before it."""
        batch = self.source(place.cursor)
        place.params, place.moments, loss = self._step(
            place.params, place.moments, batch, self._key, place.cursor, self._frozen
        )
        place.step += 1
        place.cursor += 1
        return float(loss)

    def add(self, place: Place, correction: NDArray[np.float32]) -> None:
        """Add float32[d] to the parameters; local ones stay as they are."""
        place.params = self._add(place.params, self.layout.step(correction))

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

    (params, moments, batch, key, cursor[, frozen]) -> (params, moments, loss before the step).
    """

    def step(
        params: Params,
        moments: Any,
        batch: Any,
        key: jax.Array,
        cursor: jax.Array,
        frozen: Any = None,
    ) -> tuple[Params, Any, jax.Array]:
        def loss_of(params: Params) -> tuple[jax.Array, Any]:
            own = jax.random.fold_in(key, cursor)
            if frozen is None:
                return task.loss(params, batch, own)
            over: Any = task
            found: tuple[jax.Array, Any] = over.loss_over(frozen, params, batch, own)
            return found

        (loss, _), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, moments = optimizer.update(gradients, moments, params)
        return optax.apply_updates(params, updates), moments, loss

    return step


class Average:
    """An average of the vectors of past rounds, which the user is shown where training has no end.

    Polynomial-decay averaging (Shamir and Zhang 2013): v <- v + (x - v) (ETA + 1) / (t + ETA) after
    the t-th vector x, so the last t / (ETA + 1) rounds count, whatever t: no horizon to know. After
    `MEMORY` (ETA + 1) rounds the window grows no more. The newest parameters jitter around their
    average (Polyak and Juditsky 1992).
    """

    ETA = 16
    MEMORY = 256

    def __init__(self, vector: NDArray[np.float32], seen: int = 0) -> None:
        self.vector = vector  # float32[d]
        self.seen = seen

    def follow(self, vector: NDArray[np.float32]) -> None:
        """Take in the newest float32[d]."""
        self.seen += 1
        share = max((self.ETA + 1) / (self.seen + self.ETA), 1 / self.MEMORY)
        self.vector = self.vector + np.float32(share) * (vector - self.vector)

    def restart(self, start: NDArray[np.float32], last: NDArray[np.float32]) -> None:
        """Training goes on from ``start``; ``last`` was the newest followed. Both float32[d].

        A start much farther off than the newest was (a copy adopted, another's state) begins anew.
        """
        if norm(start - self.vector) > FAR * norm(last - self.vector):
            self.vector, self.seen = start, 0


def norm(vector: NDArray[np.float32]) -> float:
    """Euclidean norm, summed in float64."""
    return float(np.linalg.norm(vector.astype(np.float64)))


def with_schedule_at(moments: Any, step: int) -> Any:
    """The optimizer state with every optax schedule at ``step``; moments are kept."""

    def is_schedule(node: Any) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    def at_step(node: Any) -> Any:
        return node._replace(count=jnp.full_like(node.count, step)) if is_schedule(node) else node

    return jax.tree.map(at_step, moments, is_leaf=is_schedule)
