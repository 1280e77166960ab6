"""The model as a safetensors file: every leaf under its path, and what kind of model it is.

Rule: written by the trainer, which knows names and shapes; it holds the model alone, no data, no
optimizer state.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from tapestry_p2p.learn.state import replace
from tapestry_p2p.learn.task import Task
from tapestry_p2p.learn.vector import Layout


def export(path: Path, task: Task, layout: Layout, vector: NDArray[np.float32]) -> dict[str, Any]:
    """Write float32[d] as named tensors. OSError. Returns what a model card needs."""
    facts = {"task": task.name, "schema": layout.schema, "card": str(getattr(task, "card", ""))}
    tensors = {}
    start = 0
    for leaf in layout.leaves:
        tensors[leaf.path] = vector[start : start + leaf.size].reshape(leaf.shape)
        start += leaf.size
    replace(path, safetensors.numpy.save(tensors, metadata=facts))
    return {**facts, "path": str(path), "parameters": layout.parameters}
