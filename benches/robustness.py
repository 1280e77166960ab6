"""Accuracy under attack: tables of docs/robustness.md, from production rules, attacks and learners.

--table ios      the set-up of the IOS tables (Wu, Chen, Ling 2023) on Fashion-MNIST: softmax
                 regression with 7,850 parameters, 12 members of whom 2 are hostile, batch 32,
                 weight decay .01, rate .9/sqrt(t+1), a mixing after each step; Erdos-Renyi(12, .7)
                 and TwoCastle (their graphs), one class a member or iid, both starts. Theirs ran
                 50,000 iterations (--iterations 50000) and told members the number of hostile
                 neighbours; ours know f = 2 alone.
--table ideas    what was tried against the sign flip with one class a member
--table attacks  26 honest members in two worlds, 3 hostile neighbours each, Loom rounds as members
                 run them, Dirichlet .1 and 1, digits and Fashion-MNIST, strengths searched

Results go to a file after every run; the same command goes on where one was stopped. Use
`nice`, OMP_NUM_THREADS=1 and XLA_FLAGS=--xla_cpu_multi_thread_eigen=false on a shared machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benches import robustness_attacks, robustness_ios
from benches.robustness_docs import write_docs
from benches.robustness_store import Store

TABLES: dict[str, Any] = {
    "ios": robustness_ios.IOS,
    "ideas": robustness_ios.IDEAS,
    "attacks": robustness_attacks.ATTACKS_TABLE,
}
DOCS = Path(__file__).parents[1] / "docs" / "robustness.md"


def cache() -> Path:
    """Where pictures and results are kept: outside of the source tree."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tapestry-benches"


def fashion(folder: Path) -> Path:
    """The pictures, fetched once with apt-get."""
    if not folder.exists():
        command = [sys.executable, "-m", "tapestry_p2p", "data", "fashion", "--out", str(folder)]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return folder


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", choices=TABLES, required=True)
    parser.add_argument("--iterations", type=int, help="of each run")
    parser.add_argument("--seeds", type=int, help="how many")
    parser.add_argument("--only", default="", help="cases whose names hold all of these words")
    parser.add_argument("--fashion", type=Path, default=cache() / "fashion", help="folder")
    parser.add_argument("--quick", action="store_true", help="digits, a few steps: does it run?")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so many")
    parser.add_argument("--render", action="store_true", help="run nothing, show what is there")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument("--out", type=Path, default=cache(), help="folder of the results")
    parser.add_argument("--write-docs", action="store_true", help=f"the tables into {DOCS.name}")
    return parser.parse_args()


def main() -> None:
    """Run what is missing, print, and write what was asked for."""
    asked = parse()
    table = TABLES[asked.table]
    settings = table.settings(quick=asked.quick, iterations=asked.iterations, seeds=asked.seeds)
    store = Store(asked.out / f"robustness{'-quick' if asked.quick else ''}.json")
    folder = None if asked.quick else fashion(asked.fashion)
    wanted = [case for case in table.cases(settings) if holds(case.key, asked.only)]
    end = time.monotonic() + 60 * asked.minutes
    missing = [] if asked.render else [case for case in wanted if case.key not in store]
    for done, case in enumerate(missing):
        if time.monotonic() > end:
            break
        began = time.process_time()
        outcome = asdict(table.run(case, folder))
        store.add(case.key, {**outcome, "seconds": round(time.process_time() - began, 1)})
        say(f"{done + 1}/{len(missing)} {case.key}: {outcome['mean']:.2f} {outcome['worst']:.2f}")
    found = {case.key: store[case.key] for case in wanted if case.key in store}
    text = "\n".join(table.render(settings, found))
    print(json.dumps(found, indent=1) if asked.json else text)
    if asked.write_docs:
        write_docs(DOCS, asked.table, text)


def holds(key: str, words: str) -> bool:
    """Whether a case's name holds all words."""
    return all(word in key for word in words.split())


def say(text: str) -> None:
    """Progress goes to stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
