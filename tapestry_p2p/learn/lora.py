"""Low-rank adapters on frozen weights (Hu et al. 2021): only the adapters are trained and shared.

Rule: works on leaves by path, so nnx and Linen models, or any tree, are the same to it. A matrix W
of the base stays as it is; the model computes with

    W + (alpha / r) A B        W float32[m, n], A float32[m, r], B float32[r, n]

where A starts at random and B at zero, so that the first step sees the base itself. Axes before the
last count as one (convolutions). The base is no parameter: it is in no optimizer, no state and on
no wire. Leaves that the base does not have (a new head) are trained and shared whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tapestry_p2p.learn.draws import uniform, words_of
from tapestry_p2p.learn.int8 import dense
from tapestry_p2p.learn.over import Over
from tapestry_p2p.learn.task import (
    Batch,
    Data,
    Metrics,
    Params,
    Task,
    TaskError,
    evaluator_of,
    layout_of,
)
from tapestry_p2p.learn.vector import leaves_of, matches

ADAPTERS, REST = "adapters", "rest"  # the two parts of what is trained


class Adapted(Over):
    """``task`` with the leaves ``base`` (by path) frozen and adapters on its matrices.

    ``rank``: r above. ``adapt``: shell patterns of the paths that get an adapter; a matrix is left
    alone unless both of its sides are longer than r. The task's own ``local_filter`` holds for
    the adapter of each leaf it names. TaskError if nothing would be trained.
    """

    def __init__(
        self,
        task: Task,
        base: Mapping[str, Any],
        rank: int,
        alpha: float,
        adapt: Sequence[str] = ("*",),
    ) -> None:
        super().__init__(task)
        self.rank, self.alpha, self._adapt = rank, alpha, tuple(adapt)
        self._layout = layout_of(task, task.init(jax.random.key(0)))
        sides = {path: (math.prod(leaf.shape[:-1]), leaf.shape[-1:]) for path, leaf in base.items()}
        self._adapted = {
            path: (m, *n)
            for path, (m, n) in sides.items()
            if base[path].ndim >= 2 and min(m, *n) > rank and matches(path, adapt)
        }
        if not self._adapted:
            raise TaskError(
                "task_error",
                f"no matrix of the base has both sides longer than rank {rank} and a path like"
                f" {' or '.join(adapt)}: lower the rank, or adapt others",
            )
        self.frozen = {path: jax.device_put(np.asarray(leaf)) for path, leaf in base.items()}
        self._merge = jax.jit(self.merged)
        self._judge = evaluator_of(task)
        self._fit_abilities()

    def _fit_abilities(self) -> None:
        """Those of the inner task's that take parameters, so far as it has them."""
        inner: Any = self.task
        own = [leaf.path for leaf in self._layout.local_leaves]
        adapters = [f"{ADAPTERS}/{escape(path)}/*" for path in own if path in self._adapted]
        rest = [f"{REST}/{escape(path)}" for path in own if path not in self.frozen]
        self.local_filter = [*adapters, *rest]
        self.model = None  # the inner one's leaves are not what is trained
        whole = "" if own else " `whole.safetensors` has them added to these."
        card = (
            f"{getattr(inner, 'card', '')} Adapters of rank {self.rank} on frozen weights.{whole}"
        )
        self.card = card.strip()
        if hasattr(inner, "generate"):
            self.generate = lambda params, *rest: inner.generate(self.whole(params), *rest)
        if hasattr(inner, "sharing"):
            self.sharing = self._sharing

    def init(self, key: jax.Array) -> Params:
        """A uniform of deviation 1/sqrt(m), B zero; what the base lacks, as the task makes it."""
        seed = words_of(key)
        adapters = {
            path: {
                "a": uniform(seed, path, (m, self.rank), 1 / math.sqrt(m)),
                "b": np.zeros((self.rank, n), np.float32),
            }
            for path, (m, n) in self._adapted.items()
        }
        fresh = leaves_of(self.task.init(key))
        rest = {path: leaf for path, leaf in fresh.items() if path not in self.frozen}
        return {ADAPTERS: adapters, **({REST: rest} if rest else {})}

    def merged(self, frozen: Mapping[str, Any], params: Params) -> Params:
        """The inner task's tree: the base with the adapters added, and the rest."""
        params = dense(params)
        leaves = {**frozen, **params.get(REST, {})}
        for path, adapter in params[ADAPTERS].items():
            base = frozen[path]
            change = (adapter["a"] @ adapter["b"]).reshape(base.shape) * (self.alpha / self.rank)
            leaves[path] = (base + change).astype(base.dtype)
        return self._layout.tree(leaves)

    def whole(self, params: Params) -> Params:
        """`merged` on the base itself."""
        return self._merge(self.frozen, params)

    def loss_over(
        self, frozen: Mapping[str, Any], params: Params, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Any]:
        """The inner task's loss. The base is an argument: compiled in, it would be a constant."""
        return self.task.loss(self.merged(frozen, params), batch, key)

    def loss(self, params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Any]:
        """`loss_over` the base itself."""
        return self.loss_over(self.frozen, params, batch, key)

    def evaluate(self, params: Params, split: str, paths: Sequence[Path] | None) -> Metrics:
        """What the inner task says of the merged model."""
        return self._judge(self.whole(params), split, paths)

    def _sharing(self, data: Data) -> Adapted:
        inner: Any = self.task
        return Adapted(inner.sharing(data), self.frozen, self.rank, self.alpha, self._adapt)
