"""The Loom beside one central model, DiLoCo and gossip methods, on the package's own code.

    python benches/loom.py [--tables methods,conditions,...] [--seeds 2] [--write-docs]

16 members, each with ONE kind of text: 16 languages of the package (--texts debian:FOLDER takes a
folder of .txt files, one a member, such as `tapestry data debian` makes). Every run has the same
genesis, batches, order and number of inner steps in all (a condition that slows members down lasts
longer), and the same learning rates: one cosine, whose peak was chosen for DiLoCo.

--tables methods      one central model, DiLoCo, D-PSGD, NoLoCo, GASLoC, SparseLoCo, Loom a codec
--tables conditions   Loom with 2 bits: late copies, missed rounds, speeds, late joiners, attackers
--tables views        how copies are compared: current, applied_pull, naive (the control)
--tables knobs        eta, gamma, mu, rho under the harder conditions
--tables few          the same where six members share two languages, as in `tapestry demo`
--tables digits       handwritten digits, shared out among 16
--tables endless      training without an end against a cosine that knows it

Results go to a file after every run; the same command goes on where one was stopped. On a shared
machine use `nice`, OMP_NUM_THREADS=1, OPENBLAS_NUM_THREADS=1 and
XLA_FLAGS=--xla_cpu_multi_thread_eigen=false: then CPU seconds can be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).parents[1]))

from benches.loom_endless import endless, endless_lines
from benches.loom_picture import draw
from benches.loom_setup import FOLDER, Field, Setup, files_of
from benches.loom_tables import (
    Case,
    Results,
    conditions,
    few,
    grid,
    knobs,
    methods,
    views,
    whole,
)
from benches.robustness_docs import write_docs
from benches.robustness_store import Store

DOCS = Path(__file__).parents[1] / "docs" / "loom.md"
DIGITS_RATE = 0.01
FEW_RATE = 0.005  # the demo's


@dataclass(frozen=True)
class Table:
    """Its runs, and its lines made of their results."""

    cases: Callable[[Setup, Sequence[int]], list[Case]]
    render: Callable[[Sequence[Case], Results, Setup], list[str]]


TABLES = {
    "methods": Table(methods, lambda c, f, s: whole(c, f, s, "DiLoCo")),
    "conditions": Table(conditions, lambda c, f, s: whole(c, f, s, "synchronous")),
    "views": Table(views, lambda c, f, s: grid(c, f, s, "view")),
    "knobs": Table(knobs, lambda c, f, s: grid(c, f, s, "eta, gamma, mu, rho")),
    "few": Table(few, lambda c, f, s: grid(c, f, s, "eta, gamma, mu, rho", "own")),
    "digits": Table(methods, lambda c, f, s: whole(c, f, s, "DiLoCo")),
    "endless": Table(endless, endless_lines),
}


def cache() -> Path:
    """Where results and compiled programs are kept: outside of the source tree."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tapestry-benches"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", default=",".join(TABLES), help="which, with commas")
    parser.add_argument("--texts", default="udhr", help="udhr, or debian:FOLDER")
    parser.add_argument("--seeds", type=int, default=2, help="how many")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--rate", type=float, default=Setup.rate, help="peak learning rate")
    parser.add_argument("--only", default="", help="cases whose names hold all of these words")
    parser.add_argument("--quick", action="store_true", help="4 members, 2 rounds: does it run?")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so many")
    parser.add_argument("--render", action="store_true", help="run nothing, show what is there")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the tables")
    parser.add_argument("--out", type=Path, default=cache(), help="folder of the results")
    parser.add_argument("--picture", type=Path, help="curves of the table `methods`, as SVG")
    parser.add_argument("--write-docs", action="store_true", help=f"the tables into {DOCS.name}")
    return parser.parse_args()


def main() -> None:
    """Run what is missing, print, and write what was asked for."""
    asked = parse()
    jax.config.update("jax_compilation_cache_dir", str(cache() / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    store = Store(asked.out / f"loom{'-quick' if asked.quick else ''}.json")
    end = time.monotonic() + 60 * asked.minutes
    shown = {}
    for name in asked.tables.split(","):
        if name not in TABLES:
            raise SystemExit(f"--tables {name}: choose among {', '.join(TABLES)}")
        table, setup = TABLES[name], setup_of(name, asked)
        cases = table.cases(setup, range(asked.seeds))
        if not asked.render:
            fill(store, [case for case in cases if holds(case.key, asked.only)], end)
        found = {case.key: store[case.key] for case in cases if case.key in store}
        shown[name] = found
        text = f"{setup.name}, seeds: {asked.seeds}\n\n"
        text += "\n".join(table.render(cases, found, setup))
        if not asked.json:
            print(f"{name}\n\n{text}\n")
        if asked.write_docs:
            write_docs(DOCS, name, text)
        if asked.picture and name == "methods":
            draw(cases, found, setup, asked.picture)
    if asked.json:
        print(json.dumps(shown, indent=1))


def setup_of(table: str, asked: argparse.Namespace) -> Setup:
    """What a table's runs have in common."""
    setup = Setup(texts=asked.texts, rounds=asked.rounds, rate=asked.rate)
    if asked.texts.startswith(FOLDER):
        even = len(files_of(asked.texts)) // 2 * 2  # some rivals meet in pairs
        setup = replace(setup, members=min(setup.members, even))
    if table == "few":
        setup = replace(setup, texts="thirds", members=7, rate=FEW_RATE)
    if table == "digits":
        setup = replace(setup, task="digits", rate=DIGITS_RATE)
    if asked.quick and table == "few":
        return replace(setup, rounds=2, inner_steps=5)
    return replace(setup, members=8, rounds=2, inner_steps=5) if asked.quick else setup


def fill(store: Store, cases: Sequence[Case], end: float) -> None:
    """Run what the store lacks; the runs of one set-up and seed share what was compiled."""
    missing = {case.key: case for case in cases if case.key not in store}
    order = sorted(missing.values(), key=lambda case: (case.seed, case.setup.name))
    learning: Field | None = None
    for done, case in enumerate(order):
        if time.monotonic() > end:
            return
        if learning is None or (learning.setup, learning.seed) != (case.setup, case.seed):
            learning = Field(case.setup, case.seed)
        outcome = case.run(learning, case.setup)
        store.add(case.key, asdict(outcome))
        said = f"{outcome.mean:.4f} {outcome.members:.4f} {outcome.seconds:.1f} s"
        print(f"{done + 1}/{len(order)} {case.key}: {said}", file=sys.stderr, flush=True)


def holds(key: str, words: str) -> bool:
    """Whether a case's name holds all words."""
    return all(word in key for word in words.split())


if __name__ == "__main__":
    main()
