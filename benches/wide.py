"""Two groups behind a slow link, and members that nobody can dial: what crosses, who waits.

    python benches/wide.py [--group 3] [--seconds 60] [--quick] [--json] [--write-docs]

Slow link: two network namespaces with a group of real daemons each (stand-in trainers, a vector
every 5 s), joined by a switch of ours: first calm, then 200 ms each way and 5 Mbit/s. All follow
all, so a link's share of the bytes is the share of pairs that it parts; more than that would mean
that the link costs repeats. Training must keep the pace that it had in the calm. Needs root.

Behind routers: two daemons that listen nowhere and one that both dial; how long after a vector was
published the other's copy has it, and which way each says is used. Without root only this is run,
and the rest counts as not reached.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benches.chaos_net import Places, SkippedError
from benches.many_daemons import Daemon, Daemons
from benches.performance import Row, add_options, finish

DELAY_S, RATE_BITS = 0.2, 5_000_000  # each way
EVERY_S, PARAMETERS = 5.0, 200_000
PORT = 4100
SETTLE_S, PATIENCE_S = 20.0, 120.0
PACE = 0.95  # of the rounds in the calm
LAG_MAX = 3  # entries behind, of one that is read through others


# ---- two groups ----------------------------------------------------------------------------------


def groups(group: int, seconds: float, every_s: float) -> tuple[list[Row], str]:
    """Both weathers in one run."""
    count = 2 * group
    with tempfile.TemporaryDirectory() as folder, Places(2) as places, Daemons() as daemons:
        common = ["--members", str(count), "--every", str(every_s)]
        common += ["--parameters", str(PARAMETERS)]
        near: list[str] = []
        for number in range(count):
            place = number % 2
            host = places.address(place)
            daemon = daemons.add(
                f"{folder}/{number}", str(number), *common, *near, "--host", host,
                "--port", str(PORT + number), before=["ip", "netns", "exec", places.names[place]],
            )  # fmt: skip
            near = near or ["--near", daemon.address(host)]
        met = daemons.until(lambda facts: facts["mixed"] == count - 1, PATIENCE_S)
        calm = _window(daemons.all, places, seconds)
        places.weather(delay_s=[DELAY_S, DELAY_S])
        for place in range(2):
            places.limit(place, RATE_BITS)
        time.sleep(SETTLE_S)
        slow = _window(daemons.all, places, seconds)
    note = (
        f"two groups of {group}, {PARAMETERS:,} parameters, a vector every {every_s:g} s, windows"
        f" of {seconds:g} s; all met {0.0 if met is None else met:.0f} s after the last start."
    )
    return group_rows(group, seconds, calm, slow), note


def _window(daemons: Sequence[Daemon], places: Places, seconds: float) -> dict[str, float]:
    """What all members did in a while, and what crossed meanwhile."""

    def total(name: str) -> float:
        return float(sum(daemon.facts[-1][name] for daemon in daemons))

    names = ("handed", "seq", "sent")
    before = {name: total(name) for name in names}
    crossed = places.carried(0) + places.carried(1)
    time.sleep(seconds)
    found = {name: total(name) - before[name] for name in names}
    crossed = places.carried(0) + places.carried(1) - crossed
    lags = [
        _lag(reader, author)
        for n, reader in enumerate(daemons)
        for m, author in enumerate(daemons)
        if n % 2 != m % 2
    ]
    return {**found, "crossed": float(crossed), "lag": mean(lags)}


def _lag(reader: Daemon, author: Daemon) -> float:
    """Entries that a copy is behind, as both say in their newest lines."""
    name = author.lines[0]["id"]
    return max(0.0, float(author.facts[-1]["seq"] - reader.facts[-1]["copies"].get(name, -1)))


def group_rows(
    group: int, seconds: float, calm: dict[str, float], slow: dict[str, float]
) -> list[Row]:
    """The figures of the slow link."""
    count = 2 * group
    share = 2 * group * group / (count * (count - 1))
    rate = 2 * RATE_BITS / 8  # both ways
    return [
        Row(
            "share of all bytes that cross the slow link", slow["crossed"] / slow["sent"],
            baseline=calm["crossed"] / calm["sent"], bound=share * 1.1,
        ),
        Row(
            "use of the slow link", slow["crossed"] / seconds / rate,
            baseline=calm["crossed"] / seconds / rate, better="neither",
        ),
        Row(
            "rounds trained, of those in the calm", slow["handed"] / calm["handed"], bound=PACE,
            better="more",
        ),
        Row(
            "entries published, of those in the calm", slow["seq"] / calm["seq"], bound=PACE,
            better="more",
        ),
        Row("entries behind across the link", slow["lag"], baseline=calm["lag"], bound=LAG_MAX),
    ]  # fmt: skip


# ---- behind routers ------------------------------------------------------------------------------


def routers(seconds: float, every_s: float) -> tuple[list[Row], str]:
    """Two that nobody can dial, and one between."""
    with tempfile.TemporaryDirectory() as folder, Daemons() as daemons:
        common = ["--members", "3", "--every", str(every_s)]
        near = ["--near", daemons.add(f"{folder}/0", "0", *common).address()]
        hidden = [daemons.add(f"{folder}/{n}", str(n), *common, *near, "--deaf") for n in (1, 2)]
        daemons.until(lambda facts: facts["mixed"] == 2, PATIENCE_S)
        time.sleep(SETTLE_S)
        lags = []
        for _ in range(max(1, int(seconds))):
            time.sleep(1.0)
            lags += [_lag(hidden[0], hidden[1]), _lag(hidden[1], hidden[0])]
        last = [daemon.facts[-1] for daemon in daemons.all]
    note = f"behind routers: a vector every {every_s:g} s, looked at each second for {seconds:g} s."
    return router_rows(lags, last), note


def router_rows(lags: Sequence[float], last: Sequence[dict[str, Any]]) -> list[Row]:
    """The figures of those whom nobody can dial; ``last``: the one between first."""
    said = sum(f["reach"] == "dialled only" and f["through_others"] == 1 for f in last[1:])
    return [
        Row("behind routers: entries behind, mean", mean(lags), better="neither"),
        Row("behind routers: entries behind, most", max(lags), bound=LAG_MAX),
        Row("behind routers: neighbours mixed, least", min(f["mixed"] for f in last), bound=2,
            better="more"),
        Row("behind routers: that say so, of 2", said, bound=2, better="more"),
    ]  # fmt: skip


def main(words: Sequence[str] | None = None) -> int:
    """Run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--group", type=int, default=3, help="members on each side")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each window")
    parser.add_argument("--quick", action="store_true", help="only those behind routers, briefly")
    add_options(parser)
    asked = parser.parse_args(words)
    rows, note = routers(4.0 if asked.quick else asked.seconds, 1.0 if asked.quick else EVERY_S)
    notes = [note]
    if not asked.quick:
        try:
            found, note = groups(asked.group, asked.seconds, EVERY_S)
        except SkippedError as error:
            found, note = [Row("across a slow link", None, bound=0)], f"not run: {error}"
        rows, notes = found + rows, [note, *notes]
    return finish("wide", rows, notes, asked)


if __name__ == "__main__":
    sys.exit(main())
