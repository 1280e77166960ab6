"""Every mixing rule: milliseconds, and how many times the memory's own speed, beside byzfl's.

    python benches/rules.py [--sizes 16x1e6,32x1e7] [--threads 1] [--byzfl --venv DIR] [--json]

n points of d float32 parameters: the member's own and n - 1 neighbours', each in memory of its own
as a daemon holds them; f = floor((n - 1) / 5). Times are processor time, the least of several turns
in which everything is run once, so that what else runs on the machine counts little (wall time
with more than one thread). The *floor* is what two passes over all n points cost: the fastest of
three ways to read them, measured in every turn.

`--byzfl` makes a virtual environment in DIR, installs byzfl and torch there (or uses what is there
already), and runs its aggregators of the same name on the same points within the same turns, the
faster of its numpy and its torch path, on as many threads. byzfl averages, sorts and compares all
n points; these rules see the member apart from its neighbours. NNM is left out where byzfl would
copy more than --copy-gb.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapestry_p2p.mix.rules import RULES, mix

Vector = NDArray[np.float32]
Row = dict[str, Any]
NNM_RULES = ("nnm+mean", "nnm+trimmed_mean")  # what NNM adds to a sum, and to work on columns


def draw(n: int, d: int, seed: int) -> list[Vector]:
    """n points float32[d]: the first is one's own; the others farther and farther from it."""
    random = np.random.default_rng(seed)
    points = [random.standard_normal(d, np.float32)]
    for j in range(1, n):
        step = random.standard_normal(d, np.float32)
        step *= np.float32(0.05 + 0.01 * j)
        step += points[0]
        points.append(step)
    return points


# ---- ours ------------------------------------------------------------------------------------


def floors(points: list[Vector]) -> dict[str, Callable[[], object]]:
    """Three ways to read every point twice."""

    def read(reader: Callable[[Vector], object]) -> Callable[[], object]:
        return lambda: [reader(p) for _ in range(2) for p in points]

    return {
        "floor dot": read(lambda p: np.dot(p, p)),
        "floor sum": read(np.add.reduce),
        "floor max": read(np.max),
    }


def clock(call: Callable[[], object], threads: int) -> float:
    """Milliseconds of one call: processor time on one thread, wall time on more."""
    now = time.thread_time if threads == 1 else time.perf_counter
    start = now()
    call()
    return (now() - start) * 1e3


# ---- byzfl, in a process and an environment of its own -----------------------------------------

CHILD = """
import json, sys, time
import numpy as np
answers, sys.stdout = sys.stdout, sys.stderr
n, d, f, seed, threads, copy_gb = json.loads(sys.argv[1])
import byzfl, torch
torch.set_num_threads(threads)
random = np.random.default_rng(seed)
points = np.empty((n, d), np.float32)
points[0] = random.standard_normal(d, np.float32)
for j in range(1, n):
    points[j] = random.standard_normal(d, np.float32)
    points[j] *= np.float32(0.05 + 0.01 * j)
    points[j] += points[0]
tensor = torch.from_numpy(points)
make = {
    "mean": byzfl.Average, "median": byzfl.Median, "geometric_median": byzfl.GeometricMedian,
    "trimmed_mean": lambda: byzfl.TrMean(f), "multi_krum": lambda: byzfl.MultiKrum(f),
    "gts": lambda: byzfl.MoNNA(f, 0),
}
if n * (n - f) * d * 4 <= copy_gb * 1e9:
    nnm = byzfl.NNM(f)
    make["nnm+mean"] = lambda: lambda x: byzfl.Average()(nnm(x))
    make["nnm+trimmed_mean"] = lambda: lambda x: byzfl.TrMean(f)(nnm(x))
now = time.process_time if threads == 1 else time.perf_counter
print(json.dumps(sorted(make)), file=answers, flush=True)
faster = {}
for line in sys.stdin:
    name = line.strip()
    took = {}
    for path in [faster[name]] if name in faster else ["numpy", "torch"]:
        start = now()
        make[name]()(points if path == "numpy" else tensor)
        took[path] = (now() - start) * 1e3
    faster[name] = min(took, key=took.get)
    print(json.dumps([faster[name], took[faster[name]]]), file=answers, flush=True)
"""


class Byzfl:
    """The other process. OSError or CalledProcessError if it cannot be made."""

    def __init__(self, folder: Path, n: int, d: int, f: int, seed: int, threads: int, gb: float):
        limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        self.process = subprocess.Popen(
            [folder / "bin" / "python", "-c", CHILD, json.dumps([n, d, f, seed, threads, gb])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **limits},
        )  # fmt: skip
        self.names = set(self._answer())

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise OSError(f"byzfl's process ended with {self.process.wait()}")
        return json.loads(line)

    def time(self, name: str) -> tuple[str, float]:
        """Which path was faster, and its milliseconds."""
        assert self.process.stdin is not None
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        path, took = self._answer()
        return path, took

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


def install(folder: Path, words: list[str]) -> str:
    """byzfl's version in the environment at ``folder``, made and filled if it is not there."""
    python = str(folder / "bin" / "python")
    if not Path(python).exists():
        venv.create(folder, with_pip=True)
    ask = [python, "-c", "import byzfl, importlib.metadata as m; print(m.version('byzfl'))"]
    if subprocess.run(ask, capture_output=True, check=False).returncode:
        subprocess.run([python, "-m", "pip", "install", "-q", "byzfl", *words], check=True)
    said = subprocess.run(ask, capture_output=True, text=True, check=True)
    return str(said.stdout).strip()


# ---- measuring -------------------------------------------------------------------------------


def measure(n: int, d: int, asked: argparse.Namespace) -> list[Row]:
    """A row for each rule at one size."""
    f = (n - 1) // 5
    points = draw(n, d, asked.seed)
    weights = np.full(n - 1, 1.0 / n)
    other = None
    if asked.byzfl:
        other = Byzfl(asked.venv, n, d, f, asked.seed, asked.threads, asked.copy_gb)
    names = (*RULES, *NNM_RULES)
    best: dict[str, float] = {}
    theirs: dict[str, tuple[str, float]] = {}
    with ThreadPoolExecutor(asked.threads) as pool:
        each = pool.map if asked.threads > 1 else map
        calls = floors(points)
        for name in names:
            calls[name] = (
                lambda name=name: mix(  # type: ignore[misc]
                    name, points[0], points[1:], weights, f=f, each=each
                )
            )
        for turn in range(asked.turns):
            for name, call in calls.items():
                best[name] = min(best.get(name, np.inf), clock(call, asked.threads))
                if other and name in other.names and turn < asked.byzfl_turns:
                    try:
                        took = other.time(name)
                    except OSError as error:  # it wants much memory: the rest goes on without it
                        print(f"{name} at {n}x{d}: {error}", file=sys.stderr)
                        other.close()
                        other = None
                        continue
                    theirs[name] = min(theirs.get(name, took), took, key=lambda pair: pair[1])
    if other:
        other.close()
    floor = min(took for name, took in best.items() if name.startswith("floor"))
    rows: list[Row] = [{"n": n, "d": d, "f": f, "rule": "two passes (floor)", "ms": floor}]
    for name in names:
        row: Row = {"n": n, "d": d, "f": f, "rule": name, "ms": best[name]}
        row["floors"] = best[name] / floor
        if name in theirs:
            row["byzfl_path"], row["byzfl_ms"] = theirs[name]
            row["faster"] = row["byzfl_ms"] / row["ms"]
        rows.append(row)
    return rows


COLUMNS = [
    ("n", "n", "{}"),
    ("d", "d", "{:.0e}"),
    ("rule", "rule", "{}"),
    ("ms", "ms", "{:.1f}"),
    ("x floor", "floors", "{:.2f}"),
    ("byzfl ms", "byzfl_ms", "{:.0f}"),
    ("its path", "byzfl_path", "{}"),
    ("times faster", "faster", "{:.1f}"),
]


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [
        "| " + " | ".join(title for title, _, _ in COLUMNS) + " |", "|---" * len(COLUMNS) + "|"
    ]  # fmt: skip
    for row in rows:
        cells = [form.format(row[key]) if key in row else "" for _, key, form in COLUMNS]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def options() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="16x1e6,32x1e7", help="points x parameters")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--byzfl", action="store_true", help="measure byzfl beside")
    parser.add_argument("--byzfl-turns", type=int, default=3)
    parser.add_argument("--venv", type=Path, default=Path("build/byzfl"), help="its environment")
    parser.add_argument("--pip", default="", help="more words for pip, such as torch==2.*")
    parser.add_argument("--copy-gb", type=float, default=6.0, help="what byzfl's NNM may copy")
    parser.add_argument("--quick", action="store_true", help="8 points of 30,000, two turns")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument("--out", type=Path, help="folder for rules.json and rules.md")
    asked = parser.parse_args()
    if asked.quick:
        asked.sizes, asked.turns = "8x3e4", 2
    return asked


def main() -> int:
    """Measure, print, write what was asked for."""
    asked = options()
    version = ""
    if asked.byzfl:
        try:
            version = install(asked.venv, asked.pip.split())
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"byzfl cannot be had here, measuring without it: {error}", file=sys.stderr)
            asked.byzfl = False
    rows = []
    for size in asked.sizes.split(","):
        n, d = size.split("x")
        rows += measure(int(n), int(float(d)), asked)
    result = {
        "turns": asked.turns, "threads": asked.threads, "seed": asked.seed, "byzfl": version,
        "numpy": np.__version__, "python": platform.python_version(),
        "machine": platform.machine(), "load": os.getloadavg()[0], "rows": rows,
    }  # fmt: skip
    print(json.dumps(result, indent=1) if asked.json else table(rows))
    if asked.out:
        asked.out.mkdir(parents=True, exist_ok=True)
        (asked.out / "rules.json").write_text(json.dumps(result, indent=1) + "\n")
        (asked.out / "rules.md").write_text(table(rows) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
