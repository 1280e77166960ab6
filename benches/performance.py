"""What every bench of speed and size does with its figures: table, JSON, page, exit code.

A bench makes rows, calls ``add_options`` for its command line and ends with ``finish``. A row has
what we take, what the baseline takes in the same run, and the bound on ours. A figure that could
not be had (None) misses its bound: not measured is not reached. benches/compare.py reads the JSON.

    {"bench", "commit", "machine", "notes": [...],
     "rows": [{"figure", "unit", "ours", "baseline", "bound", "better", "met"}]}
"""

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from benches.robustness_docs import markdown, write_docs

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "performance.md"

Better = Literal["less", "more", "neither"]


@dataclass(frozen=True)
class Row:
    """One figure. ``better``: which way is good; with ``neither`` it is there to be read.

    ``bound`` is the most ours may be (``less``) or the least (``more``); None: no promise.
    """

    figure: str
    ours: float | None
    unit: str = ""
    baseline: float | None = None
    bound: float | None = None
    better: Better = "less"

    def __post_init__(self) -> None:
        if self.bound is not None and self.better == "neither":
            raise ValueError(f"{self.figure}: a bound needs a direction")

    @property
    def met(self) -> bool | None:
        """Whether the bound holds; None where there is none."""
        if self.bound is None:
            return None
        if self.ours is None:
            return False
        return self.ours <= self.bound if self.better == "less" else self.ours >= self.bound


@dataclass(frozen=True)
class Result:
    """What one run of a bench found, in words that are equal for all benches."""

    bench: str
    rows: Sequence[Row]
    notes: Sequence[str] = ()

    @property
    def missed(self) -> list[str]:
        """Figures that do not keep their bounds."""
        return [row.figure for row in self.rows if row.met is False]

    def record(self) -> dict[str, Any]:
        """The JSON form."""
        rows = [{**asdict(row), "met": row.met} for row in self.rows]
        return {
            "bench": self.bench,
            "commit": commit(),
            "machine": machine(),
            "notes": list(self.notes),
            "rows": rows,
        }

    def table(self) -> str:
        """The table, Markdown, with the notes below it."""
        lines = markdown(
            ["figure", "ours", "baseline", "bound", "met"], [_cells(row) for row in self.rows]
        )
        notes = [f"* {note}" for note in self.notes]
        return "\n".join([*lines, *([""] if notes else []), *notes])


def _cells(row: Row) -> list[str]:
    name = f"{row.figure}, {row.unit}" if row.unit else row.figure
    sign = {"less": "<=", "more": ">=", "neither": ""}[row.better]
    bound = "" if row.bound is None else f"{sign} {number(row.bound)}"
    met = {True: "yes", False: "**no**", None: ""}[row.met]
    return [name, number(row.ours), number(row.baseline), bound, met]


def number(value: float | None) -> str:
    """Three significant digits, whole numbers whole; nothing for None."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def commit() -> str:
    """The commit that was measured, and whether files of it were changed. '' without git."""
    try:
        short = _git("rev-parse", "--short=10", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{short} and changes" if changed else short


def _git(*words: str) -> str:
    asked = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return asked.stdout.strip()


def machine() -> str:
    """Processor, cores, memory, kernel, Python; and how busy it was."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    system = f"Linux {platform.release().split('-')[0]}, Python {platform.python_version()}"
    return (
        f"{_processor()}, {cores} cores, {memory_gb:.0f} GiB, {system}, load {load:.1f} at the end"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--json`` and ``--write-docs``."""
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument("--write-docs", action="store_true", help=f"the table into {DOCS.name}")


def finish(
    bench: str,
    rows: Sequence[Row],
    notes: Sequence[str],
    options: argparse.Namespace,
    page: Path = DOCS,
) -> int:
    """Print, write into the page between the marks of ``bench`` if asked to; the exit code."""
    result = Result(bench, rows, notes)
    missed = f"\n\nMissed: {'; '.join(result.missed) or 'nothing'}."
    text = result.table() + missed
    print(json.dumps(result.record(), indent=1) if options.json else text)
    if options.write_docs:
        write_docs(page, bench, f"Commit {commit()}; {machine()}.\n\n{text}")
    return 1 if result.missed else 0
