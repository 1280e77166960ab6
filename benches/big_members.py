"""The members of benches/big.py and overlap.py: homes of a network of a big model, their memory.

Real nodes (`tapestry run`) on loopback, whose trainers train big_task.py, or are stand-ins
(big_stand_in.py). What a process takes is the kernel's word: /proc/PID/smaps_rollup.
"""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benches import big_stand_in
from tapestry_p2p.cli.testnet.cluster import Member, python_path
from tapestry_p2p.cli.testnet.homes import Home
from tapestry_p2p.daemon import config as member_config
from tapestry_p2p.daemon import manifest as network
from tapestry_p2p.daemon.describe import describe
from tapestry_p2p.daemon.keyfile import load_key, make_key
from tapestry_p2p.daemon.paths import find_paths
from tapestry_p2p.gossip.identity import Identity

TASK = Path(__file__).parent / "big_task.py"
KINDS = {"anonymous": "Pss_Anon", "shared": "Pss_Shmem", "mapped": "Pss_File"}


# ---- what a process takes ------------------------------------------------------------------------


def memory(pid: int) -> dict[str, int]:
    """Bytes of a process by kind; nothing for one that is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return {}
    lines = dict(line.split(":", 1) for line in text.splitlines()[1:])
    return {kind: int(lines[name].split()[0]) * 1024 for kind, name in KINDS.items()}


def _trainer_of(node: int) -> int:
    """The process id of a node's trainer; 0 if there is none."""
    try:
        found = Path(f"/proc/{node}/task/{node}/children").read_text().split()
        tasks = Path(f"/proc/{node}/task").iterdir()
        for task in tasks:
            found += (task / "children").read_text().split()
    except OSError:
        return 0
    for pid in found:
        try:
            if b"learn.trainer" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return int(pid)
        except OSError:
            continue
    return 0


# ---- members -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """A network: how large the model is, and how its members train."""

    parameters: int
    members: int
    inner_steps: int = 4
    rounds: int = 0
    round_s: float = 0.0
    codec: str = "2bit"
    speed: float = 1.0
    threads: int = 1
    real: int = 1 << 30  # so many members have a trainer, the others a stand-in
    wait: bool = True
    work: int = 1  # how many times a step goes over the parameters


@dataclass
class BigMember(Member):
    """A member whose trainer may be a stand-in."""

    stands_in: bool = False
    parameters: int = 0
    round_s: float = 1.0
    schema: str = ""
    stand_in: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """The node, and what stands in for its trainer."""
        paths = self.home.paths
        with open(paths.config / "node.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tapestry_p2p", "run", *["--apart"] * self.stands_in],
                env={**self.home.environment, "PYTHONPATH": python_path()},
                stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
            if self.stands_in:
                told = [self.parameters, self.round_s, paths.config, self.schema]
                words = [paths.trainer_socket, *told]
                self.stand_in = subprocess.Popen(
                    [sys.executable, big_stand_in.__file__, *map(str, words)],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                )  # fmt: skip

    @property
    def trainer_pid(self) -> int:
        """The trainer's process id; 0 if there is none. A stand-in is none of the member's."""
        if self.stands_in or self.process is None:
            return 0
        return _trainer_of(self.process.pid)

    def end(self) -> None:
        """Both processes."""
        self.let_go()
        for process in (self.process, self.stand_in):
            if process is not None:
                process.terminate()
        for process in (self.process, self.stand_in):
            if process is not None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(20)
                process.kill()
                process.wait()


def prepare(folder: Path, wanted: Wanted) -> list[BigMember]:
    """The homes of a network of that model."""
    data, cache, port = folder / "data.txt", folder / "cache", _free_port()
    data.write_text("any")
    cache.mkdir()
    homes = [_home(folder, number, data, cache) for number in range(wanted.members)]
    manifest = _manifest(wanted, data, cache, [home.peer_id for home in homes])
    members = []
    for home in homes:
        stands_in = home.number >= wanted.real
        _write(home, homes[0], port, manifest, wanted, stands_in)
        members.append(
            BigMember(
                home, stands_in=stands_in, parameters=wanted.parameters,
                round_s=wanted.round_s or 1.0, schema=manifest.schema.hash,
            )
        )  # fmt: skip
    return members


def _manifest(wanted: Wanted, data: Path, cache: Path, members: list[str]) -> network.Manifest:
    options: dict[str, bool | int | float | str] = {
        "parameters": wanted.parameters, "work": wanted.work,
    }  # fmt: skip
    if wanted.real:
        found = describe(f"{TASK}:make_task", options, 1, [data], cache)
        schema, root = found.schema, found.root
        del found
    else:
        schema = big_stand_in.SCHEMA
        root = big_stand_in.genesis_root(wanted.parameters)
    return network.Manifest(
        network=network.Network(name="big"),
        task=network.Task(
            name="big_task.py:make_task",
            digest=hashlib.sha256(TASK.read_bytes()).hexdigest(),
            options=options,
        ),
        schema=network.Schema(hash=schema, parameters=wanted.parameters),
        genesis=network.Genesis(seed=1, root=root.hex(), members=members),
        streams=network.Streams(codec=wanted.codec),  # type: ignore[arg-type]
        training=network.Training(inner_steps=wanted.inner_steps),
        limits=network.Limits(entries_per_minute_max=6000, entry_bytes_max=1 << 32),
    )


def _home(folder: Path, number: int, data: Path, cache: Path) -> Home:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TAPESTRY_")}
    environment["TAPESTRY_HOME"] = str(folder / f"{number:02d}")
    paths = find_paths(environment)
    paths.make()
    paths.cache.rmdir()
    paths.cache.symlink_to(cache)
    make_key(paths.key)
    peer_id = Identity(load_key(paths.key)).peer_id
    return Home(number, f"{number:02d}", "", False, peer_id, paths, (data,), environment)


def _write(
    home: Home, first: Home, port: int, manifest: network.Manifest, wanted: Wanted, stands_in: bool
) -> None:
    paths = home.paths
    paths.manifest.write_text(network.dump_manifest(manifest))
    shutil.copy(TASK, paths.config / TASK.name)
    near = [f"/ip4/127.0.0.1/tcp/{port}/p2p/{first.peer_id}"]
    config = member_config.Config(
        member=member_config.Member(name=home.name),
        data=member_config.Data(paths=[str(path) for path in home.data]),
        listen=member_config.Listen(
            addresses=[f"/ip4/127.0.0.1/tcp/{port if home is first else 0}"]
        ),
        bootstrap=member_config.Bootstrap(peers=[] if home is first else near),
        budget=member_config.Budget(
            threads=wanted.threads, round_s=0.0 if stands_in else wanted.round_s
        ),
        gain=member_config.Gain(share=0.0),
        testing=member_config.Testing(
            rounds=wanted.rounds, wait=wanted.wait, tether=True, speed=wanted.speed
        ),
    )
    paths.member.write_text(member_config.dump_config(config))


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass
class Peaks:
    """The most that one member took: of each kind in each process, and in both at one time."""

    most: dict[str, float] = field(default_factory=dict)

    def look(self, members: Sequence[BigMember]) -> None:
        """Once more."""
        for member in members:
            if member.process is None or member.ended:
                continue
            pids = {"node": member.process.pid, "trainer": member.trainer_pid}
            both = dict.fromkeys(KINDS, 0.0)
            for process, pid in pids.items():
                for kind, size in memory(pid).items() if pid else ():
                    both[kind] += size
                    self._note(f"{process}, {kind}", size)
            held = both["anonymous"] + both["shared"]
            self._note("anonymous and shared", held)
            self._note("with mapped files", held + both["mapped"])

    def _note(self, name: str, size: float) -> None:
        self.most[name] = max(self.most.get(name, 0.0), size)
