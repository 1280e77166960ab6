"""Training without an end: which model to show, against a cosine to zero whose end was known.

    python benches/schedules.py [--data udhr|DIR] [--mix loom|mean] [--rounds 40,80] [--json]

N members, each with one language, train the real language task with the trainer's own step (Crowd)
and mix every H steps: the production Loom with its defaults (synchronous, all to all), or a plain
mean. A cosine is run anew for every end of --rounds; the endless ones are run once and looked at
there, for a daemon does not know when somebody asks.

  cosine          to zero at a known end: the newest parameters
  constant        after the warm-up: newest; polynomial-decay averages of past rounds (Shamir and
                  Zhang 2013) that hold the last 1/(eta + 1) of them; an EMA of 20 rounds
  inverse sqrt    peak·sqrt(T/(T + t)), T = --turn steps: the same
  schedule-free   AdamW (Defazio et al. 2024), momentum .9, its own average x. Its second sequence
                  is kept relative to the parameters, so a mixing moves both

For every one the best of --rates counts. Figures: held-out bits per byte of what members show, mean
over members and all languages ("all") and over members on their own language ("own"); in brackets
how much worse than the best cosine with the same end. --weight-decay overrides the task's.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from tapestry_p2p.data import udhr
from tapestry_p2p.learn.crowd import Crowd
from tapestry_p2p.learn.load import load
from tapestry_p2p.learn.task import Data, Task, adamw, learning_rates
from tapestry_p2p.mix.copy import PublicCopy
from tapestry_p2p.mix.loom import Loom, LoomSettings

LANGUAGES = "deu_1996 ell_monotonic fra jpn rus".split()
MODELS: dict[str, dict[str, Any]] = {
    "mini": {"layers": 1, "width": 32, "heads": 2},
    "tiny": {"layers": 2, "width": 48, "heads": 4},
    "small": {"layers": 2, "width": 52, "heads": 2, "batch_size": 16},
}
ETAS = (1, 3, 8, 16, 32)
EMA_ROUNDS = 20
SF_MOMENTUM = 0.9
ENDLESS = ("constant", "inverse sqrt", "schedule-free")

Matrix = NDArray[np.float32]  # [members, d]
Figures = dict[str, dict[str, float]]  # what is shown -> {"all", "own"}


@dataclass(frozen=True)
class Setup:
    """What all runs have in common."""

    texts: Sequence[bytes]
    task: Task  # whose compiled evaluation all runs share
    inner_steps: int
    mix: str
    turn: int
    weight_decay: float
    seed: int


# ---- learning rates --------------------------------------------------------------------------


class Relative(NamedTuple):
    """Schedule-free's state; ``ahead``: its second sequence z, less the parameters."""

    inner: Any
    ahead: Any


def schedule_free(
    inner: optax.GradientTransformation, rates: optax.Schedule
) -> optax.GradientTransformation:
    """`optax.contrib.schedule_free` whose z follows when something else moves the parameters."""
    outer = optax.contrib.schedule_free(inner, rates, b1=SF_MOMENTUM)

    def init(params: Any) -> Relative:
        return Relative(outer.init(params), jax.tree.map(jnp.zeros_like, params))

    def update(gradients: Any, state: Relative, params: Any = None) -> tuple[Any, Relative]:
        z = jax.tree.map(jnp.add, params, state.ahead)
        updates, after = outer.update(gradients, state.inner._replace(z=z), params)
        ahead = jax.tree.map(lambda z, y, u: z - (y + u), after.z, params, updates)
        return updates, Relative(after, ahead)

    return optax.GradientTransformation(init, update)


def optimizer(
    arm: str, rate: float, steps: int, weight_decay: float, turn: int
) -> optax.GradientTransformation:
    """AdamW as the task has it, under the arm's learning rate."""
    warmup = 20
    constant = learning_rates(rate, warmup, "constant", 0)
    if arm == "cosine":
        return adamw(learning_rates(rate, warmup, "cosine", steps), weight_decay)
    if arm == "inverse sqrt":
        return adamw(lambda t: constant(t) * (turn / (turn + t)) ** 0.5, weight_decay)
    if arm == "schedule-free":
        inner = optax.chain(
            optax.scale_by_adam(b1=0.0, b2=0.99),
            optax.add_decayed_weights(
                weight_decay, lambda params: jax.tree.map(lambda leaf: leaf.ndim >= 2, params)
            ),
            optax.scale_by_learning_rate(constant),
        )
        return optax.chain(optax.clip_by_global_norm(1.0), schedule_free(inner, constant))
    return adamw(constant, weight_decay)


# ---- mixing ----------------------------------------------------------------------------------


class Mean:
    """Everyone takes the mean of all."""

    def __init__(self, genesis: NDArray[np.float32], members: int) -> None:
        self._members = members

    def round(self, y: Matrix) -> Matrix:
        """What the members go on from, float32[members, d]."""
        return np.repeat(y.mean(axis=0, keepdims=True), self._members, axis=0)


class Network:
    """Production Loom rounds of members who publish at the same time, all to all."""

    def __init__(self, genesis: NDArray[np.float32], members: int) -> None:
        settings = LoomSettings()
        self._looms: list[Loom[int]] = [
            Loom(settings, genesis, PublicCopy(genesis)) for _ in range(members)
        ]
        self._seq = 0

    def round(self, y: Matrix) -> Matrix:
        """Publish y, mix what all published; what the members go on from, float32[members, d]."""
        self._seq += 1
        for loom, own in zip(self._looms, y, strict=True):
            loom.published(loom.difference(own), own)
        copies = {author: loom.own.vector for author, loom in enumerate(self._looms)}
        x = np.empty_like(y)
        for member, loom in enumerate(self._looms):
            others = {author: copy for author, copy in copies.items() if author != member}
            for author in others:
                loom.arrived(author, self._seq)
                loom.decoded(author, self._seq)
            mixing = loom.mix(y[member], others, len(others))
            loom.mixed(mixing)
            x[member] = mixing.x
        return x


MIXERS: dict[str, Callable[[NDArray[np.float32], int], Mean | Network]] = {
    "mean": Mean,
    "loom": Network,
}


# ---- runs ------------------------------------------------------------------------------------


class Averages:
    """Running averages of the vectors that members hand over, float32[members, d] each."""

    def __init__(self, start: Matrix) -> None:
        self.rows = {f"eta {eta}": start for eta in ETAS}
        self.rows["ema"] = start
        self._rounds = 0

    def follow(self, y: Matrix) -> None:
        """Take in a round."""
        self._rounds += 1
        t = self._rounds
        shares = {f"eta {eta}": (eta + 1) / (t + eta) for eta in ETAS}
        shares["ema"] = max(1 / EMA_ROUNDS, 1 / t)
        for name, share in shares.items():
            self.rows[name] = self.rows[name] + np.float32(share) * (y - self.rows[name])


def run(arm: str, rate: float, ends: Sequence[int], setup: Setup) -> dict[int, Figures]:
    """Train one arm to the last of ``ends`` (rounds) and judge what it shows at each."""
    members, steps = len(setup.texts), setup.inner_steps
    chosen = optimizer(arm, rate, ends[-1] * steps, setup.weight_decay, setup.turn)
    crowd = Crowd(setup.task, setup.texts, optimizer=chosen, seed=setup.seed)
    x = np.repeat(crowd.genesis[None], members, axis=0)
    mixer, averages = MIXERS[setup.mix](crowd.genesis, members), Averages(x)
    found = {}
    for round_ in range(1, ends[-1] + 1):
        y = crowd.train(x, steps, (round_ - 1) * steps)
        averages.follow(y)
        x = mixer.round(y)
        if round_ in ends:
            found[round_] = figures(crowd, shown(arm, crowd, y, averages))
    return found


def shown(arm: str, crowd: Crowd, y: Matrix, averages: Averages) -> dict[str, Matrix]:
    """What members could show of a training, by name."""
    if arm == "cosine":
        return {"newest": y}
    if arm == "schedule-free":
        factor = np.float32((1 - SF_MOMENTUM) / SF_MOMENTUM)
        ahead = jax.vmap(crowd.layout.ravel)(crowd.moments[1].ahead)
        return {"its own": y - factor * np.asarray(ahead, np.float32)}
    return {"newest": y, **averages.rows}


def figures(crowd: Crowd, models: Mapping[str, Matrix]) -> Figures:
    """Bits per byte of every kind of model, mean over members: all languages, and the own."""
    judged = {name: crowd.evaluate_each(rows)["bits_per_byte"] for name, rows in models.items()}
    return {
        name: {"all": float(each.mean()), "own": float(np.diag(each).mean())}
        for name, each in judged.items()
    }


def compare(
    setup: Setup, ends: Sequence[int], rates: Sequence[float], arms: Sequence[str]
) -> list[dict[str, Any]]:
    """One row an arm, rate, end and kind of shown model; a cosine for each end besides ``arms``."""
    rows = []
    plan = [("cosine", [end]) for end in ends] + [(arm, list(ends)) for arm in arms]
    for arm, judged in plan:
        for rate in rates:
            began = time.monotonic()
            for end, found in run(arm, rate, judged, setup).items():
                rows += [
                    {"arm": arm, "rate": rate, "rounds": end, "shown": name, **values}
                    for name, values in found.items()
                ]
            said = f"{arm}, rate {rate}, {judged[-1]} rounds: {time.monotonic() - began:.0f} s"
            print(said, file=sys.stderr, flush=True)
    return rows


# ---- the table -------------------------------------------------------------------------------


def best(rows: list[dict[str, Any]], figure: str, **wanted: Any) -> dict[str, Any] | None:
    """The row with the least ``figure`` among those that agree with ``wanted``."""
    agreeing = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return min(agreeing, key=lambda row: float(row[figure]), default=None)


def table(rows: list[dict[str, Any]], ends: Sequence[int]) -> list[str]:
    """The lines that a person reads."""
    kinds = list(dict.fromkeys((row["arm"], row["shown"]) for row in rows))
    lines = []
    for figure in ("all", "own"):
        lines += [f"{figure} languages" if figure == "all" else "own language", ""]
        lines.append("| arm | shown | " + " | ".join(f"{end} rounds" for end in ends) + " |")
        lines.append("|---|---|" + "---|" * len(ends))
        for arm, name in kinds:
            cells = []
            for end in ends:
                row = best(rows, figure, arm=arm, shown=name, rounds=end)
                goal = best(rows, figure, arm="cosine", rounds=end)
                assert row is not None
                assert goal is not None
                worse = 100 * (row[figure] / goal[figure] - 1)
                cells.append(f"{row[figure]:.3f} ({worse:+.1f} %, rate {row['rate']})")
            lines.append(f"| {arm} | {name} | " + " | ".join(cells) + " |")
        lines.append("")
    return lines


def read_texts(data: str) -> list[bytes]:
    """The members' texts: some of the package's, or a folder's .txt files."""
    if data == "udhr":
        return [udhr(code) for code in LANGUAGES]
    texts = [path.read_bytes() for path in sorted(Path(data).glob("*.txt"))]
    if len(texts) < 2:
        raise SystemExit(f"{data}: fewer than two .txt files; `tapestry data debian` fetches some")
    return texts


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="udhr", help="udhr, or a folder of .txt files")
    parser.add_argument("--mix", choices=MIXERS, default="loom")
    parser.add_argument("--model", choices=MODELS, default="tiny")
    parser.add_argument("--rounds", default="40,80", help="ends, in rounds")
    parser.add_argument("--inner-steps", type=int, default=10, help="H")
    parser.add_argument("--rates", default="0.003,0.012", help="peak learning rates")
    parser.add_argument("--arms", default=",".join(ENDLESS), help="beside the cosine")
    parser.add_argument("--turn", type=int, default=100, help="T of inverse sqrt, in steps")
    parser.add_argument("--weight-decay", type=float, default=0.5)
    parser.add_argument("--judged-bytes", type=int, default=8192, help="of each held-out text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--quick", action="store_true", help="two members, a few steps: does it run?"
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of the tables")
    parser.add_argument("--out", type=Path, help="folder for schedules.json and schedules.md")
    return parser.parse_args()


def main() -> None:
    """Run all, print, and write what was asked for."""
    asked = parse()
    texts = read_texts(asked.data)
    ends = sorted({int(end) for end in asked.rounds.split(",")})
    rates = [float(rate) for rate in asked.rates.split(",")]
    arms = [arm for arm in asked.arms.split(",") if arm]
    if unknown := set(arms) - set(ENDLESS):
        raise SystemExit(f"--arms {', '.join(unknown)}: choose among {', '.join(ENDLESS)}")
    options = {**MODELS[asked.model], "judged_bytes": asked.judged_bytes}
    if asked.quick:
        texts, ends, rates = texts[:2], [2], rates[:1]
        options = {"layers": 1, "width": 8, "heads": 1, "context": 16, "judged_bytes": 512}
    setup = Setup(
        texts,
        load("language", options, Data([], asked.seed, content=texts[0])),
        1 if asked.quick else asked.inner_steps,
        asked.mix,
        asked.turn,
        asked.weight_decay,
        asked.seed,
    )
    rows = compare(setup, ends, rates, arms)
    lines = table(rows, ends)
    found = json.dumps({"asked": {**vars(asked), "out": str(asked.out)}, "rows": rows}, indent=1)
    print(found if asked.json else "\n".join(lines))
    if asked.out:
        asked.out.mkdir(parents=True, exist_ok=True)
        (asked.out / "schedules.json").write_text(found + "\n")
        (asked.out / "schedules.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
