"""How records are shared out among members of an experiment, and how labels are poisoned.

Rule: from classes to lists of indices; every index goes to exactly one member. Numpy alone; knows
no files, tasks or models. Chance is a seed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Indices = list[NDArray[np.int64]]  # one array a member


def iid(count: int, members: int, seed: int) -> Indices:
    """``count`` records shuffled and cut into ``members`` parts of equal size, give or take one."""
    _need(members)
    return np.array_split(np.random.default_rng(seed).permutation(count), members)


def label_separated(labels: NDArray[Any], members: int, seed: int) -> Indices:
    """Each member as few classes as possible: class c to the members m with m = c (mod classes).

    With as many members as classes everyone has one class, as in the tables of Wu, Chen and Ling
    (IOS, 2023); with fewer, member m has the classes c with c = m (mod members); with more, the
    members of one class share it.
    """
    _need(members)
    classes = np.unique(labels)
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    own: list[list[NDArray[np.int64]]] = [[] for _ in range(members)]
    for place, label in enumerate(classes):
        holders = list(range(place % members, members, len(classes)))
        indices = shuffled[labels[shuffled] == label]
        for holder, part in zip(holders, np.array_split(indices, len(holders)), strict=True):
            own[holder].append(part)
    return [np.concatenate(parts) for parts in own]


def dirichlet(
    labels: NDArray[Any], members: int, alpha: float, seed: int, smallest: int = 32
) -> Indices:
    """Each class is divided among the members by proportions drawn from Dirichlet(``alpha``).

    Small alpha: few classes a member (Hsu, Qi, Brown 2019). Drawn anew until each member holds
    ``smallest`` records; ValueError if 1,000 draws did not give that.
    """
    _need(members)
    random = np.random.default_rng(seed)
    for _ in range(1000):
        own: list[list[NDArray[np.int64]]] = [[] for _ in range(members)]
        for label in np.unique(labels):
            indices = random.permutation(np.flatnonzero(labels == label))
            shares = random.dirichlet(np.full(members, alpha))
            cuts = np.round(np.cumsum(shares)[:-1] * len(indices)).astype(np.int64)
            for holder, part in enumerate(np.split(indices, cuts)):
                own[holder].append(part)
        parts = [np.concatenate(parts) for parts in own]
        if min(map(len, parts)) >= smallest:
            return parts
    raise ValueError(f"Dirichlet({alpha}) leaves some of {members} members under {smallest}")


def flipped(records: NDArray[Any], classes: int = 10) -> NDArray[Any]:
    """A poisoned copy of records [n, pixels + 1]: every class c became ``classes`` - 1 - c."""
    poisoned = records.copy()
    poisoned[:, -1] = classes - 1 - poisoned[:, -1]
    return poisoned


def _need(members: int) -> None:
    if members < 1:
        raise ValueError(f"{members} members: at least 1 needed")
