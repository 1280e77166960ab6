"""The tables of benches/loom.py: which runs each of them needs, and how its rows read.

Knows names, settings and results; the learning and the mixing are elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from benches import loom_rivals as rivals
from benches.loom_setup import Field, Matrix, Outcome, Setup, Watch, central
from benches.loom_world import SYNCHRONOUS, Condition, World
from benches.robustness_docs import markdown
from tapestry_p2p.mix.codec import gamma_max
from tapestry_p2p.mix.loom import LoomSettings

Results = Mapping[str, Any]
Run = Callable[[Field, Setup], Outcome]
Make = Callable[[Matrix, int], rivals.Rival]  # members' models, seed

CENTRAL_RATE = 0.01  # best of .0025, .005, .01, .02 for the one model on seed 0
OUTER = ((1.0, 0.0), (1.0, 0.4), (1.0, 0.6), (0.7, 0.9), (2.0, 0.3), (2.0, 0.5))  # DiLoCo lr, mu
CODECS = ("fp32", "int4", "2bit", "1bit", "topk")
SPEEDS = (1.0, 0.5, 0.25)

CONDITIONS = (
    SYNCHRONOUS,
    Condition("rounds end at different times", staggered=True),
    Condition("copies one round old", late=1),
    Condition("30 % of rounds missed", missed=0.3),
    Condition("speeds 1, 1/2, 1/4", speeds=SPEEDS, staggered=True),
    Condition("4 of 16 join half way", joiners=1 / 4),
)
ALONE = Condition("14 honest, nobody else", absent=1 / 8)
ATTACKED = Condition("14 honest, 2 mirrors", hostile=1 / 8)
FOUR = Condition("four links each", links=rivals.LINKS)


@dataclass(frozen=True)
class Case:
    """One run. ``row`` is what a table calls it; ``key`` its name in the file of results."""

    row: str
    method: str
    condition: str
    setup: Setup
    seed: int
    run: Run

    @property
    def key(self) -> str:
        """Unique."""
        return f"{self.setup.name} / {self.method} / {self.condition} / {self.seed}"


def loom(
    row: str, settings: LoomSettings, condition: Condition, setup: Setup, seeds: Sequence[int]
) -> list[Case]:
    """A Loom under a condition, for every seed."""
    s = settings
    name = f"loom {s.rule} {s.f} {s.codec} {s.view} {s.gamma:g} {s.mu:g} {s.rho:g} {s.ttl}"
    name += f" {s.eta:g}" if s.eta != 1.0 else ""

    def run(learning: Field, setup: Setup) -> Outcome:
        return World(learning, settings, condition, setup).run()

    return [Case(row, name, condition.name, setup, seed, run) for seed in seeds]


def rival(
    row: str,
    method: str,
    make: Make,
    setup: Setup,
    seeds: Sequence[int],
) -> list[Case]:
    """A synchronous method, for every seed."""

    def run(learning: Field, setup: Setup) -> Outcome:
        x = learning.start()
        watch, one = Watch(learning), make(x, learning.seed)
        for done in range(setup.rounds):
            watch.look(done / setup.rounds, x.mean(axis=0))
            y = learning.crowd.train(x, setup.inner_steps, done * setup.inner_steps)
            x = one.round(y)
        return watch.stop(learning.outcome(x, range(setup.members), one.bytes))

    return [Case(row, method, "synchronous", setup, seed, run) for seed in seeds]


def diloco(lr: float, mu: float) -> Make:
    """With this outer rate and momentum."""
    return lambda x, _: rivals.DiLoCo(x, lr, mu)


def gossip(eta: float, mu: float) -> Make:
    """GASLoC, or D-PSGD."""
    return lambda x, _: rivals.Gossip(x, eta, mu)


def noloco(alpha: float, beta: float) -> Make:
    """With these momentum and rate."""
    return lambda x, seed: rivals.NoLoCo(x, seed, alpha, beta)


def sparseloco(lr: float, beta: float) -> Make:
    """With this outer rate and memory of errors."""
    return lambda x, _: rivals.SparseLoCo(x, lr, beta)


# ---- the tables --------------------------------------------------------------------------------


def methods(setup: Setup, seeds: Sequence[int]) -> list[Case]:
    """Everybody at the same time: one model, the methods of others, the Loom with every codec."""
    one = replace(setup, rate=CENTRAL_RATE) if setup.task == "language" else setup
    cases = [Case("central", "central", "synchronous", one, seed, central) for seed in seeds]
    for lr, mu in OUTER:
        cases += rival("DiLoCo", f"diloco {lr:g} {mu:g}", diloco(lr, mu), setup, seeds)
    cases += rival("D-PSGD", "gossip 1 0", gossip(1.0, 0.0), setup, seeds)
    for alpha, beta in ((0.5, 0.7), (0.3, 1.0), (0.5, 1.0)):
        name = f"noloco {alpha:g} {beta:g}"
        cases += rival("NoLoCo", name, noloco(alpha, beta), setup, seeds)
    for eta in (0.7, 1.0, 1.5):
        cases += rival("GASLoC", f"gossip {eta:g} 0.6", gossip(eta, 0.6), setup, seeds)
    for lr, beta in ((1.0, 0.95), (2.0, 0.95), (1.0, 1.0)):
        name = f"sparseloco {lr:g} {beta:g}"
        cases += rival("SparseLoCo", name, sparseloco(lr, beta), setup, seeds)
    for codec in CODECS:
        settings = replace(LoomSettings(), codec=codec)
        settings = replace(settings, gamma=min(settings.gamma, gamma_max(codec)))
        cases += loom(f"Loom {codec}", settings, SYNCHRONOUS, setup, seeds)
    cases += loom("Loom 2bit, four links", LoomSettings(), FOUR, setup, seeds)
    for eta, mu in ((2.0, 0.0), (2.0, 0.3)):
        row, bold = f"Loom 2bit, eta {eta:g}, mu {mu:g}", LoomSettings(eta=eta, mu=mu)
        cases += loom(row, bold, SYNCHRONOUS, setup, seeds)
    return cases


def conditions(setup: Setup, seeds: Sequence[int]) -> list[Case]:
    """The Loom with 2 bits and its defaults, under every condition."""
    cases = []
    for condition in CONDITIONS:
        cases += loom(condition.name, LoomSettings(), condition, setup, seeds)
    for name, settings in (
        ("mean", LoomSettings(rule="mean")),
        ("cs_plus, f = 2", LoomSettings(f=2)),
    ):
        for condition in (ALONE, ATTACKED):
            cases += loom(f"{condition.name}: {name}", settings, condition, setup, seeds)
    return cases


VIEWED = (CONDITIONS[3], CONDITIONS[4])


def views(setup: Setup, seeds: Sequence[int]) -> list[Case]:
    """How a neighbour's copy is compared with ours; naive is the control that must fail."""
    cases = []
    for view in ("current", "applied_pull", "naive"):
        for condition in VIEWED:
            cases += loom(view, LoomSettings(view=view), condition, setup, seeds)
    return cases


TRIED = (  # eta, gamma, mu, rho
    (1.0, 1.0, 0.4, 0.6),
    (1.5, 1.0, 0.0, 0.6),
    (2.0, 1.0, 0.0, 0.6),
    (1.5, 1.0, 0.4, 0.6),
    (2.0, 1.0, 0.3, 0.6),
)


def knobs(setup: Setup, seeds: Sequence[int]) -> list[Case]:
    """eta, gamma, mu and rho, under the harder conditions and under attack."""
    cases = []
    for eta, gamma, mu, rho in TRIED:
        chosen = LoomSettings(eta=eta, gamma=gamma, mu=mu, rho=rho)
        row = f"{eta:g}, {gamma:g}, {mu:g}, {rho:g}"
        for condition in (CONDITIONS[0], *CONDITIONS[2:5]):
            cases += loom(row, chosen, condition, setup, seeds)
        cases += loom(row, replace(chosen, f=2), ATTACKED, setup, seeds)
    return cases


def few(setup: Setup, seeds: Sequence[int]) -> list[Case]:
    """The same knobs where six members share two languages, without and with a mirror."""
    cases = []
    for eta, gamma, mu, rho in TRIED:
        chosen = LoomSettings(f=1, eta=eta, gamma=gamma, mu=mu, rho=rho)
        row = f"{eta:g}, {gamma:g}, {mu:g}, {rho:g}"
        for condition in (
            Condition("6 honest, nobody else", absent=1 / 7),
            Condition("6 honest, 1 mirror", hostile=1 / 7),
            Condition("6 honest, speeds 1, 1/2, 1/4", absent=1 / 7, speeds=SPEEDS, staggered=True),
        ):
            cases += loom(row, chosen, condition, setup, seeds)
    return cases


# ---- what a person reads -----------------------------------------------------------------------


@dataclass(frozen=True)
class Figures:
    """A row's means over seeds, of its best method."""

    method: str
    seeds: int
    values: Mapping[str, float]


def rows(
    cases: Sequence[Case], found: Results, setup: Setup
) -> Iterator[tuple[str, str, Figures | None]]:
    """(row, condition, figures) in the order of the cases; of several methods the best counts."""
    for row, condition in dict.fromkeys((case.row, case.condition) for case in cases):
        of_row = [case for case in cases if (case.row, case.condition) == (row, condition)]
        tried = []
        for method in dict.fromkeys(case.method for case in of_row):
            runs = [found[c.key] for c in of_row if c.method == method and c.key in found]
            if runs:
                names = ("mean", "members", "own", "apart", "bytes", "seconds")
                values = {name: fmean(run[name] for run in runs) for name in names}
                tried.append(Figures(method, len(runs), values))
        sign = -1 if setup.task == "digits" else 1
        best = min(tried, key=lambda one: _number(sign * one.values["mean"]), default=None)
        yield row, condition, best


def _number(value: float) -> float:
    return value if np.isfinite(value) else np.inf


def whole(cases: Sequence[Case], found: Results, setup: Setup, against: str) -> list[str]:
    """A row a method, with all figures; the loss also against row ``against``."""
    table = list(rows(cases, found, setup))
    goal = next((f for row, _, f in table if row == against and f), None)
    unit = "accuracy, %" if setup.task == "digits" else "bits per byte"
    head = (
        "method", f"mean model, {unit}", f"against {against}", "members' models", "own data",
        "bytes per parameter and round", "consensus distance", "CPU s",
    )  # fmt: skip
    lines = []
    for row, _, one in table:
        if one is None:
            lines.append([row, *["not run"] * 7])
            continue
        v = one.values
        outer = " ".join(one.method.split()[1:]) if row in ("DiLoCo", "NoLoCo", "GASLoC") else ""
        lines.append([
            f"{row} ({outer})" if outer else row,
            f"{v['mean']:.3f}" if setup.task != "digits" else f"{v['mean']:.1f}",
            difference(v["mean"], goal, setup), f"{v['members']:.3f}", f"{v['own']:.3f}",
            f"{v['bytes']:.3f}", f"{v['apart']:.4f}", f"{v['seconds']:.0f}",
        ])  # fmt: skip
    return markdown(head, lines)


def difference(value: float, goal: Figures | None, setup: Setup) -> str:
    """How much worse (+) or better than the goal; points for accuracy."""
    if goal is None:
        return ""
    if setup.task == "digits":
        return f"{value - goal.values['mean']:+.1f} points"
    return f"{100 * (value / goal.values['mean'] - 1):+.1f} %"


def grid(
    cases: Sequence[Case], found: Results, setup: Setup, what: str, figure: str = "mean"
) -> list[str]:
    """A row a setting, a column a condition: the mean model's loss, or another figure."""
    table = {(row, condition): f for row, condition, f in rows(cases, found, setup)}
    columns = list(dict.fromkeys(condition for _, condition in table))
    lines = []
    for row in dict.fromkeys(row for row, _ in table):
        cells = [table.get((row, column)) for column in columns]
        lines.append([row, *(f"{c.values[figure]:.3f}" if c else "not run" for c in cells)])
    return markdown((what, *columns), lines)
