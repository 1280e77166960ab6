"""From the options of `simulate` to a plan, or one line that says which inequality they break."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tapestry_p2p.errors import USAGE, TapestryError
from tapestry_p2p.mix.codec import CODECS, gamma_max
from tapestry_p2p.mix.loom import LoomSettings
from tapestry_p2p.mix.promise import promise, promise_sparse, proven
from tapestry_p2p.mix.rules import check_rule
from tapestry_p2p.mix.topology import BEST_EFFORT, CERTIFIED
from tapestry_p2p.sim.attacks import ATTACKS, PLAYABLE
from tapestry_p2p.sim.average import topology_of
from tapestry_p2p.sim.cluster import Plan
from tapestry_p2p.sim.experiment import Trial
from tapestry_p2p.sim.graphs import Graph
from tapestry_p2p.sim.network import Weather
from tapestry_p2p.sim.rounds import Pace
from tapestry_p2p.sim.villains import DEEDS

WORLDS = ("quadratics", "protocol", "digits", "fashion", "language")
PICTURES = ("digits", "fashion")
TASKS = (*WORLDS, "average", "chaos")
DEFAULT_ROUNDS = 60
PROTOCOL_D = 16  # parameters where only the protocol is of interest


@dataclass(frozen=True)
class Asked:
    """The options, as typed; None where one was not."""

    task: str
    members: int
    rounds: int | None
    topology: str
    attack: str | None
    byzantine: int
    tolerate: int | None
    rule: str
    codec: str
    speeds: str
    loss: float
    churn: float
    seed: int
    inner_steps: int
    split: str
    data: Path | None

    @property
    def honest(self) -> int:
        """Members that follow the rules."""
        return self.members - self.byzantine


@dataclass(frozen=True)
class Around:
    """What a topology means for one member: the graph or the links, who is near, the promise."""

    graph: Graph | None
    links: int
    neighbours: int
    hostile: int
    f: int
    word: str


def refused(message: str) -> TapestryError:
    """The one line that a user sees."""
    return TapestryError(message, USAGE)


def check(asked: Asked) -> None:
    """Refuse what no task can do. TapestryError."""
    rounds = asked.rounds if asked.rounds is not None else DEFAULT_ROUNDS
    for holds, law in (
        (asked.task in TASKS, f"task must be one of {', '.join(TASKS)}, not {asked.task!r}"),
        (asked.byzantine >= 0, f"byzantine >= 0 does not hold: {asked.byzantine}"),
        (asked.honest >= 2, f"members - byzantine >= 2 does not hold: {asked.honest}"),
        (rounds >= 1, f"rounds >= 1 does not hold: {rounds}"),
        (asked.inner_steps >= 1, f"inner-steps >= 1 does not hold: {asked.inner_steps}"),
        (0 <= asked.loss <= 0.9, f"0 <= loss <= 0.9 does not hold: {asked.loss:g}"),
        (0 <= asked.churn <= 10, f"0 <= churn <= 10 does not hold: {asked.churn:g}"),
        (asked.codec in CODECS, f"codec must be one of {', '.join(CODECS)}, not {asked.codec!r}"),
        ((asked.tolerate or 0) >= 0, f"tolerate >= 0 does not hold: {asked.tolerate}"),
    ):
        if not holds:
            raise refused(law)


def trial_of(asked: Asked) -> tuple[Trial, str]:
    """The trial of a full world and what its topology promises. TapestryError if impossible."""
    _check_attack(asked)
    around = _around(asked)
    broken = check_rule(asked.rule, around.neighbours + 1, around.f)
    if broken:
        raise refused(f"rule {asked.rule}, tolerate {around.f}: {broken}")
    protocol_only = asked.task == "protocol"
    steps = asked.inner_steps
    pace = Pace(
        round_s=0.25 if protocol_only else 1.0,
        steps=steps,
        parts=1 if protocol_only else min(4, steps),
        mixes=not protocol_only,
    )
    plan = Plan(
        seed=asked.seed,
        honest=asked.honest,
        byzantine=asked.byzantine,
        attack=asked.attack or "mirror",
        d=PROTOCOL_D if protocol_only else 64,
        pace=pace,
        slower={n: 1 / speed for n, speed in enumerate(_speeds(asked)) if speed != 1.0},
        loom=LoomSettings(
            rule=asked.rule, f=around.f, codec=asked.codec, gamma=gamma_max(asked.codec)
        ),
        weather=Weather(loss=asked.loss),
        links=around.links,
        graph=around.graph,
    )
    certain = around.word == CERTIFIED and around.f >= around.hostile
    rounds = asked.rounds or DEFAULT_ROUNDS
    return Trial(plan, rounds, asked.churn, must_converge=certain), around.word


def _check_attack(asked: Asked) -> None:
    name = asked.attack
    if name is None:
        return
    if asked.byzantine == 0:
        raise refused(f"attack {name} needs --byzantine >= 1")
    if name in ATTACKS and ATTACKS[name].needs_learning:
        if asked.task not in PICTURES:
            raise refused(f"attack {name} needs a task with labels: {', '.join(PICTURES)}")
    elif name not in (*PLAYABLE, *DEEDS):
        if name in ATTACKS or name == "all":
            raise refused(f"attack {name}: no process can play it; --task average has it")
        names = sorted((*PLAYABLE, *DEEDS, "label_flip"))
        raise refused(f"attack must be one of {', '.join(names)}, not {name!r}")


def _around(asked: Asked) -> Around:
    kind, _, number = asked.topology.partition(":")
    members, hostile = asked.members, asked.byzantine
    if asked.topology == "complete":
        f = hostile if asked.tolerate is None else asked.tolerate
        return Around(None, 0, members - 1, hostile, f, promise(asked.rule, f, members).word)
    if kind == "keyed":
        k = int(number) if number.isdigit() else 0
        if not 2 <= k < members:
            raise refused(f"keyed:K needs 2 <= K < members: {asked.topology}, {members}")
        f = min(hostile, k // 3) if asked.tolerate is None else asked.tolerate
        if 3 * f > k:
            raise refused(f"3 * tolerate <= K does not hold: {3 * f} > {k}")
        return Around(None, k, k, hostile, f, promise_sparse(asked.rule, f, members, k).word)
    try:
        graph = topology_of(asked.topology, members, hostile, asked.seed)
    except ValueError as error:
        raise refused(str(error)) from error
    near = int(graph.byzantine_count.max(initial=0))
    f = near if asked.tolerate is None else asked.tolerate
    fewest = int((graph.weights[graph.honest] > 0).sum(axis=1).min())
    word = graph.certificate(f)
    if word == CERTIFIED and f and proven(asked.rule) is None:
        word = BEST_EFFORT
    return Around(honest_first(graph), 0, fewest, near, f, word)


def honest_first(graph: Graph) -> Graph:
    """The same graph, its honest members counted first."""
    order = sorted(range(len(graph.honest)), key=lambda n: not graph.honest[n])
    return Graph(graph.weights[order][:, order], graph.honest[order], graph.name)


def _speeds(asked: Asked) -> list[float]:
    try:
        speeds = [float(speed) for speed in asked.speeds.split(",") if speed]
    except ValueError as error:
        raise refused(f"speeds must be numbers such as 1,1,0.25: {asked.speeds}") from error
    if len(speeds) > asked.honest:
        raise refused(f"{len(speeds)} speeds for {asked.honest} honest members")
    if not all(0 < speed <= 1 for speed in speeds):
        raise refused(f"0 < speed <= 1 does not hold: {asked.speeds}")
    return speeds
