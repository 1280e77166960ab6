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
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benches.big_members import KINDS, BigMember, Peaks, Wanted, prepare
from benches.performance import Row, add_options, finish
from tapestry_p2p.daemon.ask import ask

ANONYMOUS, MAPPED = 36.0, 56.0  # bytes per parameter and member, at most
ALONE_GIB = 12.0  # a node with a stand-in for its trainer
SMALL = 1 << 18
TIMEOUT_S = 7200.0
LOOK_S = 0.2
EQUAL_TRIES = 30


# ---- a run ---------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What one network took, and did."""

    peaks: Peaks
    seconds: float
    rounds: int
    equal: bool
    restarts: int


def run(wanted: Wanted, options: argparse.Namespace) -> Seen:
    """Train one network to its last round."""
    folder = Path(tempfile.mkdtemp(prefix="tapestry-big-", dir=options.folder))
    members: list[BigMember] = []
    try:
        members = prepare(folder, wanted)
        peaks, over = Peaks(), threading.Event()
        for member in members:
            member.start()
        watch = threading.Thread(target=_watch, args=(peaks, members, over))
        watch.start()
        try:
            return _train(wanted, members, peaks)
        finally:
            over.set()
            watch.join()
    finally:
        for member in members:
            member.end()
        if options.keep:
            sys.stderr.write(f"{folder}\n")
        else:
            shutil.rmtree(folder)


def _watch(peaks: Peaks, members: list[BigMember], over: threading.Event) -> None:
    while not over.wait(LOOK_S):
        peaks.look(members)


def _train(wanted: Wanted, members: list[BigMember], peaks: Peaks) -> Seen:
    _until(members, "start", lambda m: m.status.get("following", 0) >= len(members) - 1)
    for member in members:
        ask(member.home.paths.control_socket, {"do": "go"}, 60.0)
    began = time.monotonic()
    _until(members, "finish", lambda m: bool(m.status.get("finished")))
    seconds = time.monotonic() - began
    equal = _equal(members)
    rounds = min(int(m.status.get("round", 0)) for m in members)
    restarts = sum(int(m.status["trainer"]["restarts"]) for m in members)
    return Seen(peaks, seconds, rounds, equal, restarts)


def _until(members: list[BigMember], what: str, done: Callable[[BigMember], bool]) -> None:
    """Until it is so for every member. TimeoutError, or RuntimeError if one ends."""
    deadline = time.monotonic() + TIMEOUT_S
    while not all(map(done, members)):
        for member in members:
            member.look()
            if member.ended:
                log = (member.home.paths.config / "node.log").read_text()
                raise RuntimeError(f"member {member.home.name} ended: {log[-2000:]}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"not all did {what}")
        time.sleep(LOOK_S)


def _equal(members: list[BigMember]) -> bool:
    """Whether all hold each copy with the same bits, by Merkle roots computed from memory."""
    for _ in range(EQUAL_TRIES):
        held = [ask(m.home.paths.control_socket, {"do": "copies"}, 600.0) for m in members]
        owners = {m.home.peer_id: told["own"] for m, told in zip(members, held, strict=True)}
        if all(
            told["followed"].get(author) == own
            for author, own in owners.items()
            for m, told in zip(members, held, strict=True)
            if m.home.peer_id != author
        ):
            return True  # fmt: skip
        time.sleep(2.0)
    return False


def rows_of(wanted: Wanted, seen: Seen, small: Seen) -> list[Row]:
    """Bytes per parameter, by kind; and whether the rounds were done."""

    def each(name: str) -> float:
        more = seen.peaks.most.get(name, 0.0) - small.peaks.most.get(name, 0.0)
        return max(0.0, more) / (wanted.parameters - SMALL)

    unit = "bytes per parameter"
    found = [
        Row("anonymous and shared memory of a member", each("anonymous and shared"), unit,
            bound=ANONYMOUS),
        Row("the same with mapped files", each("with mapped files"), unit, bound=MAPPED),
        Row("rounds done by every member", seen.rounds, better="more", bound=wanted.rounds),
        Row("members whose copies differ at the end", float(not seen.equal), bound=0),
        Row("trainers that died", seen.restarts, bound=0),
    ]  # fmt: skip
    if not wanted.real:
        most = seen.peaks.most["with mapped files"] / 2**30
        found.append(Row("all that a node takes", most, "GiB", bound=ALONE_GIB))
    for process in ("node",) if not wanted.real else ("node", "trainer"):
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
    parser.add_argument("--stand-in", action="store_true", help="nodes alone: nobody trains")
    parser.add_argument("--round-s", type=float, default=5.0, help="of a stand-in")
    parser.add_argument("--folder", help="where the members' files go")
    parser.add_argument("--keep", action="store_true", help="leave those files there")
    parser.add_argument("--quick", action="store_true", help="2 members, 2^20 parameters")
    add_options(parser)
    options = parser.parse_args()
    if options.quick:
        options.parameters, options.members, options.rounds = 1 << 20, 2, 2
        options.round_s = 1.0
    return options


def main() -> int:
    """Run it; the exit code."""
    options = arguments()
    wanted = Wanted(
        options.parameters, options.members, options.inner_steps, options.rounds,
        options.round_s if options.stand_in else 0.0, options.codec, options.speed,
        real=0 if options.stand_in else options.members,
    )  # fmt: skip
    small = run(replace(wanted, parameters=SMALL), options)
    seen = run(wanted, options)
    notes = [
        f"{options.members} members, {options.parameters} parameters, {options.codec}, 1 thread"
        f" each; memory looked at {1 / LOOK_S:.0f} times a second, the most of any member",
    ]
    if options.stand_in:
        notes.append("nodes with stand-ins for their trainers, which are not counted")
    return finish(
        "big-alone" if options.stand_in else "big", rows_of(wanted, seen, small), notes, options
    )


if __name__ == "__main__":
    sys.exit(main())
