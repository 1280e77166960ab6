"""Digits to 95 % with four members: from launch to a first mixed round, and to the target.

    python benches/endtoend.py [--members 4] [--steps 20] [--repeats 3] [--only tapestry,...]
                               [--json] [--write-docs]

Ours: `tapestry run` for each member (node and trainer, real libp2p) with its part of the package's
digits; the network is founded before the clock starts. Beside it, in turn: hivemind (four
processes), p2pfl (four nodes in one process, gRPC) and Flower's simulation (one process, no
network), each in an environment of its own that is made at the first run, with the same model in
numpy (endtoend_learner.py), which costs them less to start than a framework would. Every member
makes --steps steps of batch 32 between two averagings.

Launch is the start of the first process. The first mixed round is over when every member has mixed
once; the target is reached when the mean accuracy on held-out pictures, as the members' own models
have it, is 95 %. CPU is of all processes till then. Ours runs twice: `first start` with an empty
compile cache, and as any later start. Where the time of a start goes is a table of its own.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benches.averaging_world import Wire
from benches.performance import Row, add_options, finish
from benches.processes import cpu_s, descendants
from benches.rivals import Rival, quiet, rival
from tapestry_p2p.cli.testnet.cluster import Member
from tapestry_p2p.cli.testnet.homes import Prepared, prepare
from tapestry_p2p.cli.testnet.plan import make_plan
from tapestry_p2p.daemon.ask import ask
from tapestry_p2p.errors import TapestryError

BENCHES = Path(__file__).parent
TARGET = 0.95
FIRST_S, TARGET_S = 6.0, 8.0
GIVE_UP_S = 180.0
LOOK_S = 0.1
ROUNDS = 400  # for rivals, more than any needs
ENDLESS = 100_000
OURS, FIRST = "tapestry", "tapestry, first start"
RIVALS = ("hivemind", "p2pfl", "flower")


@dataclass
class Run:
    """Seconds since launch, and what it took; None if it never came."""

    first_s: float | None = None
    target_s: float | None = None
    first_cpu_s: float | None = None
    cpu_s: float = 0.0
    wire_mb: float | None = None
    phases: dict[str, float] = field(default_factory=dict)


# ---- ours ----------------------------------------------------------------------------------------


def founded(members: int, steps: int, folder: Path) -> Prepared:
    """Homes, keys, manifest and data of the members, on disk."""
    plan = make_plan(
        members=members,
        byzantine=0,
        tolerate=0,
        attack="mirror",
        data="digits",
        languages="",
        split=1,
        rounds=ENDLESS,
        inner_steps=steps,
        rule="cs_plus",
        codec="2bit",
        model="small",
        seed=1,
        out=folder,
    )
    return prepare(plan, plan.rule, folder / "run")


def ours(members: int, steps: int, folder: Path, cache: Path) -> Run:
    """One start of ours; ``cache``: compiled programs of earlier starts, and of this one."""
    prepared = founded(members, steps, folder)
    shutil.rmtree(prepared.cache)
    prepared.cache.symlink_to(cache)
    run, wire = Run(), Wire()
    processes = [Inside(home, wire.enter) for home in prepared.homes]
    try:
        began = time.monotonic()
        for process in processes:
            process.start()
        watch(processes, run, began)
        carried = wire.carried()
        run.wire_mb = None if carried is None else carried / 1e6
    finally:
        for process in processes:
            process.end()
        wire.close()
    return run


class Inside(Member):
    """A member in a network namespace of the bench's."""

    def __init__(self, home: Any, enter: Sequence[str]) -> None:
        super().__init__(home)
        self._enter = enter

    def start(self) -> None:
        """`tapestry run`, as the testnet starts it; it trains at once and has no end."""
        words = {"TAPESTRY_TESTING__WAIT": "false", "TAPESTRY_TESTING__ROUNDS": "0"}
        with open(self.home.paths.config / "node.log", "ab") as log:
            self.process = subprocess.Popen(
                [*self._enter, sys.executable, "-m", "tapestry_p2p", "run"],
                env={**quiet(), **self.home.environment, **words},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end(self) -> None:
        """Stop it."""
        if self.process is not None:
            self.let_go()
            self.process.terminate()
            self.process.wait()

    def accuracy(self) -> float:
        """Of its model on the test pictures, as its own trainer says."""
        with contextlib.suppress(TapestryError, KeyError, TypeError):
            said = ask(self.home.paths.text_socket, {"do": "evaluate"}, 10.0)
            return float(said["accuracy"]["digits"])
        return 0.0

    @property
    def cpu_s(self) -> float:
        """Of node and trainer."""
        pid = self.process.pid if self.process else 0
        return sum(map(cpu_s, [pid, *descendants(pid)]))


PHASES: dict[str, Callable[[dict[str, Any]], bool]] = {
    "node answers": lambda status: True,
    "trainer says hello": lambda status: "not started" not in status["isolation"],
    "all connected": lambda status: status["peers"] == len(status["peers_wanted"]),
    "all followed": lambda status: status["following"] == len(status["peers_wanted"]),
    "first round handed over": lambda status: status["round"] >= 1,
}


def watch(members: Sequence[Inside], run: Run, began: float) -> None:
    """Look at all until the target is reached; fills ``run``."""
    wanted = list(range(len(members) - 1))
    while time.monotonic() - began < GIVE_UP_S:
        statuses = []
        for member in members:
            with contextlib.suppress(TapestryError):
                said = ask(member.home.paths.control_socket, {"do": "status"}, 5.0)
                statuses.append({**said, "peers_wanted": wanted})
        now = time.monotonic() - began
        if len(statuses) == len(members):
            for phase, come in PHASES.items():
                if phase not in run.phases and all(map(come, statuses)):
                    run.phases[phase] = now
            if run.first_s is None and all(s["mixed"]["authors"] for s in statuses):
                run.first_s = now
                run.first_cpu_s = sum(member.cpu_s for member in members)
        if run.first_s is not None:
            mean = statistics.mean(member.accuracy() for member in members)
            if mean >= TARGET:
                run.target_s = time.monotonic() - began
                break
        time.sleep(LOOK_S)
    run.cpu_s = sum(member.cpu_s for member in members)


# ---- the others ----------------------------------------------------------------------------------


def theirs(other: Rival, members: int, steps: int, data: Path) -> Run:
    """One start of a rival."""
    wire, run = Wire(), Run()
    own = sorted(map(str, data.glob("*.digits")))
    test, numbers = str(data / "test"), [str(members), str(steps), str(ROUNDS)]
    quietly = {**quiet(), "FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    script = str(BENCHES / f"endtoend_{other.name}.py")
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> "subprocess.Popen[str]":
        started.append(
            subprocess.Popen(
                [*wire.enter, other.python, script, *words],
                env=quietly,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    try:
        began = time.monotonic()
        if other.name == "hivemind":
            near: list[str] = []
            for number in range(members):
                process = start(str(number), *numbers, own[number], test, *near)
                if not near:
                    assert process.stdout is not None
                    near = [json.loads(process.stdout.readline())["address"]]
        else:
            start(*numbers, test, *own)
        follow(started, members if other.name == "p2pfl" else 1, run, began)
        carried = wire.carried()
        run.wire_mb = None if carried is None else carried / 1e6
    finally:
        for process in started:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, 9)
            process.communicate()
        wire.close()
    return run


def follow(
    started: "Sequence[subprocess.Popen[str]]", heard_from_each: int, run: Run, began: float
) -> None:
    """Read what members say of their rounds, until the target is reached; fills ``run``.

    Everybody's first word is the first mixed round; the last words' mean is the accuracy.
    """
    import select

    voices = len(started) * heard_from_each
    said: list[float] = []
    newest: dict[int, float] = {}
    pending = {process.stdout.fileno(): b"" for process in started if process.stdout}
    while run.target_s is None and time.monotonic() - began < GIVE_UP_S:
        ready, _, _ = select.select(list(pending), [], [], 0.5)
        for descriptor in ready:
            *lines, pending[descriptor] = (pending[descriptor] + os.read(descriptor, 65536)).split(
                b"\n"
            )
            for line in map(json.loads, lines):
                if "accuracy" not in line or not line["ok"]:
                    continue
                said.append(line["accuracy"])
                newest[descriptor] = line["accuracy"]
                if run.first_s is None and len(said) >= voices and len(newest) == len(started):
                    run.first_s = line["at"] - began
                    run.first_cpu_s = _cpu_s(started)
                last = list(newest.values()) if heard_from_each == 1 else said[-voices:]
                enough = run.first_s is not None and statistics.mean(last) >= TARGET
                if enough and run.target_s is None:
                    run.target_s = line["at"] - began
        if all(process.poll() is not None for process in started):
            break
    run.cpu_s = _cpu_s(started)


def _cpu_s(started: "Sequence[subprocess.Popen[str]]") -> float:
    pids = [pid for process in started for pid in (process.pid, *descendants(process.pid))]
    return sum(map(cpu_s, pids))


# ---- all -----------------------------------------------------------------------------------------


def median(values: Sequence[float | None]) -> float | None:
    """Of those that came; None if one did not."""
    found = [value for value in values if value is not None]
    return statistics.median(found) if found and len(found) == len(values) else None


def rows(found: dict[str, list[Run]]) -> Iterator[Row]:
    """Every program's figures; hivemind's stand beside ours, the others have rows of their own."""
    figures: dict[str, tuple[str, Callable[[Run], float | None], float | None]] = {
        "launch to first mixed round": ("s", lambda run: run.first_s, FIRST_S),
        "launch to 95 %": ("s", lambda run: run.target_s, TARGET_S),
        "CPU to the first mixed round, all members": ("s", lambda run: run.first_cpu_s, None),
        "CPU to 95 %, all members": ("s", lambda run: run.cpu_s, None),
        "on the wire to 95 %, all members": ("MB", lambda run: run.wire_mb, None),
    }
    beside = found.get("hivemind", [])
    for name, runs in found.items():
        for what, (unit, of, bound) in figures.items():
            value, ours_too = median([of(run) for run in runs]), name in (OURS, FIRST)
            yield Row(
                f"{name}: {what}",
                value,
                unit,
                median([of(run) for run in beside]) if ours_too and beside else None,
                bound if name == OURS else None,
                "less" if ours_too else "neither",
            )
    for phase in PHASES:
        times = [run.phases.get(phase) for run in found.get(OURS, [])]
        if times:
            yield Row(f"{OURS}: launch to: {phase}", median(times), "s", better="neither")


def measure(options: argparse.Namespace, folder: Path, others: Sequence[Rival]) -> dict[str, Any]:
    """Runs of all programs, in turn."""
    names = [OURS, *RIVALS] if options.only == "all" else options.only.split(",")
    members, steps, cache = options.members, options.steps, folder / "cache"
    cache.mkdir()
    found: dict[str, list[Run]] = {}
    for number in range(options.repeats + 1):
        first = number == 0
        if OURS in names:
            run = ours(members, steps, folder / f"ours{number}", cache)
            found.setdefault(FIRST if first else OURS, []).append(run)
            print(OURS, run, file=sys.stderr, flush=True)
        data = folder / f"ours{number}" / "run" / "texts"
        if not data.exists():
            founded(members, steps, folder / f"ours{number}")
        for other in others if not first else ():
            run = theirs(other, members, steps, data)
            found.setdefault(other.name, []).append(run)
            print(other.name, run, file=sys.stderr, flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="all", help="tapestry, hivemind, p2pfl, flower")
    parser.add_argument("--quick", action="store_true", help="two members of ours, once")
    parser.add_argument("--out", type=Path, help="folder for the members; else a temporary one")
    add_options(parser)
    options = parser.parse_args()
    if options.quick:
        options.members, options.repeats, options.only = 2, 1, OURS
    wanted = RIVALS if options.only == "all" else options.only.split(",")
    asked = [rival(name) for name in RIVALS if name in wanted]
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        found = measure(options, out, [other for other in asked if other.python])
    notes = [
        f"{options.members} members, {options.steps} steps a round; medians of {options.repeats}"
        " starts; the baseline column is hivemind's",
        *(other.note for other in asked),
    ]
    return finish("endtoend", list(rows(found)), notes, options)


if __name__ == "__main__":
    sys.exit(main())
