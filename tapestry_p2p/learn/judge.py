"""What a testnet asks a trainer at the end: how good is each way of training, fairly measured.

Rule: every arm is judged at the checkpoint that is best on the validation third of the held-out
text, and reported on the other two thirds: beating an overfitted twin proves nothing. `together`
collects its checkpoints during gossip; `alone` is trained here, from the same genesis, data, seed
and schedule; `sovereign` is the shared model trained on with own data, over the schedule's end
once more. It takes those steps beside; docs/gain.md says what they cost and what they are worth.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapestry_p2p.learn.learner import Place, Program
from tapestry_p2p.learn.task import Metrics, evaluator_of
from tapestry_p2p.learn.vector import Params

Vector = NDArray[Any]  # float32, of the whole model

REPORTED = ("loss", "bits_per_byte", "bits_per_char", "accuracy")
ARMS = ("together", "alone", "sovereign", "untrained")


# Between a shared model and what own data made of it lie better ones than both: some of what the
# others' texts said is kept against learning one's own by rote (Wortsman et al. 2022, WiSE-FT).
BLENDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def blend(shared: Vector, own: Vector, share: float) -> Vector:
    """shared + share (own - shared), float32[d]."""
    return shared + np.float32(share) * (own - shared)


class Checkpoint:
    """The best parameters seen so far by some score; smaller is better."""

    def __init__(self, vector: Any, score: float = math.inf, step: int = 0) -> None:
        self.vector, self.score, self.step = vector, score, step  # whole

    def offer(self, vector: Any, score: float, step: int) -> None:
        """Keep these parameters if they are better."""
        if score < self.score:
            self.vector, self.score, self.step = vector, score, step


class Judge:
    """Judges one trainer's arms. ``spec`` is the ``judge`` map of the link's ``configure``.

    Without one (outside testnets) it only judges present parameters on the task's own data.
    """

    def __init__(self, spec: Mapping[str, Any] | None, program: Program) -> None:
        self.collecting = spec is not None
        spec = spec or {"texts": {}, "own": "own", "every_steps": 0, "sovereign_from_step": 0}
        self._program = program
        self._evaluate = evaluator_of(program.task)
        self._texts: dict[str, tuple[Path, Path] | None] = {
            language: (Path(paths[0]), Path(paths[1])) for language, paths in spec["texts"].items()
        }
        self._own = spec["own"]
        if not self._texts:  # the task's own held-out data
            self._texts = {self._own: None}
        self._every = max(1, spec["every_steps"])
        self.sovereign_from = int(spec["sovereign_from_step"])  # of the schedule, once more
        self.best = Checkpoint(program.whole_genesis)  # by the mean over all languages
        self.best_own = Checkpoint(program.whole_genesis)  # by the own one
        self.judged_at = 0  # step of the last judgement of `together`
        self._twin: Checkpoint | None = None  # the best of `alone`, once it was trained

    def corrected(self, place: Place, last: bool) -> None:
        """Called after a correction was added: judges `together` when it is time."""
        if self.collecting and (last or place.step - self.judged_at >= self._every):
            self.judged_at = place.step
            vector = self._program.layout.whole(place.params)
            losses = self._losses(place.params, self._texts)
            self.best.offer(vector, _mean(losses), place.step)
            self.best_own.offer(vector, losses.get(self._own, _mean(losses)), place.step)

    def arm(self, name: str, between: Callable[[], None]) -> dict[str, Any]:
        """Train (if need be) and judge one of ARMS; ``between`` is called at step boundaries.

        Returns per judged language what the task reports, at full precision, with ``best_step``
        and ``seconds``. KeyError for another name.
        """
        begin = time.monotonic()
        best = {
            "untrained": lambda: Checkpoint(self._program.whole_genesis),
            "together": lambda: self.best,
            "alone": lambda: self._alone(between),
            "sovereign": lambda: self._sovereign(between),
        }[name]()
        report = self.report(self._program.params(best.vector))
        return {**report, "best_step": best.step, "seconds": time.monotonic() - begin}

    def _alone(self, between: Callable[[], None]) -> Checkpoint:
        if self._twin is None:
            start = self._program.fresh(self._program.genesis)
            best = Checkpoint(self._program.whole_genesis)
            self._twin = self._train(start, best, between)
        return self._twin

    def _sovereign(self, between: Callable[[], None]) -> Checkpoint:
        """The best of all that the member has: the shared model, that trained on, and the twin."""
        program, shared, twin = self._program, self.best_own, self._alone(between)
        end = program.schedule_steps
        again = program.fresh(shared.vector, self.sovereign_from, cursor=end)
        before = end - self.sovereign_from
        own = self._train(again, Checkpoint(shared.vector), between, before)
        best = Checkpoint(shared.vector, shared.score, shared.step)
        for found in (own, twin):
            best.offer(found.vector, found.score, found.step)
        last = program.layout.whole(again.params)  # worse by itself than where it began, maybe
        for share in BLENDS:
            vector = blend(shared.vector, last, share)
            best.offer(vector, self.held_out(program.params(vector)), end + before)
        return best

    def _train(
        self, place: Place, best: Checkpoint, between: Callable[[], None], before: int = 0
    ) -> Checkpoint:
        program = self._program
        for step in range(place.step, program.schedule_steps + 1):
            if step % self._every == 0 or step == program.schedule_steps:
                score = self.held_out(place.params)
                best.offer(program.layout.whole(place.params), score, step + before)
            if step < program.schedule_steps:
                program.advance(place)
                between()
        return best

    def held_out(self, params: Params) -> float:
        """The loss on this member's own validation part: by it a start is chosen."""
        own = (self._own,) if self._own in self._texts else tuple(self._texts)
        return _mean(self._losses(params, own))

    def _losses(self, params: Params, languages: Iterable[str]) -> dict[str, float]:
        return {language: self._metrics(params, language, 0)["loss"] for language in languages}

    def _metrics(self, params: Params, language: str, part: int) -> Metrics:
        files = self._texts[language]
        paths = None if files is None else [files[part]]
        return self._evaluate(params, ("validation", "test")[part], paths)

    def report(self, params: Params) -> dict[str, Any]:
        """What the task says of these parameters on the test part, by figure and language."""
        found = {language: self._metrics(params, language, 1) for language in self._texts}
        return {
            name: {language: metrics[name] for language, metrics in found.items()}
            if all(name in metrics for metrics in found.values())
            else None
            for name in REPORTED
        }


def _mean(losses: Mapping[str, float]) -> float:
    return math.fsum(losses.values()) / len(losses)
