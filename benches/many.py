"""Many members: 24 real daemons on one machine, and crowds of up to 10,000 in virtual time.

    python benches/many.py [--daemons 24] [--sizes 100 1000 10000] [--quick] [--json] [--write-docs]
    python benches/many.py --crowd 1000        one size alone, its record as JSON

The daemons are production nodes over real libp2p, each in its own process with a stand-in for the
trainer that hands over a vector every 5 s; all of them know one address. Measured: how long after
the last start everybody lists everybody, whether everybody mixes, and bytes for each link in two
windows.

A crowd is the production protocol in the simulator (many_crowd.py), each size in a process of its
own. The promise is that one member's bytes, memory and CPU do not depend on how many there are, and
that rounds until all agree grow like the logarithm. 10,000 members take about an hour of one core.
The seed and what was exercised are printed; a run in which nothing left or came fails.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benches.many_crowd import HAPPENED, SETTLE_S, WINDOW_S, Crowd, run
from benches.many_daemons import ENVIRONMENT, Daemons
from benches.performance import Row, add_options, finish
from tapestry_p2p.cli.drawing import BLUE, GREY, RED, new_figure, save
from tapestry_p2p.errors import TapestryError

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "many.svg"
COMPLETE_S = 30.0  # promised, after the last start
PATIENCE_S = 180.0
CALM_S, LOOK_S = 60.0, 30.0  # until links are settled; one of the two windows
GROWTH = 1.05  # of one member's costs from the smallest crowd to the largest
LOG_GROWTH = 1.15  # rounds are whole numbers


# ---- real daemons --------------------------------------------------------------------------------


def daemons(count: int, every_s: float, calm_s: float, look_s: float) -> tuple[list[Row], str]:
    """Start them all, watch, end them."""
    with tempfile.TemporaryDirectory() as folder, Daemons() as all_of_them:
        common = ["--members", str(count), "--every", str(every_s)]
        first = all_of_them.add(f"{folder}/0", "0", *common)
        near = ["--near", first.address()]
        for number in range(1, count):
            all_of_them.add(f"{folder}/{number}", str(number), *common, *near)
        complete = all_of_them.until(lambda facts: facts["members"] == count, PATIENCE_S)
        mixing = all_of_them.until(lambda facts: facts["mixed"] > 0, PATIENCE_S)
        time.sleep(calm_s + 2 * look_s + 2)
        tails = [daemon.facts[-int(2 * look_s) :] for daemon in all_of_them.all]
    return daemon_rows(count, complete, mixing, tails), (
        f"{count} daemons: all know one address; a vector of 10,000 parameters every {every_s:g} s;"
        f" windows of {look_s:g} s, {calm_s:g} s after everybody mixed."
    )


def daemon_rows(
    count: int,
    complete: float | None,
    mixing: float | None,
    tails: Sequence[Sequence[dict[str, Any]]],
) -> list[Row]:
    """The figures. ``tails``: for each daemon its lines of two windows, one after the other."""
    halves = [(tail[: len(tail) // 2], tail[len(tail) // 2 :]) for tail in tails]
    earlier, later = (mean(_a_link_s(half[n]) for half in halves) for n in (0, 1))
    sent = [_a_second(tail, "sent") for tail in tails]
    last = [tail[-1] for tail in tails]
    name = f"{count} daemons"
    return [
        Row(f"{name}: membership complete after the last start", complete, "s", bound=COMPLETE_S),
        Row(f"{name}: all mix after the last start", mixing, "s", better="neither"),
        Row(
            f"{name}: members that mix at the end", sum(facts["mixed"] > 0 for facts in last),
            bound=count, better="more",
        ),
        Row(f"{name}: links of a member, least", min(f["linked"] for f in last), better="neither"),
        Row(f"{name}: bytes a link, later against earlier", later / earlier, bound=GROWTH),
        Row(f"{name}: bytes a second of a member, mean", mean(sent), "B", better="neither"),
        Row(f"{name}: bytes a second, most against mean", max(sent) / mean(sent), better="neither"),
        Row(
            f"{name}: CPU of a member", 1000 * mean(_a_second(t, "cpu_s") for t in tails), "ms/s",
            better="neither",
        ),
        Row(f"{name}: resident memory", mean(f["rss_mb"] for f in last), "MB", better="neither"),
    ]  # fmt: skip


def _a_second(lines: Sequence[dict[str, Any]], name: str) -> float:
    passed = float(lines[-1]["at"] - lines[0]["at"])
    return float(lines[-1][name] - lines[0][name]) / passed


def _a_link_s(lines: Sequence[dict[str, Any]]) -> float:
    return _a_second(lines, "sent") / mean(float(facts["linked"]) for facts in lines)


# ---- simulated crowds ----------------------------------------------------------------------------


def crowd_of(members: int, seed: int, settle_s: float, window_s: float) -> Crowd:
    """One size, in a process of its own."""
    words = [str(members), "--seed", str(seed), "--times", str(settle_s), str(window_s)]
    path = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, __file__, "--crowd", *words], check=True, stdout=subprocess.PIPE,
        text=True, env={**os.environ, **ENVIRONMENT, "PYTHONPATH": path},
    )  # fmt: skip
    return Crowd(**json.loads(done.stdout))


def crowd_rows(crowds: Sequence[Crowd]) -> list[Row]:
    """Each size, then the largest against the smallest."""
    rows: list[Row] = []
    for crowd in crowds:
        name = f"{crowd.members:,} members"
        rows += [
            Row(f"{name}: bytes a second of one", crowd.bytes_s, "B", better="neither"),
            Row(f"{name}: tables of one", crowd.memory_kb, "kB", better="neither"),
            Row(f"{name}: CPU of one protocol", crowd.cpu_us, "µs/s", better="neither"),
            Row(f"{name}: links of one, mean", crowd.links, better="neither"),
            Row(
                f"{name}: rounds until all are near, beside a random regular graph", crowd.rounds,
                baseline=crowd.rounds_regular, better="neither",
            ),
            Row(f"{name}: mu2 of the links", crowd.mu2, better="neither"),
            Row(f"{name}: living members out of reach", crowd.alone, bound=0),
            Row(
                f"{name}: kinds of event that never happened",
                sum(not crowd.happened.get(what) for what in HAPPENED), bound=0,
            ),
        ]  # fmt: skip
    small, large = crowds[0], crowds[-1]
    name = f"{large.members:,} against {small.members:,}"
    rows += [
        Row(f"{name}: bytes", large.bytes_s / small.bytes_s, bound=GROWTH),
        Row(f"{name}: tables", large.memory_kb / small.memory_kb, bound=GROWTH),
        Row(f"{name}: CPU", large.cpu_us / small.cpu_us, bound=GROWTH),
        Row(f"{name}: rounds / log", _a_log(large) / _a_log(small), bound=LOG_GROWTH),
    ]
    return rows


def _a_log(crowd: Crowd) -> float:
    """Rounds for each factor e between what one had and a tenth of the mean."""
    return crowd.rounds / math.log(10 * crowd.members)


def crowd_notes(crowds: Sequence[Crowd]) -> list[str]:
    """Seed, what was exercised, what it took."""
    return [
        f"{c.members:,} members: seed {c.seed}; "
        + ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in c.happened.items())
        + f"; {c.listed:.0f} listed by one; {c.took_s:.0f} s of CPU."
        for c in crowds
    ]


def draw(crowds: Sequence[Crowd], path: Path = PICTURE) -> None:
    """One member's costs and the rounds until all agree, over the number of members."""
    figure, (costs, rounds) = new_figure(2.9, columns=2)
    sizes = [crowd.members for crowd in crowds]
    for colour, label, values in (
        (BLUE, "bytes", [crowd.bytes_s for crowd in crowds]),
        (GREY, "tables", [crowd.memory_kb for crowd in crowds]),
        (RED, "CPU", [crowd.cpu_us for crowd in crowds]),
    ):
        shares = [value / values[0] for value in values]
        costs.plot(sizes, shares, color=colour, marker="o", linewidth=1.8, label=label)
    costs.set_ylim(0.0, 1.6)
    costs.set_title(f"what one member takes, {sizes[0]:,} members = 1", loc="left", fontsize=9)
    costs.legend(frameon=False, fontsize=8)
    counts = [crowd.rounds for crowd in crowds]
    rounds.plot(sizes, counts, color=BLUE, marker="o", linewidth=1.8)
    rounds.set_ylim(0, 1.4 * max(counts))
    rounds.set_title("rounds until all are near the mean", loc="left", fontsize=9)
    for panel in (costs, rounds):
        panel.set_xscale("log")
        panel.set_xlabel("members")
    save(figure, path)


def main(words: Sequence[str] | None = None) -> int:
    """Run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--daemons", type=int, default=24, help="0: none")
    parser.add_argument("--sizes", type=int, nargs="*", default=[100, 1000, 10_000])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--times", type=float, nargs=2, default=[SETTLE_S, WINDOW_S])
    parser.add_argument("--quick", action="store_true", help="3 daemons, crowds of 24 and 36")
    parser.add_argument("--crowd", type=int, help="one size alone")
    add_options(parser)
    asked = parser.parse_args(words)
    if asked.crowd:
        print(json.dumps(run(asked.crowd, asked.seed, *asked.times).record()))
        return 0
    paces = (5.0, CALM_S, LOOK_S)
    if asked.quick:
        asked.daemons, asked.sizes, paces = min(asked.daemons, 3), [24, 36], (0.5, 3.0, 4.0)
        asked.times = [150.0, 150.0]
    rows: list[Row] = []
    notes: list[str] = []
    if asked.daemons:
        found, note = daemons(asked.daemons, *paces)
        rows, notes = rows + found, [*notes, note]
    crowds = [crowd_of(members, asked.seed, *asked.times) for members in asked.sizes]
    if crowds:
        rows, notes = rows + crowd_rows(crowds), notes + crowd_notes(crowds)
    if asked.write_docs and len(crowds) > 1:
        try:
            draw(crowds)
        except TapestryError as error:
            notes.append(f"No picture: {error.message}.")
    return finish("many", rows, notes, asked)


if __name__ == "__main__":
    sys.exit(main())
