"""Open weights to start from, or to stay on: a safetensors file that the manifest names by digest.

Rule: the file is worth what its SHA-256 says; it is read once, and the bytes that were hashed are
the bytes that are used. A task starts from them leaf by leaf (`started`), or trains small adapters
on them while they stay as they are (lora.py). Where the file came from is not known here.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
from numpy.typing import NDArray

from tapestry_p2p.learn.lora import Adapted
from tapestry_p2p.learn.over import Over
from tapestry_p2p.learn.task import Batch, Params, Task, TaskError
from tapestry_p2p.learn.vector import leaves_of, path_of

log = logging.getLogger(__name__)

DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Base:
    """A file of weights and what is done with it.

    ``digest``: SHA-256 of the file, hex. ``rank`` 0: training starts from the weights. Else they
    are frozen and adapters of that rank trained, with the scale ``alpha`` / ``rank``, on those
    whose paths match one of the patterns ``adapt``.
    """

    path: Path
    digest: str
    rank: int = 0
    alpha: float = 0.0
    adapt: tuple[str, ...] = ("*",)


def base_of(record: Mapping[str, Any]) -> Base:
    """As the node's ``configure`` names it."""
    adapt = tuple(record["adapt"]) or ("*",)
    path, alpha = Path(record["path"]), float(record["alpha"])
    return Base(path, record["digest"], record["rank"], alpha, adapt)


def on_base(task: Task, base: Base) -> Task:
    """The task on its base. TaskError ``base_missing``, or ``task_error`` if it does not fit."""
    given = tree_of(task, read(base))
    if base.rank:
        return Adapted(task, given, base.rank, base.alpha, base.adapt)
    return Started(task, given)


def read(base: Base) -> dict[str, NDArray[Any]]:
    """The floating-point tensors of the file, once its bytes have the digest."""
    try:
        content = base.path.read_bytes()
    except OSError as error:
        raise TaskError("base_missing", f"{base.path}: {error.strerror}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != base.digest:
        raise TaskError("base_missing", f"{base.path} has SHA-256 {found}, not {base.digest}")
    try:
        tensors = safetensors.deserialize(content)
    except safetensors.SafetensorError as error:
        raise TaskError("task_error", f"{base.path} is no safetensors file: {error}") from error
    return {
        name: np.frombuffer(view["data"], jax.numpy.dtype(DTYPES[view["dtype"]])).reshape(
            view["shape"]
        )
        for name, view in tensors
        if view["dtype"] in DTYPES
    }


def tree_of(task: Task, tensors: Tensors) -> dict[str, NDArray[Any]]:
    """The leaves that the tensors stand for, by path, each in the leaf's own dtype.

    Names are the leaves' paths, unless the task itself translates (``from_base``). TaskError if
    no leaf is among them, or one has another shape.
    """
    translate = getattr(task, "from_base", None)
    named = dict(tensors) if translate is None else leaves_of(translate(tensors))
    wanted = leaves_of(task.init(jax.random.key(0)))
    found = {}
    for path, leaf in wanted.items():
        if path not in named:
            continue
        if named[path].shape != leaf.shape:
            raise TaskError(
                "task_error",
                f"{path} is {named[path].shape} in the base and {leaf.shape} in the model: choose"
                " the task's options that the base was made with",
            )
        found[path] = np.asarray(named[path]).astype(leaf.dtype)
    if not found:
        raise TaskError(
            "task_error",
            f"the base holds {_some(named)}, the model {_some(wanted)}: not one name is the same;"
            " a task of your own can translate them (from_base)",
        )
    log.info("%d of the model's %d parameters are in the base", len(found), len(wanted))
    return found


def _some(names: Mapping[str, Any]) -> str:
    first = sorted(names)[:3]
    return ", ".join(first) + (", ..." if len(names) > len(first) else "")


class Started(Over):
    """A task whose first parameters are those of the base, the others as the task makes them."""

    def __init__(self, task: Task, given: Tensors) -> None:
        super().__init__(task)
        self._given = given

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters where the base has none."""
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: self._given.get(path_of(path), leaf), self.task.init(key)
        )

    def loss(self, params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Any]:
        """The task's own."""
        return self.task.loss(params, batch, key)
