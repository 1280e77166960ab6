"""Members of a chaos run: real nodes and trainers, each in a namespace, hurt and watched.

Knows processes, control sockets, /proc and cgroups; which faults come when is chaos.py's business.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benches.chaos_net import Places, SkippedError
from tapestry_p2p.cli.testnet.arms import judge_together
from tapestry_p2p.cli.testnet.cluster import Member, python_path
from tapestry_p2p.cli.testnet.homes import Home, Prepared
from tapestry_p2p.daemon.ask import ask
from tapestry_p2p.errors import TapestryError
from tapestry_p2p.heap import resident_bytes

PORT = 4001
LOOK_S = 0.5
START_S = 10.0  # a member that has just started is not asked whom it knows
PATIENCE_S = 600.0
LAG_MAX = 3  # entries that a copy may be behind and still count as back
CGROUP = Path("/sys/fs/cgroup")
HOG_MB = 64


class Inhabitant(Member):
    """A testnet's member in a namespace of its own."""

    def __init__(self, home: Home, place: str) -> None:
        super().__init__(home)
        self.place = place
        self.stopped = False
        self.started_at = 0.0

    def start(self) -> None:
        """Start the node in its namespace; its log goes to node.log in its home."""
        self.started_at = time.monotonic()
        with open(self.home.paths.config / "node.log", "ab") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.place, sys.executable, "-m", "tapestry_p2p", "run"],
                env={**self.home.environment, "PYTHONPATH": python_path()},
                stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    @property
    def pids(self) -> list[int]:
        """Its node and, if it runs, its trainer."""
        trainer = self.status.get("trainer", {})
        node = [] if self.ended or self.process is None else [self.process.pid]
        return node + ([int(trainer["pid"])] if node and trainer.get("running") else [])

    def signal(self, number: int) -> None:
        """Send it to node and trainer."""
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        self.stopped = number == signal.SIGSTOP

    def kill(self) -> None:
        """SIGKILL the node, and wait until it is gone."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.let_go()

    def held(self) -> dict[str, int]:
        """Descriptors, threads, tasks of the node, and MB of node and trainer."""
        found = {"tasks": int(self.status.get("tasks", 0))}
        for name, pid in zip(("node", "trainer"), self.pids, strict=False):
            with suppress(OSError):
                found[f"{name} fds"] = len(os.listdir(f"/proc/{pid}/fd"))
                found[f"{name} threads"] = len(os.listdir(f"/proc/{pid}/task"))
                found[f"{name} MB"] = resident_bytes(pid) // 1_000_000
        return found


@dataclass
class Seen:
    """What a run showed, pair by pair and look by look."""

    pairs: int = 0  # looks of one living member at another
    dead: int = 0  # ... that did not know or follow it though it lived
    apart: int = 0  # ... that had no connection
    dead_who: Counter[str] = field(default_factory=Counter)
    lags: list[int] = field(default_factory=list)  # entries that copies were behind


class Village:
    """All members of one run. Use as a context: leaving it ends every process."""

    def __init__(self, prepared: Prepared, places: Places) -> None:
        self.places = places
        self.members = [
            Inhabitant(home, place)
            for home, place in zip(prepared.homes, places.names, strict=True)
        ]
        first = f"/ip4/{places.address(0)}/tcp/{PORT}/p2p/{prepared.homes[0].peer_id}"
        for number, home in enumerate(prepared.homes):
            listen = f"/ip4/{places.address(number)}/tcp/{PORT}"
            home.environment["TAPESTRY_LISTEN__ADDRESSES"] = listen
            home.environment["TAPESTRY_BOOTSTRAP__PEERS"] = first if number else ""
        self.seen = Seen()
        self.counts: Counter[str] = Counter()
        self._numbers = {home.peer_id: n for n, home in enumerate(prepared.homes)}
        self._rows: dict[int, dict[int, dict[str, Any]]] = {}  # observer -> other -> its row
        self._due: list[tuple[float, int]] = []  # when a member is to be started again
        self._gone = False

    def __enter__(self) -> "Village":
        for member in self.members:
            member.start()
        return self

    def __exit__(self, *exc: object) -> None:
        for member in self.members:
            member.signal(signal.SIGCONT)
            if member.process is not None:
                member.let_go()
                member.process.terminate()
        until = time.monotonic() + 12.0
        for member in self.members:
            if member.process is not None:
                with suppress(subprocess.TimeoutExpired):
                    member.process.wait(max(0.1, until - time.monotonic()))
                member.kill()

    # -- looking

    def look(self) -> None:
        """Ask everybody who can answer, and note what they say of each other."""
        now = time.monotonic()
        for due in [due for due in self._due if due[0] <= now]:
            self._due.remove(due)
            self._start(due[1])
        self._start_the_dead()
        for number, member in enumerate(self.members):
            if member.stopped or member.ended:
                self._rows.pop(number, None)
                continue
            member.look()
            member.look_at_peers()
            rows = {self._numbers[r["id"]]: r for r in member.peers if r["id"] in self._numbers}
            self._rows[number] = rows
            if self._gone and now - member.started_at > START_S:
                self._note(number, rows)
        self._go()

    def _note(self, observer: int, rows: dict[int, dict[str, Any]]) -> None:
        seen = self.seen
        for number, member in enumerate(self.members):
            if number == observer or member.ended:
                continue
            row = rows.get(number, {})
            seen.pairs += 1
            seen.apart += not row.get("connected")
            if row.get("copy", -1) < 0:
                seen.dead += 1
                seen.dead_who[f"{observer}>{number}"] += 1
            else:
                seen.lags.append(max(0, member.status.get("seq", 0) - row["copy"]))

    def _start_the_dead(self) -> None:
        """Whoever ended by itself is started again at once, as a service manager would."""
        waiting = {number for _, number in self._due}
        for number, member in enumerate(self.members):
            if member.ended and number not in waiting:
                self.counts["ended"] += 1
                self._start(number)

    def _start(self, number: int) -> None:
        member = self.members[number]
        member.status, member.went, member.stopped = {}, False, False
        member.restarts += 1
        member.start()

    def _go(self) -> None:
        for member in self.members:
            if self._gone and not member.went and not member.ended and not member.stopped:
                with suppress(TapestryError):
                    ask(member.home.paths.control_socket, {"do": "go"}, 5.0)
                    member.went = True

    # -- phases

    def until(
        self, condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S
    ) -> float:
        """Look until it holds; seconds that took. TapestryError if it never does."""
        began = time.monotonic()
        while True:
            self.look()
            if condition():
                return time.monotonic() - began
            if time.monotonic() - began > patience_s:
                raise TapestryError(f"not in {patience_s:.0f} s: {what}; {self.words()}")
            time.sleep(LOOK_S)

    def words(self) -> str:
        """Where everybody is, for an error."""
        return "; ".join(
            f"{m.home.name} {m.status.get('state')} round {m.status.get('round')}"
            for m in self.members
        )

    def ready(self) -> bool:
        """Whether everybody follows everybody and has compiled."""
        others = len(self.members) - 1
        return all(
            m.home.paths.text_socket.exists() and m.status.get("following", 0) >= others
            for m in self.members
        )

    def go(self) -> None:
        """Let them train; from now on what they say of each other counts."""
        self._gone = True
        self._go()

    def round(self) -> float:
        """Where the middle one is."""
        return float(median(member.status.get("round", 0) for member in self.members))

    def rounds(self) -> int:
        """All rounds of all members."""
        return sum(int(member.status.get("round", 0)) for member in self.members)

    def finished(self) -> bool:
        """Whether everybody has done its rounds."""
        return all(member.status.get("finished") for member in self.members)

    def together(self) -> bool:
        """Whether all are connected with all, and no copy is more than LAG_MAX entries behind."""
        for observer in range(len(self.members)):
            rows = self._rows.get(observer, {})
            for number, member in enumerate(self.members):
                row = rows.get(number, {})
                if number == observer:
                    continue
                if not row.get("connected") or row["copy"] < 0:
                    return False
                if member.status.get("seq", 0) - row["copy"] > LAG_MAX:
                    return False
        return True

    def equal(self) -> bool:
        """Whether all copies are bit for bit what their authors hold, all news mixed."""
        own: dict[str, Any] = {}
        held: list[tuple[str, Any]] = []
        for member in self.members:
            with suppress(TapestryError):
                found = ask(member.home.paths.control_socket, {"do": "copies"}, 30.0)
                own[member.home.peer_id] = found["own"]
                held += found["followed"].items()
        whole = len(self.members) * (len(self.members) - 1)
        equal = len(held) == whole and all(own.get(author) == copy for author, copy in held)
        return equal and all(member.status.get("settled") for member in self.members)

    def losses(self) -> list[float]:
        """Held-out bits per byte of each member's model, mean over all languages."""
        scores = judge_together(list(self.members))
        found = []
        for member in self.members:
            bits = scores[member.home.peer_id]["bits_per_byte"]
            found.append(sum(bits.values()) / len(bits))
        return found

    # -- faults

    def kill(self, number: int, away_s: float) -> None:
        """SIGKILL a node (its trainer goes along); it is started again later."""
        self.members[number].kill()
        self.counts["killed"] += 1
        self._due.append((time.monotonic() + away_s, number))

    def stop(self, number: int) -> None:
        """SIGSTOP a node and its trainer."""
        self.members[number].signal(signal.SIGSTOP)
        self.counts["stopped"] += 1

    def wake(self) -> None:
        """SIGCONT everybody who was stopped, start everybody who is away."""
        for member in self.members:
            if member.stopped:
                member.signal(signal.SIGCONT)
        self._due = [(0.0, number) for _, number in self._due]

    def starve(self, number: int, trainer: bool) -> None:
        """The kernel kills a member's trainer or node: its cgroup's memory is used up."""
        pids = self.members[number].pids
        if len(pids) != 2:
            return
        killed = out_of_memory(pids[trainer])
        self.counts["killed by the kernel"] += killed


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def cgroup_limit() -> tuple[Path, str]:
    """Folder for memory groups, and the name of a group's limit."""
    if (CGROUP / "memory" / "memory.limit_in_bytes").exists():
        return CGROUP / "memory", "memory.limit_in_bytes"
    if (CGROUP / "cgroup.controllers").exists():
        return CGROUP, "memory.max"
    raise SkippedError("no memory cgroup is here")


def out_of_memory(pid: int) -> bool:
    """Move a process into a memory cgroup with a hog that uses up the limit; whether it was killed.

    The kernel takes the process first (oom_score_adj 1000), then the hog: both are gone.
    """
    root, limit = cgroup_limit()
    group = root / f"tapestry-chaos-{pid}"
    try:
        group.mkdir()
        (group / limit).write_text(str(HOG_MB << 20))
    except OSError as error:
        raise SkippedError(f"a memory cgroup is refused here: {error.strerror}") from error
    try:
        (group / "cgroup.procs").write_text(str(pid))
        Path(f"/proc/{pid}/oom_score_adj").write_text("1000")
        hog = [sys.executable, "-c", HOG, str(group / "cgroup.procs"), str(2 * HOG_MB << 20)]
        subprocess.run(hog, check=False, capture_output=True, timeout=60)
        return not is_alive(pid)
    finally:
        for _ in range(100):
            with suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.1)


HOG = """
import os, sys
with open(sys.argv[1], "w") as file:
    file.write(str(os.getpid()))
held = bytearray(int(sys.argv[2]))
for place in range(0, len(held), 4096):
    held[place] = 1
"""
