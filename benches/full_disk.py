"""ENOSPC and EIO at every write of a real member: it stays, says so, gossips, goes on by itself.

    python benches/full_disk.py [--steady S] [--start K] [--every 1] [--json]

Two members of one network on loopback, node and trainer each. One of them has a seam under its
store (benches/full_disk_member.py): from its k-th call that writes on, every such call fails for
a while.

  steady  in one life that trains: the refusal begins at each place where it writes (open, write,
          fsync, replace of each file), one after the other; S seconds are waited for each
  start   k = 1 .. K calls from the start of the process, a life for each

Demanded for each k: the process does not end (a store that cannot even be opened at the start may
end it with 75, as a service manager starts it anew), `status` says why in plain words, the node
answers meanwhile and its copies of the other member move, and it publishes within 30 s after the
disk takes writes again. Exit code 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from errno import EIO, ENOSPC, errorcode
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benches.crash import endless
from tapestry_p2p.cli.testnet.cluster import Member, python_path
from tapestry_p2p.cli.testnet.homes import Home
from tapestry_p2p.daemon.ask import ask
from tapestry_p2p.errors import TEMPORARY, TapestryError

BOUND_S, PATIENCE_S = 30.0, 120.0
REFUSE_S = 1.5
STEADY_S, START = 60.0, 40  # copies are saved each 30 s; calls until the first entry is out
STARTING = ("open lock", "open format.new")  # not while it trains
LEARN_S = 45.0  # until all places have been passed once
WORDS = ("No space left on device", "Input/output error")


@dataclass
class Row:
    """What was seen for one kind and errno."""

    name: str
    tried: int = 0
    refused: int = 0  # calls
    begun: set[str] = field(default_factory=set)  # places at which a refusal began
    places: set[str] = field(default_factory=set)  # places at which there were calls
    told: int = 0  # times `status` said it in words
    gossiped: int = 0  # times a copy of the other moved meanwhile
    ended: int = 0  # starts that ended with 75
    worst_s: float = 0.0
    wrong: list[str] = field(default_factory=list)


class Subject:
    """The member with the seam."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.member = Member(home)
        self._seam = str(home.paths.runtime / "seam")
        self._ours = str(home.paths.runtime / "bench")

    def start(self, *arm: float) -> None:
        """Start its process, armed if said so."""
        script = str(Path(__file__).with_name("full_disk_member.py"))
        words = [str(int(word)) for word in arm[:2]] + [str(word) for word in arm[2:]]
        with open(self.home.paths.config / "node.log", "ab") as log:
            self.member.process = subprocess.Popen(
                [sys.executable, script, self._seam, *words],
                env={**self.home.environment, "PYTHONPATH": python_path()},
                stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def stop(self) -> int:
        """End it politely; its exit code."""
        process = self.member.process
        assert process is not None
        process.terminate()
        self.member.let_go()
        return process.wait(30)

    def told(self, text: str = "count") -> dict[str, Any]:
        """What the seam tells; ``text`` arms it."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            Path(self._ours).unlink(missing_ok=True)
            sock.bind(self._ours)
            sock.settimeout(10.0)
            sock.sendto(text.encode(), self._seam)
            found: dict[str, Any] = json.loads(sock.recv(1 << 16))
        return found

    def answer(self, verb: str) -> dict[str, Any]:
        """Its word; empty if there is none."""
        with suppress(TapestryError):
            return ask(self.home.paths.control_socket, {"do": verb}, 5.0)
        return {}

    @property
    def copies(self) -> int:
        """Where its copies of others stand, added up."""
        rows = self.answer("peers").get("peers", [])
        return sum(row["copy"] for row in rows)

    def seq(self) -> int:
        """Its newest entry; -1 if it does not say."""
        return int(self.answer("status").get("seq", -1))


def until(condition: Any, what: str) -> None:
    """Wait; TimeoutError names what for."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not in {PATIENCE_S:.0f} s: {what}")
        time.sleep(0.1)


def watch_refusal(subject: Subject, row: Row, before: int, where: str) -> None:
    """From the first refusal until it publishes again, which must come soon after the last."""
    begun = time.monotonic()
    copies, told, seq = subject.copies, False, -1
    while time.monotonic() < begun + REFUSE_S:
        status = subject.answer("status")
        told = told or any(word in status.get("fault", "") for word in WORDS)
        seq = max(seq, status.get("seq", -1))
        time.sleep(0.1)
    row.gossiped += subject.copies > copies
    row.told += told
    healed = begun + REFUSE_S
    status = subject.answer("status")
    while status.get("fault", "none told") or status.get("seq", -1) <= seq:
        if subject.member.ended or time.monotonic() > healed + PATIENCE_S:
            row.wrong.append(f"{where}: it does not go on")
            raise TimeoutError(row.wrong[-1])
        time.sleep(0.1)
        status = subject.answer("status")
    row.worst_s = max(row.worst_s, time.monotonic() - healed)
    note(row, subject, before)


def note(row: Row, subject: Subject, before: int = 0) -> None:
    """Take over what the seam counted."""
    told = subject.told()
    row.refused += told["refused"] - before


def steady(subject: Subject, errno: int, wait_s: float) -> Row:
    """At each place, in one life."""
    row = Row(f"steady, {errorcode[errno]}")
    for place in subject.told()["places"]:
        if place in STARTING or "format" in place or place.startswith("ftruncate"):
            continue  # the last follows from a refused write
        row.places.add(place)
        before = subject.told(f"at {errno} {REFUSE_S} {place}")["refused"]
        until_ = time.monotonic() + wait_s
        while subject.told()["refused"] == before and time.monotonic() < until_:
            time.sleep(0.05)
        told = subject.told()
        if told["refused"] == before:
            subject.told("0 0 0")
            continue
        row.begun |= set(told["begun"])
        row.tried += 1
        watch_refusal(subject, row, before, place)
    return row


def starts(subject: Subject, errno: int, last: int, every: int) -> Row:
    """Every ``every``-th k from the start of a process."""
    row = Row(f"start, {errorcode[errno]}")
    for k in range(1, last + 1, every):
        row.tried += 1
        subject.start(k, errno, REFUSE_S)
        began = time.monotonic()
        until(lambda: subject.member.ended or subject.answer("status"), f"a start at {k}")
        if subject.member.ended:
            code = subject.member.process.returncode if subject.member.process else None
            if code != TEMPORARY:
                row.wrong.append(f"k = {k}: it ended with {code}")
            row.ended += 1
            row.refused += 1  # nobody is left to tell how many
            subject.member.let_go()
            subject.start()
            until(lambda: subject.answer("status"), f"the start after {k}")
        else:
            until(lambda: subject.told()["refused"], f"call {k} of a start")
        first = subject.seq()
        until(lambda first=first: subject.seq() > max(first, 0), f"an entry after {k}")
        note(row, subject)
        row.begun |= set(subject.told()["begun"])
        row.places |= set(subject.told()["places"])
        row.worst_s = max(row.worst_s, time.monotonic() - began)
        if code := subject.stop():
            row.wrong.append(f"k = {k}: it ended with {code} when it was told to")
    return row


def refused(folder: Path, steady_s: float, start_last: int, every: int) -> dict[str, Any]:
    """The whole run, in ``folder``."""
    homes = endless(folder, 0, 2)
    witness, subject = Member(homes[0]), Subject(homes[1])
    witness.start()
    began, rows = time.monotonic(), []
    try:
        subject.start()
        until(lambda: subject.seq() > 3 and subject.copies > 0, "both to train")
        time.sleep(min(LEARN_S, steady_s))
        rows += [steady(subject, errno, steady_s) for errno in (ENOSPC, EIO)]
        subject.stop()
        rows += [starts(subject, errno, start_last, every) for errno in (ENOSPC, EIO)]
    except TimeoutError as error:
        rows.append(Row("given up", wrong=[str(error)]))
    finally:
        for member in (witness, subject.member):
            if member.process is not None:
                member.let_go()
                member.process.kill()
                member.process.wait()
    sound = all(row.tried and not row.wrong and row.refused for row in rows)
    sound = sound and all(row.worst_s <= BOUND_S for row in rows[:2])
    sound = sound and all(row.told and row.gossiped for row in rows[:2])
    return {
        "rows": [{**vars(row), "begun": sorted(row.begun), "places": sorted(row.places)}
                 for row in rows], "every": every, "sound": sound,
        "seconds": round(time.monotonic() - began), "bound_s": BOUND_S,
    }  # fmt: skip


def main() -> int:
    """Run, print, 1 if anything was not as it must be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steady", type=float, default=STEADY_S, help="s to wait for a place")
    parser.add_argument("--every", type=int, default=1, help="of a start: only each so-many-th k")
    parser.add_argument("--start", type=int, default=START, help="last k from a start")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tapestry-full-") as folder:
        report = refused(Path(folder), asked.steady, asked.start, asked.every)
    print(json.dumps(report, indent=1) if asked.json else table(report))
    return 0 if report["sound"] else 1


def table(report: dict[str, Any]) -> str:
    """Markdown."""
    head = (
        "writes refused", "times", "began at so many places, of", "calls refused", "told",
        "gossip went on", "ended with 75",
        f"goes on after, worst s (bound {report['bound_s']:.0f})", "wrong",
    )  # fmt: skip
    rows = [
        (
            r["name"], r["tried"], f"{len(r['begun'])} of {len(r['places'])}", r["refused"],
            r["told"], r["gossiped"], r["ended"], f"{r['worst_s']:.1f}", r["wrong"][:2] or 0,
        )
        for r in report["rows"]
    ]  # fmt: skip
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (head, ("---",) * len(head), *rows)]
    lines.append(f"\nevery {report['every']}. k, {report['seconds']} s; a start's worst time is"
                 " that of the whole start, trainer included")  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
