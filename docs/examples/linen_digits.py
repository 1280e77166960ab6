"""A Flax Linen model as a task: handwritten digits, with dropout.

    tapestry init --task docs/examples/linen_digits.py:make_task --data digits.csv

Data: CSV files of 64 pixels (0..16) and the digit; without any, the set in the package.
"""

import io

import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from tapestry_p2p.data import digits_csv
from tapestry_p2p.learn.linen import LinenModel


class Net(nn.Module):
    """float32[n, 64] -> scores float32[n, 10]."""

    width: int

    @nn.compact
    def __call__(self, pictures, train: bool = False):
        hidden = nn.relu(nn.Dense(self.width)(pictures))
        hidden = nn.Dropout(0.2, deterministic=not train)(hidden)
        return nn.Dense(10)(hidden)


class Digits:
    """A task needs `init`, `loss` and `batches`; `optimizer` and `evaluate` are extras."""

    name = "linen digits"
    card = "A Linen perceptron for handwritten digits."

    def __init__(self, options, data):
        self.batch_size = int(options.get("batch_size", 32))
        self.model = LinenModel(Net(int(options.get("width", 24))), jnp.zeros((1, 64)))
        mixed = np.random.default_rng(data.seed).permutation(read(data.paths))
        held = len(mixed) // 10 if data.hold_out else 0
        self.parts = {
            "validation": mixed[:held],
            "test": mixed[held : 3 * held],
            "train": mixed[3 * held :],
        }

    def init(self, key):
        return self.model.init(key)

    def loss(self, params, batch, key):
        scores = self.model.apply(params, batch[:, :64] / 16, train=True, key=key)
        digits = batch[:, 64].astype(jnp.int32)
        return optax.softmax_cross_entropy_with_integer_labels(scores, digits).mean(), {}

    def batches(self, split, seed):
        records = self.parts[split]

        def batch(cursor):
            random = np.random.default_rng([seed, cursor])
            return records[random.integers(0, len(records), self.batch_size)]

        return batch

    def optimizer(self, schedule_steps):
        return optax.adam(0.005)

    def evaluate(self, params, split, paths):
        """On the held-out part, or on files that somebody gives (a testnet does)."""
        records = self.parts[split] if paths is None else read(paths)
        scores = self.model.apply(params, records[:, :64] / 16)
        digits = records[:, 64].astype(jnp.int32)
        loss = optax.softmax_cross_entropy_with_integer_labels(scores, digits).mean()
        return {"loss": float(loss), "accuracy": float((scores.argmax(-1) == digits).mean())}


def read(paths):
    """float32[n, 65]: pixels and digit, of the files, or of the package if there are none."""
    texts = [path.read_bytes() for path in paths] or [digits_csv()]
    rows = [np.loadtxt(io.BytesIO(text), delimiter=",", ndmin=2) for text in texts]
    return np.concatenate(rows).astype(np.float32)


def make_task(options, data):
    """What `--task linen_digits.py:make_task` calls."""
    return Digits(options, data)
