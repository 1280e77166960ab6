"""The last good place of a training: where it goes back to, and what is saved of it.

Rule: a small model's is on the device, as quick as a step; a big one's is a mapped file, so that
the device holds one set of parameters and moments, not two. Knows arrays; not what made them good.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from tapestry_p2p.learn.learner import Place, Program

ALIGNED = 64  # bytes


class Good:
    """Holds a place apart from the one that is trained. ``place`` is for reading."""

    def __init__(self, program: Program, place: Place) -> None:
        self._program = program
        self._apart = program.big
        self.place = self._shelved(place) if self._apart else program.copy(place)

    def take(self, place: Place) -> None:
        """This is the good one from now on."""
        if not self._apart:
            self.place = self._program.copy(place)
            return
        for held, leaf in zip(_leaves(self.place), _leaves(place), strict=True):
            np.copyto(held, np.asarray(leaf))
        self.place.step, self.place.cursor = place.step, place.cursor
        self._program.shelf.settle()

    def add(self, correction: NDArray[np.float32]) -> None:
        """Add float32[d] to the parameters."""
        if not self._apart:
            self._program.add(self.place, correction)
            return
        steps = self._program.layout.step(correction)
        for held, step in zip(_leaves(self.place.params), _leaves(steps), strict=True):
            held += step
        self._program.shelf.settle()

    def again(self) -> Place:
        """A place to train on from here."""
        return self._program.copy(self.place)

    def _shelved(self, place: Place) -> Place:
        """The same in one file, each leaf at an aligned place of it."""
        leaves, tree = jax.tree.flatten((place.params, place.moments))
        sizes = [-(-leaf.nbytes // ALIGNED) * ALIGNED for leaf in leaves]
        room, at, held = self._program.shelf.bytes(sum(sizes)), 0, []
        for leaf, size in zip(leaves, sizes, strict=True):
            part = room[at : at + leaf.nbytes].view(leaf.dtype).reshape(leaf.shape)
            np.copyto(part, np.asarray(leaf))
            held.append(part)
            at += size
        self._program.shelf.settle()
        params, moments = jax.tree.unflatten(tree, held)
        return Place(params, moments, place.step, place.cursor)


def _leaves(place: Any) -> list[Any]:
    if isinstance(place, Place):
        return [*jax.tree.leaves(place.params), *jax.tree.leaves(place.moments)]
    return jax.tree.leaves(place)
