"""Every attack against Loom rounds as members run them: two worlds, 26 honest, three hostile each.

Knows the set-up, its cases and its tables. Rounds are synchronous: all train, all publish coded
differences, all mix the public copies; hostile copies need no coding and differ by receiver. Each
case runs twice: as members run them, and with settling rounds, which are not part of the daemon.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benches.robustness_docs import markdown
from benches.robustness_worlds import Matrix, Outcome, deserted
from tapestry_p2p.learn.crowd import Crowd
from tapestry_p2p.learn.load import load
from tapestry_p2p.learn.partition import dirichlet, flipped
from tapestry_p2p.learn.task import Data
from tapestry_p2p.mix.copy import PublicCopy, norm
from tapestry_p2p.mix.loom import Loom, LoomSettings
from tapestry_p2p.mix.settling import EVERY, restless, settles
from tapestry_p2p.sim.attacks import ATTACKS, Aim, Scene
from tapestry_p2p.sim.graphs import two_worlds

CLIQUE, CROSS, F = 13, 8, 3
HONEST = 2 * CLIQUE
INNER = 10  # steps a round
BATCH = {"digits": 8, "fashion": 32}
ALPHAS = (0.1, 1.0)
AIMS = {"away": Aim("away"), "along": Aim("along"), "usual": Aim("fixed")}
SETTLING = (False, True)  # False: rounds as members run them
NOTHING = "none"


@dataclass(frozen=True)
class Settings:
    """How much is run. ``iterations`` are rounds."""

    iterations: int
    seeds: int
    tasks: tuple[str, ...] = ("digits", "fashion")
    attacks: tuple[str, ...] = tuple(ATTACKS)


@dataclass(frozen=True)
class Case:
    """One run."""

    task: str
    alpha: float
    attack: str
    aim: str
    seed: int
    settings: Settings = field(repr=False)
    settling: bool = False

    @property
    def key(self) -> str:
        """Its name in the results."""
        where = f"{self.task} dirichlet {self.alpha:g}{' settling' * self.settling}"
        return f"{where} / {self.attack} {self.aim} / {self.settings.iterations} {self.seed}"


@lru_cache(2)
def crowds_of(
    task: str, alpha: float, steps: int, seed: int, folder: Path | None
) -> tuple[Crowd, Crowd]:
    """26 learners, and one whose labels are flipped, which is what label_flip sends.

    One hidden layer of 32, AdamW, a cosine over ``steps``.
    """
    paths = [folder] if folder and task == "fashion" else []
    batch = BATCH[task]
    whole: Any = load(task, {"batch_size": 1}, Data(paths, seed))
    records = whole.records["train"]
    parts = dirichlet(records[:, -1], HONEST + 1, alpha, seed, smallest=batch)
    *data, last = [records[part] for part in parts]
    honest, poisoned = (
        Crowd(task, each, batch=batch, seed=seed, schedule_steps=steps, paths=paths)
        for each in (data, [flipped(last)])
    )
    return honest, poisoned


def run(case: Case, folder: Path | None) -> Outcome:
    """Learn under attack. ``folder``: the pictures of the task fashion."""
    rounds = case.settings.iterations
    crowd, poisoned = crowds_of(case.task, case.alpha, rounds * INNER, case.seed, folder)
    crowd.rewind()
    poisoned.rewind()
    world = World(crowd, poisoned, case.attack, AIMS.get(case.aim, Aim()), case.seed)
    for number in range(rounds):
        world.round(number * INNER)
        if case.settling and settles(number + 1, EVERY):
            world.settle()
    found = crowd.evaluate(world.x)["accuracy"] * 100
    return Outcome(float(found.mean()), float(found.min()))


class World:
    """The honest members' Looms with the settings that networks start with, and their attackers."""

    def __init__(self, crowd: Crowd, poisoned: Crowd, attack: str, aim: Aim, seed: int) -> None:
        graph = two_worlds(CLIQUE, CROSS, F)
        self._graph = graph if attack != NOTHING else deserted(graph)
        self._settings = LoomSettings(f=F)
        self._crowd, self._poisoner = crowd, poisoned
        self._attack, self._aim = attack, aim
        self._random = np.random.default_rng(seed)
        self._scene: Scene | None = None
        self._entries = 0
        self.left_out: list[list[int]] = [[] for _ in range(HONEST)]  # since the last settling
        self._looms: list[Loom[int]] = [
            Loom(self._settings, crowd.genesis, PublicCopy(crowd.genesis)) for _ in range(HONEST)
        ]

    @property
    def x(self) -> Matrix:
        """float32[26, d]: what members would serve."""
        return np.stack([loom.x for loom in self._looms])

    def round(self, first: int) -> None:
        """Train from step ``first`` on, publish, mix."""
        poisoned = self._poisoned(first) if self._attack == "label_flip" else None
        self._mix(self._crowd.train(self.x, INNER, first), poisoned, judge=False)

    def settle(self) -> None:
        """Publish what mixing made, untrained, and mix; say whom to leave out from now on."""
        assert self._scene is not None
        self._mix(self.x, self._scene.poisoned, judge=True)

    def _mix(self, trained: Matrix, poisoned: Matrix | None, judge: bool) -> None:
        self._entries += 1
        for loom, y in zip(self._looms, trained, strict=True):
            loom.published(loom.difference(y), y)
        scene = self._scene = self._seen(poisoned)
        lies = scene.honest
        if self._attack != NOTHING:
            lies = ATTACKS[self._attack].messages(scene)
        for i, loom in enumerate(self._looms):
            near, weights, hostile = scene.neighbourhoods[i]
            heard = {int(j): scene.honest[j] for j in near}
            if np.isfinite(lies[i]).all():  # what is not finite never gets past the decoder
                heard |= {HONEST + j: lies[i] for j in range(hostile)}
            if judge:
                apart = [norm(copy - loom.own.vector) for copy in heard.values()]
                out = restless(np.array(apart), weights[: len(apart)], F)
                self.left_out[i] = [who for who, away in zip(heard, out, strict=True) if away]
            heard = {who: copy for who, copy in heard.items() if who not in self.left_out[i]}
            for author in heard:
                loom.arrived(author, self._entries)
                loom.decoded(author, self._entries)
            loom.mixed(loom.mix(trained[i], heard, round(1 / weights[0]) - 1))

    def _seen(self, poisoned: Matrix | None) -> Scene:
        """This round's scene: the public copies as they stand now."""
        copies = np.stack([loom.own.vector for loom in self._looms])
        if self._scene is not None:
            return replace(self._scene.then(copies), poisoned=poisoned)
        s = self._settings
        return Scene(
            self._graph, copies, s.rule, F, self._random, eta=s.gamma, aim=self._aim,
            genesis=self._crowd.genesis, poisoned=poisoned,
        )  # fmt: skip

    def _poisoned(self, first: int) -> Matrix:
        """float32[d]: what flipped labels make of the honest members' mean in this round."""
        middle = self.x.mean(axis=0, keepdims=True)
        return np.asarray(self._poisoner.train(middle, INNER, first)[0])


class AttacksTable:
    """Every attack, every way to choose its strength, both tasks and partitions."""

    run = staticmethod(run)

    def settings(self, quick: bool, iterations: int | None, seeds: int | None) -> Settings:
        """Defaults: 40 rounds of 10 steps."""
        if quick:
            return Settings(iterations or 2, seeds or 1, ("digits",), ("sign_flip", "alie+", "nan"))
        return Settings(iterations or 40, seeds or 1)

    def cases(self, settings: Settings) -> Iterator[Case]:
        """Seeds outermost: a run that is stopped has whole tables."""
        seeds = range(settings.seeds)
        for seed, task, alpha, settling in product(seeds, settings.tasks, ALPHAS, SETTLING):
            for attack in (NOTHING, *settings.attacks):
                searched = attack != NOTHING and ATTACKS[attack].line
                for aim in AIMS if searched else ("",):
                    yield Case(task, alpha, attack, aim, seed, settings, settling)

    def render(self, settings: Settings, found: Mapping[str, Any]) -> list[str]:
        """A row for each attack: the strength that did most harm, and the loss by it."""
        places = list(product(settings.tasks, ALPHAS, SETTLING))
        runs: dict[tuple[Any, ...], dict[str, list[Any]]] = {}
        for case in self.cases(settings):
            if case.key in found:
                where = (case.task, case.alpha, case.settling, case.attack)
                runs.setdefault(where, {}).setdefault(case.aim, []).append(found[case.key])
        head = ["attack", *(f"{t}, Dirichlet {a:g}{', settling' * s}" for t, a, s in places)]
        rows, most = [], [[0.0, 0.0] for _ in places]
        for attack in (NOTHING, *settings.attacks):
            row = [f"`{attack}`"]
            for place, largest in zip(places, most, strict=True):
                row.append(cell(runs.get((*place, attack)), runs.get((*place, NOTHING)), largest))
            rows.append(row)
        rows.append(["most lost: mean, worst member",
                     *(f"{mean:.1f}, {worst:.1f}" for mean, worst in most)])  # fmt: skip
        said = (
            f"{settings.iterations} rounds of {INNER} steps, {settings.seeds} seed(s). Test"
            " accuracy in percent: mean of the honest members / the worst of them, for the strength"
            " that does most harm."
        )
        return [said, "", *markdown(head, rows)]


def cell(
    kinds: Mapping[str, list[Any]] | None,
    clean: Mapping[str, list[Any]] | None,
    largest: list[float],
) -> str:
    """Mean / worst member under the worst aim; ``largest`` keeps the most lost of each so far."""
    if kinds is None or clean is None:
        return "not run"
    means = {aim: float(np.mean([run["mean"] for run in runs])) for aim, runs in kinds.items()}
    worsts = {aim: min(run["worst"] for run in runs) for aim, runs in kinds.items()}
    aim = min(means, key=means.__getitem__)
    largest[0] = max(largest[0], float(np.mean([run["mean"] for run in clean[""]])) - means[aim])
    largest[1] = max(largest[1], min(r["worst"] for r in clean[""]) - min(worsts.values()))
    return f"{means[aim]:.1f} / {worsts[aim]:.1f}" + (f" ({aim})" if aim else "")


ATTACKS_TABLE = AttacksTable()
