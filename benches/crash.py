"""Kills members of a testnet of four, at random and at numbered crash points; they go on.

    python benches/crash.py [--kills 1000] [--seed 0] [--json]

Real node and trainer processes on loopback train a small language model for ever. One thread for
each member kills it, starts it again, and kills it again, in turn:

  node            SIGKILL 0 to 3 s after it answered
  recovery        SIGKILL 0 to 2.5 s after it was started, before it answered; up to three in a row
  node point      it kills itself at crash point n = 1, 2, 3 ... or at one that is named
                  (tapestry_p2p/crash.py); those of its last saving after SIGTERM
  trainer         SIGKILL after it has run a while
  trainer point   crash points of the trainer

Then all are left alone, and the following is demanded: every entry that was made durable and shown
is in its author's stream; no author signed two entries with one number; every member holds every
other's copy bit for bit; nobody had to repair anything. How soon a started node answered is printed
beside its bound of 10 s, which a busy machine may miss. Exit code 1 otherwise, or if a kind of kill
never happened.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tapestry_p2p.cli.testnet.cluster import Member
from tapestry_p2p.cli.testnet.homes import Home, prepare
from tapestry_p2p.cli.testnet.plan import make_plan
from tapestry_p2p.crash import VARIABLE
from tapestry_p2p.daemon.ask import ask
from tapestry_p2p.daemon.store import peek_entries
from tapestry_p2p.daemon.tap import LENGTH_BYTES, SIGNED
from tapestry_p2p.data import udhr
from tapestry_p2p.errors import TapestryError
from tapestry_p2p.gossip.header import Header, decode_signed
from tapestry_p2p.gossip.identity import public_key_of

TINY = {"layers": 1, "width": 16, "heads": 1, "context": 16, "batch_size": 4}  # 7,216 parameters
LANGUAGES = ("eng", "deu_1996", "fra", "spa")
KINDS = ("node", "recovery", "node point", "trainer", "recovery", "node point", "trainer point")
READY_S, POINT_S, TRAINER_S, CALM_S = 10.0, 8.0, 60.0, 180.0
LIFE_S, BIRTH_S = 3.0, 2.5
STEPS = ("before writing", "before replacing", "before syncing", "after writing")
FILES = ("own.0", "own.1", "known.0", "known.1", "own.log", ".past", "copy")
NAMES = {
    "node": (
        *(f"{step} {file}" for file in FILES for step in STEPS),
        "before appending to own.log", "before syncing own.log", "after appending to own.log",
        "before marking own.seq", "after marking own.seq",
        "before noting what leaves", "after noting what leaves",
    ),
    "trainer": tuple(f"{step} {file}" for file in ("state.0", "state.1") for step in STEPS),
}  # fmt: skip
COUNTED = {"node": 24, "trainer": 4}  # a start and some rounds pass so many


@dataclass
class Tally:
    """What was done and seen, by all threads."""

    kills: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    ready_s: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """All kills."""
        return sum(self.kills.values())

    def is_enough(self, kills: int) -> bool:
        """So many, and some of each kind; not for ever, should one kind never happen."""
        met = all(self.kills[kind] for kind in KINDS)
        return self.total >= kills and (met or self.total >= 3 * kills + 100)


class Victim:
    """One member: started, killed, started again."""

    def __init__(self, home: Home, others: list[str], tally: Tally, seed: int) -> None:
        home.environment["TAPESTRY_TESTING__TAP"] = str(home.paths.config / "tap")
        self.home, self.member = home, Member(home)
        self.others = others
        self._tally, self._random = tally, Random(seed)
        self._turn = {
            name: len(self._points(name)) * home.number // len(LANGUAGES) for name in NAMES
        }

    # -- one life after the other

    def run(self, enough: threading.Event) -> None:
        """Live and be killed until it is enough; alive in the end."""
        self.start()
        turn = self.home.number
        while not enough.is_set():
            getattr(self, "_" + KINDS[turn % len(KINDS)].replace(" ", "_"))()
            turn += 1
        if self.member.ended:
            self.start()

    def start(self, crash: str = "") -> bool:
        """Start the node; whether it answers (one that is to crash need not)."""
        self.launch(crash)
        began = time.monotonic()
        while time.monotonic() - began < 6 * READY_S and not self.member.ended:
            if self.status():
                self._tally.ready_s.append(time.monotonic() - began)
                return True
            time.sleep(0.05)
        if not crash:
            code = self.member.process.returncode if self.member.process else None
            self._tally.faults.append(f"{self.home.name} did not start again: {code}")
        return False

    def launch(self, crash: str = "") -> None:
        """Start the node, and do not wait for anything."""
        self.home.environment.pop(VARIABLE, None)
        if crash:
            self.home.environment[VARIABLE] = crash
        self.member.let_go()
        self.member.start()

    def status(self) -> dict[str, Any]:
        """Its own word; empty if there is none."""
        with suppress(TapestryError):
            return ask(self.home.paths.control_socket, {"do": "status"}, 5.0)
        return {}

    def kill(self) -> None:
        """SIGKILL the node, and wait until it is gone."""
        process = self.member.process
        assert process is not None
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.wait()

    # -- kinds of kills, named as in KINDS

    def _node(self) -> None:
        time.sleep(self._random.uniform(0, LIFE_S))
        self.kill()
        self._tally.kills["node"] += 1
        self.start()

    def _recovery(self) -> None:
        self.kill()
        self._tally.kills["node"] += 1
        for _ in range(self._random.randint(1, 3)):
            self.launch()
            time.sleep(self._random.uniform(0, BIRTH_S))
            answered = bool(self.status())
            self.kill()
            self._tally.kills["node" if answered else "recovery"] += 1
        self.start()

    def _node_point(self) -> None:
        self.kill()
        self._tally.kills["node"] += 1
        self.start(self._next("node"))
        self._die_by_itself("node point")
        self.start()

    def _trainer(self) -> None:
        pid = self._trainer_pid()
        time.sleep(self._random.uniform(0, LIFE_S))
        with suppress(ProcessLookupError):
            if pid:
                os.kill(pid, signal.SIGKILL)
                self._tally.kills["trainer"] += 1

    def _trainer_point(self) -> None:
        self.kill()
        self._tally.kills["node"] += 1
        if self.start(self._next("trainer")):
            began = time.monotonic()
            while time.monotonic() - began < TRAINER_S:
                if self.status().get("trainer", {}).get("restarts", 0):
                    self._tally.kills["trainer point"] += 1
                    break
                time.sleep(0.1)
        self.kill()
        self._tally.kills["node"] += 1
        self.start()

    def _trainer_pid(self) -> int:
        began = time.monotonic()
        while time.monotonic() - began < TRAINER_S:
            trainer = self.status().get("trainer", {})
            if trainer.get("running") and trainer.get("steps"):
                return int(trainer["pid"])
            time.sleep(0.1)
        return 0

    def _points(self, process: str) -> list[str]:
        """All that the process may be told to die at."""
        return [*map(str, range(1, COUNTED[process] + 1)), *NAMES[process]]

    def _next(self, process: str) -> str:
        points = self._points(process)
        self._turn[process] += 1
        point = points[self._turn[process] % len(points)]
        if point.endswith(" copy"):  # of whomever this member follows
            point = point.removesuffix("copy") + public_key_of(self.others[0]).hex()
        return f"{process}:{point}"

    def _die_by_itself(self, kind: str) -> None:
        """Wait for the point that was set; then tell it to end, which passes the last of them."""
        process = self.member.process
        assert process is not None
        with suppress(subprocess.TimeoutExpired):
            process.wait(POINT_S)
        process.terminate()
        try:
            code = process.wait(POINT_S)
        except subprocess.TimeoutExpired:
            self._tally.faults.append(f"{self.home.name} did not end when it was told to")
            self.kill()
            return
        self._tally.kills[kind] += code == -signal.SIGKILL

    # -- afterwards

    def named_points(self) -> Counter[str]:
        """The crash points at which it died, from its logs."""
        logs = [self.home.paths.config / "node.log", self.home.paths.trainer / "trainer.log"]
        text = "".join(path.read_text(errors="replace") for path in logs if path.exists())
        found = re.findall(r"^crash point: (.*)$", text, re.MULTILINE)
        found = [re.sub(r" [0-9a-f]{64}\.[01]$", " copy", name) for name in found]
        return Counter(re.sub(r" [\d.]+\.past$", " .past", name) for name in found)

    def signed(self) -> list[Header]:
        """Every header that it made durable, in order."""
        path = self.home.paths.config / "tap" / SIGNED
        data = path.read_bytes() if path.exists() else b""
        found, at = [], 0
        while at + LENGTH_BYTES <= len(data):
            length = int.from_bytes(data[at : at + LENGTH_BYTES])
            piece = data[at + LENGTH_BYTES : at + LENGTH_BYTES + length]
            if len(piece) < length:
                break
            found.append(decode_signed(piece).header)
            at += LENGTH_BYTES + length
        return found

    def stored(self) -> list[Header]:
        """What its store's log holds."""
        entries = peek_entries(self.home.paths.state / "store")
        return [decode_signed(signed).header for signed in entries]


def lost_and_twice(victims: list[Victim]) -> tuple[int, int]:
    """Entries that were shown and are gone; numbers that were signed for two entries."""
    lost = twice = 0
    for victim in victims:
        by_seq: dict[int, set[bytes]] = defaultdict(set)
        for header in victim.signed():
            by_seq[header.seq].add(header.hash)
        stored = {header.seq: header.hash for header in victim.stored()}
        twice += sum(len(hashes) > 1 for hashes in by_seq.values())
        oldest, newest = min(stored, default=0), max(stored, default=-1)
        lost += sum(
            seq > newest or (seq >= oldest and stored.get(seq) not in hashes)
            for seq, hashes in by_seq.items()
        )
    return lost, twice


def agreed(victims: list[Victim], patience_s: float) -> str:
    """'' once each copy of each other member was seen equal to its author's; else why not."""
    roots: dict[tuple[str, int], set[str]] = defaultdict(set)
    missing = {(a.home.peer_id, b.home.peer_id) for a in victims for b in victims if a is not b}
    until = time.monotonic() + patience_s
    while missing and time.monotonic() < until:
        own: dict[tuple[str, int], str] = {}
        held: list[tuple[str, str, int, str]] = []
        for victim in victims:
            with suppress(TapestryError):
                found = ask(victim.home.paths.control_socket, {"do": "copies"}, 5.0)
                me = victim.home.peer_id
                if found["own"]:
                    own[me, found["own"]["seq"]] = found["own"]["root"]
                held += [(me, a, c["seq"], c["root"]) for a, c in found["followed"].items()]
        for key, root in own.items():
            roots[key].add(root)
        for follower, author, seq, root in held:
            roots[author, seq].add(root)
            if (author, seq) in own:
                missing.discard((follower, author))
    if different := [key for key, found in roots.items() if len(found) > 1]:
        return f"copies differ: {different[:3]}"
    return f"{len(missing)} copies never stood where their author stood" if missing else ""


def main() -> int:
    """Kill, wait, judge, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    asked = parser.parse_args()
    print(f"seed {asked.seed}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="tapestry-crash-") as folder:
        report = crashed(Path(folder), asked.kills, asked.seed)
    print(json.dumps(report, indent=1) if asked.json else table(report))
    return 0 if report["sound"] else 1


def endless(folder: Path, seed: int, members: int = 4) -> list[Home]:
    """Homes of members that train a tiny model for ever, each its language."""
    for language in LANGUAGES[:members]:
        (folder / "texts").mkdir(exist_ok=True)
        (folder / "texts" / f"{language}.txt").write_bytes(udhr(language))
    (folder / "model.json").write_text(json.dumps(TINY))
    plan = make_plan(
        members=members, byzantine=0, tolerate=0, attack="", data=str(folder / "texts"),
        languages="", split=1, rounds=1000, inner_steps=20, rule="cs_plus", codec="2bit",
        model=str(folder / "model.json"), seed=seed, out=folder,
    )  # fmt: skip
    homes = prepare(plan, plan.rule, folder / "run").homes
    for home in homes:
        home.environment["TAPESTRY_TESTING__WAIT"] = "false"
        home.environment["TAPESTRY_TESTING__ROUNDS"] = "0"
        home.environment["TAPESTRY_TESTING__JUDGE"] = ""
    return homes


def crashed(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """The whole run, in ``folder``."""
    homes = endless(folder, seed)
    tally, enough = Tally(), threading.Event()
    ids = [home.peer_id for home in homes]
    victims = [
        Victim(home, [each for each in ids if each != home.peer_id], tally, seed + home.number)
        for home in homes
    ]
    threads = [threading.Thread(target=victim.run, args=(enough,)) for victim in victims]
    began = time.monotonic()
    try:
        for thread in threads:
            thread.start()
        while not tally.is_enough(kills) and any(thread.is_alive() for thread in threads):
            time.sleep(0.2)
        enough.set()
        for thread in threads:
            thread.join()
        for victim in victims:
            tally.points += victim.named_points()
        disagreement = agreed(victims, CALM_S)
        statuses = [victim.status() for victim in victims]
    finally:
        enough.set()
        for victim in victims:
            if victim.member.process is not None:
                victim.kill()
                victim.member.let_go()
    return judged(victims, tally, disagreement, statuses, time.monotonic() - began)


def judged(
    victims: list[Victim],
    tally: Tally,
    disagreement: str,
    statuses: list[dict[str, Any]],
    seconds: float,
) -> dict[str, Any]:
    """Figures beside their bounds."""
    lost, twice = lost_and_twice(victims)
    forks = sum(
        count for status in statuses for name, count in status.get("verdicts", {}).items()
        if "fork" in name and type(count) is int
    )  # fmt: skip
    ready = sorted(tally.ready_s)
    known = {name for names in NAMES.values() for name in names}
    sound = (
        not (lost or twice or forks or disagreement or tally.faults)
        and all(tally.kills[kind] for kind in KINDS)
        and all(status.get("round", 0) > 0 for status in statuses)
    )
    return {
        "kills": dict(tally.kills), "total": tally.total, "points": dict(tally.points),
        "named": len(known & set(tally.points)), "never": sorted(known - set(tally.points)),
        "entries": sum(len(victim.signed()) for victim in victims), "lost": lost,
        "signed_twice": twice, "fork_verdicts": forks, "copies": disagreement or "equal",
        "manual_repairs": tally.faults, "ready_s": {
            "median": round(statistics.median(ready), 2), "most": round(ready[-1], 2),
            "bound": READY_S,
        },
        "seconds": round(seconds), "sound": sound,
    }  # fmt: skip


def table(report: dict[str, Any]) -> str:
    """Markdown."""
    rows = [
        ("kills", f"{report['total']}: {report['kills']}", ""),
        ("crash points that were hit",
         f"{report['named']} of {sum(map(len, NAMES.values()))}, {sum(report['points'].values())}"
         " times", "> 0"),
        ("of them never", ", ".join(report["never"]) or "none", ""),
        ("entries made durable", report["entries"], ""),
        ("of them lost", report["lost"], "0"),
        ("numbers signed twice", report["signed_twice"], "0"),
        ("fork verdicts", report["fork_verdicts"], "0"),
        ("copies at the end", report["copies"], "equal"),
        ("members that needed a hand", report["manual_repairs"] or 0, "0"),
        ("ready after, s: median, most",
         f"{report['ready_s']['median']}, {report['ready_s']['most']}", f"{READY_S:.0f}"),
        ("seconds", report["seconds"], ""),
    ]  # fmt: skip
    lines = ["| | found | bound |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {a} | {b} | {c} |" for a, b, c in rows)])


if __name__ == "__main__":
    sys.exit(main())
