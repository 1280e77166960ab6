"""Generating with an exported model: float32 beside eight bits. Memory, speed, held-out loss.

Each size is trained here for a while on a shipped text, exported as `tapestry export` does it, and
both files are used, each in a process of its own, by the code of `tapestry generate --model`.

`needs` is what the model takes: its weights, and what the compiled step has beside them at a time,
as XLA accounts for it. `process` is what the process has at most while it generates, less what it
had before it loaded the model: that, and what compiling left behind, tens of MB for any model.
Tokens are bytes; a token's time is processor time, the least of several turns, so that what else
runs on the machine counts little. `loss` is in bits per byte on text that was held out.

The goal: half the memory or 1.5 times the speed, at a loss at most 1 % above float32's.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tapestry_p2p.data import udhr
from tapestry_p2p.heap import resident_bytes

LOSS_MAX, MEMORY_MAX, SPEED_MIN = 1.01, 0.5, 1.5
TURNS = 5
TEXT = "fra"
# name: options, training steps, tokens a turn
SIZES: dict[str, tuple[dict[str, int], int, int]] = {
    "tiny": ({"layers": 2, "width": 48, "heads": 2, "context": 64}, 300, 64),
    "base": ({"layers": 4, "width": 72, "heads": 4, "context": 128}, 200, 64),
    "large": ({"layers": 8, "width": 384, "heads": 8, "context": 64}, 20, 16),
}
QUICK: dict[str, tuple[dict[str, int], int, int]] = {
    "tiny": ({"layers": 1, "width": 16, "heads": 1, "context": 16}, 40, 8),
}
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one small model, seconds")
    parser.add_argument("--sizes", default="", help=f"of {', '.join(SIZES)}; commas between")
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # what the processes are started with
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(generated(json.loads(asked.one))))
        return
    sizes = QUICK if asked.quick else SIZES
    names = [name for name in asked.sizes.split(",") if name] or list(sizes)
    rows = [row for name in names for row in compared(name, *sizes[name])]
    print(json.dumps(rows, indent=1) if asked.json else table(rows))


def compared(name: str, options: dict[str, int], steps: int, tokens: int) -> list[Row]:
    """One size: train, export, generate with both files."""
    with tempfile.TemporaryDirectory(prefix="tapestry-bench-") as text:
        folder = Path(text)
        (folder / "text.txt").write_bytes(udhr(TEXT))
        found = trained(folder, options, steps)
        rows = []
        for file in ("model.safetensors", "model.int8.safetensors"):
            asked = {
                "options": options, "file": str(folder / file), "schema": found["schema"],
                "tokens": tokens, "int8": "int8" in file,
            }  # fmt: skip
            done = subprocess.run(
                [sys.executable, __file__, "--one", json.dumps(asked)],
                capture_output=True, text=True, check=False,
                env={**os.environ, "JAX_PLATFORMS": "cpu"},
            )  # fmt: skip
            if done.returncode:
                raise RuntimeError(done.stderr[-2000:])
            (loss,) = found["scores"][file]["bits_per_byte"].values()
            rows.append(
                {
                    "size": name,
                    "parameters": found["parameters"],
                    "weights": "int8" if "int8" in file else "float32",
                    "file_bytes": found["bytes"][file],
                    "loss": loss,
                    **json.loads(done.stdout.splitlines()[-1]),
                }
            )
    judge(*rows)
    return rows


def judge(exact: Row, small: Row) -> None:
    """Add to each row what it is to the float32 one, and whether the goal holds."""
    for row in (exact, small):
        row["loss_ratio"] = row["loss"] / exact["loss"]
        row["needed_ratio"] = row["needed_bytes"] / exact["needed_bytes"]
        row["memory_ratio"] = row["memory_bytes"] / max(1, exact["memory_bytes"])
        row["speed_ratio"] = row["tokens_per_s"] / exact["tokens_per_s"]
    less = small["needed_ratio"] <= MEMORY_MAX or small["speed_ratio"] >= SPEED_MIN
    small["goal"] = bool(less and small["loss_ratio"] <= LOSS_MAX)


def trained(folder: Path, options: dict[str, int], steps: int) -> Row:
    """Train on the text, write both files into the folder; what `export` says of them."""
    from tapestry_p2p.learn.export import export
    from tapestry_p2p.learn.judge import Judge
    from tapestry_p2p.learn.learner import Program
    from tapestry_p2p.learn.load import load
    from tapestry_p2p.learn.task import Data

    task = load("language", options, Data([folder / "text.txt"], 1))
    program = Program(task, 1, 1, steps)
    place = program.fresh(program.genesis)
    for _ in range(steps):
        program.advance(place)
    vector = program.layout.flatten(place.params)
    return export(folder, task, program.layout, vector, Judge(None, program).report)


def generated(asked: Row) -> Row:
    """In a process of its own: load one file, generate, and say what it took."""
    from tapestry_p2p.learn import offline

    if asked["int8"]:
        offline.spare_memory()
    import jax

    from tapestry_p2p.learn.load import load
    from tapestry_p2p.learn.task import Data

    task: Any = load("language", asked["options"], Data([], 1, needed=False))
    jax.block_until_ready(jax.jit(lambda x: x @ x)(jax.numpy.ones((64, 64))))  # the runtime is up
    before = resident_bytes()
    params = offline.load_params(task, Path(asked["file"]), asked["schema"])
    task.generate(params, "Tous ", 1, 0.8, 0)  # compiles
    peak = highest_from_now()
    times = []
    for turn in range(TURNS):
        begin = time.process_time()
        task.generate(params, "Tous ", asked["tokens"], 0.8, turn)
        times.append(time.process_time() - begin)
    window, key = np.zeros(asked["options"]["context"], np.int32), jax.random.key(0)
    step = task._next.lower(params, window, 1, 0, key, 0.8).compile().memory_analysis()
    weights = offline.weights_bytes(params)
    return {
        "weights_bytes": weights,
        "needed_bytes": weights + step.temp_size_in_bytes,
        "memory_bytes": peak() - before,
        "tokens_per_s": asked["tokens"] / min(times),
    }


def highest_from_now() -> Any:
    """A function that tells the most memory (bytes) that this process has had since now."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")

    def peak() -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("no VmHWM")

    return peak


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    lines = [
        "| model | parameters | as | file | needs | process | tokens/s | loss | goal |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        goal = {True: "holds", False: "MISSED"}.get(row.get("goal", ""), "")
        lines.append(
            f"| {row['size']} | {row['parameters']:,} | {row['weights']}"
            f" | {row['file_bytes'] / 1e6:.2f} MB"
            f" | {row['needed_bytes'] / 1e6:.2f} MB (x {row['needed_ratio']:.2f})"
            f" | {row['memory_bytes'] / 1e6:.1f} MB (x {row['memory_ratio']:.2f})"
            f" | {row['tokens_per_s']:.0f} (x {row['speed_ratio']:.2f})"
            f" | {row['loss']:.4f} ({100 * (row['loss_ratio'] - 1):+.2f} %) | {goal} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
