"""Eight real members in network namespaces under faults of the world: do they learn as well?

    python benches/chaos.py [--row NAME,...] [--seconds 120] [--quick] [--json] [--write-docs]

Real nodes and trainers on the packaged texts, each member in a namespace of its own. Every row
starts anew from the same keys and texts and does the same number of rounds (one a second where
the machine is quick enough); its faults last from a tenth of the rounds to half of them, then
all is calm again.

  calm          nothing happens: what the other rows are compared with
  loss          30 % of all packets are lost, each way
  delay         each packet takes 300 to 500 ms, drawn for itself: they overtake each other
  slow          1 Mbit/s up and 1 Mbit/s down for each member; then one draws all copies anew
  one_way       nothing passes from the first half to the second; the way back is open
  partition     nothing passes between the halves, which have different languages
  churn         40 % of the members a minute are killed, and back after 3 to 8 s
  stop          two members are stopped (SIGSTOP) for 60 s
  oom           the kernel kills trainers and nodes whose cgroup's memory is used up
  storm         10 % loss, 50 to 150 ms, and one member stopped, one killed, one out of memory

Loss, delay and blocked ways come from a switch of ours (chaos_switch.py: AF_PACKET), rates from
tbf. Needs root, `ip`, `tc` and memory cgroups. Exit code 1 if a bound is missed, or a fault
never happened.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benches.chaos_members import LOOK_S, Village
from benches.chaos_net import Places, SkippedError, need_root
from benches.robustness_docs import markdown, write_docs
from tapestry_p2p.cli.testnet.homes import Prepared, prepare
from tapestry_p2p.cli.testnet.plan import make_plan
from tapestry_p2p.errors import TapestryError

DOCS = Path(__file__).parents[1] / "docs" / "chaos.md"
LANGUAGES = "eng,fra,spa,deu_1996"
MODEL = {"layers": 1, "width": 32, "heads": 2, "context": 32, "batch_size": 8}  # 22,624 parameters
INNER_STEPS = 10
SPEED = 0.04  # of full: a round then takes about a second, and the machine is not busy
FROM, TO = 0.1, 0.5  # of the rounds: when faults begin and end
LINK_BITS = 1_000_000
BACK_S = 60.0  # protocol settings: a dial that failed is tried again after so long at most
LOSS_WITHIN, LINK_SHARE, SLOWEST, CHURN_RATE = 0.02, 0.7, 1 / 5, 0.6
JUDGED_S = 60.0  # in a shorter run nobody has learned what it can, and the loss still falls
DEAD_MAX = 1 / 10_000  # of looks of one living member at another
FDS, TASKS, GROWN_MB = 4, 6, 30.0  # more than before the faults, at most


@dataclass(frozen=True)
class Size:
    """How much of everything; ``QUICK`` is for the test."""

    members: int = 8
    seconds: float = 120.0  # rounds, at a round a second
    stop_s: float = 60.0
    oom_every_s: float = 15.0


QUICK = Size(members=3, seconds=16.0, stop_s=4.0, oom_every_s=4.0)


@dataclass
class Figure:
    """One figure and its bound: at most, or with ``least`` at least; None: for readers."""

    row: str
    what: str
    figure: float
    bound: float | None = None
    least: bool = False
    reached: bool = field(init=False)

    def __post_init__(self) -> None:
        bound = self.figure if self.bound is None else self.bound
        self.reached = self.figure >= bound if self.least else self.figure <= bound


Strikes = Callable[[Village, Size, Random], Iterator[float]]


@dataclass(frozen=True)
class Row:
    """A kind of weather, what strikes members in it, and what must have happened."""

    happened: tuple[str, ...] = ()
    weather: Callable[[int], dict[str, Any]] = lambda members: {}
    bits_per_s: int = 0
    strikes: Strikes | None = None
    ends: bool = False  # the strikes come to an end by themselves, and all must be dealt
    rate: float = SLOWEST  # of the calm run's rounds, at least


# ---- rows ----------------------------------------------------------------------------------------


def _halves(members: int) -> tuple[range, range]:
    return range(members // 2), range(members // 2, members)


def _one_way(members: int) -> dict[str, Any]:
    one, other = _halves(members)
    return {"blocked": [[a, b] for a in one for b in other]}


def _partition(members: int) -> dict[str, Any]:
    one, other = _halves(members)
    return {"blocked": [pair for a in one for b in other for pair in ([a, b], [b, a])]}


def _churn(village: Village, size: Size, random: Random) -> Iterator[float]:
    while True:
        up = [n for n, m in enumerate(village.members) if m.status.get("state") == "training"]
        if up:
            village.kill(random.choice(up), random.uniform(3.0, 8.0))
        yield 60.0 / (0.4 * len(village.members))


def _stop(village: Village, size: Size, random: Random) -> Iterator[float]:
    for number in random.sample(range(len(village.members)), min(2, len(village.members) - 1)):
        village.stop(number)
        yield 1.0
    yield size.stop_s
    village.wake()


def _oom(village: Village, size: Size, random: Random) -> Iterator[float]:
    for trainer in cycle((True, False)):
        village.starve(random.randrange(len(village.members)), trainer)
        yield size.oom_every_s


def _storm(village: Village, size: Size, random: Random) -> Iterator[float]:
    stopped, killed, starved = random.sample(range(len(village.members)), 3)
    village.stop(stopped)
    village.starve(starved, trainer=True)
    yield size.stop_s / 2
    village.kill(killed, away_s=2.0)
    yield size.stop_s / 2
    village.wake()


ROWS: dict[str, Row] = {
    "calm": Row(("carried",)),
    "loss": Row(("lost",), lambda members: {"loss": 0.3}),
    "delay": Row(("overtaken",), lambda members: {"delay_s": [0.3, 0.5]}),
    "slow": Row(("carried",), bits_per_s=LINK_BITS),
    "one_way": Row(("blocked",), _one_way),
    "partition": Row(("blocked",), _partition),
    "churn": Row(("killed",), strikes=_churn, rate=CHURN_RATE),
    "stop": Row(("stopped",), strikes=_stop, ends=True),
    "oom": Row(("killed by the kernel",), strikes=_oom),
    "storm": Row(
        ("lost", "overtaken", "stopped", "killed", "killed by the kernel"),
        lambda members: {"loss": 0.1, "delay_s": [0.05, 0.15]},
        strikes=_storm,
        ends=True,
    ),
}


# ---- one run -------------------------------------------------------------------------------------


@dataclass
class Result:
    """What one row showed."""

    name: str
    seconds: float = 0.0  # that the faults lasted
    rounds: float = 0.0  # of one member, on average, in that time
    back_s: float = 0.0
    losses: list[float] = field(default_factory=list)
    pairs: int = 0
    dead: int = 0
    apart: int = 0
    lag: float = 0.0  # entries, median
    grown: dict[str, float] = field(default_factory=dict)  # most of any member
    link_share: float | None = None
    happened: dict[str, int] = field(default_factory=dict)
    equal: bool = False
    judged: bool = True  # it was long enough for its loss to be compared


def prepared(folder: Path, size: Size) -> Prepared:
    """Keys, texts and one network for all members; each run gets its own."""
    (folder / "model.json").write_text(json.dumps(MODEL))
    rounds = round(size.seconds)
    plan = make_plan(
        members=size.members, byzantine=0, tolerate=0, attack="", data="udhr",
        languages=LANGUAGES, split=-(-size.members // 4), rounds=round(rounds / SPEED),
        inner_steps=INNER_STEPS, rule="cs_plus", codec="2bit", model=str(folder / "model.json"),
        seed=7, out=folder, speeds=",".join([str(SPEED)] * size.members),
    )  # fmt: skip
    return prepare(plan, plan.rule, folder / "run")


def run_row(name: str, size: Size) -> Result:
    """One row from start to end."""
    row, result = ROWS[name], Result(name, judged=size.seconds >= JUDGED_S)
    rounds = round(size.seconds)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tapestry-chaos-")))
        places = stack.enter_context(Places(size.members))
        village = stack.enter_context(Village(prepared(folder, size), places))
        village.until(village.ready, "everybody ready")
        village.go()
        village.until(lambda: village.round() >= FROM * rounds, "the first rounds")
        held = [member.held() for member in village.members]
        _faults(village, row, size, result)
        calm = places.weather()
        result.happened = {k: v for k, v in (calm + village.counts).items() if v}
        if not row.bits_per_s:
            result.back_s = village.until(village.together, "all together again")
        village.until(village.finished, "all rounds")
        village.until(lambda: village.together() and village.equal(), "equal copies")
        result.equal = True
        result.grown = _grown(held, [member.held() for member in village.members])
        if row.bits_per_s:
            result.link_share = link_share(village, 0)
        result.losses = village.losses()
        seen = village.seen
        if seen.dead:
            print(f"{name}: held for dead: {dict(seen.dead_who)}", file=sys.stderr, flush=True)
        result.pairs, result.dead, result.apart = seen.pairs, seen.dead, seen.apart
        result.lag = float(statistics.median(seen.lags)) if seen.lags else 0.0
    return result


def _faults(village: Village, row: Row, size: Size, result: Result) -> None:
    """Weather and strikes until half of the rounds are done, and all strikes were dealt."""
    places, members = village.places, len(village.members)
    places.weather(**row.weather(members))
    for number in range(members):
        places.limit(number, row.bits_per_s)
    village.counts.clear()
    strikes = row.strikes(village, size, Random(1)) if row.strikes else iter(())
    began, before = time.monotonic(), village.rounds()
    due = began if row.strikes else None
    while village.round() < TO * size.seconds or (row.ends and due is not None):
        if due is not None and time.monotonic() >= due:
            wait = next(strikes, None)
            due = None if wait is None else time.monotonic() + wait
        village.look()
        if time.monotonic() - began > 10 * size.seconds + 120:
            raise TapestryError(f"the rounds do not go on: {village.words()}")
        time.sleep(LOOK_S)
    result.seconds = time.monotonic() - began
    village.wake()
    result.rounds = (village.rounds() - before) / members


def _grown(before: list[dict[str, int]], after: list[dict[str, int]]) -> dict[str, float]:
    """By kind of thing held, the most that any member has more than it had."""
    kinds = {kind for held in before for kind in held}
    pairs = list(zip(before, after, strict=True))
    return {
        kind: max(float(b[kind] - a[kind]) for a, b in pairs if kind in a and kind in b)
        for kind in sorted(kinds)
        if any(kind in a and kind in b for a, b in pairs)
    }


def link_share(village: Village, number: int) -> float:
    """A member loses its copies and draws them again over its slow link: the share it uses.

    Bytes of copies over time and rate of the link, from the first tenth of them to the last.
    """
    member, places = village.members[number], village.places
    member.kill()
    for path in (member.home.paths.state / "store" / "copies").iterdir():
        path.unlink()
    village._start(number)
    seen = [(time.monotonic(), places.carried(number))]
    others = len(village.members) - 1
    while time.monotonic() - seen[0][0] < 120:
        member.look()
        seen.append((time.monotonic(), places.carried(number)))
        if member.status.get("following", 0) >= others:
            break
        time.sleep(0.05)
    total = seen[-1][1] - seen[0][1]
    inner = [(at, n - seen[0][1]) for at, n in seen if 0.1 <= (n - seen[0][1]) / total <= 0.95]
    rate = (inner[-1][1] - inner[0][1]) / (inner[-1][0] - inner[0][0])
    useful = others * 4 * member_parameters(village) / total
    return 8 * rate * min(1.0, useful) / LINK_BITS


def member_parameters(village: Village) -> int:
    """How many parameters the network's model has."""
    from tapestry_p2p.daemon.manifest import load_manifest

    return load_manifest(village.members[0].home.paths.manifest).schema.parameters


# ---- figures -------------------------------------------------------------------------------------


def figures(result: Result, calm: Result) -> list[Figure]:
    """A row's figures beside their bounds; the calm run of the same command is the baseline."""
    name, row = result.name, ROWS[result.name]
    pace, usual = result.rounds / result.seconds, calm.rounds / calm.seconds
    within = 1 + LOSS_WITHIN if result.judged else None
    loss, usual_loss = statistics.mean(result.losses), statistics.mean(calm.losses)
    rows = [
        Figure(name, "rounds a second of a member", pace),
        Figure(name, "... of the calm run's rounds", pace / usual, row.rate, least=True),
        Figure(name, "living and held for dead, of looks", result.dead / result.pairs, DEAD_MAX),
        Figure(name, "living and not connected, of looks", result.apart / result.pairs),
        Figure(name, "entries that copies are behind, median", result.lag),
        Figure(name, "held-out loss, bits per byte", loss),
        Figure(name, "held-out loss, of the calm run's", loss / usual_loss, within),
        Figure(name, "copies equal at the end", float(result.equal), 1, least=True),
    ]
    if name != "calm" and not row.bits_per_s:
        rows.append(Figure(name, "all together again after the faults, s", result.back_s, BACK_S))
    if result.link_share is not None:
        rows.append(Figure(name, "share of the link while it draws copies", result.link_share,
                           LINK_SHARE, least=True))  # fmt: skip
    bounds = {"fds": FDS, "threads": FDS, "tasks": TASKS, "MB": GROWN_MB}
    for kind, more in result.grown.items():
        rows.append(Figure(name, f"{kind}, more than before", more, bounds[kind.split()[-1]]))
    rows += [
        Figure(name, f"{what} (must happen)", result.happened.get(what, 0), 1, least=True)
        for what in row.happened
    ]
    return rows


def measure(names: list[str], size: Size, say: Callable[[str], None]) -> dict[str, Any]:
    """All rows; the calm one first, since the others are compared with it."""
    results: dict[str, Result] = {}
    for name in ["calm", *(name for name in names if name != "calm")]:
        results[name] = run_row(name, size)
        for figure in figures(results[name], results["calm"]):
            say(line(asdict(figure)))
    rows = [asdict(f) for r in results.values() for f in figures(r, results["calm"])]
    return {"size": asdict(size), "rows": rows, "runs": [asdict(r) for r in results.values()]}


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """One line a row of the bench; what misses its bound is marked."""
    columns = {
        "rounds of the calm run's": "... of the calm run's rounds",
        "held for dead": "living and held for dead, of looks",
        "not connected": "living and not connected, of looks",
        "entries behind": "entries that copies are behind, median",
        "loss of the calm run's": "held-out loss, of the calm run's",
        "together again after, s": "all together again after the faults, s",
        "of the link": "share of the link while it draws copies",
        "node fds, MB more": "node fds, more than before",
        "": "node MB, more than before",
    }
    found = {(row["row"], row["what"]): row for row in rows}
    lines = []
    for name in dict.fromkeys(row["row"] for row in rows):
        cells = [_cell(found.get((name, what))) for what in columns.values()]
        happened = [
            f"{row['figure']:.0f} {row['what'].removesuffix(' (must happen)')}"
            for row in rows if row["row"] == name and row["what"].endswith("(must happen)")
        ]  # fmt: skip
        lines.append([name, *cells[:-2], ", ".join(cells[-2:]), ", ".join(happened)])
    head = ["row", *list(columns)[:-1], "what happened"]
    return "\n".join(markdown(head, lines))


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    text = f"{row['figure']:.3g}"
    return text if row["reached"] else f"**{text}**"


def line(row: dict[str, Any]) -> str:
    """One figure as text."""
    if row["bound"] is None:
        return f"{row['row']:10} {row['what']:44} {row['figure']:10.4f}"
    sign, mark = ("<=", ">=")[row["least"]], ("MISSED", "")[row["reached"]]
    return f"{row['row']:10} {row['what']:44} {row['figure']:10.4f} {sign} {row['bound']:g} {mark}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--row", default=",".join(ROWS), help="names, by commas")
    parser.add_argument("--seconds", type=float, default=Size.seconds)
    parser.add_argument("--quick", action="store_true", help="three members, some seconds")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write-docs", action="store_true", help=f"the table into {DOCS.name}")
    options = parser.parse_args()
    names = options.row.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    size = QUICK if options.quick else Size(seconds=options.seconds)
    say = partial(print, file=sys.stderr if options.json else sys.stdout, flush=True)
    try:
        need_root()
        found = measure(names, size, say)
    except SkippedError as error:
        sys.exit(f"SKIPPED: {error}")
    except TapestryError as error:
        sys.exit(error.message)
    if options.write_docs:
        write_docs(DOCS, "chaos", markdown_table(found["rows"]))
    if options.json:
        print(json.dumps(found, indent=1))
    sys.exit(0 if all(row["reached"] for row in found["rows"]) else 1)


if __name__ == "__main__":
    main()
