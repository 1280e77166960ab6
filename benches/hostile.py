"""Every hostile program against a live testnet of four that trains: what it costs the honest.

    python benches/hostile.py [--programs NAME,...] [--seconds 12] [--write-docs] [--json]

One program at a time, each against all four: honest rounds per second while it attacks, as a share
of the rate just before and just after it without attack; how much of a core it cost the busiest
node; by how much the largest node grew; and the figure of its own (hostile_figures.py). The members
rest most of the time (--speed) and have half of the cores, attackers the other half: they compete
for the network's manners and not for the processor. Attackers come from 127.66.*, where no member
is. Bounds: a rate of at least 95 %, growth of at most 5 MB, each figure's own. The row ``nothing``
is the control: its rate is noise. All of it takes under ten minutes on a quiet machine; on a busy
one rates say nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from benches.hostile_figures import FIGURES, LINKS, Seen, Status
from tapestry_p2p.cli.testnet.cluster import Cluster
from tapestry_p2p.cli.testnet.homes import prepare
from tapestry_p2p.cli.testnet.plan import make_plan
from tapestry_p2p.daemon.ask import ask
from tapestry_p2p.daemon.invite import parse_invite
from tapestry_p2p.sim.hostile.table import PROGRAMS

ROOT = Path(__file__).parents[1]
MODEL = {"layers": 1, "width": 16, "heads": 1, "context": 32, "batch_size": 4}
RATE_MIN, GROWTH_MB_MAX = 0.95, 5.0
SETTLE_S = 1.0  # after an attack begins or ends, before the next look at an honest rate
CALM = 0.5  # of an attack's time, before and after it
LOOK_S = 0.4
END_S = 20.0
NOTHING = "nothing"
FILLS_TABLES = ("table_poisoner", "sybil_swarm")  # last: what they leave behind is no news
CORES = sorted(os.sched_getaffinity(0))
OTHERS = set(CORES[len(CORES) // 2 :])  # the attackers'
BEGIN, END = "<!-- hostile -->", "<!-- /hostile -->"


@dataclass(frozen=True)
class Watch:
    """Rounds per second of all together, by least squares over looks; the busiest node's share of
    a core (not its trainer's); and the looks."""

    rate: float
    cpu: float
    looks: list[list[Status]]


class Field:
    """Four members, watched over their control sockets."""

    def __init__(self, out: Path, speed: float) -> None:
        model = out / "model.json"
        model.write_text(json.dumps(MODEL))
        plan = make_plan(
            members=4,
            byzantine=0,
            tolerate=0,
            attack="mirror",
            data="udhr",
            languages="eng,fra,spa,por_BR",
            split=1,
            rounds=1_000_000,
            inner_steps=5,
            rule="cs_plus",
            codec="2bit",
            model=str(model),
            seed=1,
            out=out / "testnet",
            speeds=",".join([str(speed)] * 4),
        )
        prepared = prepare(plan, plan.rule, plan.out / "run")
        self.network = prepared.manifest.network_id.hex()
        self.cluster = Cluster(prepared.homes, plan.out / "members.json", lambda members: None)

    def statuses(self) -> list[dict[str, Any]]:
        """What every node says of itself."""
        sockets = [member.home.paths.control_socket for member in self.cluster.members]
        return [ask(path, {"do": "status"}, 10.0) for path in sockets]

    def addresses(self) -> list[str]:
        """Where each listens, with its peer id."""
        found = []
        for member in self.cluster.members:
            answer = ask(member.home.paths.control_socket, {"do": "invite"}, 10.0)
            addresses = map(str, parse_invite(answer["link"]).addresses)
            found.append(next(a for a in addresses if "127.0.0.1" in a))
        return found

    def watch(self, seconds: float) -> "Watch":
        """Look at everybody again and again for so long."""
        times: list[float] = []
        rounds: list[int] = []
        looks: list[list[Status]] = []
        began = time.monotonic()
        while time.monotonic() - began < seconds or len(looks) < 3:
            looks.append(self.statuses())
            times.append(time.monotonic())
            rounds.append(sum(status["round"] for status in looks[-1]))
            time.sleep(LOOK_S)
        slope, _ = np.polyfit(np.array(times) - began, np.array(rounds), 1)
        took = times[-1] - times[0]
        ends = zip(looks[0], looks[-1], strict=True)
        cpu = max((last["cpu_s"] - first["cpu_s"]) / took for first, last in ends)
        return Watch(float(slope), cpu, looks)

    def strangers(self) -> list[dict[str, Any]]:
        """Rows of everybody's ``peers`` about others than the four."""
        return [row for row in self.peers() if row["id"] not in self.ids]

    def peers(self) -> list[dict[str, Any]]:
        """All rows of everybody's ``peers``."""
        sockets = [member.home.paths.control_socket for member in self.cluster.members]
        return [row for path in sockets for row in ask(path, {"do": "peers"}, 10.0)["peers"]]

    @property
    def ids(self) -> set[str]:
        """The four."""
        return {member.home.peer_id for member in self.cluster.members}


def yield_processor(pid: int) -> None:
    """Let a process that is a session of its own come last: Linux may share by session, and nice
    alone then does nothing."""
    with suppress(OSError):  # not shared by session here
        Path(f"/proc/{pid}/autogroup").write_text("19")


@contextmanager
def playing(field: Field, name: str) -> Iterator[dict[str, int]]:
    """A program attacks all four inside the block; then the dict has what it counted."""
    if name == NOTHING:
        yield {"nothing": 1}
        return
    source = f"127.66.{list(PROGRAMS).index(name)}.1"  # debts of one address are not the next one's
    program = [sys.executable, "-m", "tapestry_p2p.sim.hostile", "--from", source]
    process = subprocess.Popen(
        ["nice", "-n", "19", *program, name, field.network, *field.addresses()],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    yield_processor(process.pid)
    os.sched_setaffinity(process.pid, OTHERS)
    did: dict[str, int] = {}
    try:
        assert process.stderr is not None
        if process.stderr.readline() != "begun\n":
            raise RuntimeError(f"{name} did not begin: {process.stderr.read()[-500:]}")
        yield did
        try:
            said, _ = process.communicate(timeout=END_S)
            did.update(json.loads(said))
        except subprocess.TimeoutExpired:  # so many tasks on a busy machine: it tells us nothing
            did["unfinished"] = 1
    finally:
        process.kill()
        process.communicate()


def played(did: dict[str, int]) -> bool:
    """Whether the program did something, and told us what: who did nothing endangers nobody."""
    return "unfinished" not in did and any(did.values())


def attack(field: Field, name: str, seconds: float, calm: Watch) -> tuple[dict[str, Any], Watch]:
    """The row of one program, and the calm after it; ``calm``: that before it."""
    before = field.statuses()
    with playing(field, name) as did:
        time.sleep(SETTLE_S)
        seen = field.watch(seconds)
    time.sleep(SETTLE_S)
    after = field.statuses()
    grown = max(s["node_rss_mb"] for s in after) - max(s["node_rss_mb"] for s in before)
    figure = FIGURES.get(name, LINKS)
    found = figure.of(Seen(did, before, seen.looks, after, field.strangers()))
    later = field.watch(seconds * CALM)
    share = seen.rate / ((calm.rate + later.rate) / 2)
    row = {
        "program": name,
        "rate": seen.rate,
        "rate_share": share,
        "growth_mb": grown,
        "cpu": seen.cpu - (calm.cpu + later.cpu) / 2,
        "what": figure.what,
        "figure": found,
        "bound": figure.bound,
        "did": did,
    }
    return {**row, "reached": not missed(row)}, later


def measure(names: list[str], seconds: float, speed: float, out: Path) -> dict[str, Any]:
    """All rows, and whether the four still agree bit for bit at the end."""
    os.sched_setaffinity(0, set(CORES[: len(CORES) // 2]) or OTHERS)  # the members inherit it
    field = Field(out, speed)
    rows = []
    with field.cluster as cluster:
        cluster.wait_until_ready()
        field.watch(seconds)  # everything is compiled and warm
        calm = field.watch(seconds * CALM)
        for name in sorted(names, key=lambda name: name in FILLS_TABLES):
            row, calm = attack(field, name, seconds, calm)
            rows.append(row)
            print(line(row), file=sys.stderr, flush=True)
        zero = [r["id"] for r in field.peers() if r["weight_zero"] and r["id"] in field.ids]
    return {"seconds": seconds, "rows": rows, "honest_at_weight_zero": zero}


def line(row: dict[str, Any]) -> str:
    """One row of the table, Markdown."""
    did = ", ".join(f"{key} {count}" for key, count in sorted(row["did"].items()))
    program = PROGRAMS.get(row["program"])
    doc = (program.__doc__ or "").strip().splitlines()[0] if program else "The control."
    return (
        f"| `{row['program']}` | {doc} | {100 * row['rate_share']:.0f} % |"
        f" {100 * row['cpu']:+.0f} % | {row['growth_mb']:+.1f} |"
        f" {row['what']}: {row['figure']:g} (at most {row['bound']:g}) | {did} |"
    )


def table(found: dict[str, Any]) -> str:
    """The whole table, Markdown."""
    columns = "program | what it does, what must happen | rate | CPU | MB | its figure | it counted"
    head = f"| {columns} |\n"
    rule = "|---|---|---:|---:|---:|---|---|\n"
    rows = "\n".join(line(row) for row in found["rows"])
    named = "; ".join(f"`{row['program']}` ({', '.join(missed(row))})" for row in bad(found))
    return f"{head}{rule}{rows}\n\nMissed: {named or 'nothing'}.\n"


def bad(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows that missed a bound."""
    return [row for row in found["rows"] if not row["reached"]]


def missed(row: dict[str, Any]) -> list[str]:
    """Which bounds of its row a program missed."""
    misses = {
        f"rate {100 * row['rate_share']:.0f} %": row["rate_share"] < RATE_MIN,
        f"growth {row['growth_mb']:.1f} MB": row["growth_mb"] > GROWTH_MB_MAX,
        f"figure {row['figure']:g}": row["figure"] > row["bound"],
        "it did nothing, or told us nothing": not played(row["did"]),
    }
    return [what for what, is_missed in misses.items() if is_missed]


def write_docs(text: str) -> None:
    """Put the table between its marks in docs/security.md."""
    path = ROOT / "docs" / "security.md"
    page = path.read_text()
    before, rest = page.split(BEGIN)
    path.write_text(f"{before}{BEGIN}\n{text}{END}{rest.split(END)[1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--programs", default=",".join([NOTHING, *PROGRAMS]), help="names, by commas"
    )
    parser.add_argument("--seconds", type=float, default=12.0, help="of each attack")
    parser.add_argument("--speed", type=float, default=0.15, help="share of time that trains")
    parser.add_argument("--out", type=Path, help="folder for the testnet; else a temporary one")
    parser.add_argument("--write-docs", action="store_true", help="put it into docs/security.md")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    names = [name for name in options.programs.split(",") if name]
    unknown = [name for name in names if name not in (NOTHING, *PROGRAMS)]
    if unknown:
        parser.error(f"no such program: {', '.join(unknown)}; there are {', '.join(PROGRAMS)}")
    with tempfile.TemporaryDirectory() as folder:
        out = options.out or Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        found = measure(names, options.seconds, options.speed, out)
    if options.write_docs:
        write_docs(table(found))
    print(json.dumps(found, indent=2) if options.json else table(found))
    names = [row["program"] for row in bad(found)]
    names += [f"honest {who} has weight 0" for who in found["honest_at_weight_zero"]]
    sys.exit(f"MISSED: {', '.join(names)}" if names else 0)


if __name__ == "__main__":
    main()
