"""The built-in task ``digits``: name the handwritten digit in a picture of 8 x 8 points.

Rule: small enough to learn in seconds, so it serves for tests and first tries. Reads the set that
comes with the package, or CSV files of the same form (64 pixels of 0..16, then the digit).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from numpy.typing import NDArray

from tapestry_p2p import data as shipped
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
    "width": 32,  # 64 x 32 x 10 with biases: 2,410 parameters
    "batch_size": 32,
    "learning_rate": 0.01,
    "weight_decay": 0.01,
    "warmup_steps": 10,
    "schedule": "cosine",
}
PIXELS, CLASSES, BRIGHTEST = 64, 10, 16
PARTS = {"train": range(3, 10), "validation": range(1), "test": range(1, 3)}  # of ten draws


class Perceptron(nnx.Module):
    """float32[n, 64] -> scores float32[n, 10], one hidden layer."""

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(PIXELS, width, rngs=rngs)
        self.out = nnx.Linear(width, CLASSES, rngs=rngs)

    def __call__(self, pictures: jax.Array) -> jax.Array:
        return self.out(jax.nn.relu(self.hidden(pictures)))


class Digits:
    """A small perceptron and the pictures it learns from. See `DEFAULTS` for the options."""

    name = "digits"

    def __init__(self, options: Options, data: Data) -> None:
        self.options = known_options(options, DEFAULTS)
        self.model = NnxModel(lambda rngs: Perceptron(self.options["width"], rngs))
        self.tokens_per_batch = int(self.options["batch_size"])
        self._records = _split(_read(data), data)
        if len(self._records["train"]) < self.tokens_per_batch:
            raise TaskError("data_too_small", f"under one batch of {self.tokens_per_batch}")
        self._judge = jax.jit(self._score)

    def init(self, key: jax.Array) -> Params:
        """Uniform matrices of deviation 1/sqrt(fan-in), biases 0; numpy, so the same anywhere."""
        seed = [int(word) for word in np.asarray(jax.random.key_data(key)).ravel()]
        random = np.random.default_rng(seed)

        def leaf(like: jax.ShapeDtypeStruct) -> NDArray[np.float32]:
            if len(like.shape) < 2:
                return np.zeros(like.shape, np.float32)
            drawn = random.random(like.shape, np.float32) - np.float32(0.5)
            return drawn * np.float32(math.sqrt(12 / like.shape[0]))

        return jax.tree.map(leaf, self.model.shapes)

    def loss(self, params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Any]:
        """Mean cross-entropy in nats; batch float32[n, 65], the digit last."""
        loss, right = self._score(params, batch)
        return loss, {"accuracy": right}

    def batches(self, split: str, seed: int) -> BatchSource:
        """Records drawn with replacement: cursor -> float32[batch_size, 65]."""
        records = self._records[split]

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
        """Mean loss in nats and the share of digits named rightly."""
        records = self._records[split] if paths is None else _join(map(_file, paths))
        if not len(records):
            raise TaskError("data_too_small", f"no {split} records: give more")
        loss, right = self._judge(params, records)
        return {"loss": float(loss), "accuracy": float(right)}

    @property
    def card(self) -> str:
        """What the model card says of the architecture."""
        return f"Perceptron 64-{self.options['width']}-10 for handwritten digits of 8 x 8 points."

    def _score(self, params: Params, records: Batch) -> tuple[jax.Array, jax.Array]:
        scores = self.model.bind(params)(records[:, :PIXELS] / BRIGHTEST)
        digits = records[:, PIXELS].astype(jnp.int32)
        losses = optax.softmax_cross_entropy_with_integer_labels(scores, digits)
        return losses.mean(), jnp.mean(scores.argmax(-1) == digits)


def make_task(options: Options, data: Data) -> Digits:
    """The task ``digits``. TaskError for a bad option, or data unreadable or too small."""
    return Digits(options, data)


def _read(data: Data) -> NDArray[np.float32]:
    if data.paths:
        return _join(map(_file, data.paths))
    return _parse(shipped.digits_csv(), "the set in the package")


def _join(parts: Any) -> NDArray[np.float32]:
    return np.concatenate(list(parts))


def _file(path: Path) -> NDArray[np.float32]:
    try:
        return _parse(Path(path).read_bytes(), str(path))
    except OSError as error:
        raise TaskError("data_unreadable", f"{path}: {error.strerror}") from error


def _parse(text: bytes, name: str) -> NDArray[np.float32]:
    """float32[n, 65]. TaskError ``data_unreadable`` unless every line holds 65 numbers."""
    try:
        rows = [[float(cell) for cell in line.split(b",")] for line in text.splitlines() if line]
        records = np.array(rows, np.float32).reshape(len(rows), PIXELS + 1)
    except ValueError:
        raise TaskError("data_unreadable", f"{name}: want 65 numbers a line") from None
    digits = records[:, PIXELS]
    if not np.isfinite(records).all() or not np.isin(digits, range(CLASSES)).all():
        raise TaskError("data_unreadable", f"{name}: the last number of a line must be 0..9")
    return records


def _split(records: NDArray[np.float32], data: Data) -> dict[str, NDArray[np.float32]]:
    """Records of every split: of each ten, one validation, two test, drawn by the seed."""
    if not data.hold_out and data.paths:
        empty = records[:0]
        return {"train": records, "validation": empty, "test": empty}
    drawn = np.random.default_rng([data.seed, len(records)]).permutation(len(records)) % 10
    return {split: records[np.isin(drawn, part)] for split, part in PARTS.items()}
