"""Learning to see without labels: predict the embeddings of hidden patches (a small I-JEPA).

    tapestry testnet --members 3 --data digits --model docs/examples/jepa.py:make_task

After Assran et al. 2023. A picture is cut into 16 patches; a square of four is hidden. The encoder
embeds the other twelve; the predictor guesses, from these, what the target encoder makes of the
hidden four. The target encoder is not trained: it follows the encoder as a moving average, so it
stays on this machine (``local_filter``), and encoder and predictor travel. Labels are only used to
judge: a linear map from embeddings to digits is fitted, and asked about pictures held out. Of one
member it names 70 % rightly before training, fewer at first, and 79 % after 1,500 steps.

Data: CSV files of 64 pixels (0..16) and the digit; without any, the set in the package.
"""

import io

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from tapestry_p2p.data import digits_csv
from tapestry_p2p.learn.nnx import NnxModel
from tapestry_p2p.learn.task import known_options

OPTIONS = {"width": 32, "heads": 4, "batch_size": 64, "learning_rate": 0.002, "decay": 0.98}
SIDE, PATCHES, PIXELS = 4, 16, 4  # 4 x 4 patches of 2 x 2 pixels
CLASSES = 10


class Block(nnx.Module):
    """Attention over patches, then a feed-forward part, each added to what came in."""

    def __init__(self, width, heads, rngs):
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(2)])
        self.attend = nnx.MultiHeadAttention(heads, width, decode=False, rngs=rngs)
        self.up = nnx.Linear(width, 2 * width, rngs=rngs)
        self.down = nnx.Linear(2 * width, width, rngs=rngs)

    def __call__(self, tokens):
        tokens = tokens + self.attend(self.norms[0](tokens))
        return tokens + self.down(jax.nn.gelu(self.up(self.norms[1](tokens))))


class Encoder(nnx.Module):
    """Patches float32[n, k, 4] at places int[n, k] -> embeddings float32[n, k, width]."""

    def __init__(self, width, heads, rngs):
        self.embed = nnx.Linear(PIXELS, width, rngs=rngs)
        self.place = nnx.Embed(PATCHES, width, rngs=rngs)
        self.blocks = nnx.List([Block(width, heads, rngs) for _ in range(2)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)

    def __call__(self, patches, places):
        tokens = self.embed(patches) + self.place(places)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


class Predictor(nnx.Module):
    """Embeddings of the seen patches, places of the hidden ones -> guesses float32[n, 4, width]."""

    def __init__(self, width, heads, rngs):
        self.place = nnx.Embed(PATCHES, width, rngs=rngs)
        self.block = Block(width, heads, rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, seen, hidden):
        tokens = self.block(jnp.concatenate([seen, self.place(hidden)], axis=1))
        return self.out(tokens[:, -hidden.shape[1] :])


class Jepa:
    """Records are float32[n, 65]: 64 pixels from 0 to 1, then the digit."""

    name = "jepa"
    card = "A small I-JEPA: embeddings of pictures, learned without labels."
    local_filter = ("target/*",)

    def __init__(self, options, data):
        chosen = known_options(options, OPTIONS)
        sizes = chosen["width"], chosen["heads"]
        self.batch_size, self.rate = chosen["batch_size"], chosen["learning_rate"]
        self.decay = chosen["decay"]
        self.encoder = NnxModel(lambda rngs: Encoder(*sizes, rngs))
        self.predictor = NnxModel(lambda rngs: Predictor(*sizes, rngs))
        rows = read(data.paths) if data.needed else np.zeros((0, 65), np.float32)
        mixed = np.random.default_rng(data.seed).permutation(rows)
        held = len(mixed) // 10 if data.hold_out else 0
        self.parts = {
            "validation": mixed[:held],
            "test": mixed[held : 3 * held],
            "train": mixed[3 * held :],
        }
        self.embed = jax.jit(self.embedded)

    def init(self, key):
        encoder = self.encoder.init(key)
        predictor = self.predictor.init(jax.random.fold_in(key, 1))
        return {"encoder": encoder, "predictor": predictor, "target": encoder}

    def loss(self, params, batch, key):
        """How far the guesses are from what the target encoder, which sees all, makes of them."""
        patches, seen, hidden = batch
        every = jnp.broadcast_to(jnp.arange(PATCHES), patches.shape[:2])
        target = self.encoder.bind(jax.lax.stop_gradient(params["target"]))(patches, every)
        wanted = jnp.take_along_axis(target, hidden[..., None], axis=1)
        given = jnp.take_along_axis(patches, seen[..., None], axis=1)
        context = self.encoder.bind(params["encoder"])(given, seen)
        guessed = self.predictor.bind(params["predictor"])(context, hidden)
        return optax.huber_loss(guessed, wanted).mean(), {}

    def batches(self, split, seed):
        """Pictures, and for each the places of the patches that are seen and hidden."""
        records = self.parts[split]

        def batch(cursor):
            random = np.random.default_rng([seed, cursor])
            rows = records[random.integers(0, len(records), self.batch_size)]
            corners = random.integers(0, SIDE - 1, (len(rows), 2)) @ [SIDE, 1]
            hidden = corners[:, None] + np.array([0, 1, SIDE, SIDE + 1])
            is_hidden = (np.arange(PATCHES) == hidden[..., None]).any(axis=1)
            seen = np.argsort(is_hidden, axis=1, kind="stable")[:, :-4]
            return patches_of(rows), seen.astype(np.int32), hidden.astype(np.int32)

        return batch

    def optimizer(self, schedule_steps):
        """Adam; then the target takes its step towards the encoder that Adam has just moved."""

        def follow(updates, state, params=None):
            encoder = optax.apply_updates(params["encoder"], updates["encoder"])
            target = jax.tree.map(
                lambda old, new: (1 - self.decay) * (new - old), params["target"], encoder
            )
            return {**updates, "target": target}, state

        following = optax.GradientTransformation(lambda params: optax.EmptyState(), follow)
        return optax.chain(optax.adam(self.rate), following)

    def embedded(self, params, patches):
        """float32[n, 16 * width]: the target encoder's view of whole pictures."""
        every = jnp.broadcast_to(jnp.arange(PATCHES), patches.shape[:2])
        found = self.encoder.bind(params["target"])(patches, every)
        return found.mean(axis=1)

    def evaluate(self, params, split, paths):
        """A linear probe, fitted on the member's training pictures, asked about the others.

        ``loss`` is the probe's mean squared error: small embeddings that guess themselves well
        would not lower it.
        """
        rows = self.parts[split] if paths is None else read(paths)
        known = self.parts["train"]
        features = [np.asarray(self.embed(params, patches_of(part))) for part in (known, rows)]
        fitted, asked = (np.column_stack([f, np.ones(len(f))]).astype(np.float64) for f in features)
        wanted = np.eye(CLASSES)[known[:, -1].astype(int)]
        ridge = fitted.T @ fitted + 1e-2 * len(fitted) * np.eye(fitted.shape[1])
        scores = asked @ np.linalg.solve(ridge, fitted.T @ wanted)
        digits = rows[:, -1].astype(int)
        return {
            "loss": float(np.mean((scores - np.eye(CLASSES)[digits]) ** 2)),
            "accuracy": float(np.mean(scores.argmax(1) == digits)),
        }


def patches_of(rows):
    """float32[n, 16, 4]: 2 x 2 pixels each, row by row."""
    cut = rows[:, :64].reshape(-1, SIDE, 2, SIDE, 2)
    return cut.transpose(0, 1, 3, 2, 4).reshape(-1, PATCHES, PIXELS).astype(np.float32)


def read(paths):
    """All records of some CSV files; of the set in the package without any."""
    texts = [path.read_bytes() for path in paths] or [digits_csv()]
    rows = np.concatenate([np.loadtxt(io.BytesIO(t), delimiter=",", ndmin=2) for t in texts])
    return np.concatenate([rows[:, :-1] / 16, rows[:, -1:]], axis=1).astype(np.float32)


def make_task(options, data):
    """What `--task jepa.py:make_task` calls."""
    return Jepa(options, data)
