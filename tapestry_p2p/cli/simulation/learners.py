"""Hands real learning to a simulated world: one Crowd of learn/ for all its members.

The only file of cli/ that loads JAX into its own process: in a simulation nobody's data is private,
and nobody is hostile but by play.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tapestry_p2p.cli.simulation.plan import Asked, refused
from tapestry_p2p.cli.testnet.plan import LANGUAGES, PRESETS
from tapestry_p2p.data import udhr
from tapestry_p2p.errors import FAILURE, TapestryError
from tapestry_p2p.sim.attacks import ATTACKS
from tapestry_p2p.sim.training import Learner

PRESET = "tiny"


def make_learner(asked: Asked, steps: int) -> Learner:
    """The members' learning for ``steps`` inner steps. TapestryError: data or option unusable."""
    from tapestry_p2p.learn.task import TaskError

    try:
        return _texts(asked, steps) if asked.task == "language" else _pictures(asked, steps)
    except TaskError as error:
        raise TapestryError(f"{asked.task}: {error}", FAILURE) from error
    except ValueError as error:
        raise refused(f"{asked.task}: {error}") from error


def _pictures(asked: Asked, steps: int) -> Learner:
    from tapestry_p2p.learn.crowd import Crowd

    partition, _, number = asked.split.partition(":")
    try:
        alpha = float(number or 1.0)
    except ValueError:
        raise refused(f"split {asked.split}: the number after dirichlet: is not one") from None
    if not alpha > 0:
        raise refused(f"split {asked.split}: alpha > 0 does not hold")
    row = ATTACKS.get(asked.attack or "")
    learning_villains = asked.byzantine if row is not None and row.needs_learning else 0
    learners = asked.honest + learning_villains
    return Crowd.of_pictures(
        asked.task,
        learners,
        partition,
        alpha=alpha,
        poisoned=range(asked.honest, learners),
        seed=asked.seed,
        paths=[asked.data] if asked.data else [],
        schedule_steps=steps,
    )


def _texts(asked: Asked, steps: int) -> Learner:
    from tapestry_p2p.learn.crowd import Crowd

    return Crowd(
        "language",
        _folder(asked.data, asked.honest) if asked.data else _shipped(asked.honest),
        options=PRESETS[PRESET],
        seed=asked.seed,
        schedule_steps=steps,
    )


def _shipped(count: int) -> list[Any]:
    if count > len(LANGUAGES):
        raise refused(f"honest members <= {len(LANGUAGES)} texts does not hold: {count}")
    return [udhr(code) for code in LANGUAGES[:count]]


def _folder(folder: Path, count: int) -> list[Any]:
    texts = sorted(folder.glob("*.txt"))
    if len(texts) < count:
        raise refused(f"{folder} has {len(texts)} .txt for {count} honest members")
    return list(texts[:count])
