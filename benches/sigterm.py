"""SIGTERM at random instants of real members' lives: do they end well, in time, leaving nothing?

    python benches/sigterm.py [--ends 200] [--seed 0] [--json]

Members of one network on loopback, each a node and its trainer, are started again and again, two at
a time, and get SIGTERM after 0 to 12 s: while they import, recover, wait for the trainer, compile,
train, publish, save. Every second time the trainer gets it too, as from a service manager. Demanded
each time: exit code 0 within 5 s, no process left, nobody holds the store's lock, no socket left.
A process that Python has not set up yet is ended by the signal itself (a service manager calls that
clean); these are counted apart. Exit code 1 if anything else was seen, or if some state of life was
never met.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benches.crash import endless
from tapestry_p2p.cli.testnet.cluster import Member
from tapestry_p2p.cli.testnet.homes import Home
from tapestry_p2p.daemon.ask import ask
from tapestry_p2p.errors import TapestryError

BOUND_S, PATIENCE_S = 5.0, 20.0
LIFE_S, AT_ONCE = 12.0, 2
UNBORN_S = 1.0  # how long Python may take to come to our first line on a busy machine
ORPHAN_S = 0.5  # for the kernel to take a process away
STATES = ("no answer yet", "its trainer starts", "it trains")


@dataclass
class Tally:
    """What was seen, by all threads."""

    left: int
    took_s: list[float] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    unborn: int = 0
    both: int = 0  # node and trainer were told
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> bool:
        """Whether one more end is wanted; then it is counted."""
        with self.lock:
            self.left -= 1
            return self.left >= 0


def live_and_end(home: Home, tally: Tally, random: Random) -> None:
    """One life after another, until enough have ended."""
    member = Member(home)
    while tally.take():
        member.start()
        assert member.process is not None
        lived_s = random.uniform(0, LIFE_S)
        time.sleep(lived_s)
        status = _status(home)
        trainer = status.get("trainer", {}).get("pid", 0)
        tally.states[_state(status)] += 1
        if trainer and random.random() < 0.5:
            tally.both += 1
            with suppress(ProcessLookupError):
                os.kill(trainer, signal.SIGTERM)
        began = time.monotonic()
        member.process.terminate()
        try:
            code = member.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            member.process.kill()
            code = member.process.wait()
        tally.took_s.append(time.monotonic() - began)
        member.let_go()
        if code == -signal.SIGTERM and lived_s < UNBORN_S and not status:
            tally.unborn += 1
            continue
        where = f"{home.name} after {lived_s:.2f} s, {_state(status)}"
        tally.faults += [f"{where}: {fault}" for fault in _left(home, code, tally.took_s[-1])]


def _status(home: Home) -> dict[str, Any]:
    with suppress(TapestryError):
        return ask(home.paths.control_socket, {"do": "status"}, 5.0)
    return {}


def _state(status: dict[str, Any]) -> str:
    if not status:
        return STATES[0]
    return STATES[2] if status["trainer"].get("steps") else STATES[1]


def _left(home: Home, code: int, took_s: float) -> list[str]:
    """What is not as it must be after an end."""
    found = []
    if code != 0:
        found.append(f"exit code {code}")
    if took_s > BOUND_S:
        found.append(f"it took {took_s:.1f} s")
    until = time.monotonic() + ORPHAN_S
    while (left := processes(home)) and time.monotonic() < until:
        time.sleep(0.05)
    if left:
        found.append(f"processes {left} are left")
    if is_locked(home.paths.state / "store" / "lock"):
        found.append("the store is locked")
    if home.paths.control_socket.exists():
        found.append("the control socket is left")
    return found


def processes(home: Home) -> list[int]:
    """Processes that run with this member's home in their environment."""
    ours = f"TAPESTRY_HOME={home.paths.config}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            dead = (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            if not dead and ours in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


def is_locked(path: Path) -> bool:
    """Whether somebody holds a lock on the file."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def ended(folder: Path, ends: int, seed: int) -> dict[str, Any]:
    """The whole run, in ``folder``."""
    homes = endless(folder, seed, AT_ONCE)
    tally = Tally(ends)
    threads = [
        threading.Thread(target=live_and_end, args=(home, tally, Random(seed + home.number)))
        for home in homes
    ]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = sorted(tally.took_s)
    return {
        "ends": len(took), "states": dict(tally.states), "with_trainer": tally.both,
        "unborn": tally.unborn, "faults": tally.faults,
        "took_s": {
            "median": round(took[len(took) // 2], 2),
            "p99": round(took[len(took) * 99 // 100], 2), "most": round(took[-1], 2),
            "bound": BOUND_S,
        },
        "seconds": round(time.monotonic() - began),
        "sound": not tally.faults and tally.unborn <= max(1, len(took) // 10),
    }  # fmt: skip


def main() -> int:
    """Start, end, judge, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ends", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    asked = parser.parse_args()
    print(f"seed {asked.seed}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="tapestry-sigterm-") as folder:
        report = ended(Path(folder), asked.ends, asked.seed)
    print(json.dumps(report, indent=1) if asked.json else table(report))
    met = all(report["states"].get(state) for state in STATES)
    return 0 if report["sound"] and met else 1


def table(report: dict[str, Any]) -> str:
    """Markdown."""
    took = report["took_s"]
    rows = [
        ("ends", f"{report['ends']}: {report['states']}", ""),
        ("of them with the trainer told too", report["with_trainer"], ""),
        ("ended by the signal before Python was up", report["unborn"], ""),
        ("other exit codes, processes, locks or sockets left", report["faults"] or 0, "0"),
        ("took, s: median, p99, most",
         f"{took['median']}, {took['p99']}, {took['most']}", f"{took['bound']:.0f}"),
        ("seconds", report["seconds"], ""),
    ]  # fmt: skip
    lines = ["| | found | bound |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {a} | {b} | {c} |" for a, b, c in rows)])


if __name__ == "__main__":
    sys.exit(main())
