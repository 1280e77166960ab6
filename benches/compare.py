"""Did a change make anything slower or larger? Two results of one bench, old and new.

    python benches/NAME.py --json >old.json; ...; python benches/NAME.py --json >new.json
    python benches/compare.py old.json new.json [--tolerance 0.1]

Prints every figure that both have; a figure that is worse by more than the tolerance is named and
the exit code is 1, as it is where the new run misses a bound that the old one kept, or has lost a
figure. Where both runs measured a baseline, a figure counts as worse only if it is so beside the
baseline too: a busy machine slows both. Exit code 2: these two cannot be compared.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benches.performance import number
from benches.robustness_docs import markdown

TOLERANCE = 0.10


@dataclass(frozen=True)
class Change:
    """What became of one figure. ``worse``: by which share, 0 for none; inf if it is lost."""

    figure: str
    old: float | None
    new: float | None
    worse: float
    why: str = ""

    def fails(self, tolerance: float) -> bool:
        """Whether the gate closes on it."""
        return bool(self.why) or self.worse > tolerance


def load(path: Path) -> dict[str, Any]:
    """A bench's ``--json``. ValueError if the file is something else."""
    try:
        found = json.loads(path.read_text())
        names = [row["figure"] for row in found["rows"]]
        [(row["ours"], row["baseline"], row["better"], row["met"]) for row in found["rows"]]
        found["bench"]
    except (OSError, TypeError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: no result of a bench's --json ({error!r})") from error
    if len(set(names)) != len(names):
        raise ValueError(f"{path}: two rows have one name")
    return dict(found)


def compare(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """Every figure of the old run. ValueError if they are of different benches."""
    if old["bench"] != new["bench"]:
        raise ValueError(f"one is of {old['bench']}, the other of {new['bench']}")
    rows = {row["figure"]: row for row in new["rows"]}
    return [_change(row, rows.get(row["figure"])) for row in old["rows"]]


def _change(old: dict[str, Any], new: dict[str, Any] | None) -> Change:
    name, before = old["figure"], old["ours"]
    if before is None:
        return Change(name, None, new["ours"] if new else None, 0.0)
    if new is None or new["ours"] is None:
        return Change(name, before, None, float("inf"), "is not there any more")
    after = new["ours"]
    why = "misses its bound now" if old["met"] and new["met"] is False else ""
    if old["better"] == "neither":
        return Change(name, before, after, 0.0, why)
    worse = worse_by(before, after, old["better"])
    if old["baseline"] and new["baseline"]:
        beside = worse_by(before / old["baseline"], after / new["baseline"], old["better"])
        worse = min(worse, beside)
    return Change(name, before, after, worse, why)


def worse_by(before: float, after: float, better: str) -> float:
    """By which share of ``before`` it is worse; 0 if it is not, inf where nothing was before."""
    lost = after - before if better == "less" else before - after
    if lost <= 0:
        return 0.0
    return lost / abs(before) if before else float("inf")


def table(changes: list[Change], tolerance: float) -> str:
    """All of them, those that fail in bold."""
    rows = []
    for change in changes:
        said = change.why or (f"worse by {100 * change.worse:.0f} %" if change.worse else "")
        said = f"**{said}**" if change.fails(tolerance) else said
        rows.append([change.figure, number(change.old), number(change.new), said])
    return "\n".join(markdown(["figure", "old", "new", "change"], rows))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="share, default .1")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        changes = compare(load(options.old), load(options.new))
    except ValueError as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return 2
    failed = [change.figure for change in changes if change.fails(options.tolerance)]
    if options.json:
        rows = [{**vars(change), "worse": min(change.worse, 1e9)} for change in changes]
        print(json.dumps({"failed": failed, "rows": rows}, indent=1))
    else:
        print(table(changes, options.tolerance))
        named = "; ".join(failed) or "nothing"
        print(f"\nWorse by more than {100 * options.tolerance:.0f} %: {named}.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
