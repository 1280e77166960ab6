"""Thirty simulated days of sixteen members with churn: does any table of the protocol grow?

    python benches/month.py [--days 30] [--members 16] [--control] [--json] [--write-docs]

The production protocol and mixing in virtual time, stand-in signatures, rounds of ten minutes, a
tick every 20 s. Six members stay for good; ten places are taken by others, each for three days
on average, who then leave (half of them say so) and are followed by somebody new. Everybody
crashes once a day on average and is away for five minutes to six hours; once a day the network
is cut in two for an hour. Tables have room for 64 members, fewer than come in 30 days: some keep
members long gone, and fill up.

Every six hours the bench walks through every object that a running member's protocol and loom
hold and notes the length of every list, dict, set and deque, by class and attribute; a table's
size is its largest in any member. The first third is left out. A table is flat if its largest
size in the last third is not beyond 1.1 times that of the second third and 4 items more; bounded
if it is flat, or within a bound that the settings name. Slopes are those of benches/soak.py.
What a disk holds for ever in the simulator (own headers) is let go of, so that resident memory
says something. ``--control`` plants a leak in one table of one member: the bench must find it,
and exits 0 if so. Exit code 1 if a table grows, or if something that should happen never did.
"""

import argparse
import json
import sys
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benches.robustness_docs import write_docs
from benches.soak import BLOCKS, slope
from tapestry_p2p.gossip.header import Header, SignedHeader
from tapestry_p2p.gossip.profile import Profile
from tapestry_p2p.gossip.settings import Settings
from tapestry_p2p.heap import resident_bytes
from tapestry_p2p.sim.cluster import Cluster, Plan
from tapestry_p2p.sim.member import Member
from tapestry_p2p.sim.rounds import Pace, Rounds

DOCS = Path(__file__).parents[1] / "docs" / "chaos.md"
DAY_S, HOUR_S = 86_400.0, 3600.0
ROUND_S, TICK_S, DIGEST_S = 600.0, 20.0, 600.0
STAY, LIFE_DAYS = 6, 3.0
AWAY_S = (300.0, 6 * HOUR_S)
LOOK_S = 6 * HOUR_S
ROOM = 64  # members that the tables have room for
KEPT = 256  # own headers that a member's disk really holds
BOUNDS: dict[str, int] = {}  # of deques with a length
TABLES = (dict, list, set, deque, tuple, frozenset)
PLAIN = (Header, SignedHeader, Profile, Settings, Random, bytes, str, int, float, type(None))
ANEW = {"State.effects", "State.touched"}  # made at each event
RSS_MB_A_DAY = 1.0  # of the whole simulation, sixteen members
HAPPENED = ("crashed", "restarted", "left", "partitioned", "joined_late", "keyframe", "published")


# ---- looking inside ------------------------------------------------------------------------------


def tables(*roots: object) -> dict[str, int]:
    """Length of every container that the objects hold, by ``Class.attribute``: the largest."""
    found: dict[str, int] = {}
    seen: set[int] = set()
    todo = list(roots)
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, PLAIN):
            continue
        seen.add(id(thing))
        for name, value in _attributes(thing):
            if isinstance(value, TABLES):
                where = f"{type(thing).__name__}.{name}"
                if where not in ANEW:
                    found[where] = max(found.get(where, 0), len(value))
                if isinstance(value, deque) and value.maxlen is not None:
                    BOUNDS[where] = value.maxlen
                todo += _items(value)
            elif _is_ours(value):
                todo.append(value)
    return found


def _attributes(thing: object) -> Iterator[tuple[str, object]]:
    yield from getattr(thing, "__dict__", {}).items()
    for kind in type(thing).__mro__:
        for name in getattr(kind, "__slots__", ()):
            if hasattr(thing, name):
                yield name, getattr(thing, name)


def _items(table: Any) -> list[object]:
    """What a container holds of ours; one level of nesting is looked through."""
    values = list(table.values()) if isinstance(table, dict) else list(table)
    inner = [item for value in values if isinstance(value, TABLES) for item in _items(value)]
    return [value for value in values if _is_ours(value)] + inner


def _is_ours(value: object) -> bool:
    return type(value).__module__.startswith("tapestry_p2p.") and not callable(value)


# ---- the world -----------------------------------------------------------------------------------


class Month:
    """Members come, crash, return, leave; ``run`` looks at them on the way."""

    def __init__(self, days: float, members: int, seed: int, leaks: bool = False) -> None:
        self._random = Random(seed)
        self._days, self._leaks = days, leaks
        late, ends = self._lives(days, members)
        plan = Plan(
            seed=seed, honest=len(late), d=16, late=late, tick_s=TICK_S,
            pace=Pace(round_s=ROUND_S, steps=1, parts=1, news_share=0.5),
        )  # fmt: skip
        self.cluster = Cluster(plan)
        for member in self.cluster.members:
            member.settings = replace(
                member.settings, all_to_all_max=members + 1, streams_max=64, peers_max=64,
                digest_every_s=DIGEST_S, probation_rounds=64, members_max=ROOM, founders=frozenset(
                    m.key for m in self.cluster.members[:STAY]),
            )  # fmt: skip
        self._gone: set[str] = set()
        for number, end in ends.items():
            self.cluster.at(end, partial(self._retire, self.cluster.members[number]))
        self.series: dict[str, list[int]] = {}
        self.rss: list[float] = []
        self._crash_later()
        self.cluster.world.after(DAY_S / 2, self._cut)

    def _lives(self, days: float, members: int) -> tuple[dict[int, float], dict[int, float]]:
        """When each member comes, and when it leaves for good."""
        late = {number: 1.0 + number for number in range(min(STAY, members))}
        ends: dict[int, float] = {}
        for place in range(members - len(late)):
            at = 60.0 + place
            while at < days * DAY_S:
                number = len(late)
                late[number] = at
                at += DAY_S * self._random.uniform(0.5, 2 * LIFE_DAYS - 0.5)
                ends[number] = at
                at += HOUR_S
        return late, ends

    def _retire(self, member: Member) -> None:
        """Leave for good: with a word, or without."""
        member.leave() if self._random.random() < 0.5 else member.crash()
        self._gone.add(member.name)
        member.disk.entries.clear()
        member.disk.copies.clear()
        member.disk.payloads.clear()

    def _crash_later(self) -> None:
        mean = DAY_S / max(1, len(self._living()))
        self.cluster.world.after(self._random.expovariate(1 / mean), self._crash)

    def _crash(self) -> None:
        if living := self._living():
            member = self._random.choice(living)
            member.crash() if self._random.random() < 0.8 else member.cut_power()
            self.cluster.world.after(self._random.uniform(*AWAY_S), self._return, member)
        self._crash_later()

    def _return(self, member: Member) -> None:
        if member.name not in self._gone:
            member.start()

    def _cut(self) -> None:
        keys = [member.key for member in self.cluster.members]
        self._random.shuffle(keys)
        self.cluster.network.partition(keys[::2], keys[1::2])
        self.cluster.world.after(HOUR_S, self.cluster.network.unite)
        self.cluster.world.after(DAY_S, self._cut)

    def _living(self) -> list[Member]:
        return [member for member in self.cluster.members if member.is_up()]

    def run(self) -> None:
        """All days."""
        looks = round(self._days * DAY_S / LOOK_S)
        for look in range(looks):
            self.cluster.run(LOOK_S)
            self._look(look)
        self.rounds = sum(member.rounds for member in self.cluster.members)

    def _look(self, look: int) -> None:
        living = self._living()
        for member in living:  # the simulator's disk holds all headers for ever; a real one a ring
            entries = member.disk.entries
            entries[1:-KEPT] = [entries[0]] * max(0, len(entries) - 1 - KEPT)
        if self._leaks and living:
            held = self.cluster.members[0].protocol
            if held is not None:
                held._pursuit.__dict__.setdefault("leak", []).extend([look] * 4)
        now: dict[str, int] = {}
        for member in living:
            trade = member.trade
            loom = trade.loom if isinstance(trade, Rounds) else None
            for name, size in tables(member.protocol, loom).items():
                now[name] = max(now.get(name, 0), size)
        for name in {*now, *self.series}:
            self.series.setdefault(name, [0] * look).append(now.get(name, 0))
        self.rss.append(resident_bytes() / 1e6)


# ---- figures -------------------------------------------------------------------------------------


@dataclass
class Table:
    """One container of the protocol: its largest size in each third, and how it goes on."""

    name: str
    most: int
    second: int
    last: int
    a_day: float
    give: float
    bound: int | None = None  # that the table keeps by itself
    flat: bool = field(init=False)

    def __post_init__(self) -> None:
        bounded = self.bound is not None and self.most <= self.bound
        self.flat = bounded or self.last <= 1.1 * self.second + 4


def judged(name: str, sizes: list[int]) -> Table:
    """A table's series, a size a look."""
    third = len(sizes) // 3
    kept = sizes[third:]
    days = [look * LOOK_S / DAY_S for look in range(len(kept))]
    found = slope(days, [float(size) for size in kept])
    second, last = max(sizes[third : 2 * third]), max(sizes[2 * third :])
    return Table(name, max(sizes), second, last, found.value, found.give, BOUNDS.get(name))


def report(month: Month) -> dict[str, Any]:
    """Tables, the largest first; ``sound`` is what the exit code says."""
    rows = sorted((judged(n, s) for n, s in month.series.items()), key=lambda r: -r.most)
    third = len(month.rss) // 3
    days = [look * LOOK_S / DAY_S for look in range(len(month.rss) - third)]
    grown = slope(days, month.rss[third:])
    counts: Counter[str] = month.cluster.world.counts
    never = [what for what in HAPPENED if not counts[what]]
    growing = [row.name for row in rows if not row.flat]
    return {
        "tables": [asdict(row) for row in rows], "growing": growing, "never": never,
        "rss_mb": month.rss[-1], "rss_mb_a_day": grown.value, "rss_give": grown.give,
        "rss_flat": grown.value - grown.give <= RSS_MB_A_DAY, "rounds": month.rounds,
        "identities": len(month.cluster.members), "counts": {w: counts[w] for w in HAPPENED},
        "sound": not growing and not never and grown.value - grown.give <= RSS_MB_A_DAY,
    }  # fmt: skip


def show(found: dict[str, Any], days: float) -> str:
    """As text."""
    lines = [
        f"{days:g} days, {found['identities']} identities, {found['rounds']} rounds;"
        f" {found['counts']}",
        f"{'table':34} {'most':>7} {'2nd third':>9} {'3rd':>7} {'a day':>8}",
    ]
    lines += [
        f"{row['name']:34} {row['most']:7} {row['second']:9} {row['last']:7} {row['a_day']:8.2f}"
        f" ± {row['give']:.2f}{_mark(row)}"
        for row in found["tables"][:25]
    ]
    lines += [
        f"... and {max(0, len(found['tables']) - 25)} smaller ones; growing: "
        f"{', '.join(found['growing']) or 'none'}; never happened: "
        f"{', '.join(found['never']) or 'nothing'}",
        f"resident {found['rss_mb']:.0f} MB, {found['rss_mb_a_day']:+.2f} ± {found['rss_give']:.2f}"
        f" MB a day <= {RSS_MB_A_DAY:g}{'' if found['rss_flat'] else '  GROWS'}",
    ]
    return "\n".join(lines)


def _mark(row: dict[str, Any]) -> str:
    """The bound that the table has, and whether it grows."""
    bound = "" if row["bound"] is None else f"  <= {row['bound']}"
    return bound if row["flat"] else bound + "  GROWS"


def main() -> int:
    """Run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=float, default=30.0)
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--control", action="store_true", help="plant a leak; it must be found")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write-docs", action="store_true", help=f"the table into {DOCS.name}")
    asked = parser.parse_args()
    if asked.days * DAY_S / LOOK_S * 2 / 3 < BLOCKS:
        parser.error(f"--days must be at least {BLOCKS * 1.5 * LOOK_S / DAY_S:g}")
    month = Month(asked.days, asked.members, asked.seed, asked.control)
    month.run()
    found = report(month)
    if asked.write_docs:
        write_docs(DOCS, "month", f"```\n{show(found, asked.days)}\n```")
    print(json.dumps(found, indent=1) if asked.json else show(found, asked.days))
    if asked.control:
        return 0 if found["growing"] == ["Pursuit.leak"] else 1
    return 0 if found["sound"] else 1


if __name__ == "__main__":
    sys.exit(main())
