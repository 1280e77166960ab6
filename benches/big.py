"""How much memory a member of a big model takes: real nodes and trainers, by kind of memory.

    python benches/big.py [--parameters 100000000] [--members 3] [--rounds 4] [--quick] [--json]

Members on loopback train a model whose steps cost next to nothing (big_task.py) and mix it. The
kernel tells what each process takes: anonymous memory and memory shared between node and trainer
(both are gone only when the process gives them back), and pages of mapped files (which the kernel
takes back when others need them); shares of what several hold (PSS). The figures are the most that
was seen at one time in one member, in bytes per parameter, less what the same processes take for a
model of 2^18 parameters (interpreter, XLA, code): that does not grow. Exit code 1 if a bound is
missed, or the members did not end with the same bits.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benches.performance import Row, add_options, finish
from tapestry_p2p.cli.testnet.cluster import Cluster, Member
from tapestry_p2p.cli.testnet.homes import Home
from tapestry_p2p.daemon import config as member_config
from tapestry_p2p.daemon import manifest as network
from tapestry_p2p.daemon.describe import describe
from tapestry_p2p.daemon.keyfile import load_key, make_key
from tapestry_p2p.daemon.paths import find_paths
from tapestry_p2p.gossip.identity import Identity

TASK = Path(__file__).parent / "big_task.py"
ANONYMOUS, MAPPED = 36.0, 56.0  # bytes per parameter and member, at most
SMALL = 1 << 18
KINDS = {"anonymous": "Pss_Anon", "shared": "Pss_Shmem", "mapped": "Pss_File"}
TIMEOUT_S = 7200.0


# ---- what a process takes ------------------------------------------------------------------------


def memory(pid: int) -> dict[str, int]:
    """Bytes of a process by kind; nothing for one that is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return {}
    lines = dict(line.split(":", 1) for line in text.splitlines()[1:])
    return {kind: int(lines[name].split()[0]) * 1024 for kind, name in KINDS.items()}


@dataclass
class Peaks:
    """The most that one member took: of each kind in each process, and in both at one time."""

    most: dict[str, float] = field(default_factory=dict)

    def look(self, members: Sequence[Member]) -> None:
        """Once more."""
        for member in members:
            if member.process is None or member.ended:
                continue
            pids = {"node": member.process.pid, "trainer": _trainer_of(member.process.pid)}
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


def prepare(folder: Path, parameters: int, options: argparse.Namespace) -> list[Home]:
    """The homes of a network of that model."""
    data = folder / "data.txt"
    data.write_text("any")
    cache = folder / "cache"
    cache.mkdir()
    homes = [_home(folder, number, data, cache) for number in range(options.members)]
    task_options: dict[str, bool | int | float | str] = {"parameters": parameters}
    found = describe(f"{TASK}:make_task", task_options, 1, [data], cache)
    manifest = network.Manifest(
        network=network.Network(name="big"),
        task=network.Task(name="big_task.py:make_task", digest=_digest(), options=task_options),
        schema=network.Schema(hash=found.schema, parameters=found.parameters),
        genesis=network.Genesis(
            seed=1, root=found.root.hex(), members=[home.peer_id for home in homes]
        ),
        streams=network.Streams(codec=options.codec),
        training=network.Training(inner_steps=options.inner_steps),
        limits=network.Limits(entries_per_minute_max=6000, entry_bytes_max=1 << 32),
    )
    for home in homes:
        _write(home, homes[0], manifest, options)
    return homes


def _digest() -> str:
    import hashlib

    return hashlib.sha256(TASK.read_bytes()).hexdigest()


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
    home: Home, first: Home, manifest: network.Manifest, options: argparse.Namespace
) -> None:
    paths = home.paths
    paths.manifest.write_text(network.dump_manifest(manifest))
    shutil.copy(TASK, paths.config / TASK.name)
    near = [f"/ip4/127.0.0.1/tcp/{options.port}/p2p/{first.peer_id}"]
    config = member_config.Config(
        member=member_config.Member(name=home.name),
        data=member_config.Data(paths=[str(path) for path in home.data]),
        listen=member_config.Listen(
            addresses=[f"/ip4/127.0.0.1/tcp/{options.port if home is first else 0}"]
        ),
        bootstrap=member_config.Bootstrap(peers=[] if home is first else near),
        budget=member_config.Budget(threads=1),
        testing=member_config.Testing(
            rounds=options.rounds, wait=True, tether=True, speed=options.speed
        ),
    )
    paths.member.write_text(member_config.dump_config(config))


# ---- a run ---------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What one network took, and did."""

    peaks: Peaks
    seconds: float
    rounds: int
    equal: bool
    restarts: int


def run(parameters: int, options: argparse.Namespace) -> Seen:
    """Train one network to its last round."""
    folder = Path(tempfile.mkdtemp(prefix="tapestry-big-", dir=options.folder))
    try:
        homes = prepare(folder, parameters, options)
        peaks = Peaks()
        cluster = Cluster(homes, folder / "register.json", peaks.look)
        with cluster:
            cluster.wait_until_ready()
            began = time.monotonic()
            cluster.wait_until_finished(TIMEOUT_S)
            seconds = time.monotonic() - began
            equal = all(cluster.wait_until_equal().values())
            peaks.look(cluster.members)
            rounds = min(int(m.status.get("round", 0)) for m in cluster.members)
            restarts = sum(int(m.status["trainer"]["restarts"]) for m in cluster.members)
        return Seen(peaks, seconds, rounds, equal, restarts)
    finally:
        if options.keep:
            sys.stderr.write(f"{folder}\n")
        else:
            shutil.rmtree(folder)


def rows_of(parameters: int, rounds: int, seen: Seen, small: Seen) -> list[Row]:
    """Bytes per parameter, by kind; and whether the rounds were done."""

    def each(name: str) -> float:
        more = seen.peaks.most.get(name, 0.0) - small.peaks.most.get(name, 0.0)
        return max(0.0, more) / (parameters - SMALL)

    unit = "bytes per parameter"
    found = [
        Row("anonymous and shared memory of a member", each("anonymous and shared"), unit,
            bound=ANONYMOUS),
        Row("the same with mapped files", each("with mapped files"), unit, bound=MAPPED),
        Row("rounds done by every member", seen.rounds, better="more", bound=rounds),
        Row("members whose copies differ at the end", float(not seen.equal), bound=0),
        Row("trainers that died", seen.restarts, bound=0),
    ]  # fmt: skip
    for process in ("node", "trainer"):
        for kind in KINDS:
            name = f"{process}, {kind}"
            found.append(Row(name, each(name), unit, better="neither"))
    constant = small.peaks.most["anonymous and shared"] / 2**20
    found.append(Row("what does not grow, anonymous and shared", constant, "MiB", better="neither"))
    found.append(Row("a round", seen.seconds / max(1, seen.rounds), "s", better="neither"))
    return found


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parameters", type=int, default=100_000_000)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--inner-steps", type=int, default=4)
    parser.add_argument("--speed", type=float, default=0.3, help="share of full speed to train at")
    parser.add_argument("--codec", default="2bit")
    parser.add_argument("--port", type=int, default=0, help="of the first member; 0: any free one")
    parser.add_argument("--folder", help="where the members' files go")
    parser.add_argument("--keep", action="store_true", help="leave those files there")
    parser.add_argument("--quick", action="store_true", help="2 members, 2^20 parameters")
    add_options(parser)
    options = parser.parse_args()
    if options.quick:
        options.parameters, options.members, options.rounds = 1 << 20, 2, 2
    options.port = options.port or _free_port()
    return options


def _free_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def main() -> int:
    """Run it; the exit code."""
    options = arguments()
    small = run(SMALL, options)
    seen = run(options.parameters, options)
    if os.environ.get("BIG_DEBUG"):
        sys.stderr.write(json.dumps(seen.peaks.most, indent=1))
    notes = [
        f"{options.members} members, {options.parameters} parameters, {options.codec}, 1 thread"
        " each; memory looked at twice a second",
    ]
    return finish("big", rows_of(options.parameters, options.rounds, seen, small), notes, options)


if __name__ == "__main__":
    sys.exit(main())
