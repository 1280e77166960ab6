"""The inequalities that the mixing rules promise, on many random cases, and the controls.

    python benches/properties.py --examples 200000 [--rules cs_plus,gts] [--laws all] [--jobs 2]

Each example is a seed: a neighbourhood for (b, rho), a whole random certified graph with hostile
messages on every link for a round's contraction and the mean's drift (tapestry_p2p/sim/laws). The
production rules run on it. ``worst`` is the largest measured share of what a law allows: above 1
the law is broken, and the seed that did it is printed. Then every control must break its law, and
both faults planted in CS+ must be caught. Exit code 1 if anything is not as it should be, or if
nothing was tried.
"""

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tapestry_p2p.mix.rules import NAMES, Rule
from tapestry_p2p.sim.laws import rounds
from tapestry_p2p.sim.laws.controls import CONTROLS, symmetric_step
from tapestry_p2p.sim.laws.table import LAWS, broken

INEQUALITIES = "split,contraction,drift"
TOGETHER = ("contraction", "drift")  # measured in the same round
CHUNK = 500  # examples a process takes at a time
CONTROL_EXAMPLES = 200
MUST_FAIL = {
    "mean": ("split", "contraction", "drift"),
    "balance": ("translation",),
    "trimmed_mean": ("rotation",),
    "median": ("rotation",),
    "fixed tau": ("scale", "split"),
    "quantile without weights": ("split", "radius"),
    "planted: tau from b": ("split", "radius"),
    "planted: self counted": ("radius",),
}


@dataclass
class Row:
    """What was found for one law of one rule."""

    rule: str
    law: str
    examples: int = 0
    worst: float = 0.0
    broken: int = 0
    first_broken: int | None = None
    seconds: float = 0.0

    def add(self, seed: int, strain: float) -> None:
        """One more example."""
        self.examples += 1
        strain = math.inf if math.isnan(strain) else strain
        self.worst = max(self.worst, strain)
        if strain > 1:
            self.broken += 1
            self.first_broken = seed if self.first_broken is None else self.first_broken


def strains(rule: str, laws: tuple[str, ...], seed: int) -> tuple[float, ...]:
    """The strain of each law on the case that this seed draws."""
    if laws == TOGETHER:
        return rounds.contraction_and_drift(rule, seed)
    return tuple(LAWS[law][0](rule, seed) for law in laws)


def chunk(rule: str, laws: tuple[str, ...], count: int, start: int) -> list[tuple[float, ...]]:
    """Up to CHUNK examples from seed ``start`` on, of ``count`` in all."""
    return [strains(rule, laws, seed) for seed in range(start, min(start + CHUNK, count))]


def batches(rule: str, laws: list[str]) -> Iterator[tuple[str, ...]]:
    """The claimed laws among ``laws``; those that one example serves, together."""
    claimed = [law for law in laws if rule in LAWS[law][1]]
    if set(TOGETHER) <= set(claimed):
        yield TOGETHER
        claimed = [law for law in claimed if law not in TOGETHER]
    yield from ((law,) for law in claimed)


def measure(names: list[str], laws: list[str], examples: int, seed: int, jobs: int) -> list[Row]:
    """One row for each law that each rule claims; seeds ``seed`` .. ``seed + examples - 1``."""
    rows = []
    with ProcessPoolExecutor(jobs) as pool:
        for name in names:
            for together in batches(name, laws):
                began = time.perf_counter()
                found = [Row(name, law) for law in together]
                starts = range(seed, seed + examples, CHUNK)
                work = partial(chunk, name, together, seed + examples)
                for start, part in zip(starts, pool.map(work, starts), strict=True):
                    for at, several in enumerate(part):
                        for row, strain in zip(found, several, strict=True):
                            row.add(start + at, strain)
                for row in found:
                    row.seconds = time.perf_counter() - began
                rows += found
    return rows


def controls() -> dict[str, int | None]:
    """The first seed at which each control broke its law; None: it did not, which is wrong."""
    seeds: dict[str, int | None] = {}
    for name, laws in MUST_FAIL.items():
        rule: str | Rule = CONTROLS.get(name, name)
        for law in laws:
            seeds[f"{name} / {law}"] = broken(rule, law, CONTROL_EXAMPLES)
    symmetric = (
        seed
        for seed in range(CONTROL_EXAMPLES)
        if rounds.contraction_and_drift("cs_plus", seed, symmetric_step)[0] > 1
    )
    seeds["edge-symmetric cs_plus / contraction"] = next(symmetric, None)
    return seeds


def table(rows: list[Row], found: dict[str, int | None]) -> str:
    """Markdown."""
    lines = [
        "| rule | law | examples | worst, share of the bound | broken | wall s |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        broke = f"{row.broken} (seed {row.first_broken})" if row.broken else "0"
        lines.append(
            f"| {row.rule} | {row.law} | {row.examples} | {row.worst:.3f} | {broke}"
            f" | {row.seconds:.0f} |"
        )
    lines += ["", "| control / law that must break | at example |", "|---|---|"]
    lines += [f"| {name} | {'NOT BROKEN' if at is None else at} |" for name, at in found.items()]
    return "\n".join(lines)


def main() -> int:
    """Measure, print, write what was asked for; 1 if a law broke or a control did not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--examples", type=int, default=200_000)
    parser.add_argument("--rules", default="cs_plus", help="names, or all")
    parser.add_argument("--laws", default=INEQUALITIES, help=f"of {', '.join(LAWS)}; or all")
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--quick", action="store_true", help="200 examples")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument("--out", type=Path, help="folder for properties.json and properties.md")
    asked = parser.parse_args()
    names = [*NAMES] if asked.rules == "all" else asked.rules.split(",")
    laws = [*LAWS] if asked.laws == "all" else asked.laws.split(",")
    if unknown := [*({*names} - {*NAMES}), *({*laws} - {*LAWS})]:
        parser.error(f"unknown: {', '.join(unknown)}")
    examples = 200 if asked.quick else asked.examples
    rows = measure(names, laws, examples, asked.seed, asked.jobs)
    found = controls()
    result: dict[str, Any] = {
        "examples": examples, "seed": asked.seed, "numpy": np.__version__,
        "python": platform.python_version(), "machine": platform.machine(),
        "rows": [asdict(row) for row in rows], "controls": found,
    }  # fmt: skip
    print(json.dumps(result, indent=1) if asked.json else table(rows, found))
    if asked.out:
        asked.out.mkdir(parents=True, exist_ok=True)
        (asked.out / "properties.json").write_text(json.dumps(result, indent=1) + "\n")
        (asked.out / "properties.md").write_text(table(rows, found) + "\n")
    sound = rows and all(row.examples and not row.broken for row in rows)
    return 0 if sound and None not in found.values() else 1


if __name__ == "__main__":
    sys.exit(main())
