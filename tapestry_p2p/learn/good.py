"""The last good place of a training: where it goes back to, and what is saved of it.

Rule: a small model's is on the device, as quick as a step; a big one's is a mapped file, so that
the device holds one set of parameters and moments, not two. Knows arrays; not what made them good.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from tapestry_p2p.bulk import SETTLE_EVERY
from tapestry_p2p.learn.learner import Place, Program

ALIGNED = 64  # bytes


class Good:
    """Holds a place apart from the one that is trained. ``place`` is for reading."""

    def __init__(self, program: Program, place: Place) -> None:
        self._program = program
        self._apart, self._unsettled = program.big, 0
        self.place = self._shelved(place) if self._apart else program.copy(place)

    def take(self, place: Place) -> None:
        """This is the good one from now on."""
        if not self._apart:
            self.place = self._program.copy(place)
            return
        for held, leaf in zip(_leaves(self.place), _leaves(place), strict=True):
            self._copy(leaf, held)
        self.place.step, self.place.cursor = place.step, place.cursor
        self._program.settle()

    def add(self, correction: NDArray[np.float32]) -> None:
        """Add float32[d] to the parameters."""
        if not self._apart:
            self._program.add(self.place, correction)
            return
        steps = self._program.layout.step(correction)
        for held, step in zip(_leaves(self.place.params), _leaves(steps), strict=True):
            held += step
            self._touched(held.nbytes)
        self._program.settle()

    def again(self) -> Place:
        """A place to train on from here."""
        return self._program.copy(self.place)

    def _copy(self, leaf: Any, to: NDArray[Any]) -> None:
        np.copyto(to, np.asarray(leaf))
        self._touched(to.nbytes)

    def _touched(self, size: int) -> None:
        """So many bytes of the file were."""
        self._unsettled += size
        if self._unsettled >= SETTLE_EVERY:
            self._program.shelf.settle()
            self._unsettled = 0

    def _shelved(self, place: Place) -> Place:
        """The same in one file, each leaf at an aligned place of it."""
        leaves, tree = jax.tree.flatten((place.params, place.moments))
        sizes = [-(-leaf.nbytes // ALIGNED) * ALIGNED for leaf in leaves]
        room, at, held = self._program.shelf.bytes(sum(sizes)), 0, []
        for leaf, size in zip(leaves, sizes, strict=True):
            part = room[at : at + leaf.nbytes].view(leaf.dtype).reshape(leaf.shape)
            self._copy(leaf, part)
            held.append(part)
            at += size
        self._program.settle()
        params, moments = jax.tree.unflatten(tree, held)
        return Place(params, moments, place.step, place.cursor)


def _leaves(place: Any) -> list[Any]:
    if isinstance(place, Place):
        return [*jax.tree.leaves(place.params), *jax.tree.leaves(place.moments)]
    return jax.tree.leaves(place)
