"""Codecs: bytes, loss and speed of each, beside the memory's own speed and hivemind's 8 bit.

Times are one thread's processor time, the least of several turns in which everything is run once:
what else runs on the machine counts little. Rates are gigabytes of float32 input per second.
A floor is what no codec can beat: `memcpy` reads and writes the vector once, `a += b` reads two and
writes one, `fresh bytes` makes a bytes object of it, whose pages the system must find and clear.

`loss` is ||C(v) - v||^2 / ||v||^2; `rounds to 1 %` is how many payloads a copy needs, each coding
what it still lacks of a Gaussian vector, until it lacks a hundredth.

`hivemind 8 bit` is the arithmetic of hivemind's Uniform8BitQuantization (learning-at-home/hivemind,
hivemind/compression/quantization.py: 256 bins over six standard deviations about the mean, and the
mean of each bin as its value), written down here in numpy; hivemind itself runs it in torch.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapestry_p2p.mix.codec import CODECS, Vector, decode_add, encode

Rows = list[dict[str, Any]]
TRACKED = 1 << 16  # parameters of the vector that a copy is to follow
DEGREES = 3  # of freedom of the heavy tails (Student); their fourth moment does not exist


def draw(parameters: int, seed: int) -> tuple[Vector, Vector]:
    """Gaussian and heavy-tailed, float32[parameters] each."""
    rng = np.random.default_rng(seed)
    heavy = rng.standard_t(DEGREES, parameters).astype(np.float32)
    return rng.standard_normal(parameters, np.float32), heavy


# ---- hivemind's arithmetic -------------------------------------------------------------------

Uniform = tuple[NDArray[np.uint8], Vector]
BINS, RANGE_IN_SIGMAS = 256, 6


def uniform_encode(vector: Vector) -> Uniform:
    """Bin of each value uint8[d], and the mean of each bin float32[256]."""
    centered = vector - vector.mean()
    deviation = np.sqrt(np.square(centered).sum() / (len(vector) - 1))
    scale = RANGE_IN_SIGMAS * deviation / BINS
    codes = np.clip(np.rint(centered / scale) + BINS // 2, 0, BINS - 1).astype(np.uint8)
    sums = np.bincount(codes, weights=vector, minlength=BINS)
    means = sums / np.maximum(np.bincount(codes, minlength=BINS), 1)
    return codes, means.astype(np.float32)


def uniform_add(coded: Uniform, target: Vector) -> None:
    """``target`` += the mean of each value's bin."""
    codes, means = coded
    target += means[codes]


# ---- measuring -------------------------------------------------------------------------------


def seconds(call: Callable[[], object]) -> float:
    """Processor time of one call."""
    start = time.thread_time()
    call()
    return time.thread_time() - start


def least(calls: dict[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """The least seconds of each call over so many turns, all of them once in each."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(turns):
        for name, call in calls.items():
            best[name] = min(best[name], seconds(call))
    return best


def loss(vector: Vector, add: Callable[[Vector], None]) -> float:
    """||decoded - v||^2 / ||v||^2, in float64."""
    error = -vector
    add(error)
    wide = error.astype(np.float64)
    return float(wide @ wide / (vector.astype(np.float64) ** 2).sum())


def measure(parameters: int, turns: int, seed: int) -> Rows:
    """A row for each floor, each codec and the baseline."""
    gaussian, heavy = draw(parameters, seed)
    target = heavy.copy()
    calls: dict[str, Callable[[], object]] = {
        "memcpy": lambda: np.copyto(target, gaussian),
        "a += b": lambda: np.add(target, gaussian, out=target),
        "fresh bytes": gaussian.tobytes,
        "hivemind 8 bit encode": lambda: uniform_encode(gaussian),
    }
    uniform = uniform_encode(gaussian)
    calls["hivemind 8 bit add"] = lambda: uniform_add(uniform, target)
    for codec in CODECS:
        payload = encode(codec, gaussian)
        calls[f"{codec} encode"] = lambda c=codec: encode(c, gaussian)  # type: ignore[misc]
        calls[f"{codec} add"] = lambda c=codec, p=payload: decode_add(c, p, target)  # type: ignore[misc]
    best = least(calls, turns)
    rate = {name: 4e-9 * parameters / took for name, took in best.items()}
    rows: Rows = [{"name": name, "add": rate[name]} for name in ("memcpy", "a += b")]
    rows.append({"name": "fresh bytes", "encode": rate["fresh bytes"]})
    for name in (*CODECS, "hivemind 8 bit"):
        rows.append(
            {
                "name": name,
                **quality(name, gaussian, heavy),
                "encode": rate[f"{name} encode"],
                "encode_of_memcpy": rate[f"{name} encode"] / rate["memcpy"],
                "add": rate[f"{name} add"],
                "add_of_memcpy": rate[f"{name} add"] / rate["memcpy"],
            }
        )
    return rows


def rounds_to_follow(codec: str, vector: Vector) -> int:
    """Payloads, each of what is still missing, until a copy lacks a hundredth of the vector."""
    copy, rounds = np.zeros_like(vector), 0
    while np.linalg.norm(vector - copy) > 0.01 * np.linalg.norm(vector):
        decode_add(codec, encode(codec, vector - copy), copy)
        rounds += 1
    return rounds


def quality(name: str, gaussian: Vector, heavy: Vector) -> dict[str, float]:
    """Bytes per parameter, the loss on both vectors, omega = 1 - loss on Gaussians, rounds."""
    losses = []
    for vector in (gaussian, heavy):
        if name in CODECS:
            payload = encode(name, vector)
            size = len(payload)
            losses.append(loss(vector, lambda t, p=payload: decode_add(name, p, t)))  # type: ignore[misc]
        else:
            coded = uniform_encode(vector)
            size = 8 + coded[0].nbytes + coded[1].nbytes  # their length of the table: 8 bytes
            losses.append(loss(vector, lambda t, c=coded: uniform_add(c, t)))  # type: ignore[misc]
    tracked = gaussian[:TRACKED]
    return {
        **({"rounds": rounds_to_follow(name, tracked)} if name in CODECS else {}),
        "bytes_per_parameter": size / len(gaussian),
        "loss_gaussian": losses[0],
        "loss_heavy": losses[1],
        "omega": 1 - losses[0],
    }


# ---- output ----------------------------------------------------------------------------------

COLUMNS = [
    ("codec", "name", "{}"),
    ("bytes/parameter", "bytes_per_parameter", "{:.4f}"),
    ("loss, Gaussian", "loss_gaussian", "{:.2g}"),
    ("loss, heavy tails", "loss_heavy", "{:.2g}"),
    ("omega", "omega", "{:.3f}"),
    ("rounds to 1 %", "rounds", "{}"),
    ("encode GB/s", "encode", "{:.2f}"),
    ("of memcpy", "encode_of_memcpy", "{:.2f}"),
    ("decode and add GB/s", "add", "{:.2f}"),
    ("of memcpy", "add_of_memcpy", "{:.2f}"),
]


def table(rows: Rows) -> str:
    """Markdown."""
    lines = [
        "| " + " | ".join(title for title, _, _ in COLUMNS) + " |", "|---" * len(COLUMNS) + "|"
    ]  # fmt: skip
    for row in rows:
        cells = [form.format(row[key]) if key in row else "" for _, key, form in COLUMNS]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parameters", type=int, default=10_000_000)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="100,000 parameters, two turns")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument("--out", type=Path, help="folder for codecs.json and codecs.md")
    asked = parser.parse_args()
    parameters, turns = (100_000, 2) if asked.quick else (asked.parameters, asked.turns)
    rows = measure(parameters, turns, asked.seed)
    result = {
        "parameters": parameters, "turns": turns, "seed": asked.seed, "numpy": np.__version__,
        "python": platform.python_version(), "machine": platform.machine(), "rows": rows,
    }  # fmt: skip
    text = json.dumps(result, indent=1) if asked.json else table(rows)
    print(text)
    if asked.out:
        asked.out.mkdir(parents=True, exist_ok=True)
        (asked.out / "codecs.json").write_text(json.dumps(result, indent=1) + "\n")
        (asked.out / "codecs.md").write_text(table(rows) + "\n")


if __name__ == "__main__":
    main()
