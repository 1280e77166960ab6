"""Pictures into classes, with a small convolutional network: your own folders, or digits.

    tapestry testnet --members 3 --data digits --model docs/examples/vision.py:make_task
    tapestry init --task docs/examples/vision.py:make_task --task-option classes=cat,dog --data pets

Data: folders with a folder for each class (``pets/cat/1.jpg``), read by Pillow (``pip install
pillow``) and made gray and ``side`` x ``side``; or CSV files of 64 pixels (0..16) and the class;
without any, the digits in the package. Members of one network must name the same classes in the
same order. With ``own_head=true`` the last layer never leaves a member: for classes of its own.
"""

import io

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from tapestry_p2p.data import digits_csv
from tapestry_p2p.learn.nnx import NnxModel
from tapestry_p2p.learn.task import TaskError, known_options

OPTIONS = {
    "classes": "0,1,2,3,4,5,6,7,8,9",  # names of the folders, commas between
    "side": 8,
    "width": 16,
    "batch_size": 32,
    "learning_rate": 0.003,
    "own_head": False,
}


class Net(nnx.Module):
    """float32[n, side, side, 1] -> scores float32[n, classes]."""

    def __init__(self, side, width, classes, rngs):
        self.near = nnx.Conv(1, width, (3, 3), rngs=rngs)
        self.far = nnx.Conv(width, 2 * width, (3, 3), strides=2, rngs=rngs)
        self.out = nnx.Linear(2 * width * (-(-side // 2)) ** 2, classes, rngs=rngs)

    def __call__(self, pictures):
        seen = jax.nn.relu(self.far(jax.nn.relu(self.near(pictures))))
        return self.out(seen.reshape(len(seen), -1))


class Vision:
    """Records are float32[n, side * side + 1]: pixels from 0 to 1, then the class."""

    name = "vision"
    card = "A convolutional network that names pictures."

    def __init__(self, options, data):
        chosen = known_options(options, OPTIONS)
        self.classes, self.side = chosen["classes"].split(","), chosen["side"]
        self.batch_size, self.rate = chosen["batch_size"], chosen["learning_rate"]
        self.local_filter = ["out/*"] if chosen["own_head"] else []
        self.model = NnxModel(lambda rngs: Net(self.side, chosen["width"], len(self.classes), rngs))
        rows = self.read(data.paths) if data.needed else np.zeros((0, self.side**2 + 1))
        mixed = np.random.default_rng(data.seed).permutation(rows)
        held = len(mixed) // 10 if data.hold_out else 0
        self.parts = {
            "validation": mixed[:held],
            "test": mixed[held : 3 * held],
            "train": mixed[3 * held :],
        }
        if data.needed and len(self.parts["train"]) < self.batch_size:
            raise TaskError("data_too_small", f"fewer than {self.batch_size} pictures to train on")
        self.judge = jax.jit(lambda params, rows: self.scored(params, rows))

    def init(self, key):
        return self.model.init(key)

    def loss(self, params, batch, key):
        nats, right = self.scored(params, batch)
        return nats.mean(), {"accuracy": right.mean()}

    def scored(self, params, rows):
        """Cross-entropy and rightness of each picture."""
        pictures = rows[:, :-1].reshape(-1, self.side, self.side, 1)
        scores, wanted = self.model.bind(params)(pictures), rows[:, -1].astype(jnp.int32)
        nats = optax.softmax_cross_entropy_with_integer_labels(scores, wanted)
        return nats, scores.argmax(-1) == wanted

    def batches(self, split, seed):
        records = self.parts[split]

        def batch(cursor):
            random = np.random.default_rng([seed, cursor])
            return records[random.integers(0, len(records), self.batch_size)]

        return batch

    def optimizer(self, schedule_steps):
        return optax.adam(self.rate)

    def evaluate(self, params, split, paths):
        """On the held-out part, or on files that somebody gives (a testnet does)."""
        rows = self.parts[split] if paths is None else self.read(paths)
        nats, right = self.judge(params, rows)
        return {"loss": float(nats.mean()), "accuracy": float(right.mean())}

    def read(self, paths):
        """All pictures below the paths."""
        if not paths:
            return self.from_csv(digits_csv())
        return np.concatenate(
            [
                self.from_folder(path) if path.is_dir() else self.from_csv(path.read_bytes())
                for path in paths
            ]
        )

    def from_csv(self, text):
        rows = np.loadtxt(io.BytesIO(text), delimiter=",", ndmin=2).astype(np.float32)
        return np.concatenate([rows[:, :-1] / 16, rows[:, -1:]], axis=1)

    def from_folder(self, folder):
        try:
            from PIL import Image
        except ImportError as error:
            raise TaskError("task_error", "pictures need Pillow: pip install pillow") from error
        rows = []
        for number, name in enumerate(self.classes):
            for file in sorted(path for path in (folder / name).glob("*") if path.is_file()):
                with Image.open(file) as picture:
                    small = picture.convert("L").resize((self.side, self.side))
                rows.append([*(np.asarray(small, np.float32).ravel() / 255), number])
        if not rows:
            raise TaskError(
                "data_unreadable", f"{folder} has none of the folders {', '.join(self.classes)}"
            )
        return np.asarray(rows, np.float32)


def make_task(options, data):
    """What `--task vision.py:make_task` calls."""
    return Vision(options, data)
