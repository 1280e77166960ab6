"""Runs the members' processes: starts, watches, restarts, stops. Leaves none behind.

Every process is a session of its own, tethered by a pipe to this one: should this program die in
any way, its members end by themselves. A node that dies is started again and goes on.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tapestry_p2p.cli.testnet.homes import Home
from tapestry_p2p.daemon.ask import ask
from tapestry_p2p.errors import FAILURE, TIMEOUT, TapestryError

POLL_S = 0.4
READY_DEADLINE_S = 300.0
SETTLE_DEADLINE_S = 60.0
STOP_DEADLINE_S = 12.0
RESTARTS_MAX = 5
FINAL = (2, 6, 7, 78)  # exit codes that another start would only repeat
TALLIES = (
    "entries_published",
    "entry_bytes",
    "payload_bytes_sent",
    "bytes_sent",
    "bytes_received",
    "useful_bytes_sent",
    "keyframe_bytes_sent",
    "cpu_s",
)

Watch = Callable[["list[Member]"], None]


@dataclass
class Member:
    """One member's process and the last it said of itself."""

    home: Home
    process: "subprocess.Popen[bytes] | None" = None
    status: dict[str, Any] = field(default_factory=dict)
    peers: list[dict[str, Any]] = field(default_factory=list)
    restarts: int = 0
    exit_code: int | None = None
    went: bool = False
    _before: dict[str, float] = field(default_factory=dict)
    _peak: dict[str, float] = field(default_factory=dict)

    def start(self) -> None:
        """Start the node; its log goes to node.log in its home."""
        log: IO[bytes]
        with open(self.home.paths.config / "node.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tapestry_p2p", "run"],
                env={**self.home.environment, "PYTHONPATH": python_path()},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self.process is None or self.process.poll() is not None

    def look(self) -> None:
        """Ask the node how it is; an unreachable one keeps its last word."""
        with suppress(TapestryError):
            self.status = ask(self.home.paths.control_socket, {"do": "status"}, 5.0)
            rss = {"node": self.status["node_rss_mb"]}
            rss["trainer"] = self.status["trainer"].get("rss_mb", 0.0)
            for name, value in rss.items():
                self._peak[name] = max(self._peak.get(name, 0.0), value)

    def look_at_peers(self) -> None:
        """Ask the node what it holds of its peers."""
        with suppress(TapestryError):
            self.peers = ask(self.home.paths.control_socket, {"do": "peers"}, 5.0)["peers"]

    def tally(self, name: str) -> float:
        """A running total, over restarts too."""
        return self._before.get(name, 0) + float(self.status.get(name, 0))

    def peak_mb(self, process: str) -> float:
        """Largest resident memory seen of ``node`` or ``trainer``, MB."""
        return self._peak.get(process, 0.0)

    def restart(self) -> None:
        """Start again what died; TapestryError if that happens too often."""
        self.restarts += 1
        if self.restarts > RESTARTS_MAX:
            raise TapestryError(
                f"member {self.home.name} keeps ending; see {self.home.paths.config}/node.log",
                FAILURE,
            )
        for name in TALLIES:
            self._before[name] = self.tally(name)
        self.status, self.went = {}, False
        self.let_go()
        self.start()

    def let_go(self) -> None:
        """Close our end of the tether: a node that still runs will end."""
        if self.process is not None and self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()


def python_path() -> str:
    """The package as this process found it comes first for its children too."""
    package = str(Path(__file__).resolve().parents[3])
    rest = os.environ.get("PYTHONPATH", "")
    return f"{package}{os.pathsep}{rest}" if rest else package


class Cluster:
    """All members. Use as a context: leaving it, however, ends every process."""

    def __init__(self, homes: list[Home], register: Path, watch: Watch, links: int = 0) -> None:
        """``links`` of each member; 0: everyone follows everyone."""
        self._links = links
        self.members = [Member(home) for home in homes]
        self._register = register
        self._gone = False  # whether all were told to go
        self._watch = watch

    def __enter__(self) -> "Cluster":
        for member in self.members:
            member.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def honest(self) -> list[Member]:
        """Members that train."""
        return [member for member in self.members if not member.home.byzantine]

    def wait_until_ready(self) -> None:
        """Until everyone follows everyone and every trainer has compiled; then say go."""
        deadline = time.monotonic() + READY_DEADLINE_S
        while not all(map(self._ready, self.members)):
            self._turn(deadline, "start", forgiving=False)
        self._gone = True
        self._go()

    def wait_until_finished(self, timeout_s: float) -> None:
        """Until every honest member has done its rounds; the dead are started again."""
        deadline = time.monotonic() + timeout_s
        while not all(m.status.get("finished") for m in self.honest):
            self._turn(deadline, "finish its rounds", forgiving=True)

    def wait_until_equal(self) -> dict[str, bool]:
        """Until all copies stand at their authors' heads; by peer id whether they are equal."""
        deadline = time.monotonic() + SETTLE_DEADLINE_S
        while True:
            self.revive()
            equal = self._compare()
            for member in self.honest:
                member.look()
            settled = all(m.status.get("settled") for m in self.honest)
            if (all(equal.values()) and settled) or time.monotonic() > deadline:
                return equal
            time.sleep(POLL_S)

    def _compare(self) -> dict[str, bool]:
        """Bit for bit, by Merkle roots computed now from every copy in memory."""
        held: dict[str, dict[str, Any]] = {}
        for member in self.members:
            with suppress(TapestryError):
                held[member.home.peer_id] = ask(
                    member.home.paths.control_socket, {"do": "copies"}, 30.0
                )
        return {
            author: author in held
            and len(held) == len(self.members)
            and self._is_equal(author, held)
            for author in (member.home.peer_id for member in self.members)
        }

    def _is_equal(self, author: str, held: dict[str, dict[str, Any]]) -> bool:
        """Whether all copies of an author are its own one, and those who should have one do."""
        copies = [other["followed"].get(author) for peer, other in held.items() if peer != author]
        if self._links:  # only neighbours follow it
            copies = [copy for copy in copies if copy is not None] or [None]
        return all(copy == held[author]["own"] for copy in copies)

    def _ready(self, member: Member) -> bool:
        others = max(1, self._links // 2) if self._links else len(self.members) - 1
        compiled = member.home.byzantine or member.home.paths.text_socket.exists()
        following = member.status.get("following", 0) >= others
        return compiled and following and bool(member.status.get("seq", -1) >= 0)

    def _go(self) -> None:
        for member in self.members:
            if self._gone and not member.went and not member.ended:
                with suppress(TapestryError):
                    ask(member.home.paths.control_socket, {"do": "go"}, 5.0)
                    member.went = True

    def revive(self, forgiving: bool = True) -> None:
        """Start again who died; TapestryError for who ended by itself and would do so again."""
        for member in self.members:
            if not member.ended:
                continue
            code = 0 if member.process is None else member.process.returncode
            if code >= 0 and (not forgiving or code in FINAL):
                raise TapestryError(_last_words(member, code), FAILURE)
            member.restart()
        self._go()

    def _turn(self, deadline: float, what: str, forgiving: bool) -> None:
        self.revive(forgiving)
        for member in self.members:
            member.look()
            member.look_at_peers()
        self._write_register()
        self._watch(self.members)
        if time.monotonic() > deadline:
            late = ", ".join(m.home.name for m in self.members if not m.status.get("finished"))
            raise TapestryError(f"did not {what} in time: {late}; see node.log there", TIMEOUT)
        time.sleep(POLL_S)

    def _write_register(self) -> None:
        """Process ids by member, for whoever wants to hurt one (tests)."""
        rows = [
            {
                "id": m.home.peer_id,
                "name": m.home.name,
                "pid": m.process.pid if m.process else 0,
                "trainer_pid": m.status.get("trainer", {}).get("pid", 0),
                "round": m.status.get("round", 0),
                "home": str(m.home.paths.config),
            }
            for m in self.members
        ]
        draft = self._register.with_suffix(".new")
        draft.write_text(json.dumps(rows, indent=1))
        draft.replace(self._register)

    def stop(self) -> None:
        """End all: politely, then not."""
        for member in self.members:
            if member.process is not None:
                member.let_go()
                member.process.terminate()
        deadline = time.monotonic() + STOP_DEADLINE_S
        for member in self.members:
            if member.process is None:
                continue
            try:
                member.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                member.process.kill()
                member.process.wait()
            member.exit_code = member.process.returncode


def _last_words(member: Member, code: int) -> str:
    path = member.home.paths.config / "node.log"
    lines = path.read_text(errors="replace").strip().splitlines()
    last = lines[-1] if lines else "nothing"
    return f"member {member.home.name} ended with {code}: {last[:300]} (log: {path})"
