"""Does training wait for anybody? One real member, its neighbours publish as often as it does.

    python benches/overlap.py [--parameters 10000000] [--neighbours 4] [--round-s 60] [--rounds 5]
                              [--quick] [--json] [--write-docs]

The member is `tapestry run` with its trainer, on all cores of this machine, at rounds of the wanted
length; its neighbours are real nodes with stand-ins for their trainers, who publish and mix in the
same rhythm. trainer_busy_share is the member's own word (`tapestry status --json`): of the time of
its rounds, that in which inner steps were computed; the rest went into handing vectors over, adding
corrections, saving. CPU times are the kernel's, of the rounds after the first. Exit code 1 if a
bound is missed. The neighbours' nodes are on the same cores: what they take is said beside it.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benches.big_members import BigMember, Wanted, prepare
from benches.performance import Row, add_options, finish
from tapestry_p2p.daemon.ask import ask

BUSY, NODE = 0.99, 0.05
POLL_S = 0.5
START_S = 900.0


@dataclass(frozen=True)
class Look:
    """What the member and the others had used at one time."""

    at: float
    node_s: float
    trainer_s: float
    others_s: float
    busy_s: float
    seconds: float
    round: int


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and its threads; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def look(members: list[BigMember]) -> Look:
    """Now."""
    first, others = members[0], members[1:]
    first.look()
    trainer = first.status.get("trainer", {})
    pids = [m.process.pid for m in others if m.process] + [
        m.stand_in.pid for m in others if m.stand_in
    ]
    return Look(
        time.monotonic(),
        cpu_s(first.process.pid) if first.process else 0.0,
        cpu_s(first.trainer_pid),
        sum(map(cpu_s, pids)),
        float(trainer.get("busy_s", 0.0)),
        float(trainer.get("seconds", 0.0)),
        int(first.status.get("round", 0)),
    )


def measure(members: list[BigMember], rounds: int, neighbours: int) -> tuple[Look, Look]:
    """From the end of the first whole round on, over so many; the first round has the compiling."""
    for member in members:
        member.start()
    deadline = time.monotonic() + START_S
    while any(m.status.get("following", 0) < neighbours for m in members):
        for member in members:
            member.look()
        _need(members, deadline, "meet")
    for member in members:
        ask(member.home.paths.control_socket, {"do": "go"}, 60.0)
    first = _after(members, 1, deadline)
    return first, _after(members, first.round + rounds, float("inf"))


def _after(members: list[BigMember], round_: int, deadline: float) -> Look:
    """The look at which the member had just done that round."""
    while (found := look(members)).round < round_:
        _need(members, deadline, f"do round {round_}")
    return found


def _need(members: list[BigMember], deadline: float, what: str) -> None:
    for member in members:
        if member.ended:
            text = (member.home.paths.config / "node.log").read_text()
            raise RuntimeError(f"member {member.home.name} ended: {text[-2000:]}")
    if time.monotonic() > deadline:
        raise TimeoutError(f"the members did not {what} in time")
    time.sleep(POLL_S)


def rows_of(first: Look, last: Look) -> list[Row]:
    """The figures between two looks."""
    wall = last.at - first.at
    seconds = last.seconds - first.seconds
    busy = (last.busy_s - first.busy_s) / seconds if seconds else None
    rounds = last.round - first.round
    cores = len(os.sched_getaffinity(0))
    used = [(last.node_s - first.node_s), (last.trainer_s - first.trainer_s)]
    others = last.others_s - first.others_s
    return [
        Row("trainer_busy_share", busy, bound=BUSY, better="more"),
        Row("the node's CPU time, share of a core", used[0] / wall, bound=NODE),
        Row("the node's CPU time, a round", used[0] / rounds, "s", better="neither"),
        Row("the trainer's CPU time, share of all cores", used[1] / wall / cores, better="neither"),
        Row("the neighbours' CPU time, share of all cores", others / wall / cores,
            better="neither"),
        Row("a round", wall / rounds, "s", better="neither"),
    ]  # fmt: skip


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parameters", type=int, default=10_000_000)
    parser.add_argument("--neighbours", type=int, default=4)
    parser.add_argument("--round-s", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=5, help="that are measured")
    parser.add_argument("--inner-steps", type=int, default=200, help="of the network; see round_s")
    parser.add_argument("--work", type=int, default=1, help="passes over the model in a step")
    parser.add_argument("--folder", help="where the members' files go")
    parser.add_argument("--quick", action="store_true", help="2^20 parameters, rounds of 2 s")
    add_options(parser)
    options = parser.parse_args()
    if options.quick:
        options.parameters, options.neighbours, options.rounds = 1 << 20, 1, 2
        options.round_s, options.inner_steps = 2.0, 100
    return options


def main() -> int:
    """Run it; the exit code."""
    options = arguments()
    cores = len(os.sched_getaffinity(0))
    wanted = Wanted(
        options.parameters, options.neighbours + 1, options.inner_steps, round_s=options.round_s,
        threads=cores, real=1, work=options.work,
    )  # fmt: skip
    folder = Path(tempfile.mkdtemp(prefix="tapestry-overlap-", dir=options.folder))
    members: list[BigMember] = []
    try:
        members = prepare(folder, wanted)
        first, last = measure(members, options.rounds, options.neighbours)
    finally:
        for member in members:
            member.end()
        shutil.rmtree(folder)
    notes = [
        f"{options.parameters} parameters, {options.neighbours} neighbours with stand-ins for"
        f" their trainers, rounds of {options.round_s:g} s wanted, {options.rounds} measured",
    ]
    return finish("overlap", rows_of(first, last), notes, options)


if __name__ == "__main__":
    sys.exit(main())
