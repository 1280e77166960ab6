"""What of a training survives a restart, as one tree for the state store.

Rule: the node keeps the vector; we keep what must not leave: moments, cursor, what the judge has
collected, and the average that is shown where training has no end. Knows the form of the tree,
nothing of bytes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from tapestry_p2p.learn.judge import Checkpoint, Judge
from tapestry_p2p.learn.learner import Average, Place, Program, with_schedule_at
from tapestry_p2p.learn.state import StateStore


class Keeper:
    """Loads the last state of this task at once; afterwards saves and resumes.

    What the judge collects in a testnet is kept too. ``average`` is None where training has an end.
    """

    def __init__(self, directory: Path, program: Program, judge: Judge) -> None:
        self._program, self._judge = program, judge
        self.place = program.fresh(program.genesis)
        shelf, genesis = program.shelf, program.genesis
        self.average = None if program.schedule_steps else Average(genesis, shelf=shelf)
        self.restored = False
        moments = jax.tree.structure(self.place.moments)
        identity = (
            f"{program.layout.whole_schema} {moments} {judge.collecting} {bool(self.average)}"
        )
        self._store = StateStore(directory, hashlib.sha256(identity.encode()).hexdigest())
        loaded = self._store.load(self._tree(self.place))
        if loaded is not None:
            self._restore(*loaded)

    def due(self) -> bool:
        """Whether it is time to save."""
        return self._store.due()

    def save(self, good: Place, cursor: int) -> None:
        """Save a place that is known to be finite, and the batches drawn until now. OSError."""
        self.place = Place(good.params, good.moments, good.step, cursor)
        counters: dict[str, Any] = {"step": good.step, "cursor": cursor}
        if self.average:
            counters["averaged"] = self.average.seen
        if self._judge.collecting:
            bests = [[best.score, best.step] for best in (self._judge.best, self._judge.best_own)]
            counters["judged"] = [self._judge.judged_at, bests]
        self._store.save(self._tree(good), counters)

    def resume(self, vector: NDArray[np.float32], step: int) -> Place:
        """The place to go on from: the node's vector and step, our own moments and cursor."""
        if not self.restored:
            return self._program.fresh(vector, step, step)
        own = self.place
        moments = with_schedule_at(self._program.owned(own.moments), step)
        return Place(self._program.params(vector, own.params), moments, step, own.cursor)

    def _tree(self, place: Place) -> Any:
        tree = {"params": place.params, "moments": place.moments}
        if self.average:
            tree["average"] = self.average.vector
        if self._judge.collecting:
            tree["bests"] = [self._judge.best.vector, self._judge.best_own.vector]
        return tree

    def _restore(self, tree: Any, counters: dict[str, Any]) -> None:
        self.restored = True
        step, cursor = counters["step"], counters["cursor"]
        self.place.params = self.place.moments = None  # two at a time would be too many
        self.place = self._program.copy(Place(tree["params"], tree["moments"], step, cursor))
        if self.average:
            vector = np.array(tree["average"]) if not self._program.big else tree["average"]
            self.average = Average(vector, counters["averaged"], self._program.shelf)
        if not self._judge.collecting:
            return
        self._judge.judged_at, bests = counters["judged"]
        self._judge.best, self._judge.best_own = (
            Checkpoint(vector, *counts) for vector, counts in zip(tree["bests"], bests, strict=True)
        )
