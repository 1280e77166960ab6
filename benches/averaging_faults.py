"""What goes wrong in an averaging, played on ours and on hivemind alike: for benches/averaging.py.

Healthy rounds; a peer killed, or stopped, in the middle of one; NaN and 1e30 handed over by one.
A wrong success is a member that says it is done while its vector is no mean of what was handed
over. Ours may mix a peer that died with its new vector, its last one, or not at all, each member
as it saw it; hivemind promises one mean for all, so who differs from the others is wrong. How long
the others took is bounded by one ping deadline. All with fp32: then every difference is a fault.
"""

import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benches.averaging_member import Vector
from benches.averaging_world import Cluster, Hivemind, Job, Ours
from benches.performance import Row
from benches.rivals import Rival
from tapestry_p2p.daemon.transport import PING_DEADLINE_S

EXACT = 1e-4  # of a step: what float32 may differ by
NEAR = 3.0  # steps: nobody honest moves another farther
PATIENCE_S = 60.0
CASES = {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}
POISON = {"NaN": float("nan"), "1e30": 1e30}

Make = Callable[[Job, Path], Cluster]
Vectors = dict[int, Vector]


@dataclass(frozen=True)
class Size:
    """How much is played."""

    healthy_members: int = 8
    healthy_rounds: int = 20
    members: int = 4
    parameters: int = 1_000_000
    small: int = 100_000
    times: int = 3


QUICK = Size(3, 2, 3, 20_000, 20_000, 1)


def faults(other: Rival, size: Size, folder: Path) -> Iterator[Row]:
    """All cases, ours first."""
    makers: list[Make] = [Ours]
    if other.python:
        makers.append(lambda job, where: Hivemind(job, where, other.python))
    said = f"n={size.healthy_members}, {size.healthy_rounds} healthy rounds"
    yield _wrong(said, [healthy(m, size, folder / f"healthy{i}") for i, m in enumerate(makers)])
    for name, number in CASES.items():
        found = [
            interrupted(make, number, size, folder / f"{name}{at}")
            for at, make in enumerate(makers)
        ]
        said = f"a peer {name} in the middle, {size.times} times"
        waits = [max(wait for wait, _ in runs) for runs in found]
        yield _row(f"{said}: the others waited", waits, "s", PING_DEADLINE_S)
        yield _wrong(said, [sum(wrong for _, wrong in runs) for runs in found])
    for name, value in POISON.items():
        wrong = [poisoned(m, value, size, folder / f"{name}{i}") for i, m in enumerate(makers)]
        yield _wrong(f"{name} handed over by one", wrong)


def _wrong(said: str, found: Sequence[float]) -> Row:
    return _row(f"{said}: wrong successes", found, "", 0)


def _row(said: str, found: Sequence[float], unit: str, bound: float) -> Row:
    return Row(said, found[0], unit, found[1] if len(found) > 1 else None, bound)


def apart(one: Any, other: Any, job: Job) -> float:
    """Their distance, in steps; infinite if one is not finite."""
    difference = (one.astype(np.float64) - other) / (job.scale * job.parameters**0.5)
    length = float(np.linalg.norm(difference))
    return length if np.isfinite(length) else float("inf")


# ---- nothing goes wrong --------------------------------------------------------------------------


def healthy(make: Make, size: Size, folder: Path) -> int:
    """How often a member says that it is done, and holds no mean of those whom it names."""
    job, wrong = Job(size.healthy_members, size.small, "fp32"), 0
    with make(job, folder) as cluster:
        for _ in range(size.healthy_rounds):
            cluster.next_round()
            done = cluster.hand(keep=True)
            handed, now = cluster.vectors()
            for member in (m for m in now if done.ok.get(m, False)):
                named = [handed[m] for m in done.among[member] if m in handed]
                mean = np.mean(named, axis=0, dtype=np.float64) if named else 0.0
                wrong += apart(now[member], mean, job) > EXACT
    return wrong


# ---- a peer is killed, or stopped ----------------------------------------------------------------


def interrupted(make: Make, number: int, size: Size, folder: Path) -> list[tuple[float, int]]:
    """For each time: seconds until all others are done with the round, and wrong successes."""
    chance, found = random.Random(number), []
    for time_ in range(size.times):
        job = Job(size.members, size.parameters, "fp32")
        with make(job, folder / str(time_)) as cluster:
            cluster.next_round()
            usual = cluster.hand(keep=True).wall_s
            before, _ = cluster.vectors()
            victim = job.members - 1
            cluster.next_round()
            cluster.expendable = {victim}
            done = cluster.hand(
                PATIENCE_S,
                keep=True,
                meanwhile=(
                    chance.uniform(0.1, 0.8) * usual,
                    partial(_hit, cluster, victim, number),
                ),
            )
            handed, now = cluster.vectors()
            finished = [m for m in sorted(cluster.living) if done.ok.get(m, False)]
            if isinstance(cluster, Ours):
                ends = [means(m, victim, handed, before[victim], cluster) for m in finished]
            else:
                ends = [[now[finished[0]]] for _ in finished]
            wrong = sum(
                min(apart(now[m], end, job) for end in possible) > EXACT
                for m, possible in zip(finished, ends, strict=True)
            )
            found.append((PATIENCE_S if done.late else done.wall_s, wrong))
    return found


def _hit(cluster: Cluster, victim: int, number: int) -> None:
    """The signal goes to all of a member's processes; nobody waits for it from now on."""
    for pid in cluster.pids(victim):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    cluster.living.discard(victim)


def means(
    member: int, victim: int, handed: Vectors, last: Vector, cluster: Cluster
) -> list[Vector]:
    """Every mean that a survivor may hold. An absent neighbour's weight stays with itself.

    ``last``: the victim's vector of the round before. Its newest is the same step further on.
    """
    own, n = handed[member].astype(np.float64), cluster.job.members
    others = [handed[m].astype(np.float64) - own for m in handed if m not in (member, victim)]
    pull = np.sum(others, axis=0)
    newest = cluster.handed_by(victim)
    found = [own + pull / n, own + pull / (n - 1), own + (pull + (last - own)) / n]
    if newest is not None:
        found.append(own + (pull + (newest - own)) / n)
    return found


# ---- one hands over what is no vector ------------------------------------------------------------


def poisoned(make: Make, value: float, size: Size, folder: Path) -> int:
    """How many others say that they are done, and hold something far from any honest vector."""
    job = Job(size.members, size.small, "fp32")
    with make(job, folder) as cluster:
        cluster.next_round()
        cluster.hand()
        victim = job.members - 1
        cluster.next_round({victim: value})
        cluster.expendable = {victim}
        cluster.hand(PATIENCE_S, keep=True)
        cluster.living.discard(victim)
        handed, now = cluster.vectors()
    return sum(apart(now[m], handed[m], job) > NEAR for m in now)
