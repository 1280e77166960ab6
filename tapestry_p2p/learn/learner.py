"""The parameters in training: inner steps, corrections, and the way back to the last good vector.

Rule: all JAX of training is here. A learner is (params, optimizer state, step, cursor); the batch
and the randomness of a step follow from the cursor alone. Knows nothing of rounds or links.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from tapestry_p2p.bulk import IN_MEMORY, Shelf
from tapestry_p2p.heap import give_back
from tapestry_p2p.learn.devices import Devices
from tapestry_p2p.learn.task import BatchSource, Task, layout_of, optimizer_of, tokens_of
from tapestry_p2p.learn.vector import Params

NORM_BLOCK = 1 << 20
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

    def __init__(
        self,
        task: Task,
        seed: int,
        batch_seed: int,
        schedule_steps: int,
        shelf: Shelf = IN_MEMORY,
        devices: Devices | None = None,
    ) -> None:
        """``shelf``: where vectors live that are not on a device; without ``devices`` on one."""
        self.task = task
        self.schedule_steps = schedule_steps
        self.shelf = shelf
        self.devices = devices or Devices()
        params = task.init(jax.random.key(seed % (1 << 32)))
        self.layout = layout_of(task, params)
        self.big = shelf.is_mapped(self.layout.parameters)
        self.genesis = self.layout.flatten(params, shelf.empty)
        local = bool(self.layout.local_leaves)
        self.genesis_params = params if local else None  # for its local leaves
        self.whole_genesis = self.layout.whole(params, shelf.empty) if local else self.genesis
        shapes = jax.eval_shape(lambda tree: tree, params)
        del params
        self.settle()
        self.source: BatchSource = task.batches("train", batch_seed)
        self.tokens_per_batch = tokens_of(task, self.source(0))
        self._frozen = self.devices.place(getattr(task, "frozen", None))
        self._optimizer = optimizer_of(task, schedule_steps)
        self._key = jax.random.key(batch_seed % (1 << 32))
        params_at, moments_at = self._kept_where(shapes)
        step = inner_step(task, self._optimizer)
        self._step = _jit(step, params_at and (params_at, moments_at, None), donate_argnums=(0, 1))
        self._copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))
        self._fresh = _jit(self._optimizer.init, moments_at)
        self._add = _jit(lambda params, by: jax.tree.map(lambda a, b: a + b, params, by), params_at)
        self._add_leaf = jax.jit(lambda a, b: a + b, donate_argnums=0)

    def _kept_where(self, shapes: Any) -> tuple[Any, Any]:
        """How parameters and moments are cut over several devices; None, None for one."""
        if self.devices.count == 1:
            return None, None
        moments = jax.eval_shape(self._optimizer.init, shapes)
        return self.devices.cut(shapes), self.devices.cut(moments)

    def fresh(self, vector: NDArray[np.float32], step: int = 0, cursor: int = 0) -> Place:
        """A training that begins at float32[d] with no moments."""
        params = self.params(vector)
        moments = with_schedule_at(self._fresh(params), step)
        return Place(params, moments, step, cursor)

    def params(self, vector: NDArray[np.float32], own: Params | None = None) -> Params:
        """The tree of float32[d] on the device, its local leaves from ``own``, else genesis'."""
        own = self.genesis_params if own is None else own
        return self.owned(self.layout.unflatten(vector, own, copy=not self.big))

    def owned(self, tree: Any) -> Any:
        """The tree in arrays of its own on the device; a big one leaf by leaf."""
        if not self.big:
            return self.devices.place(self._copy(tree))
        made = jax.tree.map(lambda leaf: self.devices.place(jnp.array(leaf, copy=True)), tree)
        self.settle()
        return made

    def settle(self) -> None:
        """What a big model's vectors took for a moment goes back to the system."""
        if self.big:
            self.shelf.settle()
            give_back()

    def copy(self, place: Place) -> Place:
        """The same point in arrays of its own."""
        params, moments = self.owned((place.params, place.moments))
        return Place(params, moments, place.step, place.cursor)

    def advance(self, place: Place) -> float:
        """One inner step in place; the loss before it."""
        batch = self.devices.batch(self.source(place.cursor))
        place.params, place.moments, loss = self._step(
            place.params, place.moments, batch, self._key, place.cursor, self._frozen
        )
        place.step += 1
        place.cursor += 1
        return float(loss)

    def add(self, place: Place, correction: NDArray[np.float32]) -> None:
        """Add float32[d] to the parameters; local ones stay as they are."""
        if not self.big:
            place.params = self._add(place.params, self.layout.step(correction))
            return
        leaves, tree = jax.tree.flatten(place.params)
        place.params = None  # so that each leaf is moved where it is, not beside it
        for at, by in enumerate(jax.tree.leaves(self.layout.step(correction))):
            leaves[at] = self._add_leaf(leaves[at], by)
        place.params = jax.tree.unflatten(tree, leaves)
        self.settle()

    def over(self, place: Place) -> bool:
        """Whether the schedule has an end and this is it."""
        return 0 < self.schedule_steps <= place.step

    def compile(self) -> None:
        """Compile (or load from the cache) what every step needs, on throw-away arrays."""
        place = self.fresh(self.genesis)
        self.advance(place)
        self.add(place, self.genesis)
        if not self.big:  # else it is done leaf by leaf
            self.copy(place)
        del place
        self.settle()


def _jit(function: Callable[..., Any], outputs_at: Any, **options: Any) -> Any:
    """Compiled; ``outputs_at`` says how its outputs are cut, unless it is None."""
    if outputs_at is None:
        return jax.jit(function, **options)
    return jax.jit(function, out_shardings=outputs_at, **options)


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

    def __init__(
        self, vector: NDArray[np.float32], seen: int = 0, shelf: Shelf = IN_MEMORY
    ) -> None:
        self.vector = vector  # float32[d]
        self.seen = seen
        self._shelf = shelf

    def follow(self, vector: NDArray[np.float32]) -> None:
        """Take in the newest float32[d]."""
        self.seen += 1
        share = max((self.ETA + 1) / (self.seen + self.ETA), 1 / self.MEMORY)

        def step(old: NDArray[np.float32], new: NDArray[np.float32], out: Any) -> None:
            np.add(old, np.float32(share) * (new - old), out=out)

        self.vector = self._shelf.made(step, self.vector, vector)

    def restart(self, start: NDArray[np.float32], last: NDArray[np.float32]) -> None:
        """Training goes on from ``start``; ``last`` was the newest followed. Both float32[d].

        A start much farther off than the newest was (a copy adopted, another's state) begins anew.
        """
        if norm(start, self.vector) > FAR * norm(last, self.vector):
            self.vector, self.seen = start, 0


def norm(vector: NDArray[np.float32], origin: NDArray[np.float32] | None = None) -> float:
    """Euclidean norm (of ``vector - origin``), summed in float64."""
    total = 0.0
    for start in range(0, len(vector), NORM_BLOCK):
        part = vector[start : start + NORM_BLOCK].astype(np.float64)
        if origin is not None:
            part -= origin[start : start + NORM_BLOCK]
        total += float(part @ part)
    return math.sqrt(total)


def with_schedule_at(moments: Any, step: int) -> Any:
    """The optimizer state with every optax schedule at ``step``; moments are kept."""

    def is_schedule(node: Any) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    def at_step(node: Any) -> Any:
        return node._replace(count=jnp.full_like(node.count, step)) if is_schedule(node) else node

    return jax.tree.map(at_step, moments, is_leaf=is_schedule)
