"""Many members' learning at once, in one process: for simulators and experiments.

Rule: the trainer's own inner step (learner.py), mapped over members; a crowd of one takes the same
steps on the same batches as a trainer with that seed. It holds each member's moments and cursor by
the member's number; vectors come in and go out. Knows nothing of mixing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from tapestry_p2p.learn.learner import inner_step, with_schedule_at
from tapestry_p2p.learn.load import load
from tapestry_p2p.learn.partition import dirichlet, flipped, iid, label_separated
from tapestry_p2p.learn.task import (
    Data,
    Options,
    Task,
    TaskError,
    evaluator_of,
    local_patterns,
    optimizer_of,
    sgd,
)
from tapestry_p2p.learn.vector import Layout

Matrix = NDArray[np.float32]  # [members, d]


class Crowd:
    """N members of one task.

    ``task``: a name as in `load`, or a `Task` that can be shared (``sharing``).
    ``data``: one element a member: bytes (a text), an array of records (pictures), a path, or
    `Data`. Texts and files are cut into training and held-out parts by ``seed``; records are
    training records, judged on the held-out part of ``paths`` (nothing: the set in the package).

    ``batch``, ``lr``, ``weight_decay``, ``schedule`` are short for the task's options; a callable
    ``lr(t)`` makes it plain SGD with that rate and weight decay (`sgd`), ``optimizer`` is taken
    as it is. ``batch_seeds``: one a member, else from ``seed``. TaskError as the task raises it.
    """

    def __init__(
        self,
        task: str | Task,
        data: Sequence[Any],
        *,
        options: Options | None = None,
        batch: int | None = None,
        lr: float | optax.Schedule | None = None,
        weight_decay: float | None = None,
        schedule: str | None = None,
        schedule_steps: int = 0,
        optimizer: optax.GradientTransformation | None = None,
        seed: int = 0,
        batch_seeds: Sequence[int] | None = None,
        paths: Sequence[Path] = (),
    ) -> None:
        chosen = dict(options or {})
        if callable(lr):
            optimizer = sgd(lr, weight_decay or 0.0)
            lr = weight_decay = None
        given = {
            "batch_size": batch,
            "learning_rate": lr,
            "weight_decay": weight_decay,
            "schedule": schedule,
        }
        chosen.update({name: value for name, value in given.items() if value is not None})
        self.tasks = _tasks(task, chosen, [_data(each, paths, seed) for each in data])
        self.members = len(self.tasks)
        first = self.tasks[0]
        if local_patterns(first):
            raise TaskError("task_error", "a crowd's members have no local parameters")
        genesis = first.init(jax.random.key(seed % (1 << 32)))
        self.layout = Layout(genesis)
        self.genesis = self.layout.flatten(genesis)
        seeds = batch_seeds or [seed * 1009 + member for member in range(self.members)]
        self._sources = [
            each.batches("train", own) for each, own in zip(self.tasks, seeds, strict=True)
        ]
        self._keys = jnp.stack([jax.random.key(own % (1 << 32)) for own in seeds])
        self.losses = np.full(self.members, np.nan)  # mean training loss of the last `train`
        optimizer = optimizer or optimizer_of(first, schedule_steps)
        step = inner_step(first, optimizer)

        def steps(*rows: Any) -> Any:  # one after the other: faster on CPU than batched products
            return jax.lax.map(lambda row: step(*row), rows)

        self._step = jax.jit(steps, donate_argnums=(0, 1))
        self._unflatten = jax.jit(jax.vmap(self.layout.unflatten))
        self._flatten = jax.jit(jax.vmap(self.layout.ravel))
        self._fresh = jax.jit(jax.vmap(optimizer.init))
        self._rows_of = jax.jit(_rows_of)
        self._put_rows = jax.jit(_put_rows, donate_argnums=0)
        self.rewind()

    def rewind(self) -> None:
        """Fresh moments and every cursor at the start: the next run sees the same batches."""
        params = self._unflatten(np.broadcast_to(self.genesis, (self.members, len(self.genesis))))
        self.moments = self._fresh(params)
        self._cursors = np.zeros(self.members, np.int64)

    @classmethod
    def of_pictures(
        cls,
        task: str,
        members: int,
        partition: str = "iid",
        *,
        alpha: float = 1.0,
        poisoned: Sequence[int] = (),
        seed: int = 0,
        paths: Sequence[Path] = (),
        **rest: Any,
    ) -> Crowd:
        """A crowd that shares out the training records of ``digits`` or ``fashion``.

        ``partition``: iid, labels (as few classes a member as can be) or dirichlet(``alpha``).
        ``poisoned``: members whose labels are mirrored (class c is taught as 9 - c). ``paths``:
        the folder of ``fashion``. The rest as for `Crowd`. ValueError, TaskError.
        """
        whole: Any = load(task, {"batch_size": 1}, Data(list(paths), seed))
        records = whole.records["train"]
        shared = {
            "iid": lambda: iid(len(records), members, seed),
            "labels": lambda: label_separated(records[:, -1], members, seed),
            "dirichlet": lambda: dirichlet(records[:, -1], members, alpha, seed),
        }
        if partition not in shared:
            raise ValueError(f"partition must be one of {', '.join(shared)}, not {partition}")
        parts = [records[indices] for indices in shared[partition]()]
        data = [flipped(part) if i in poisoned else part for i, part in enumerate(parts)]
        return cls(task, data, seed=seed, paths=paths, **rest)

    def train(
        self, x: Matrix, steps: int, first_step: int, who: Sequence[int] | None = None
    ) -> Matrix:
        """``steps`` inner steps of each member from its row of x float32[n, d]; the rows after.

        ``first_step``: place in the learning-rate schedule. ``who``: whose rows they are, each at
        most once (all members' if None). Moments and cursors of the others stay.
        """
        members = np.arange(self.members) if who is None else np.asarray(who, np.int64)
        if len(members) != len(x) or len(np.unique(members)) != len(members):
            raise ValueError(f"{len(x)} rows for members {members.tolist()}: one row each")
        y = np.empty_like(x, np.float32)
        for part in _groups(len(members), self.members):
            y[part] = self._train(x[part], steps, first_step, members[part])
        return y

    def _train(self, x: Matrix, steps: int, first_step: int, who: NDArray[np.int64]) -> Matrix:
        every = len(who) == self.members and bool((who == np.arange(self.members)).all())
        params = self._unflatten(x)
        moments = self.moments if every else self._rows_of(self.moments, who)
        moments = with_schedule_at(moments, first_step)
        keys = self._keys if every else self._keys[who]
        losses = jnp.zeros(len(who))
        for _ in range(steps):
            drawn = [self._sources[member](int(self._cursors[member])) for member in who]
            batch = jax.tree.map(lambda *rows: np.stack(rows), *drawn)
            cursors = jnp.asarray(self._cursors[who], jnp.int32)
            params, moments, loss = self._step(params, moments, batch, keys, cursors)
            losses = losses + loss
            self._cursors[who] += 1
        if every:
            self.moments = moments
        else:
            self.moments = self._put_rows(self.moments, moments, who)
        self.losses[who] = np.asarray(losses, np.float64) / max(1, steps)
        return np.asarray(self._flatten(params))

    def evaluate(self, x: Matrix, split: str = "test") -> dict[str, NDArray[np.float64]]:
        """Every model, a row of x float32[M, d], on the held-out data: metric -> float64[M].

        Members with held-out data of their own (texts) count equally: the mean over them.
        """
        found = self.evaluate_each(x, split)
        return {name: values.mean(axis=1) for name, values in found.items()}

    def evaluate_each(self, x: Matrix, split: str = "test") -> dict[str, NDArray[np.float64]]:
        """Every model on each different held-out set: metric -> float64[M, sets].

        With texts, one set a member in their order; with pictures, one.
        """
        judges = [self.tasks[0]] if hasattr(self.tasks[0], "records") else self.tasks
        rows = []
        for vector in np.asarray(x, np.float32):
            params = jax.tree.map(jnp.asarray, self.layout.unflatten(vector))
            rows.append([evaluator_of(judge)(params, split, None) for judge in judges])
        return {
            name: np.array([[metrics[name] for metrics in row] for row in rows])
            for name in rows[0][0]
        }


def _rows_of(tree: Any, who: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[who], tree)


def _put_rows(tree: Any, rows: Any, who: Any) -> Any:
    return jax.tree.map(lambda leaf, new: leaf.at[who].set(new), tree, rows)


def _tasks(task: str | Task, options: Mapping[str, Any], data: Sequence[Data]) -> list[Task]:
    """One task a member. The first compiles; the others share with it if they can."""
    if not data:
        raise ValueError("a crowd needs a member")
    first = load(task, options, data[0]) if isinstance(task, str) else task
    share: Any = getattr(first, "sharing", None)
    if share is None and not isinstance(task, str):
        raise ValueError(f"the task {first.name} cannot be shared: give its name instead")
    tasks = [first] if isinstance(task, str) or share is None else [share(data[0])]
    for each in data[1:]:
        by_sharing = share is not None and (each.content is not None or first is task)
        tasks.append(share(each) if by_sharing else load(str(task), options, each))
    return tasks


def _data(each: Any, paths: Sequence[Path], seed: int) -> Data:
    if isinstance(each, Data):
        return each
    if isinstance(each, str | Path):
        return Data([Path(each)], seed)
    return Data(list(paths), seed, content=each)


def _groups(count: int, members: int) -> list[slice]:
    """All at once if it is everyone, else powers of two: few sizes to compile."""
    if count == members:
        return [slice(0, count)]
    groups, start = [], 0
    while start < count:
        size = 1 << ((count - start).bit_length() - 1)
        groups.append(slice(start, start + size))
        start += size
    return groups
