"""One averaging by the network's members, beside hivemind's: time, CPU, bytes, memory, exactness.

    python benches/averaging.py [--members 2,4,8] [--parameters 1M,10M] [--codecs 2bit,fp32]
                                [--rounds 8] [--cases speed,idle,faults] [--json] [--write-docs]

Members are `tapestry run --apart`, real nodes over real libp2p on loopback; in place of a trainer a
stand-in hands vectors over through the node's own link. A round begins when all hand over at once
and ends when every member's vector is mixed into every member's. Beside it, turn by turn in the
same minutes: hivemind's DecentralizedAverager on the same vectors (in an environment of its own,
made at the first run; without it that column is empty). CPU is of all processes of a member. Bytes
are those on the loopback interface of each cluster's own network namespace (needs root, or user
namespaces), per member; all of one kind is counted, headers too. Medians over the rounds.

The error is the distance to the exact mean by the rule of what was handed over, as a share of the
length of one step. 2 bits lose a part of each step, which later rounds bring; fp32 loses nothing.

--cases faults (averaging_faults.py): healthy rounds, a peer killed or stopped in the middle of one,
NaN and 1e30 handed over; the same is played on hivemind.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from benches.averaging_faults import QUICK, Size, apart, faults
from benches.averaging_member import Vector
from benches.averaging_world import Cluster, Hivemind, Job, Ours, Round
from benches.performance import Row, add_options, finish
from benches.processes import cpu_s, rss_mb
from benches.rivals import Rival, rival
from tapestry_p2p.mix.rules import mix

WARM = 2  # rounds before those that count
TRIES = 3  # until a round went well whose error is looked at
IDLE_S = 30.0
IDLE_PARAMETERS = 10_000
IDLE_RSS_MB, IDLE_CORE = 120.0, 0.2
ERROR_MAX = {"fp32": 1e-5}  # of a step; float32 sums in another order
SAYS = {"2bit": "2 bit", "fp32": "fp32"}


def size(text: str) -> int:
    """`10M` as a number."""
    unit = {"k": 1_000, "M": 1_000_000}.get(text[-1], 1)
    return int(float(text.rstrip("kM")) * unit)


def tolerated(members: int) -> int:
    """f, as a testnet chooses it."""
    return (members - 1) // 5


# ---- speed ---------------------------------------------------------------------------------------


def speed(job: Job, rounds: int, other: Rival, folder: Path) -> Iterator[Row]:
    """Ours and hivemind, a round each in turn."""
    with ExitStack() as stack:
        seats = [Seat(stack, lambda n: Ours(job, folder / f"ours{n}"))]
        if other.python:
            path = other.python
            seats.append(Seat(stack, lambda n: Hivemind(job, folder / f"hivemind{n}", path)))
        for number in range(WARM + rounds):
            for seat in seats:
                done = seat.play()
                if number >= WARM:
                    seat.seen.append(done)
                print(f"{seat.cluster.name} {job} {done}", file=sys.stderr, flush=True)
        errors = [_error(seat, job) for seat in seats]
        memory = [statistics.mean(seat.cluster.pss_mb()) for seat in seats]
    yield from _speed_rows(job, [seat.seen for seat in seats], errors, memory)


class Seat:
    """A cluster, and a new one in its place when it hangs: its late answers would spoil a round."""

    def __init__(self, stack: ExitStack, make: Callable[[int], Cluster]) -> None:
        self._stack, self._make, self._made = stack, make, 0
        self.seen: list[Round] = []
        self.cluster = stack.enter_context(make(0))

    def play(self, keep: bool = False) -> Round:
        """One round."""
        self.cluster.next_round()
        done = self.cluster.hand(keep=keep)
        if done.late:
            self.cluster.__exit__()
            self._made += 1
            self.cluster = self._stack.enter_context(self._make(self._made))
        return done


def _error(seat: Seat, job: Job) -> float | None:
    """`error_of` of the first round that all say went well; None if none does."""
    for _ in range(TRIES):
        done = seat.play(keep=True)
        if not done.late and all(done.ok.values()):
            return error_of(seat.cluster, job)
    return None


def _speed_rows(
    job: Job,
    found: Sequence[Sequence[Round]],
    errors: Sequence[float | None],
    memory: Sequence[float],
) -> Iterator[Row]:
    n = job.members
    said = f"n={n}, {job.parameters / 1e6:g}M, {SAYS[job.codec]}"
    half = 0.5 if job.codec == "2bit" else 1.0
    few = job.codec == "2bit"

    def row(what: str, unit: str, values: Sequence[float | None], share: float | None) -> Row:
        ours, baseline = values[0], values[1] if len(values) > 1 else None
        bound = None if share is None or baseline is None else share * baseline
        return Row(f"{said}: {what}", ours, unit, baseline, bound)

    walls = [statistics.median(r.wall_s for r in seen) for seen in found]
    cpus = [statistics.mean(r.cpu_s for r in seen) / n for seen in found]
    wires = [_wire(seen, n) for seen in found]
    yield row("wall", "s", walls, half)
    yield row("CPU a member", "s", cpus, 1.0 if few else None)
    yield row("on the wire, a member", "MB", wires, 1 / 7 if few and n == 4 else None)
    yield row("memory (PSS) of node and stand-in", "MB", memory, None)
    bound = ERROR_MAX.get(job.codec)
    yield Row(f"{said}: error", errors[0], "of a step", [*errors, None][1], bound)
    late = [sum(len(r.late) for r in seen) for seen in found]
    yield Row(f"{said}: members late in {len(found[0])} rounds", late[0], "", [*late, None][1], 0)


def _wire(seen: Sequence[Round], members: int) -> float | None:
    carried = [r.wire_bytes for r in seen if r.wire_bytes is not None]
    return statistics.median(carried) / members / 1e6 if carried else None


def error_of(cluster: Cluster, job: Job) -> float:
    """The largest distance of a member to its exact mean, of a step's length."""
    handed, now = cluster.vectors()
    tolerate = job.tolerate if isinstance(cluster, Ours) else 0
    return max(apart(now[m], exact(m, handed, tolerate), job) for m in now)


def exact(member: int, handed: dict[int, Vector], tolerate: int) -> Vector:
    """The rule's mean as that member sees it, of the vectors themselves: float32[d]."""
    others = [vector for other, vector in handed.items() if other != member]
    weights = np.full(len(others), 1 / len(handed))
    pull, _ = mix("cs_plus", handed[member], others, weights, f=tolerate, age=1)
    return handed[member] + pull


# ---- at rest -------------------------------------------------------------------------------------


def idle(other: Rival, seconds: float, folder: Path) -> Iterator[Row]:
    """Four members at rest, after three rounds of a small model."""
    job = Job(4, IDLE_PARAMETERS)
    with ExitStack() as stack:
        ours = Ours(job, folder / "ours")
        stack.enter_context(ours)
        clusters: list[Cluster] = [ours]
        if other.python:
            clusters.append(stack.enter_context(Hivemind(job, folder / "hivemind", other.python)))
        for _ in range(3):
            for cluster in clusters:
                cluster.next_round()
                cluster.hand()
        nodes = [node.pid for node in ours.nodes]
        before = [sum(map(cpu_s, nodes)), *(cluster.cpu_s() for cluster in clusters[1:])]
        began = time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        after = [sum(map(cpu_s, nodes)), *(cluster.cpu_s() for cluster in clusters[1:])]
        shares = [100 * (b - a) / took / 4 for a, b in zip(before, after, strict=True)]
        memory = [statistics.mean(cluster.pss_mb()) for cluster in clusters]
        resident = max(map(rss_mb, nodes))
    yield Row("node at rest: RSS", resident, "MB", None, IDLE_RSS_MB)
    yield Row("member at rest: PSS", memory[0], "MB", [*memory, None][1])
    yield Row("node at rest: of a core", shares[0], "%", [*shares, None][1], IDLE_CORE)


# ---- all -----------------------------------------------------------------------------------------


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--members", default="2,4,8")
    parser.add_argument("--parameters", default="1M,10M")
    parser.add_argument("--codecs", default="2bit,fp32")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--cases", default="speed,idle,faults")
    parser.add_argument("--alone", action="store_true", help="without hivemind")
    parser.add_argument("--quick", action="store_true", help="seconds: does it run?")
    parser.add_argument("--out", type=Path, help="folder for the members; else a temporary one")
    add_options(parser)
    return parser.parse_args()


def main() -> int:
    options = parse()
    if options.quick:
        options.members, options.parameters, options.rounds = "2", "20k", 2
    other = Rival("hivemind", "", "not asked for") if options.alone else rival("hivemind")
    cases = options.cases.split(",")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        for n in map(int, options.members.split(",")) if "speed" in cases else ():
            for text in options.parameters.split(","):
                for codec in options.codecs.split(","):
                    job = Job(n, size(text), codec, tolerated(n))
                    folder = out / f"{n}-{text}-{codec}"
                    rows += speed(job, options.rounds, other, folder)
        if "idle" in cases:
            rows += idle(other, 3.0 if options.quick else IDLE_S, out / "idle")
        if "faults" in cases:
            rows += faults(other, QUICK if options.quick else Size(), out / "faults")
    notes = [other.note, f"{options.rounds} rounds each; f = floor((n - 1) / 5)"]
    return finish("averaging", rows, notes, options)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
