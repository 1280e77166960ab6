"""Three real members train for a quarter of an hour: does anything grow that should not?

    python benches/soak.py [--minutes 15] [--seed 0] [--json] [--picture FILE.svg] [--write-docs]

Node and trainer processes on loopback, rounds of about two seconds, without an end. What grows
in a member grows with its rounds: at the normal pace of 64 s a round, 15 minutes of these are 8
hours, and all slopes are given per 24 hours of that pace (1,350 rounds). Growth by time alone
(pings, digests) is not in that figure; it is printed beside it, per 24 hours of the clock.

How a slope is estimated: the first third is left out (caches, arenas, compiled code). The rest
is cut into ten blocks of equal length; the slope is the median of the slopes between any two
blocks' medians (Theil and Sen), its uncertainty half the width of the 90 % interval by Kendall's
statistic. A bound is missed if the slope LESS its uncertainty is beyond it; an uncertainty above
the bound is said too. The control is in tests/benches: a leak that is planted in such a series
must be found. Exit code 1 if a bound is missed.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benches.robustness_docs import write_docs
from tapestry_p2p.cli.testnet.cluster import Member
from tapestry_p2p.cli.testnet.homes import prepare
from tapestry_p2p.cli.testnet.plan import make_plan
from tapestry_p2p.errors import TapestryError
from tapestry_p2p.heap import resident_bytes

DOCS = Path(__file__).parents[1] / "docs" / "chaos.md"
PICTURE = DOCS.parent / "pictures" / "soak.svg"
MEMBERS, LANGUAGES = 3, "eng,fra,spa"
MODEL = {"layers": 1, "width": 32, "heads": 2, "context": 32, "batch_size": 8}  # 22,624 parameters
INNER_STEPS, SPEED = 10, 0.012
NORMAL_ROUND_S, DAY_S = 64.0, 86_400.0
LOOK_S = 2.0
BLOCKS = 10
WARM_UP = 1 / 3
READY_S = 300.0
DISK = ("store", "trainer state", "audit log", "logs")

RSS_MB, DISK_MB, LOG_MB = 1.0, 1.0, 10.0  # per 24 hours at the normal pace


# ---- slopes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slope:
    """Growth per unit of x, and half the width of its 90 % interval."""

    value: float
    give: float


def slope(x: Sequence[float], y: Sequence[float]) -> Slope:
    """Theil and Sen's slope of y over x on the medians of ``BLOCKS`` blocks.

    The interval is Sen's (1968): ranks of the pairwise slopes around their middle, 1.645 standard
    deviations of Kendall's S wide. ValueError for fewer samples than blocks.
    """
    if len(x) != len(y) or len(x) < BLOCKS:
        raise ValueError(f"{len(x)} and {len(y)} samples, at least {BLOCKS} pairs are needed")
    edges = [round(len(x) * block / BLOCKS) for block in range(BLOCKS + 1)]
    spans = [slice(a, b) for a, b in pairwise(edges)]
    points = [(statistics.median(x[s]), statistics.median(y[s])) for s in spans]
    found = sorted((b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2) if b[0] > a[0])
    deviation = (BLOCKS * (BLOCKS - 1) * (2 * BLOCKS + 5) / 18) ** 0.5
    reach = 1.645 * deviation / 2
    middle = (len(found) - 1) / 2
    low = found[max(0, int(middle - reach))]
    high = found[min(len(found) - 1, int(middle + reach + 1))]
    return Slope(statistics.median(found), (high - low) / 2)


# ---- looking at members --------------------------------------------------------------------------


@dataclass
class Sample:
    """One look at one member."""

    at: float
    round: int
    held: dict[str, float] = field(default_factory=dict)


def look(member: Member, began: float) -> Sample | None:
    """All that a member holds now; None if it does not answer or its trainer is away."""
    member.look()
    status, process = member.status, member.process
    trainer = status.get("trainer", {})
    if process is None or member.ended or not trainer.get("running"):
        return None
    sample = Sample(time.monotonic() - began, int(status["round"]))
    sample.held["tasks"] = float(status["tasks"])
    for name, pid in (("node", process.pid), ("trainer", int(trainer["pid"]))):
        proc = Path(f"/proc/{pid}")
        sample.held[f"{name} RSS, MB"] = resident_bytes(pid) / 1e6
        sample.held[f"{name} fds"] = float(len(os.listdir(proc / "fd")))
        sample.held[f"{name} threads"] = float(len(os.listdir(proc / "task")))
    sample.held.update(_disk(member))
    return sample


def _disk(member: Member) -> dict[str, float]:
    """MB in files, by kind."""
    paths, found = member.home.paths, dict.fromkeys(DISK, 0.0)
    for folder in {paths.config, paths.state, paths.trainer}:
        for path in folder.rglob("*"):
            if path.is_symlink() or not path.is_file():
                continue
            if "audit" in path.name:
                kind = "audit log"
            elif path.suffix == ".log" and path.name != "own.log":
                kind = "logs"
            elif "store" in path.parts:
                kind = "store"
            elif paths.trainer in path.parents and paths.trainer != paths.config:
                kind = "trainer state"
            else:
                continue
            try:
                found[kind] += path.stat().st_size / 1e6
            except FileNotFoundError:  # replaced just now
                continue
    return found


@contextmanager
def testnet(folder: Path, seed: int) -> Iterator[list[Member]]:
    """Three members without an end; gone when the block ends."""
    (folder / "model.json").write_text(json.dumps(MODEL))
    plan = make_plan(
        members=MEMBERS, byzantine=0, tolerate=0, attack="", data="udhr", languages=LANGUAGES,
        split=1, rounds=1_000_000, inner_steps=INNER_STEPS, rule="cs_plus", codec="2bit",
        model=str(folder / "model.json"), seed=seed, out=folder,
        speeds=",".join([str(SPEED)] * MEMBERS),
    )  # fmt: skip
    members = [Member(home) for home in prepare(plan, plan.rule, folder / "run").homes]
    for member in members:
        words = {"WAIT": "false", "ROUNDS": "0", "JUDGE": ""}
        member.home.environment.update({f"TAPESTRY_TESTING__{k}": v for k, v in words.items()})
        member.start()
    try:
        yield members
    finally:
        for member in members:
            if member.process is not None:
                member.let_go()
                member.process.terminate()
        for member in members:
            if member.process is not None:
                member.process.wait()


def soak(seconds: float, seed: int = 0) -> dict[str, Any]:
    """Run and look; the report. TapestryError if a member does not train, or ends."""
    with (
        tempfile.TemporaryDirectory(prefix="tapestry-soak-") as name,
        testnet(Path(name), seed) as members,
    ):
        _wait(members)
        began = time.monotonic()
        seen: list[list[Sample]] = [[] for _ in members]
        while time.monotonic() - began < seconds:
            for member, samples in zip(members, seen, strict=True):
                if member.ended:
                    raise TapestryError(f"{member.home.name} ended")
                if (sample := look(member, began)) is not None:
                    samples.append(sample)
            time.sleep(min(LOOK_S, seconds / 60))
        restarts = sum(m.status.get("trainer", {}).get("restarts", 0) for m in members)
    return report(seen, restarts)


def _wait(members: list[Member]) -> None:
    until = time.monotonic() + READY_S
    while not all(m.status.get("round", 0) > 1 for m in members):
        for member in members:
            member.look()
        if time.monotonic() > until or any(member.ended for member in members):
            raise TapestryError("the members do not train; see their node.log")
        time.sleep(0.5)


# ---- figures -------------------------------------------------------------------------------------


@dataclass
class Figure:
    """One figure with its uncertainty and bound, the worst of all members."""

    what: str
    figure: float
    give: float
    bound: float | None
    reached: bool = True


def report(seen: list[list[Sample]], restarts: int) -> dict[str, Any]:
    """Figures beside bounds; ``series`` for the picture."""
    kept = [samples[round(len(samples) * WARM_UP) :] for samples in seen]
    spent = statistics.mean(s[-1].at - s[0].at for s in kept)
    rounds = statistics.mean(s[-1].round - s[0].round for s in kept)
    rows = [
        Figure("seconds a round", spent / rounds if rounds else float("inf"), 0, None),
        Figure("hours at the normal pace", seen[0][-1].round * NORMAL_ROUND_S / 3600, 0, None),
        _counted("trainers restarted", float(restarts)),
    ]
    for what in ("node RSS, MB", "trainer RSS, MB"):
        rows.append(_grown(f"{what} in 24 h at the normal pace", what, kept, True, RSS_MB))
        rows.append(_grown(f"{what} in 24 h of the clock, this pace", what, kept, False, None))
    bounds = {"store": DISK_MB, "trainer state": DISK_MB, "audit log": None, "logs": LOG_MB}
    for what in DISK:
        rows.append(
            _grown(f"{what}, MB in 24 h at the normal pace", what, kept, True, bounds[what])
        )
    for what in ("tasks", "node fds", "node threads", "trainer fds", "trainer threads"):
        rows.append(_counted(f"{what}, more at the end", _more(what, kept)))
    series = [[{"at": s.at, "round": s.round, **s.held} for s in samples] for samples in seen]
    return {
        "rows": [asdict(row) for row in rows], "samples": sum(map(len, seen)), "series": series,
        "sound": all(row.reached for row in rows),
    }  # fmt: skip


def _grown(
    title: str, what: str, kept: list[list[Sample]], by_round: bool, bound: float | None
) -> Figure:
    """The steepest member's slope per day."""
    day = DAY_S / NORMAL_ROUND_S if by_round else DAY_S
    slopes = [
        slope([float(s.round) if by_round else s.at for s in samples],
              [s.held[what] for s in samples])
        for samples in kept
    ]  # fmt: skip
    worst = max(slopes, key=lambda found: found.value)
    figure, give = day * worst.value, day * worst.give
    return Figure(title, figure, give, bound, bound is None or figure - give <= bound)


def _more(what: str, kept: list[list[Sample]]) -> float:
    """The middle of the last third less the middle of the first, of the member with the most."""
    found = []
    for samples in kept:
        third = max(1, len(samples) // 3)
        values = [sample.held[what] for sample in samples]
        found.append(statistics.median(values[-third:]) - statistics.median(values[:third]))
    return max(found)


def _counted(title: str, figure: float) -> Figure:
    return Figure(title, figure, 0, 0, figure <= 0)


def table(found: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| the worst of three members | figure | uncertainty | bound |",
        "|---|---:|---:|---:|",
    ]
    for row in found["rows"]:
        give = f"± {row['give']:.2f}" if row["give"] else ""
        bound = "" if row["bound"] is None else f"{row['bound']:g}"
        mark = "" if row["reached"] else " MISSED"
        if row["bound"] is not None and row["give"] > max(row["bound"], 1e-9):
            mark += " (too short to tell)"
        lines.append(f"| {row['what']} | {row['figure']:.2f} | {give} | {bound}{mark} |")
    return "\n".join(lines)


def draw(found: dict[str, Any], path: Path) -> None:
    """Resident memory of every process, and files, over the minutes."""
    from tapestry_p2p.cli.drawing import BLUE, GREY, RED, new_figure, save

    figure, (memory, disk) = new_figure(3.2, 2)
    for samples in found["series"]:
        minutes = [sample["at"] / 60 for sample in samples]
        for name, colour in (("node", BLUE), ("trainer", GREY)):
            values = [sample[f"{name} RSS, MB"] for sample in samples]
            memory.plot(minutes, values, color=colour, linewidth=1.2, label=name)
        for kind, colour in zip(DISK, (BLUE, GREY, RED, "black"), strict=True):
            disk.plot(minutes, [s[kind] for s in samples], color=colour, linewidth=1, label=kind)
    for panel, title in ((memory, "resident memory, MB"), (disk, "files, MB")):
        panel.set_ylim(bottom=0)
        panel.set_xlabel("minutes")
        panel.set_title(title, loc="left", fontsize=9)
        handles, labels = panel.get_legend_handles_labels()
        named = dict(zip(labels, handles, strict=True))
        panel.legend(named.values(), named.keys(), frameon=False, fontsize=8)
    save(figure, path)


def main() -> int:
    """Run, print, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON, with every sample")
    parser.add_argument("--picture", type=Path, help="an SVG file; needs matplotlib")
    parser.add_argument("--write-docs", action="store_true", help="table and picture into docs/")
    asked = parser.parse_args()
    try:
        found = soak(60 * asked.minutes, asked.seed)
        for path in {asked.picture, PICTURE if asked.write_docs else None} - {None}:
            draw(found, path)
    except TapestryError as error:
        sys.exit(error.message)
    if asked.write_docs:
        write_docs(DOCS, "soak", table(found))
    print(json.dumps(found) if asked.json else table(found))
    return 0 if found["sound"] else 1


if __name__ == "__main__":
    sys.exit(main())
