"""The built-in task ``language``: predict the next byte of the member's texts.

Rule: tokens are bytes, so there is no vocabulary to agree on. Everything drawn at random (genesis,
batches, samples) follows from a seed. Genesis is made with numpy from uniform numbers: plain IEEE
products, hence the same bits on every machine, which a compiled initialiser does not promise.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from tapestry_p2p import corpus
from tapestry_p2p.learn.draws import uniform, words_of
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
from tapestry_p2p.learn.tasks.transformer import Transformer

DEFAULTS: Options = {
    "layers": 2,
    "width": 48,  # 2 x 48: 67,824 parameters; 2 x 52: 78,468
    "heads": 2,
    "context": 64,  # bytes the model sees
    "batch_size": 8,  # windows of `context` bytes a step
    "learning_rate": 0.003,
    "weight_decay": 0.5,
    "warmup_steps": 20,
    "schedule": "cosine",
    "noise": 0.1,  # share of the bytes seen in training that are replaced, against rote learning
    "draw": "by_size",  # or "evenly": every file equally often, whatever its size
    "local": "",  # patterns of parameters that never leave: "blocks/1/* norm/*"
    "judged_bytes": 1 << 17,  # of a long held-out text only this much is judged, evenly spread
}
SPLITS = ("train", "validation", "test")
JUDGED_ROWS = 32  # windows judged per call
START = b"\n"  # what stands before the first byte
GENERATED_BYTES_MAX = 4096

Bytes = NDArray[np.uint8]


class Language:
    """A byte transformer and the texts it learns from. See `DEFAULTS` for the options."""

    name = "language"

    def __init__(self, options: Options, data: Data) -> None:
        self.options = known_options(options, DEFAULTS)
        _check(self.options)
        layers, width, heads = (self.options[name] for name in ("layers", "width", "heads"))
        self.model = NnxModel(lambda rngs: Transformer(layers, width, heads, rngs))
        self.context = int(self.options["context"])
        self.rows = int(self.options["batch_size"])
        self.tokens_per_batch = self.rows * self.context
        self.local_filter = self.options["local"].split()
        self._texts = self._read(data)
        self._judge = jax.jit(self._bits)
        self._next = jax.jit(self._sample)

    def sharing(self, data: Data) -> Language:
        """The same task and compiled functions for another member's texts."""
        other = copy.copy(self)
        other._texts = self._read(data)
        return other

    def _read(self, data: Data) -> dict[str, list[Bytes]]:
        if not data.needed:
            return {split: [] for split in SPLITS}
        texts = _read(data)
        smallest = self.rows * self.context + 1
        if sum(map(len, texts["train"])) < smallest:
            raise TaskError("data_too_small", f"training text under one batch: {smallest} bytes")
        return texts

    def init(self, key: jax.Array) -> Params:
        """Uniform matrices of deviation 1/sqrt(fan-in), norms 1; residual outputs are smaller."""
        seed = words_of(key)

        def leaf(path: Any, like: jax.ShapeDtypeStruct) -> NDArray[np.float32]:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            if len(like.shape) < 2:
                return np.ones(like.shape, np.float32)
            deviation = like.shape[-1 if "embed" in name else 0] ** -0.5
            if "join" in name or "down" in name:
                deviation /= math.sqrt(2 * self.options["layers"])
            return uniform(seed, name, like.shape, deviation)

        return jax.tree_util.tree_map_with_path(leaf, self.model.shapes)

    def loss(self, params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Any]:
        """Mean cross-entropy in nats per byte; batch int32[2, rows, context]: seen, following."""
        loss = jnp.mean(self._surprise(params, batch[0], batch[1]))
        return loss, {"bits_per_byte": loss / math.log(2)}

    def batches(self, split: str, seed: int) -> BatchSource:
        """Windows drawn at random: cursor -> int32[2, batch_size, context], seen and following.

        In training a share ``noise`` of the bytes seen (not of those to be predicted) is replaced
        by other bytes of the batch: less learning by rote, better on unseen text.
        """
        texts = [text for text in self._texts[split] if len(text) > 1]
        starts = np.array([max(1, len(text) - self.context) for text in texts])
        even = self.options["draw"] == "evenly"
        shares = np.full(len(texts), 1 / len(texts)) if even else starts / starts.sum()
        window = np.arange(self.context + 1)
        noise = self.options["noise"] if split == "train" else 0.0

        def batch(cursor: int) -> Batch:
            random = np.random.default_rng([seed, cursor])
            which = random.choice(len(texts), self.rows, p=shares)
            first = random.integers(0, starts[which])
            rows = [
                np.take(texts[text], window + offset, mode="wrap")
                for text, offset in zip(which, first, strict=True)
            ]
            drawn = np.stack(rows).astype(np.int32)
            return np.stack([_blurred(drawn[:, :-1], noise, random), drawn[:, 1:]])

        return batch

    def optimizer(self, schedule_steps: int) -> optax.GradientTransformation:
        """AdamW; warm-up, then cosine to zero at ``schedule_steps`` or constant."""
        chosen = self.options
        rates = learning_rates(
            chosen["learning_rate"], chosen["warmup_steps"], chosen["schedule"], schedule_steps
        )
        return adamw(rates, chosen["weight_decay"])

    def evaluate(self, params: Params, split: str, paths: Sequence[Path] | None) -> Metrics:
        """Bits per byte and per character; every byte is predicted once, from up to `context`."""
        texts = self._texts[split] if paths is None else [_bytes(path) for path in paths]
        if not any(map(len, texts)):
            raise TaskError("data_too_small", f"no {split} text: give a longer one")
        bits, size, characters = 0.0, 0, 0
        for text in texts:
            judged, excerpt = self._windows(text)
            for start in range(0, len(judged), JUDGED_ROWS):
                bits += float(self._judge(params, *_pad(judged[start : start + JUDGED_ROWS])))
            size += len(excerpt)
            characters += corpus.characters(excerpt)
        per_byte = bits / size
        return {
            "loss": per_byte,
            "bits_per_byte": per_byte,
            "bits_per_char": bits / max(1, characters),
        }

    def generate(
        self, params: Params, prompt: str, size: int, temperature: float, seed: int
    ) -> str:
        """Up to ``size`` further bytes after the prompt, as text (broken UTF-8 replaced)."""
        text = bytearray(START + prompt.encode())
        begin = len(text)
        key = jax.random.key(seed % (1 << 32))
        for step in range(min(size, GENERATED_BYTES_MAX)):
            seen = text[-self.context :]
            window = np.zeros(self.context, np.int32)
            window[: len(seen)] = np.frombuffer(seen, np.uint8)
            text.append(int(self._next(params, window, len(seen), step, key, temperature)))
        return bytes(text[begin:]).decode(errors="replace")

    @property
    def card(self) -> str:
        """What the model card says of the architecture."""
        chosen = self.options
        return (
            f"Byte-level decoder-only transformer: {chosen['layers']} layers, width "
            f"{chosen['width']}, {chosen['heads']} heads, context {chosen['context']} bytes."
        )

    def _surprise(self, params: Params, seen: jax.Array, following: jax.Array) -> jax.Array:
        """Nats float32[rows, length] that each following byte cost."""
        scores = self.model.bind(params)(seen)
        return optax.softmax_cross_entropy_with_integer_labels(scores, following)

    def _bits(self, params: Params, rows: jax.Array, counted: jax.Array) -> jax.Array:
        return jnp.sum(self._surprise(params, rows[:, :-1], rows[:, 1:]) * counted) / math.log(2)

    def _sample(
        self,
        params: Params,
        window: jax.Array,
        length: jax.Array,
        step: jax.Array,
        key: jax.Array,
        temperature: jax.Array,
    ) -> jax.Array:
        scores = self.model.bind(params)(window[None])[0, length - 1]
        drawn = jax.random.categorical(
            jax.random.fold_in(key, step), scores / jnp.maximum(temperature, 1e-6)
        )
        return jnp.where(temperature > 0, drawn, jnp.argmax(scores))

    def _windows(self, text: Bytes) -> tuple[list[Bytes], bytes]:
        """Windows of up to context + 1 bytes that predict the judged bytes once; those bytes."""
        padded = np.concatenate([np.frombuffer(START, np.uint8), text])
        firsts = range(0, len(text), self.context)
        stride = max(1, math.ceil(len(text) / self.options["judged_bytes"]))
        windows = [padded[first : first + self.context + 1] for first in firsts[::stride]]
        return windows, b"".join(window[1:].tobytes() for window in windows)


def make_task(options: Options, data: Data) -> Language:
    """The task ``language``. TaskError for a bad option, or data missing, unreadable, too small."""
    return Language(options, data)


def _check(options: dict[str, Any]) -> None:
    for name in ("layers", "width", "heads", "context", "batch_size", "judged_bytes"):
        if options[name] < 1:
            raise TaskError("task_error", f"option {name!r} must be at least 1")
    if not 0 <= options["noise"] < 1:
        raise TaskError("task_error", "option 'noise' must be at least 0 and under 1")
    if options["width"] % (2 * options["heads"]):
        raise TaskError("task_error", "width must be an even multiple of heads")
    for name, known in (("schedule", ("cosine", "constant")), ("draw", ("by_size", "evenly"))):
        if options[name] not in known:
            raise TaskError("task_error", f"option {name!r} must be one of {known}")


def _read(data: Data) -> dict[str, list[Bytes]]:
    """The texts of every split, one array a file."""
    if not data.paths and data.content is None:
        raise TaskError("data_missing", "the language task needs a text file")
    texts: dict[str, list[Bytes]] = {split: [] for split in SPLITS}
    files = [_bytes(path) for path in _files(data.paths)]
    for text in [np.frombuffer(data.content, np.uint8)] if data.content is not None else files:
        if not data.hold_out:
            texts["train"].append(text)
            continue
        parts = corpus.split_held_out(text.tobytes(), data.seed)
        for split, pieces in zip(SPLITS, parts, strict=True):
            texts[split].append(np.frombuffer(corpus.join(pieces), np.uint8))
    return texts


def _files(paths: Sequence[Path]) -> list[Path]:
    """The paths; in place of a folder the .txt files below it, in the order of their names."""
    files = []
    for path in paths:
        found = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
        if not found:
            raise TaskError("data_unreadable", f"{path}: no .txt file is in this folder")
        files += found
    return files


def _bytes(path: Path) -> Bytes:
    try:
        return np.frombuffer(Path(path).read_bytes(), np.uint8)
    except OSError as error:
        raise TaskError("data_unreadable", f"{path}: {error.strerror}") from error


def _blurred(
    seen: NDArray[np.int32], noise: float, random: np.random.Generator
) -> NDArray[np.int32]:
    hit = random.random(seen.shape, np.float32) < noise
    return np.where(hit, random.permutation(seen.ravel()).reshape(seen.shape), seen)


def _pad(windows: list[Bytes]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """int32[JUDGED_ROWS, length] and which predictions count; short windows filled with zeros."""
    longest = max(map(len, windows))
    rows = np.zeros((JUDGED_ROWS, longest), np.int32)
    counted = np.zeros((JUDGED_ROWS, longest - 1), np.float32)
    for row, window in enumerate(windows):
        rows[row, : len(window)] = window
        counted[row, : len(window) - 1] = 1
    return rows, counted
