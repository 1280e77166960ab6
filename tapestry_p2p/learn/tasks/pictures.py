"""What tasks that name the class of a small picture share: model, loss, batches, evaluation.

Rule: a record is one row, its pixels and then its class; where records come from is the business of
the tasks built on this. Models: ``mlp`` (one hidden layer) and ``linear`` (softmax regression).
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from numpy.typing import NDArray

from tapestry_p2p.learn.draws import words_of
from tapestry_p2p.learn.nnx import NnxModel
from tapestry_p2p.learn.task import (
    Batch,
    BatchSource,
    Data,
    Metrics,
    Options,
    Params,
    TaskError,
    adamw,
    known_options,
    learning_rates,
)

DEFAULTS: Options = {
    "model": "mlp",  # or "linear": softmax regression, convex
    "width": 32,  # of the hidden layer
    "centred": False,  # pixels from -1 to 1 instead of 0 to 1
    "batch_size": 32,
    "learning_rate": 0.01,
    "weight_decay": 0.01,
    "warmup_steps": 10,
    "schedule": "cosine",
    "local": "",  # patterns of parameters that never leave: "out/*" is an own last layer
}
CLASSES = 10
SPLITS = ("train", "validation", "test")
JUDGED_AT_ONCE = 2000  # records: bounds the memory of an evaluation

Records = NDArray[Any]  # uint8 or float32 [n, pixels + 1], the class last


class Linear(nnx.Module):
    """float32[n, pixels] -> scores float32[n, 10]: 10·pixels + 10 parameters."""

    def __init__(self, pixels: int, rngs: nnx.Rngs) -> None:
        self.out = nnx.Linear(pixels, CLASSES, rngs=rngs)

    def __call__(self, pictures: jax.Array) -> jax.Array:
        return self.out(pictures)


class Perceptron(nnx.Module):
    """float32[n, pixels] -> scores float32[n, 10], one hidden layer."""

    def __init__(self, pixels: int, width: int, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(pixels, width, rngs=rngs)
        self.out = nnx.Linear(width, CLASSES, rngs=rngs)

    def __call__(self, pictures: jax.Array) -> jax.Array:
        return self.out(jax.nn.relu(self.hidden(pictures)))


class Pictures(ABC):
    """A small model and the pictures it learns from. See `DEFAULTS` for the options.

    A task on top of it gives ``name``, ``pixels``, ``brightest`` (the pixel that counts 1),
    `read` and `read_files`.
    """

    name = ""
    pixels = 0
    brightest = 1.0

    def __init__(self, options: Options, data: Data, defaults: Options = DEFAULTS) -> None:
        self.options = known_options(options, defaults)
        _check(self.options)
        chosen = self.options
        self.model = NnxModel(
            lambda rngs: (
                Linear(self.pixels, rngs)
                if chosen["model"] == "linear"
                else Perceptron(self.pixels, chosen["width"], rngs)
            )
        )
        self.tokens_per_batch = int(chosen["batch_size"])
        self.local_filter = chosen["local"].split()
        self.records: Mapping[str, Records] = self.read(data)
        if data.content is not None:
            self.records = {**self.records, "train": data.content}
        self._refuse_too_few()
        self._judge = jax.jit(self._sums)

    @abstractmethod
    def read(self, data: Data) -> dict[str, Records]:
        """The records of every split. TaskError for data that cannot be read."""

    def sharing(self, data: Data) -> Pictures:
        """The same task and compiled functions for another member; held-out records stay equal.

        ``data.content``: its training records.
        """
        other = copy.copy(self)
        other.records = {**self.records, "train": data.content}
        other._refuse_too_few()
        return other

    def init(self, key: jax.Array) -> Params:
        """Uniform matrices of deviation 1/sqrt(fan-in), biases 0; numpy, so the same anywhere."""
        random = np.random.default_rng(words_of(key))

        def leaf(like: jax.ShapeDtypeStruct) -> NDArray[np.float32]:
            if len(like.shape) < 2:
                return np.zeros(like.shape, np.float32)
            drawn = random.random(like.shape, np.float32) - np.float32(0.5)
            return drawn * np.float32(math.sqrt(12 / like.shape[0]))

        return jax.tree.map(leaf, self.model.shapes)

    def loss(self, params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Any]:
        """Mean cross-entropy in nats; batch [n, pixels + 1], the class last."""
        losses, right = self._score(params, batch)
        return losses.mean(), {"accuracy": right.mean()}

    def batches(self, split: str, seed: int) -> BatchSource:
        """Records drawn with replacement: cursor -> [batch_size, pixels + 1]."""
        records = self.records[split]

        def batch(cursor: int) -> Batch:
            random = np.random.default_rng([seed, cursor])
            return records[random.integers(0, len(records), self.tokens_per_batch)]

        return batch

    def optimizer(self, schedule_steps: int) -> optax.GradientTransformation:
        """AdamW; warm-up, then cosine to zero at ``schedule_steps`` or constant."""
        chosen = self.options
        rates = learning_rates(
            chosen["learning_rate"], chosen["warmup_steps"], chosen["schedule"], schedule_steps
        )
        return adamw(rates, chosen["weight_decay"])

    def evaluate(self, params: Params, split: str, paths: Sequence[Path] | None) -> Metrics:
        """Mean loss in nats and the share of pictures named rightly."""
        records = self.records[split] if paths is None else self.read_files(paths)
        if not len(records):
            raise TaskError("data_too_small", f"no {split} records: give more")
        sums = [
            self._judge(params, records[start : start + JUDGED_AT_ONCE])
            for start in range(0, len(records), JUDGED_AT_ONCE)
        ]
        loss, right = np.sum(np.asarray(sums, np.float64), axis=0) / len(records)
        return {"loss": float(loss), "accuracy": float(right)}

    @abstractmethod
    def read_files(self, paths: Sequence[Path]) -> Records:
        """All records of some files. TaskError for files that cannot be read."""

    @property
    def card(self) -> str:
        """What the model card says of the architecture."""
        side = math.isqrt(self.pixels)
        if self.options["model"] == "linear":
            kind = f"Softmax regression {self.pixels}-{CLASSES}"
        else:
            kind = f"Perceptron {self.pixels}-{self.options['width']}-{CLASSES}"
        return f"{kind} for {self.name} pictures of {side} x {side} points."

    def _score(self, params: Params, records: Batch) -> tuple[jax.Array, jax.Array]:
        """Nats float32[n] and rightness bool[n] of every record."""
        pictures = records[:, : self.pixels].astype(jnp.float32) / self.brightest
        if self.options["centred"]:
            pictures = 2 * pictures - 1
        scores = self.model.bind(params)(pictures)
        classes = records[:, self.pixels].astype(jnp.int32)
        losses = optax.softmax_cross_entropy_with_integer_labels(scores, classes)
        return losses, scores.argmax(-1) == classes

    def _sums(self, params: Params, records: Batch) -> tuple[jax.Array, jax.Array]:
        losses, right = self._score(params, records)
        return losses.sum(), right.sum()

    def _refuse_too_few(self) -> None:
        if len(self.records["train"]) < self.tokens_per_batch:
            raise TaskError("data_too_small", f"under one batch of {self.tokens_per_batch}")


def _check(options: dict[str, Any]) -> None:
    for name in ("width", "batch_size"):
        if options[name] < 1:
            raise TaskError("task_error", f"option {name!r} must be at least 1")
    for name, known in (("schedule", ("cosine", "constant")), ("model", ("mlp", "linear"))):
        if options[name] not in known:
            raise TaskError("task_error", f"option {name!r} must be one of {known}")
