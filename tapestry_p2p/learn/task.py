"""What a task is: a model, its loss, its batches, and some optional abilities.

Rule: whatever offers `init`, `loss` and `batches` can be trained; the functions below fill in for
what a task leaves out. A task sees data and arrays. It knows nothing of rounds, peers, links or
files other than its data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
import optax

from tapestry_p2p.learn.vector import Layout

Params = Any
Batch = Any  # a pytree of arrays, the same shapes every time
BatchSource = Callable[[int], Batch]  # cursor -> batch; the same cursor gives the same batch
Metrics = Mapping[str, float]
Options = Mapping[str, Any]

HELD_OUT_BATCHES = 16  # for tasks without `evaluate`: enough for a stable mean, cheap enough


class TaskError(Exception):
    """A task or its data cannot be used; ``code`` is one of the link's failure codes."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True)
class Data:
    """What a task may read.

    ``hold_out``: keep 30 % of it away from training, chosen by ``seed``; False if that was done
    before (a testnet cuts its texts itself). ``content``: what a member trains on, in memory in
    place of files (experiments in one process): bytes for texts, an array of records for pictures.
    ``needed``: False if the model alone is wanted and nothing will be trained or judged.
    """

    paths: Sequence[Path]
    seed: int
    hold_out: bool = True
    content: Any = None
    needed: bool = True


@runtime_checkable
class Task(Protocol):
    """The least a task must offer. A task's file has ``make_task(options, data: Data) -> Task``.

    Optional, looked up by name:

    * ``optimizer(schedule_steps) -> optax.GradientTransformation`` over the params pytree;
      ``schedule_steps`` 0 means no end. Schedules written with optax follow the network's step.
    * ``evaluate(params, split, paths) -> Metrics``; ``split`` is ``validation`` or ``test``;
      ``paths`` are files to judge instead of the task's own held-out data, or None. Must hold
      ``loss``, by which checkpoints are chosen; ``bits_per_byte``, ``bits_per_char`` and
      ``accuracy`` are shown if there.
    * ``generate(params, prompt: str, size, temperature, seed) -> str``; ``size`` in bytes.
    * ``tokens_per_batch: int``, else the leading axis of a batch.
    * ``card: str``, text for the model card.
    * ``sharing(data) -> Task``: this task with its compiled functions for another member's data.
    * ``local_filter``: shell patterns over the leaves' paths (``["head/*"]``). What they match is
      trained, kept and used here, and never leaves: an own head, own adapters (`Layout`).
    * ``from_base(tensors) -> params``: the tree that a file of weights stands for, where its
      tensors have other names than the leaves. Not all leaves need be in it.
    * ``frozen``: arrays that the loss reads and training leaves alone; then
      ``loss_over(frozen, params, batch, key)`` is compiled in place of ``loss``.
    """

    name: str

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters: a pytree of floating-point arrays, the same for the same key."""

    def loss(self, params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Any]:
        """Scalar to minimise, and a dict of scalars to watch. Pure: it is compiled."""

    def batches(self, split: str, seed: int) -> BatchSource:
        """Batches of ``train``, ``validation`` or ``test`` as a function of the cursor."""


def local_patterns(task: Task) -> tuple[str, ...]:
    """The task's ``local_filter``, () without one. TaskError if it is no list of texts."""
    patterns = getattr(task, "local_filter", None) or ()
    known = isinstance(patterns, list | tuple)
    if not known or not all(isinstance(pattern, str) for pattern in patterns):
        raise TaskError("task_error", 'local_filter must be a list of patterns, as ["head/*"]')
    return tuple(patterns)


def layout_of(task: Task, params: Params) -> Layout:
    """What of the task's parameters travels, and in which order. TaskError if nothing can."""
    try:
        return Layout(params, local_patterns(task))
    except ValueError as error:
        raise TaskError("task_error", f"{error}") from error


def optimizer_of(task: Task, schedule_steps: int) -> optax.GradientTransformation:
    """The task's optimizer, else AdamW with `learning_rates` and decay on matrices only."""
    own = getattr(task, "optimizer", None)
    if own is not None:
        return own(schedule_steps)
    return adamw(learning_rates(1e-3, 20, "cosine", schedule_steps), 0.1)


def adamw(rates: optax.Schedule, weight_decay: float) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019), gradients clipped to norm 1, decay on matrices only."""
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(
            rates,
            b1=0.9,
            b2=0.99,
            weight_decay=weight_decay,
            mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim >= 2, params),
        ),
    )


def sgd(rate: float | optax.Schedule, weight_decay: float = 0.0) -> optax.GradientTransformation:
    """Plain SGD with L2 decay of every leaf: x <- x - rate(t)·(gradient + weight_decay·x).

    ``rate(t)`` maps the step (a traced int array) to a number: ``lambda t: 0.9 / (t + 1) ** 0.5``.
    """
    rates = rate if callable(rate) else optax.schedules.constant_schedule(rate)
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(rates))


def learning_rates(
    peak: float, warmup_steps: int, schedule: str, schedule_steps: int
) -> optax.Schedule:
    """Linear warm-up to ``peak``, then a cosine to zero at ``schedule_steps``, or constant.

    A network without end (``schedule_steps`` 0) stays constant whatever ``schedule`` says.
    """
    warmup = optax.schedules.linear_schedule(peak / (warmup_steps + 1), peak, warmup_steps)
    if schedule == "constant" or schedule_steps == 0:
        rest: optax.Schedule = optax.schedules.constant_schedule(peak)
    else:
        rest = optax.schedules.cosine_decay_schedule(peak, max(1, schedule_steps - warmup_steps))
    return optax.schedules.join_schedules([warmup, rest], [warmup_steps])


def tokens_of(task: Task, batch: Batch) -> int:
    """How many tokens (or examples) one batch holds."""
    own = getattr(task, "tokens_per_batch", None)
    return int(own) if own is not None else int(np.shape(jax.tree.leaves(batch)[0])[0])


def evaluator_of(task: Task) -> Callable[[Params, str, Sequence[Path] | None], Metrics]:
    """The task's `evaluate`, else the mean loss over some held-out batches (``paths`` ignored)."""
    own = getattr(task, "evaluate", None)
    if own is not None:
        return own
    loss = jax.jit(lambda params, batch: task.loss(params, batch, jax.random.key(0))[0])

    def evaluate(params: Params, split: str, paths: Sequence[Path] | None) -> Metrics:
        source = task.batches(split, 0)
        losses = [float(loss(params, source(cursor))) for cursor in range(HELD_OUT_BATCHES)]
        return {"loss": math.fsum(losses) / len(losses)}

    return evaluate


def known_options(options: Options, defaults: Options) -> dict[str, Any]:
    """``defaults`` overridden by ``options``. TaskError for an unknown name or another type."""
    for name, value in options.items():
        if name not in defaults:
            raise TaskError("task_error", f"unknown option {name!r}: known are {sorted(defaults)}")
        wanted = type(defaults[name])
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise TaskError("task_error", f"option {name!r} must be {wanted.__name__}")
    return {**defaults, **options}
