"""What is learned in benches/loom.py: members, their data, their steps, and how a model is judged.

One `Field` holds a production `Crowd`, so every method sees the same genesis, the same batches in
the same order and the same learning rates. Knows nothing of mixing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from benches.schedules import optimizer
from tapestry_p2p.data import udhr
from tapestry_p2p.learn.crowd import Crowd
from tapestry_p2p.learn.learner import inner_step
from tapestry_p2p.learn.task import optimizer_of

LANGUAGES = (
    "eng deu_1996 fra tur pol swh vie ell_monotonic rus arb heb hin tha kor jpn cmn_hans"
).split()
THIRDS = ("fra", "deu_1996")
LANGUAGE_MODEL = {"layers": 1, "width": 48, "heads": 2, "context": 32, "batch_size": 4}
TEXT_BYTES_MAX = 1 << 17  # of each text of a folder: what a member has here
JUDGED_BYTES = 2048  # of each held-out text
WEIGHT_DECAY = 0.5  # the task's, where a schedule of benches/schedules.py is taken
TURN = 100  # of inverse sqrt, in steps
POINTS = 8  # of a curve

FOLDER = "debian:"
Matrix = NDArray[np.float32]  # [members, d]
Vector = NDArray[np.float32]  # [d]


@dataclass(frozen=True)
class Setup:
    """What all runs of a table have in common."""

    task: str = "language"  # or digits
    texts: str = "udhr"  # or thirds: of two languages; or debian:FOLDER, a folder of .txt files
    members: int = 16
    rounds: int = 40
    inner_steps: int = 10
    rate: float = 0.0025
    schedule: str = "cosine"

    @property
    def name(self) -> str:
        """Tells results of different set-ups apart."""
        data = "" if self.task == "digits" else f" {Path(self.texts).name}"
        parts = f"{self.members}x{self.rounds}x{self.inner_steps}"
        return f"{self.task}{data} {parts} {self.schedule} {self.rate:g}"

    @property
    def steps(self) -> int:
        """Inner steps of one member in a synchronous run."""
        return self.rounds * self.inner_steps


@dataclass
class Outcome:
    """What one run gave. Language: bits per byte, less is better; digits: percent right."""

    mean: float  # of the mean model, on all members' held-out data
    members: float  # the mean over members' own models, on all members' held-out data
    own: float  # the mean over members' own models, each on its member's own data
    apart: float  # consensus distance, mean ||x_i - mean|| / ||mean||
    bytes: float  # of one message, per parameter and round
    seconds: float = 0.0  # CPU, without compiling and judging
    curve: list[tuple[float, float]] = field(default_factory=list)  # (share of the run, mean)
    shown: dict[str, float] = field(default_factory=dict)  # other models that could be shown


class Field:
    """The members' learning for one seed."""

    def __init__(self, setup: Setup, seed: int) -> None:
        self.setup, self.seed = setup, seed
        common: dict[str, Any] = {"seed": seed}
        if setup.schedule == "cosine":  # the task's own optimizer
            common |= {"lr": setup.rate, "schedule_steps": setup.steps}
        else:
            common["optimizer"] = optimizer(
                setup.schedule, setup.rate, setup.steps, WEIGHT_DECAY, TURN
            )
        if setup.task == "digits":
            self.crowd = Crowd.of_pictures("digits", setup.members, "iid", **common)
        else:
            options = {**LANGUAGE_MODEL, "judged_bytes": JUDGED_BYTES}
            self.crowd = Crowd("language", read_texts(setup), options=options, **common)
        self.figure = "accuracy" if setup.task == "digits" else "bits_per_byte"
        self.genesis: Vector = self.crowd.genesis
        self.idle = 0.0  # CPU seconds that are no part of the training

    def start(self) -> Matrix:
        """Everybody at genesis, float32[members, d]; compiled and at the first batch."""
        began = time.process_time()
        x = np.repeat(self.genesis[None], self.setup.members, axis=0)
        self.crowd.train(x, 1, 0)
        self.crowd.rewind()
        self.idle += time.process_time() - began
        return x

    def judge(self, x: Matrix, texts: Sequence[int] | None = None) -> NDArray[np.float64]:
        """Every model of x on each member's held-out data (digits: on the one set), [n, sets]."""
        began = time.process_time()
        found = self.crowd.evaluate_each(np.atleast_2d(x))[self.figure]
        if self.setup.task == "digits":
            found = 100 * np.repeat(found, self.setup.members, axis=1)
        self.idle += time.process_time() - began
        return found if texts is None else found[:, list(texts)]

    def outcome(self, x: Matrix, who: Sequence[int], size: float) -> Outcome:
        """The figures of members ``who``, whose models are the rows of x."""
        mean = x.mean(axis=0)
        each = self.judge(x, who)
        distance = np.linalg.norm(x - mean, axis=1).mean() / np.linalg.norm(mean)
        return Outcome(
            mean=float(self.judge(mean, who).mean()),
            members=float(each.mean()),
            own=float(np.diag(each).mean()),
            apart=float(distance),
            bytes=size,
        )


class Watch:
    """CPU seconds of a run and its curve."""

    def __init__(self, learning: Field) -> None:
        self._field, self._began = learning, time.process_time()
        self._idle = learning.idle
        self._curve: list[tuple[float, float]] = []
        self._next = 0.0

    def look(self, done: float, mean: Vector, who: Sequence[int] | None = None) -> None:
        """Note the mean model if a point of the curve is due; ``done`` is the share of the run."""
        if done >= self._next - 1e-9:
            self._next += 1 / POINTS
            self._curve.append((round(done, 4), float(self._field.judge(mean, who).mean())))

    def stop(self, outcome: Outcome) -> Outcome:
        """The outcome with time and curve. Call before judging to keep that out of the time."""
        seconds = time.process_time() - self._began - (self._field.idle - self._idle)
        curve = [*self._curve, (1.0, outcome.mean)]
        return replace(outcome, seconds=seconds, curve=curve)


def central(learning: Field, setup: Setup) -> Outcome:
    """One model that sees all members' batches of a step at once; gradients travel every step."""
    crowd, task = learning.crowd, learning.crowd.tasks[0]
    seeds = [learning.seed * 1009 + member for member in range(setup.members)]
    sources = [one.batches("train", seed) for one, seed in zip(crowd.tasks, seeds, strict=True)]
    chosen = optimizer_of(task, setup.steps)

    class Together:
        """The mean of all members' losses."""

        name = task.name
        init = staticmethod(task.init)
        batches = staticmethod(task.batches)

        @staticmethod
        def loss(params: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, Any]:
            """The mean over members, whose batches are stacked."""
            return jnp.mean(jax.vmap(lambda one: task.loss(params, one, key)[0])(batch)), {}

    step = jax.jit(inner_step(Together(), chosen), donate_argnums=(0, 1))
    params = jax.tree.map(jnp.asarray, crowd.layout.unflatten(learning.genesis))
    moments, key = chosen.init(params), jax.random.key(learning.seed)
    watch = Watch(learning)
    for cursor in range(setup.steps):
        if cursor % setup.inner_steps == 0:
            watch.look(cursor / setup.steps, crowd.layout.flatten(params))
        drawn = [source(cursor) for source in sources]
        batch = jax.tree.map(lambda *rows: np.stack(rows), *drawn)
        params, moments, _ = step(params, moments, batch, key, cursor)
    rows = np.repeat(crowd.layout.flatten(params)[None], setup.members, axis=0)
    size = 4.0 * setup.inner_steps
    return watch.stop(learning.outcome(rows, range(setup.members), size))


def files_of(texts: str) -> list[Path]:
    """The files that ``debian:FOLDER`` names."""
    return sorted(Path(texts.removeprefix(FOLDER)).glob("*.txt"))


def read_texts(setup: Setup) -> list[bytes]:
    """One kind of text a member."""
    if setup.texts == "thirds":
        return [third for code in THIRDS for third in _thirds(udhr(code))] + [udhr("eng")]
    if setup.texts == "udhr":
        return [udhr(code) for code in LANGUAGES[: setup.members]]
    files = files_of(setup.texts)
    if len(files) < setup.members:
        raise SystemExit(f"{setup.texts}: {len(files)} .txt files for {setup.members} members")
    return [path.read_bytes()[:TEXT_BYTES_MAX] for path in files[: setup.members]]


def _thirds(text: bytes) -> list[bytes]:
    """Its paragraphs in turn."""
    lines = text.splitlines(keepends=True)
    return [b"".join(lines[start::3]) for start in range(3)]
