"""Clusters for benches/averaging.py, ours and hivemind's: driven alike, each in its own network.

A cluster is ``members`` groups of processes. ``prepare`` makes everyone's next vector, ``hand``
lets all begin at once and waits until the last one has everybody's; CPU is read from /proc, bytes
from the loopback interface of the cluster's network namespace, so that both are counted alike,
headers and small talk included. Knows processes; judges nothing.
"""

import json
import os
import select
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benches.averaging_member import SCHEMA, Vector, genesis
from benches.processes import cpu_s, descendants, pss_mb
from benches.rivals import quiet
from tapestry_p2p.daemon.ask import ask
from tapestry_p2p.daemon.config import Bootstrap, Config, Listen, Testing, dump_config
from tapestry_p2p.daemon.copies import copy_root
from tapestry_p2p.daemon.keyfile import load_key, make_key
from tapestry_p2p.daemon.manifest import (
    Genesis,
    Limits,
    Manifest,
    Mixing,
    Network,
    Schema,
    Streams,
    Task,
    Training,
    dump_manifest,
)
from tapestry_p2p.daemon.paths import Paths, find_paths
from tapestry_p2p.errors import TapestryError
from tapestry_p2p.gossip.identity import Identity
from tapestry_p2p.mix.copy import PublicCopy

ROOT = Path(__file__).parents[1]
READY_S = 180.0
ROUND_S = 120.0
PORT = 4001  # in a namespace of our own every port is free
SCALE = 0.01
SETTLE_S = 0.3


@dataclass(frozen=True)
class Job:
    """What is averaged."""

    members: int
    parameters: int
    codec: str = "2bit"
    tolerate: int = 0
    scale: float = SCALE


@dataclass(frozen=True)
class Round:
    """One averaging: seconds from the first hand-over to the last arrival, and what it cost.

    ``ok``: who says that it succeeded. ``cpu_s`` and ``wire_bytes`` are of all members together.
    """

    wall_s: float
    cpu_s: float
    wire_bytes: float | None
    ok: dict[int, bool]
    among: dict[int, list[int]]  # whose vectors each says that it mixed, its own too
    late: tuple[int, ...]  # who has said nothing


# ---- a network of one's own ----------------------------------------------------------------------


class Wire:
    """A network namespace with nothing but loopback; '' if the system refuses one."""

    def __init__(self) -> None:
        unshare = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
        up = "ip link set lo up && echo up && exec cat"
        self._holder: subprocess.Popen[str] | None = subprocess.Popen(
            [*unshare, "sh", "-c", up],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "up\n":
            self.close()
            self._holder = None

    @property
    def enter(self) -> list[str]:
        """What a command starts with that is to run inside."""
        if self._holder is None:
            return []
        user = [] if os.geteuid() == 0 else ["-U", "--preserve-credentials"]
        return ["nsenter", "-t", str(self._holder.pid), "-n", *user]

    def carried(self) -> int | None:
        """Bytes over its loopback so far; None where we have no namespace."""
        if self._holder is None:
            return None
        lines = Path(f"/proc/{self._holder.pid}/net/dev").read_text().splitlines()
        return int(next(line for line in lines if "lo:" in line).split()[1])

    def close(self) -> None:
        """Ends the namespace, once all in it have ended."""
        if self._holder is not None:
            self._holder.kill()
            self._holder.communicate()


# ---- what both clusters have in common -----------------------------------------------------------


class Cluster(ABC):
    """``job.members`` members; use as a context. Subclasses start them in ``_start``."""

    name = ""

    def __init__(self, job: Job, folder: Path) -> None:
        self.job, self.folder = job, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.talkers: list[subprocess.Popen[bytes]] = []  # who takes orders, one a member
        self.roots: list[list[int]] = []  # process ids of each member; children count too
        self.living = set(range(job.members))
        self.expendable: set[int] = set()  # whom nobody waits for, though they take part
        self.round = 0
        self._pending: dict[int, bytes] = {}
        self._exit = ExitStack()

    def __enter__(self) -> "Cluster":
        with ExitStack() as stack:
            self.wire = Wire()
            stack.callback(self.wire.close)
            stack.callback(self.end)
            self._start()
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    @abstractmethod
    def _start(self) -> None:
        """Start the members: fill ``talkers`` and ``roots``."""

    def spawn(
        self, log: str, words: Sequence[str], **environment: str
    ) -> "subprocess.Popen[bytes]":
        """A process in our network; its errors go to a file of that name."""
        with open(self.folder / log, "ab") as errors:
            return subprocess.Popen(
                [*self.wire.enter, *words],
                env={**quiet(), **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )

    def pids(self, member: int) -> list[int]:
        """All processes of a member."""
        return [pid for root in self.roots[member] for pid in (root, *descendants(root))]

    def cpu_s(self) -> float:
        """CPU seconds of all so far."""
        return sum(cpu_s(pid) for member in self.living for pid in self.pids(member))

    def pss_mb(self) -> list[float]:
        """Of each member."""
        return [sum(map(pss_mb, self.pids(member))) for member in sorted(self.living)]

    # -- orders

    def tell(self, member: int, **order: Any) -> None:
        """One order."""
        stdin = self.talkers[member].stdin
        assert stdin is not None
        stdin.write(json.dumps(order).encode() + b"\n")
        stdin.flush()

    def hear(self, members: set[int], seconds: float) -> dict[int, dict[str, Any]]:
        """The next line of each; who says nothing within that time is left out."""
        found: dict[int, dict[str, Any]] = {}
        until = time.monotonic() + seconds
        while members - found.keys() and time.monotonic() < until:
            for member in members - found.keys():
                head, line, rest = self._pending.get(member, b"").partition(b"\n")
                if line:
                    self._pending[member] = rest
                    found[member] = json.loads(head)
            waiting = {self._out(member): member for member in members - found.keys()}
            ready, _, _ = select.select(list(waiting), [], [], 0.2) if waiting else ([], [], [])
            for descriptor in ready:
                data = os.read(descriptor, 65536)
                if not data:
                    members = members - {waiting[descriptor]}
                known = self._pending.get(waiting[descriptor], b"")
                self._pending[waiting[descriptor]] = known + data
        return found

    def _out(self, member: int) -> int:
        stdout = self.talkers[member].stdout
        assert stdout is not None
        return stdout.fileno()

    def all(self, what: str, **order: Any) -> None:
        """An order for all living, done when this returns. RuntimeError if somebody fails."""
        for member in self.living:
            self.tell(member, do=what, **order)
        if len(self.hear(set(self.living), READY_S)) < len(self.living):
            raise RuntimeError(f"{self.name}: {what}: not everybody did it; see {self.folder}")

    def next_round(self, spoil: dict[int, float] | None = None) -> None:
        """Everyone makes its next vector."""
        self.round += 1
        for member in self.living:
            self.tell(member, do="prepare", round=self.round, spoil=(spoil or {}).get(member))
        self.hear(set(self.living), READY_S)

    def hand(
        self,
        seconds: float = ROUND_S,
        keep: bool = False,
        meanwhile: tuple[float, Callable[[], None]] | None = None,
    ) -> Round:
        """All hand over at once; until all have everybody's. ``keep``: vectors can be dumped.

        ``meanwhile``: what is done so many seconds after the hand-over.
        """
        before, wire = self.cpu_s(), self.wire.carried()
        began = time.monotonic()
        self.begin(keep)
        if meanwhile is not None:
            time.sleep(meanwhile[0])
            meanwhile[1]()
        waited = self.living - self.expendable
        heard = self.hear(set(waited), seconds)
        done = max((word["at"] for word in heard.values()), default=began + seconds)
        self.settle()
        carried = self.wire.carried()
        return Round(
            done - began,
            self.cpu_s() - before,
            None if carried is None or wire is None else carried - wire,
            {member: word["ok"] for member, word in heard.items()},
            {member: word["among"] for member, word in heard.items()},
            tuple(sorted(waited - heard.keys())),
        )

    def begin(self, keep: bool = False) -> None:
        """All living hand over."""
        for member in self.living:
            note = str(self.folder / f"{member}.handed.npy") if member in self.expendable else ""
            others = {"from": self._others(member)}
            self.tell(member, do="hand", round=self.round, keep=keep, note=note, **others)

    def _others(self, member: int) -> list[int]:
        return sorted(self.living - {member} - self.expendable)

    def settle(self) -> None:
        """What is still done after a round's end counts too. Nobody is asked: answers cost time."""
        time.sleep(SETTLE_S)

    def vectors(self) -> tuple[dict[int, Vector], dict[int, Vector]]:
        """What each handed over (in a round that was kept), and what each has now, float32[d]."""
        before, after = {}, {}
        for member in sorted(self.living):
            path = self.folder / f"{member}.npz"
            self.tell(member, do="dump", path=str(path))
            if not self.hear({member}, READY_S):
                continue
            with np.load(path) as found:
                before[member], after[member] = found["handed"], found["now"]
            path.unlink()
        return before, after

    def handed_by(self, member: int) -> Vector | None:
        """What a member handed over in this round that cannot be asked any more; if we know."""
        return None

    def end(self) -> None:
        """Ends all of its processes, also stopped ones."""
        for process in self.processes:
            with suppress(OSError):
                os.killpg(process.pid, 9)
            process.communicate()

    @property
    def processes(self) -> list["subprocess.Popen[bytes]"]:
        """All that were started."""
        return self.talkers


# ---- ours ----------------------------------------------------------------------------------------


class Ours(Cluster):
    """`tapestry run --apart` and a stand-in for its trainer, for each member."""

    name = "tapestry"

    def _start(self) -> None:
        self.nodes: list[subprocess.Popen[bytes]] = []
        self._port = PORT if self.wire.enter else _free_port()
        self.homes = [self._home(number) for number in range(self.job.members)]
        keys = [Identity(load_key(home.key)).peer_id for home in self.homes]
        vector = genesis(self.job.parameters, self.job.scale)
        text = dump_manifest(self._manifest(vector, keys))
        for number, home in enumerate(self.homes):
            home.manifest.write_text(text)
            home.member.write_text(dump_config(self._config(number, keys)))
        run = [sys.executable, "-m", "tapestry_p2p", "run", "--apart"]
        member = [sys.executable, str(ROOT / "benches" / "averaging_member.py")]
        for number, home in enumerate(self.homes):
            folder = str(home.config)
            self.nodes.append(self.spawn(f"{number}.log", run, TAPESTRY_HOME=folder))
        for number, home in enumerate(self.homes):
            job = self.job
            words = [str(home.trainer_socket), str(number), str(job.members), str(job.parameters)]
            self.talkers.append(self.spawn(f"{number}.log", [*member, *words, str(job.scale)]))
            self.roots.append([self.nodes[number].pid, self.talkers[number].pid])
        if len(self.hear(set(self.living), READY_S)) < self.job.members:
            raise RuntimeError(f"not all members of ours came up; see {self.folder}")
        self._wait(lambda status: status["following"] == self.job.members - 1)

    def _home(self, number: int) -> Paths:
        paths = find_paths({"TAPESTRY_HOME": str(self.folder / f"m{number}")})
        paths.make()
        make_key(paths.key)
        return paths

    def _manifest(self, vector: Vector, keys: list[str]) -> Manifest:
        job = self.job
        return Manifest(
            network=Network(name="averaging"),
            task=Task(name="language"),
            schema=Schema(hash=SCHEMA, parameters=job.parameters),
            genesis=Genesis(seed=1, root=copy_root(PublicCopy(vector)).hex(), members=keys),
            streams=Streams(codec=job.codec),  # type: ignore[arg-type]
            mixing=Mixing(f=job.tolerate, mu=0.0),
            training=Training(inner_steps=1),
            limits=Limits(entries_per_minute_max=6000),
        )

    def _config(self, number: int, keys: list[str]) -> Config:
        near = [f"/ip4/127.0.0.1/tcp/{self._port}/p2p/{keys[0]}"] if number else []
        here = f"/ip4/127.0.0.1/tcp/{0 if number else self._port}"
        return Config(
            listen=Listen(addresses=[here]),
            bootstrap=Bootstrap(peers=near),
            testing=Testing(tether=True),
        )

    def statuses(self) -> list[dict[str, Any]]:
        """Of all living nodes that answer."""
        found = []
        for member in sorted(self.living):
            with suppress(TapestryError):
                found.append(ask(self.homes[member].control_socket, {"do": "status"}, 5.0))
        return found

    def _wait(self, enough: Any) -> None:
        until = time.monotonic() + READY_S
        while time.monotonic() < until:
            found = self.statuses()
            if len(found) == len(self.living) and all(map(enough, found)):
                return
            time.sleep(0.2)
        raise RuntimeError(f"not all of ours got ready; see {self.folder}")

    def handed_by(self, member: int) -> Vector | None:
        """From the file where it put it before it handed it over."""
        path = self.folder / f"{member}.handed.npy"
        return np.load(path) if path.exists() else None

    @property
    def processes(self) -> list["subprocess.Popen[bytes]"]:
        return [*self.talkers, *self.nodes]


def _free_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


# ---- hivemind's ----------------------------------------------------------------------------------


class Hivemind(Cluster):
    """One process of averaging_hivemind.py for each member, and what it starts."""

    name = "hivemind"

    def __init__(self, job: Job, folder: Path, python: str) -> None:
        super().__init__(job, folder)
        self._python = python

    def _start(self) -> None:
        near: list[str] = []
        for number in range(self.job.members):
            job = self.job
            words = [str(number), str(job.members), str(job.parameters), str(job.scale), *near]
            script = str(ROOT / "benches" / "averaging_hivemind.py")
            self.talkers.append(self.spawn(f"{number}.log", [self._python, script, *words]))
            self.roots.append([self.talkers[number].pid])
            heard = self.hear({number}, READY_S)
            if not heard:
                raise RuntimeError(f"hivemind did not come up; see {self.folder}")
            near = near or [heard[number]["address"]]
