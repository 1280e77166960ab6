"""Every hostile program against a live testnet of four that trains: what it costs the honest.

    python benches/hostile.py [--programs NAME,...] [--seconds 15] [--write-docs]

For each program: honest rounds per second while it attacks all four, as a share of the rate just
before and just after it without attack, and by how much the largest node grew. The members rest
most of the time (--speed), so that attackers on the same two cores compete for the network's
manners and not for the processor. Bounds: a rate of at least 95 %, growth of at most 5 MB.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tapestry_p2p.cli.testnet.cluster import Cluster
from tapestry_p2p.cli.testnet.homes import prepare
from tapestry_p2p.cli.testnet.plan import make_plan
from tapestry_p2p.daemon.ask import ask
from tapestry_p2p.daemon.invite import parse_invite
from tapestry_p2p.sim.hostile.table import PROGRAMS

ROOT = Path(__file__).parents[1]
MODEL = {"layers": 1, "width": 16, "heads": 1, "context": 32, "batch_size": 4}
RATE_MIN, GROWTH_MB_MAX = 0.95, 5.0
SETTLE_S = 2.0  # after an attack, before the next look at an honest rate
BEGIN, END = "<!-- hostile -->", "<!-- /hostile -->"


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
            inner_steps=20,
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

    def rate(self, seconds: float) -> float:
        """Rounds per second of all together."""
        before, began = sum(s["round"] for s in self.statuses()), time.monotonic()
        time.sleep(seconds)
        after = sum(s["round"] for s in self.statuses())
        return float(after - before) / (time.monotonic() - began)


def attack(field: Field, name: str, seconds: float) -> dict[str, Any]:
    """The row of one program."""
    calm = field.rate(seconds / 2)
    grown = max(s["node_rss_mb"] for s in field.statuses())
    command = [sys.executable, "-m", "tapestry_p2p.sim.hostile", name, field.network]
    process = subprocess.Popen(
        ["nice", "-n", "19", *command, *field.addresses()],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    time.sleep(SETTLE_S)  # it starts and finds its victims
    rate = field.rate(seconds)
    said, _ = process.communicate()
    grown = max(s["node_rss_mb"] for s in field.statuses()) - grown
    time.sleep(SETTLE_S)
    calm = (calm + field.rate(seconds / 2)) / 2
    return {
        "program": name,
        "rate": rate,
        "rate_share": rate / calm,
        "growth_mb": grown,
        "did": json.loads(said or "{}"),
    }


def measure(names: list[str], seconds: float, speed: float, out: Path) -> dict[str, Any]:
    """All rows, and whether the four still agree bit for bit at the end."""
    field = Field(out, speed)
    rows = []
    with field.cluster as cluster:
        cluster.wait_until_ready()
        field.rate(seconds)  # everything is compiled and warm
        for name in names:
            rows.append(attack(field, name, seconds))
            print(line(rows[-1]), file=sys.stderr, flush=True)
        rejects = sum(sum(s["verdicts"]["reject"].values()) for s in field.statuses())
        zero = [row["id"] for row in peers(field) if row["weight_zero"] and row["honest"]]
    return {"seconds": seconds, "rows": rows, "rejects": rejects, "honest_at_weight_zero": zero}


def peers(field: Field) -> list[dict[str, Any]]:
    """All rows of ``peers``, with whether the peer is one of the four."""
    members = field.cluster.members
    ids = {member.home.peer_id for member in members}
    answers = [ask(m.home.paths.control_socket, {"do": "peers"}, 10.0)["peers"] for m in members]
    return [{**row, "honest": row["id"] in ids} for rows in answers for row in rows]


def line(row: dict[str, Any]) -> str:
    """One row of the table, Markdown."""
    did = ", ".join(f"{key} {count}" for key, count in sorted(row["did"].items()))
    doc = (PROGRAMS[row["program"]].__doc__ or "").strip().splitlines()[0]
    return (
        f"| `{row['program']}` | {doc} | {100 * row['rate_share']:.0f} % |"
        f" {row['growth_mb']:+.1f} | {did} |"
    )


def table(found: dict[str, Any]) -> str:
    """The whole table, Markdown."""
    head = "| program | what it does, and what must happen | rate | MB | it counted |\n"
    rule = "|---|---|---:|---:|---|\n"
    return head + rule + "\n".join(line(row) for row in found["rows"]) + "\n"


def write_docs(text: str) -> None:
    """Put the table between its marks in docs/security.md."""
    path = ROOT / "docs" / "security.md"
    page = path.read_text()
    before, rest = page.split(BEGIN)
    path.write_text(f"{before}{BEGIN}\n{text}{END}{rest.split(END)[1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", default=",".join(PROGRAMS), help="names, by commas")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each attack")
    parser.add_argument("--speed", type=float, default=0.15, help="share of time that trains")
    parser.add_argument("--out", type=Path, help="folder for the testnet; else a temporary one")
    parser.add_argument("--write-docs", action="store_true", help="put it into docs/security.md")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    names = [name for name in options.programs.split(",") if name]
    unknown = [name for name in names if name not in PROGRAMS]
    if unknown:
        parser.error(f"no such program: {', '.join(unknown)}; there are {', '.join(PROGRAMS)}")
    with tempfile.TemporaryDirectory() as folder:
        out = options.out or Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        found = measure(names, options.seconds, options.speed, out)
    if options.write_docs:
        write_docs(table(found))
    print(json.dumps(found, indent=2) if options.json else table(found))
    worst = min(row["rate_share"] for row in found["rows"])
    growth = max(row["growth_mb"] for row in found["rows"])
    good = worst >= RATE_MIN and growth <= GROWTH_MB_MAX and not found["honest_at_weight_zero"]
    print(
        f"worst rate {100 * worst:.0f} % (bound 95), largest growth {growth:.1f} MB (bound 5):"
        f" {'reached' if good else 'MISSED'}",
        file=sys.stderr,
    )
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
