"""The model as safetensors files: every leaf under its path, in float32 and in eight bits.

Rule: written by the trainer, which knows names and shapes; they hold the model alone, no data, no
optimizer state. How good each is on the member's own held-out data is measured, never assumed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from tapestry_p2p.learn.int8 import dequantised, quantised
from tapestry_p2p.learn.state import replace
from tapestry_p2p.learn.task import Task
from tapestry_p2p.learn.vector import Layout, Params, leaves_of

MODEL, INT8 = "model.safetensors", "model.int8.safetensors"
WHOLE = "whole.safetensors"  # of a network of adapters: its base with the adapters added
LOCAL = (
    "local.safetensors"  # the member's own part; in the folder only until the asker takes it out
)

Vector = NDArray[np.float32]


def export(
    folder: Path,
    task: Task,
    layout: Layout,
    vector: Vector,
    judge: Callable[[Params], dict[str, Any]],
    own: Params | None = None,
    with_local: bool = False,
) -> dict[str, Any]:
    """Write float32[d] as ``model.safetensors`` and ``model.int8.safetensors``. OSError.

    Of adapters a third file is the model that they make of their base, for any other program.

    Returns what a model card needs, with what ``judge`` says of both. Local leaves, which stay out
    of these files, are judged as they are in the tree ``own``; ``with_local`` writes them to one of
    their own, ``local.safetensors``.
    """
    facts = {"task": task.name, "schema": layout.schema, "card": str(getattr(task, "card", ""))}
    tensors = named(layout, vector)
    small = quantised(tensors)
    replace(folder / MODEL, safetensors.numpy.save(tensors, metadata=facts))
    replace(folder / INT8, safetensors.numpy.save(small, metadata=facts))
    merged: Any = getattr(task, "whole", None)
    if merged is not None and not layout.local_leaves:
        whole = leaves_of(merged(layout.unflatten(vector)))
        added = {name: np.asarray(leaf) for name, leaf in whole.items()}
        replace(folder / WHOLE, safetensors.numpy.save(added, metadata=facts))
    if with_local and own is not None and layout.local_leaves:
        kept = {path: np.asarray(leaf) for path, leaf in layout.local_part(own).items()}
        replace(folder / LOCAL, safetensors.numpy.save(kept, metadata=facts))
    rounded = dequantised(small)
    by_name = [rounded[leaf.path].ravel() for leaf in layout.leaves]
    return {
        **facts,
        "parameters": layout.parameters,
        "layout": [[leaf.path, list(leaf.shape), leaf.dtype] for leaf in layout.leaves],
        "local": [leaf.path for leaf in layout.local_leaves],
        "bytes": {name: (folder / name).stat().st_size for name in (MODEL, INT8)},
        "scores": {
            MODEL: judge(layout.unflatten(vector, own)),
            INT8: judge(layout.unflatten(np.concatenate(by_name), own)),
        },
    }


def named(layout: Layout, vector: Vector) -> dict[str, Vector]:
    """The leaves of float32[d] by their paths."""
    tensors = {}
    start = 0
    for leaf in layout.leaves:
        tensors[leaf.path] = vector[start : start + leaf.size].reshape(leaf.shape)
        start += leaf.size
    return tensors
