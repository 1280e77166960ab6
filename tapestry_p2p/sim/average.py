"""Average consensus under attack: members only mix, nobody trains, by the production rules.

Each honest member starts at its own vector; every round all mix at once, x_i + eta * pull of the
rule, while each one's hostile neighbours send it what the attack says. Measured is the normalised
MSE: mean squared distance of the honest members to their first average, divided by what it was in
the beginning. 0 is the exact average, 1 nothing gained, more than 1 worse than staying alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tapestry_p2p.mix.rules import check_rule
from tapestry_p2p.mix.topology import CERTIFIED
from tapestry_p2p.sim.attacks import ATTACKS, OURS, Aim, Scene
from tapestry_p2p.sim.graphs import (
    Graph,
    complete,
    dumbbell,
    erdos_renyi,
    regular,
    ring,
    two_castle,
    two_worlds,
)  # fmt: skip

D = 100  # parameters: with fewer, chance makes some members stick out more
ROUNDS = 60
RUINED = 1e9  # normalised MSE beyond which nothing is left to measure
SETTLED = 1e-7  # of the first spread: what is left cannot move the mean by anything that counts
DRAWS = 16  # of a random regular graph: one may choose the best of several and declare it
BESIDE = ("gts", "mean")
STARTS = ("normal", "sides")
SEEDS = 2
AIMS = (
    *map(Aim, ("away", "along", "fixed")),
    *(Aim("relative", t) for t in (1.0, 1.5, 100.0)),
)
FOE_AIMS = tuple(Aim("fixed", eps) for eps in (0.1, 2.0))


@dataclass(frozen=True)
class Outcome:
    """How one run ended. ``mse`` is the normalised MSE after ``rounds`` rounds."""

    mse: float
    spread: float  # sum ||x_i - mean||^2, of the first one
    rounds: int


def starts(graph: Graph, kind: str, d: int, random: np.random.Generator) -> np.ndarray:
    """float32[h, d] about a common point at distance sqrt(d) from 0.

    ``normal``: independent normal; ``sides``: half that, and the first and second half of the
    members (the worlds, castles or cliques of graphs that have two) lie apart.
    """
    count = int(graph.honest.sum())
    common, noise = random.standard_normal(d), random.standard_normal((count, d))
    if kind == "sides":
        side = np.where(np.arange(count) < (count + 1) // 2, 1.0, -1.0)
        noise = 0.5 * noise + side[:, None] * random.standard_normal(d)
    return np.asarray(common + noise, dtype=np.float32)


def average(
    graph: Graph,
    rule: str,
    attack: str,
    *,
    f: int,
    seed: int,
    rounds: int = ROUNDS,
    d: int = D,
    aim: Aim | None = None,
    start: str = "normal",
    eta: float | None = None,
) -> Outcome:
    """One run. eta None: 1, or less where 1 / mu_max is (the step that theorems ask for)."""
    random = np.random.default_rng(seed)
    x = starts(graph, start, d, random)
    goal = x.mean(axis=0, dtype=np.float64)
    first = float(((x - goal) ** 2).sum())
    step = min(1.0, 1.0 / graph.mu_max) if eta is None else eta
    victim = int(np.argmax(((x - goal) ** 2).sum(axis=1)))
    scene = Scene(
        graph, x, rule, f, random, eta=step, genesis=np.asarray(x[0]),
        goal=goal.astype(np.float32), aim=aim or Aim(), victim=victim,
    )  # fmt: skip
    done, mse, spread = 0, 1.0, 1.0
    while done < rounds and mse < RUINED and spread > SETTLED:
        x = scene.mixed(ATTACKS[attack].messages(scene))
        scene = scene.then(x)
        done += 1
        mse = min(float(((x - goal) ** 2).sum()) / first, RUINED)
        spread = float((scene.centred**2).sum()) / first
    return Outcome(mse, spread, done)


def aims_of(attack: str) -> tuple[Aim, ...]:
    """Every way to choose the attack's strength that a report tries."""
    if ATTACKS[attack].line is None:
        return (Aim(),)
    return AIMS + (FOE_AIMS if attack == "foe" else ())


# -- the report


def topology_of(name: str, members: int, byzantine: int, seed: int = 0) -> Graph:
    """The graph of ``members`` in all, ``byzantine`` of them hostile. ValueError if there is none.

    complete            all-to-all
    two-worlds[:CROSS]  two cliques of (members - byzantine) / 2; CROSS (8) links to the other one
    regular[:K]         random, K (8) honest neighbours each; the best of several draws
    ring, dumbbell      of the honest; in these four each honest member has every hostile neighbour
    er, two-castle      those of the IOS tables: random members are hostile
    """
    kind, _, number = name.partition(":")
    if number and (kind not in ("two-worlds", "regular") or not number.isdigit()):
        raise ValueError(f"topology {name!r}: only two-worlds and regular take a number")
    honest = members - byzantine
    if byzantine < 0 or honest < 2:
        raise ValueError(f"0 <= byzantine <= members - 2 must hold: {byzantine}, {members}")
    pairs = kind in ("two-worlds", "dumbbell") and honest % 2
    if pairs or (kind == "two-castle" and members % 2):
        raise ValueError(f"{kind} has two equal halves: {honest} honest of {members} is odd")
    k = int(number or 8)
    builders: dict[str, Callable[[], Graph]] = {
        "complete": lambda: complete(members, byzantine),
        "two-worlds": lambda: two_worlds(honest // 2, k, byzantine),
        "regular": lambda: max(
            (regular(honest, k, draw, byzantine) for draw in range(DRAWS)), key=lambda g: g.mu2
        ),
        "ring": lambda: ring(honest, byzantine),
        "dumbbell": lambda: dumbbell(honest // 2, byzantine),
        "er": lambda: erdos_renyi(members, 0.7, 300 + seed, byzantine),
        "two-castle": lambda: two_castle(members // 2, byzantine, 40 + seed),
    }
    if kind not in builders:
        raise ValueError(f"topology {name!r}: choose from {', '.join(builders)}")
    return builders[kind]()


def report(
    topology: str,
    members: int,
    byzantine: int,
    attack: str,
    rule: str,
    seed: int,
    rounds: int = ROUNDS,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Every attack (or one) on ``rule`` and on gts and mean beside it: ready for JSON.

    ``attacks[name][rule]`` holds the worst normalised MSE over seeds and all ways to choose the
    strength, from independent normal starts; ``sides_mse`` the same from two camps, one seed.
    ``worst[rule]`` is over the literature's attacks from normal starts, ``worst_of_all[rule]`` over
    our own as well and from both starts.
    RUINED means that nothing bounds it. ValueError: no such topology, attack, rule.
    """
    graph = topology_of(topology, members, byzantine, seed)
    f = int(graph.byzantine_count.max(initial=0))
    names = _names(attack)
    fewest = int((graph.weights[graph.honest] > 0).sum(axis=1).min())
    refused = check_rule(rule, fewest + 1, f)
    if refused:
        raise ValueError(refused)
    rules = (rule, *(other for other in BESIDE if other != rule))
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        found[name] = {}
        for each in rules:
            found[name][each] = _worst(graph, each, name, f, seed, rounds)
            progress(f"{name} {each} {found[name][each]['worst_mse']:.3g}")
    return {
        "task": "average",
        "topology": topology,
        "members": members,
        "byzantine": byzantine,
        "honest": int(graph.honest.sum()),
        "rule": rule,
        "f": f,
        "seed": seed,
        "rounds": rounds,
        "parameters": D,
        "eta": min(1.0, 1.0 / graph.mu_max),
        "certificate": graph.certificate(f),
        "certified": graph.certificate(f) == CERTIFIED,
        "mu2": graph.mu2,
        "mu2_unit": graph.mu2 / graph.unit,
        "mu_max": graph.mu_max,
        "b": graph.b(f),
        "attacks": found,
        "worst": {each: _largest(found, each, OURS, ("worst_mse",)) for each in rules},
        "worst_of_all": {
            each: _largest(found, each, (), ("worst_mse", "sides_mse")) for each in rules
        },
    }


def _names(attack: str) -> tuple[str, ...]:
    """All attacks that need no learning, or the one. ValueError: none of that name."""
    names = tuple(name for name, row in ATTACKS.items() if not row.needs_learning)
    if attack == "all":
        return names
    if attack not in names:
        raise ValueError(f"attack {attack!r}: choose from all, {', '.join(names)}")
    return (attack,)


def _worst(graph: Graph, rule: str, attack: str, f: int, seed: int, rounds: int) -> dict[str, Any]:
    """The worst over seeds and ways to choose the strength, for both starts."""
    found: dict[str, tuple[float, Aim, Outcome]] = {}
    for start in STARTS:
        for aim in aims_of(attack):
            for draw in range(seed, seed + (SEEDS if start == "normal" else 1)):
                end = average(
                    graph, rule, attack, f=f, seed=draw, rounds=rounds, aim=aim, start=start
                )
                if start not in found or end.mse > found[start][0]:
                    found[start] = (end.mse, aim, end)
    mse, aim, end = found["normal"]
    searched = ATTACKS[attack].line is not None
    return {
        "worst_mse": mse,
        "t": str(aim) if searched else "",
        "rounds": end.rounds,
        "spread": end.spread,
        "sides_mse": found["sides"][0],
        "ruined": max(mse, found["sides"][0]) >= RUINED,
    }


def _largest(
    found: dict[str, dict[str, Any]], rule: str, without: Iterable[str], keys: Iterable[str]
) -> float:
    return max(
        (row[rule][key] for name, row in found.items() if name not in without for key in keys),
        default=0.0,
    )
