"""A simulated crowd of any size with churn, and what one member of it takes: bytes, memory, CPU.

The production protocol on the simulator's wires, signatures replaced by hashes, vectors of 256
parameters that nobody trains; links of 16, invited by three members each. In time lapse: digests,
rounds and ticks ten times rarer than a daemon's, so that churn of 10 % an hour has time to happen.
Knows one crowd; many.py compares them.
"""

import copy
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from random import Random
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benches.month import _attributes, _is_ours
from tapestry_p2p.gossip import events as ev
from tapestry_p2p.gossip.messages import decode_sync
from tapestry_p2p.gossip.protocol import Protocol
from tapestry_p2p.sim.cluster import Cluster, Plan
from tapestry_p2p.sim.member import Member
from tapestry_p2p.sim.rounds import Pace

LINKS, INVITERS = 16, 3
LAPSE = 10  # how many times rarer everything is than in a daemon
DIGEST_S, TICK_S, ROUND_S = 15.0 * LAPSE, 0.5 * LAPSE, 30.0 * LAPSE
CHURN_AN_HOUR = 0.1
SETTLE_S, WINDOW_S = 450.0, 600.0
LOOKED_AT = 8  # members whose events are kept, to be replayed
WEIGHED = 24  # members whose tables are measured
REPLAYS = 3
SWAPS = 10  # for each link, to make a graph random
NEAR = 0.1  # of the mean: so close everybody must come
HAPPENED = ("published", "applied", "connected", "joined_late", "left", "crashed")


@dataclass(frozen=True)
class Crowd:
    """What one size came to. Rates are one member's in the window, per second of its time."""

    members: int
    seed: int
    bytes_s: float
    bytes_most: float  # of the member that sent most
    memory_kb: float  # all tables of a protocol, mean of some members
    cpu_us: float  # median of some members' events, replayed alone
    links: float  # among those who stayed, as the next three
    links_least: int
    rounds: int  # of plain averaging until all are near the mean of a vector that one had
    rounds_regular: int  # the same on a random graph in which everybody has all its links
    mu2: float  # second smallest eigenvalue of the links' Laplacian
    alone: int  # of all that live: no path of links leads to them
    listed: float  # members in a member's table
    took_s: float  # of this machine
    happened: dict[str, int]

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def run(members: int, seed: int, settle_s: float = SETTLE_S, window_s: float = WINDOW_S) -> Crowd:
    """Start a crowd, let it settle, then measure while a tenth an hour leaves and others come."""
    began = time.process_time()
    random = Random(seed)
    goings, late = _churn(members, settle_s, window_s, random)
    plan = Plan(
        seed=seed, honest=members + len(late), d=256, links=LINKS, inviters=INVITERS, ring=8,
        tick_s=TICK_S, late=late, pace=Pace(round_s=ROUND_S, mixes=False),
    )  # fmt: skip
    cluster = Cluster(plan)
    for member in cluster.members:
        _in_lapse(member)
    for place, (second, number) in enumerate(goings):
        member = cluster.members[number]
        cluster.at(second, member.crash if place % 2 else member.leave)
    cluster.run(settle_s)
    gone = {number for _, number in goings}
    staying = [m for n, m in enumerate(cluster.members[:members]) if n not in gone]
    tapes = [Tape(member) for member in random.sample(staying, min(LOOKED_AT, len(staying)))]
    before = [cluster.network.carried(member.key) for member in staying]
    cluster.run(window_s)
    sent = [cluster.network.carried(m.key) - b for m, b in zip(staying, before, strict=True)]
    weighed = random.sample(staying, min(WEIGHED, len(staying)))
    living = [member for member in cluster.members if member.is_up()]
    graph, settled = links(living), links(staying)
    counts = cluster.world.counts
    return Crowd(
        members=members,
        seed=seed,
        bytes_s=mean(sent) / window_s,
        bytes_most=max(sent) / window_s,
        memory_kb=mean(held_bytes(member.protocol) for member in weighed) / 1000,
        cpu_us=1e6 * sorted(tape.cpu_s() for tape in tapes)[len(tapes) // 2] / window_s,
        links=mean(len(row) for row in settled),
        links_least=min(len(row) for row in settled),
        alone=len(living) - reached(graph),
        listed=mean(len(_protocol(member).members()) for member in weighed),
        rounds=rounds_to_mean(settled),
        rounds_regular=rounds_to_mean(regular(len(settled), seed)),
        mu2=second_eigenvalue(settled),
        took_s=time.process_time() - began,
        happened={what: counts[what] for what in HAPPENED},
    )


def _churn(
    members: int, settle_s: float, window_s: float, random: Random
) -> tuple[list[tuple[float, int]], dict[int, float]]:
    """Who goes when, every other one without a word, and when somebody new takes the place."""
    count = max(2, round(members * CHURN_AN_HOUR * window_s / 3600.0))
    numbers = random.sample(range(members), count)
    goings = [(settle_s + window_s * random.random(), number) for number in numbers]
    late = {members + n: second + ROUND_S / 10 for n, (second, _) in enumerate(goings)}
    return goings, late


def _in_lapse(member: Member) -> None:
    """The rates of the time lapse, also for a protocol that has been made already."""
    member.settings = replace(member.settings, digest_every_s=DIGEST_S)
    if member.protocol is not None:
        state = member.protocol._state
        state.settings = member.protocol.settings = member.settings
        state.links._settings = member.settings


# ---- one member ----------------------------------------------------------------------------------


class Tape:
    """A member's protocol as it is now, and every event that it takes in from now on."""

    def __init__(self, member: Member) -> None:
        self._events: list[ev.Event] = []
        protocol = _protocol(member)
        self._before = copy.deepcopy(protocol)
        step = protocol.step

        def noted(event: ev.Event) -> Any:
            self._events.append(event)
            return step(event)

        protocol.__dict__["step"] = noted

    def cpu_s(self) -> float:
        """CPU seconds of those events alone, frames parsed anew: the least of some replays."""
        least = math.inf
        for _ in range(REPLAYS):
            protocol = copy.deepcopy(self._before)
            protocol._inbox._parse = decode_sync
            began = time.process_time()
            for event in self._events:
                protocol.step(event)
            least = min(least, time.process_time() - began)
        return least


def _protocol(member: Member) -> Protocol:
    assert member.protocol is not None
    return member.protocol


def held_bytes(root: object) -> int:
    """Bytes of everything that an object holds, shared headers too; no code, no settings."""
    seen: set[int] = set()
    total, todo = 0, [root]
    while todo:
        thing = todo.pop()
        if id(thing) in seen or thing is None or isinstance(thing, type):
            continue
        seen.add(id(thing))
        total += sys.getsizeof(thing)
        todo += _inside(thing)
    return total


def _inside(thing: object) -> Iterator[object]:
    if isinstance(thing, dict):
        yield from thing.keys()
        yield from thing.values()
    elif isinstance(thing, list | tuple | set | frozenset):
        yield from thing
    elif _is_ours(thing) and type(thing).__name__ != "Settings":
        yield from (value for _, value in _attributes(thing) if not callable(value))


# ---- the graph -----------------------------------------------------------------------------------


def links(living: list[Member]) -> list[list[int]]:
    """For each living member the others that it follows and that follow it."""
    rows = {member.key: n for n, member in enumerate(living)}
    told = [{rows[k] for k in _protocol(m).followed() if k in rows} for m in living]
    return [[other for other in sorted(found) if n in told[other]] for n, found in enumerate(told)]


def reached(graph: list[list[int]]) -> int:
    """How many members a path leads to from the first one."""
    seen, todo = {0}, [0]
    while todo:
        news = [other for other in graph[todo.pop()] if other not in seen]
        seen.update(news)
        todo += news
    return len(seen)


def averaged(graph: list[list[int]], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """One round in which each takes 1/(k+1) of each neighbour, float64[n]."""
    most = max(map(len, graph))
    padded = np.array([row + [n] * (most - len(row)) for n, row in enumerate(graph)])
    mixed: NDArray[np.float64] = x + (x[padded] - x[:, None]).sum(axis=1) / (LINKS + 1)
    return mixed


def rounds_to_mean(graph: list[list[int]]) -> int:
    """Rounds until what one member had alone is within a tenth of its mean everywhere."""
    x = np.zeros(len(graph))
    x[0] = len(graph)
    for round_ in range(1, 1000):
        x = averaged(graph, x)
        if np.abs(x - 1.0).max() <= NEAR:
            return round_
    return 1000


def regular(members: int, seed: int) -> list[list[int]]:
    """A random graph with LINKS links each: a circulant, its links swapped in pairs (Taylor 1981).

    As sim/graphs.py makes one, without a matrix of members times members.
    """
    random, half = Random(seed), range(1, LINKS // 2 + 1)
    edges = [(n, (n + step) % members) for n in range(members) for step in half]
    there = {frozenset(edge) for edge in edges}
    for _ in range(SWAPS * len(edges)):
        i, j = random.randrange(len(edges)), random.randrange(len(edges))
        (a, b), (c, d) = edges[i], random.choice((edges[j], edges[j][::-1]))
        new = {frozenset((a, d)), frozenset((c, b))}
        if len({a, b, c, d}) < 4 or new & there:
            continue
        there -= {frozenset((a, b)), frozenset((c, d))}
        there |= new
        edges[i], edges[j] = (a, d), (c, b)
    graph: list[list[int]] = [[] for _ in range(members)]
    for one, other in edges:
        graph[one].append(other)
        graph[other].append(one)
    return [sorted(row) for row in graph]


def second_eigenvalue(graph: list[list[int]]) -> float:
    """mu2 in unit weights, by power iteration off the constant vector."""
    x = np.random.default_rng(0).standard_normal(len(graph))
    shift = 2.0 * max(map(len, graph))
    value = 0.0
    for _ in range(300):
        x -= x.mean()
        x /= np.linalg.norm(x)
        laplacian = (LINKS + 1) * (x - averaged(graph, x))
        value = float(x @ laplacian)
        x = shift * x - laplacian
    return value
