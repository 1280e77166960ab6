"""The IOS set-up: its cases, its tables, and the ideas that were tried on its hardest corner.

Knows names and numbers of the set-up; robustness_worlds.py does the learning.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import optax

from benches.robustness_docs import markdown
from benches.robustness_worlds import Arm, Matrix, Outcome, learn
from tapestry_p2p.learn.crowd import Crowd
from tapestry_p2p.sim.graphs import Graph, erdos_renyi, two_castle

F = 2
HONEST = 10
BATCH, RATE, DECAY, START = 32, 0.9, 0.01, 6.0
GRAPHS = {"ER": lambda: erdos_renyi(12, 0.7, 300, F), "TwoCastle": lambda: two_castle(6, F, 40)}
PARTITIONS = {"separated": "labels", "iid": "iid"}
STARTS = ("small", "6N")
PUBLISHED = ("gaussian", "sign_flip", "isolation", "duplicate", "alie+", "alie-")
HIDDEN = "sign_flip hidden"  # it sends the honest mean while all settle
SETTLING = 10

ARMS = (
    Arm("mean", "mean"),
    Arm("trimmed_mean", "trimmed_mean"),
    Arm("geometric_median", "geometric_median"),
    Arm("ios", "ios"),
    Arm("gts", "gts"),
    Arm("cs_plus", "cs_plus"),
    Arm("cs_plus_h", "cs_plus_h"),
    Arm("cs_plus, settling", "cs_plus", settle_every=SETTLING),
)
ALONE = Arm("alone", "mean")

TRIED = (
    Arm("cs_plus", "cs_plus"),
    Arm("cs_plus_h", "cs_plus_h"),
    Arm("nnm+cs_plus", "nnm+cs_plus"),
    Arm("nnm+trimmed_mean", "nnm+trimmed_mean"),
    Arm("cs_plus, b of one (f = 1)", "cs_plus", f=1),
    Arm("cs_plus, b of three (f = 3)", "cs_plus", f=3),
    Arm("cs_plus, momentum .9 of gradients", "cs_plus", momentum=0.9),
    Arm("cs_plus, five local steps a mixing", "cs_plus", local_steps=5),
    Arm("cs_plus_h, two mixings a step", "cs_plus_h", mixings=2),
    Arm("cs_plus, without who undoes own training", "cs_plus", judge="own training"),
    Arm("cs_plus, without who is always far", "cs_plus", judge="always far"),
    Arm("cs_plus, without who always pulls alike", "cs_plus", judge="running direction"),
    Arm("cs_plus, settling", "cs_plus", settle_every=SETTLING),
    Arm("cs_plus, settling, kappa 3", "cs_plus", settle_every=SETTLING, kappa=3.0),
    Arm("cs_plus, settling every 20th round", "cs_plus", settle_every=20),
    Arm("cs_plus_h, settling", "cs_plus_h", settle_every=SETTLING),
    Arm("ios, settling", "ios", settle_every=SETTLING),
)


@dataclass(frozen=True)
class Settings:
    """How much of the set-up is run."""

    iterations: int
    seeds: int
    task: str = "fashion"


@dataclass(frozen=True)
class Case:
    """One run."""

    graph: str
    partition: str
    start: str
    arm: Arm
    attack: str
    seed: int
    settings: Settings = field(repr=False)

    @property
    def key(self) -> str:
        """Its name in the results."""
        where = f"{self.settings.task} {self.graph} {self.partition} {self.start}"
        return f"{where} / {self.arm.name} / {self.attack} / {self.settings.iterations} {self.seed}"


def run(case: Case, folder: Path | None) -> Outcome:
    """Learn under attack. ``folder``: the pictures of the task fashion."""
    crowd = crowd_of(case.settings.task, case.partition, case.arm.momentum, case.seed, folder)
    x = start(crowd, case.start, case.seed)
    graph = GRAPHS[case.graph]()
    if case.arm == ALONE:
        graph = Graph(np.zeros_like(graph.weights), graph.honest, "alone")
    return learn(
        crowd, x, graph, case.arm, case.attack.split()[0], f=case.arm.f or F,
        iterations=case.settings.iterations, seed=case.seed, hides=case.attack == HIDDEN,
    )  # fmt: skip


@lru_cache(2)
def crowd_of(task: str, partition: str, momentum: float, seed: int, folder: Path | None) -> Crowd:
    """Ten learners, as the published set-up has them; pixels from -1 to 1."""
    return Crowd.of_pictures(
        task, HONEST, PARTITIONS[partition], seed=seed, batch=BATCH,
        options={"model": "linear", "centred": True}, optimizer=optimizer(momentum),
        paths=[folder] if folder else [],
    )  # fmt: skip


def optimizer(momentum: float) -> optax.GradientTransformation:
    """x <- x - .9/sqrt(t+1) m, m the gradient with decay .01 x, or its running mean."""
    return optax.chain(
        optax.add_decayed_weights(DECAY),
        optax.ema(momentum, debias=True) if momentum else optax.identity(),
        optax.sgd(lambda t: RATE / (t + 1.0) ** 0.5),
    )


def start(crowd: Crowd, kind: str, seed: int) -> Matrix:
    """float32[10, d]: the genesis for all, or 6 N(0, 1), different for each, as was published."""
    if kind == "small":
        return np.repeat(crowd.genesis[None], crowd.members, axis=0)
    random = np.random.default_rng([seed, 6])
    drawn = random.standard_normal((crowd.members, len(crowd.genesis)), np.float32)
    return np.asarray(np.float32(START) * drawn)


# ---- the table of the set-up -----------------------------------------------------------------


class Ios:
    """Every arm under every attack, both graphs, partitions and starts."""

    run = staticmethod(run)

    def settings(self, quick: bool, iterations: int | None, seeds: int | None) -> Settings:
        """Defaults: what a machine shared by many could do."""
        if quick:
            return Settings(iterations or 10, seeds or 1, "digits")
        return Settings(iterations or 600, seeds or 2)

    def cases(self, settings: Settings) -> Iterator[Case]:
        """Seeds outermost: a run that is stopped has whole tables."""
        for seed in range(settings.seeds):
            for partition in PARTITIONS:
                for kind in STARTS:
                    yield Case("TwoCastle", partition, kind, ALONE, "none", seed, settings)
                    for graph in GRAPHS:
                        for arm in ARMS:
                            more = (HIDDEN,) if arm.settle_every else ()
                            for attack in ("none", *PUBLISHED, *more):
                                yield Case(graph, partition, kind, arm, attack, seed, settings)

    def render(self, settings: Settings, found: Mapping[str, Any]) -> list[str]:
        """A table of the worst, then one for each place."""
        cells = Cells(settings, self.cases(settings), found)
        lines = [cells.said(), "", *self._worst(cells)]
        for graph in GRAPHS:
            for partition in PARTITIONS:
                for kind in STARTS:
                    lines += ["", f"**{graph}, {partition}, {kind} start**", ""]
                    lines += self._place(cells, (graph, partition, kind))
        return lines

    def _worst(self, cells: Cells) -> list[str]:
        places = [(g, p, s) for p in PARTITIONS for s in STARTS for g in GRAPHS]
        rows = []
        for arm in ARMS:
            row = [f"`{arm.name}`"]
            for place in places:
                clean, worst = cells.mean(place, arm, "none"), cells.worst(place, arm)
                row.append(f"{shown(worst)} ({signed(worst, clean)})")
            rows.append(row)
        free = [cells.mean(place, ARMS[0], "none") for place in places]
        rows.insert(0, ["attack-free `mean`", *map(shown, free)])
        return markdown(["worst of all attacks", *map(" ".join, places)], rows)

    def _place(self, cells: Cells, place: tuple[str, str, str]) -> list[str]:
        head = ["rule", "attack-free", *PUBLISHED, "worst", "less than own attack-free", HIDDEN]
        rows = []
        for arm in ARMS:
            clean, worst = cells.mean(place, arm, "none"), cells.worst(place, arm)
            found = [cells.shown(place, arm, attack) for attack in ("none", *PUBLISHED)]
            hidden = cells.shown(place, arm, HIDDEN) if arm.settle_every else ""
            rows.append([f"`{arm.name}`", *found, shown(worst), signed(worst, clean), hidden])
        alone = cells.shown(("TwoCastle", *place[1:]), ALONE, "none")
        rows.append(["alone", alone, *[""] * (len(head) - 2)])
        return markdown(head, rows)


# ---- the table of ideas ----------------------------------------------------------------------

CORNER = ("TwoCastle", "separated", "small")


class Ideas:
    """Everything that was tried, in the corner where the sign flip does most harm."""

    run = staticmethod(run)

    def settings(self, quick: bool, iterations: int | None, seeds: int | None) -> Settings:
        """One seed: the trap shuts within a hundred iterations, whatever is drawn."""
        if quick:
            return Settings(iterations or 10, seeds or 1, "digits")
        return Settings(iterations or 600, seeds or 1)

    def cases(self, settings: Settings) -> Iterator[Case]:
        """Every idea under every attack."""
        for seed in range(settings.seeds):
            for arm in TRIED:
                more = (HIDDEN,) if arm.settle_every else ()
                for attack in ("none", *PUBLISHED, *more):
                    yield Case(*CORNER, arm, attack, seed, settings)

    def render(self, settings: Settings, found: Mapping[str, Any]) -> list[str]:
        """One table."""
        cells = Cells(settings, self.cases(settings), found)
        rows = []
        for arm in TRIED:
            clean, worst = cells.mean(CORNER, arm, "none"), cells.worst(CORNER, arm)
            line = [cells.shown(CORNER, arm, attack) for attack in ("none", *PUBLISHED)]
            hidden = cells.shown(CORNER, arm, HIDDEN) if arm.settle_every else ""
            rows.append([arm.name, *line, signed(worst, clean), hidden])
        head = ["tried", "attack-free", *PUBLISHED, "worst, from own attack-free", HIDDEN]
        return [cells.said(), "", *markdown(head, rows)]


# ---- cells -----------------------------------------------------------------------------------


class Cells:
    """Means over the seeds that are there."""

    def __init__(self, settings: Settings, cases: Iterator[Case], found: Mapping[str, Any]) -> None:
        self._settings = settings
        self._runs: dict[tuple[Any, ...], list[Any]] = {}
        for case in cases:
            if case.key in found:
                place = (case.graph, case.partition, case.start)
                self._runs.setdefault((place, case.arm, case.attack), []).append(found[case.key])

    def said(self) -> str:
        """What was run."""
        seeds = {len(runs) for runs in self._runs.values()}
        text = (
            "nothing yet"
            if not seeds
            else f"{min(seeds)}" + (f" to {max(seeds)}" if len(seeds) > 1 else "")
        )
        return (
            f"{self._settings.task}, {self._settings.iterations} iterations, seeds a cell: {text}."
            " Test accuracy in percent, mean over honest members and seeds; after the stroke the"
            " worst member of all seeds."
        )

    def mean(self, place: Sequence[str], arm: Arm, attack: str) -> float:
        """Percent; nan if it was not run."""
        runs = self._runs.get((tuple(place), arm, attack), [])
        return float(np.mean([run["mean"] for run in runs])) if runs else float("nan")

    def worst(self, place: Sequence[str], arm: Arm) -> float:
        """The least over the published attacks; nan while one is missing."""
        return float(np.min([self.mean(place, arm, attack) for attack in PUBLISHED]))

    def shown(self, place: Sequence[str], arm: Arm, attack: str) -> str:
        """Mean / worst member."""
        runs = self._runs.get((tuple(place), arm, attack), [])
        if not runs:
            return "not run"
        return f"{self.mean(place, arm, attack):.1f} / {min(run['worst'] for run in runs):.1f}"


def shown(value: float) -> str:
    """A number, or that it is not there."""
    return "not run" if math.isnan(value) else f"{value:.1f}"


def signed(value: float, base: float) -> str:
    """value - base, with its sign."""
    return "" if math.isnan(value - base) else f"{value - base:+.1f}"


IOS, IDEAS = Ios(), Ideas()
