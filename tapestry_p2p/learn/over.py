"""A task around a task: what a wrapper does not change is the inner task's own.

Rule: optional abilities (`evaluate`, `card`, ...) are looked up in the inner task, so a wrapper has
exactly those that the inner one has. Knows nothing of what wrappers are for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import jax

from tapestry_p2p.learn.task import Batch, BatchSource, Params, Task


class Over(ABC):
    """All of ``task``, with other parameters."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.name = task.name

    @abstractmethod
    def init(self, key: jax.Array) -> Params:
        """As `Task.init`."""

    @abstractmethod
    def loss(self, params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Any]:
        """As `Task.loss`."""

    def batches(self, split: str, seed: int) -> BatchSource:
        """The inner task's."""
        return self.task.batches(split, seed)

    def __getattr__(self, name: str) -> Any:
        if name == "task" or name.startswith("_"):  # not ours yet: nothing to do with the inner's
            raise AttributeError(name)
        return getattr(self.task, name)
