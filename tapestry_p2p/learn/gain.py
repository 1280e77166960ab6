"""Does the member gain? Two trainings beside the shared one, measured on its own held-out data.

Rule: `alone` starts at genesis and never hears of anybody; `sovereign` is the shared model trained
on for a while on own data, again and again. All three are judged alike: the checkpoint is chosen on
the validation part, what is told comes from the test part. Their time is a share of training's.
docs/decisions/0011-the-gain.md says why.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from numpy.typing import NDArray

from tapestry_p2p.learn.judge import BLENDS, Checkpoint, Judge, blend
from tapestry_p2p.learn.learner import Average, Place, Program, norm, with_schedule_at
from tapestry_p2p.learn.state import StateStore
from tapestry_p2p.learn.vector import Params

log = logging.getLogger(__name__)

ALONE, TOGETHER, SOVEREIGN = TRACKS = ("alone", "together", "sovereign")
EVERY_STEPS = 20  # an average follows so often, and no judgement comes sooner
SPARSER = 32  # judgements for each doubling of the steps: a curve needs no more
PATIENCE = 2.0  # `alone` ends after so many times the steps of its best checkpoint
LEAST_STEPS = 1000  # but never sooner
TRIPS_JUDGED = 50  # judgements of one sovereign training at most
TRIP_PATIENCE = 6  # and so many without a better one end it
LAST_TRIP = 0.5  # of a schedule that has ended is gone through again, on own data alone
POINTS_MAX = 256  # of each curve; full, every second one goes
FORM = 3  # of what is saved
JUDGING = 0.5  # of a training's time at most goes into judging it

Vector = NDArray[Any]  # float32, of the whole model: leaves that never leave are in it too
Figures = Mapping[str, float]


class Track:
    """One curve: what the best checkpoint so far is worth, by inner steps."""

    def __init__(self) -> None:
        self.score, self.best_step = math.inf, 0
        self.figures: Figures = {}
        self.points: list[tuple[int, int, Figures]] = []  # (step, best step, figures)
        self.due = 0
        self.ended = False

    def note(self, step: int, every: int) -> None:
        """A judgement at ``step`` is over."""
        self.points.append((step, self.best_step, self.figures))
        if len(self.points) > POINTS_MAX:
            self.points = [*self.points[:-1:2], self.points[-1]]
        self.due = step + max(every, step // SPARSER)

    def pack(self) -> dict[str, Any]:
        """As plain values, for the state."""
        return {**vars(self), "figures": dict(self.figures)}

    @classmethod
    def unpack(cls, packed: Mapping[str, Any]) -> Track:
        """What `pack` gave."""
        track = cls()
        vars(track).update(packed)
        return track


class Beside:
    """A training beside the shared one, with the average that the shared one has too."""

    def __init__(
        self, program: Program, place: Place, average: Average | None, start: Vector | None = None
    ) -> None:
        self._program, self.place, self.average = program, place, average
        self.start = start  # of a sovereign training: the shared model that it began from

    def advance(self) -> bool:
        """One inner step; False if it led out of the finite."""
        loss = self._program.advance(self.place)
        if self.average and self.place.step % EVERY_STEPS == 0:
            self.average.follow(self._program.layout.whole(self.place.params))
        return math.isfinite(loss)

    @property
    def vector(self) -> Vector:
        """What is judged."""
        if self.average:
            return self.average.vector
        return self._program.layout.whole(self.place.params)


class TripAverage(Average):
    """Of a short training: its later half counts (Rakhlin, Shamir and Sridharan 2012)."""

    ETA = 1


AVERAGES: Mapping[str, type[Average]] = {ALONE: Average, SOVEREIGN: TripAverage}


class Gain:
    """The measure. ``spec``: ``share`` of training's time, 0..0.5; ``alone``, ``sovereign``: flags.

    `earn` gives it time, `work` does at most one step or one judgement with it and returns what is
    to be told of it: a ``judged`` record of the link, or None. ``clock``: seconds.
    """

    def __init__(
        self,
        spec: Mapping[str, Any],
        program: Program,
        judge: Judge,
        directory: Path,
        data: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._program, self._judge, self._clock = program, judge, clock
        self.share = float(spec["share"])
        self._with = {ALONE: spec["alone"], SOVEREIGN: spec["sovereign"]}
        self.tracks = {name: Track() for name in TRACKS}
        self.steps = 0  # inner steps of the shared training; its place counts nominal rounds
        self.best = Checkpoint(program.whole_genesis)  # of the sovereign model
        self.apart = 0.0  # of the sovereign model from the shared one, when it was judged last
        self._beside: dict[str, Beside] = {}
        self._every = 0  # steps between two judgements, found with the first
        self._step_s = 0.0
        self._trip: list[float] = []  # scores of the sovereign training under way
        self._spent_s = dict.fromkeys(TRACKS, 0.0)
        self._credit_s = 0.0
        self.rest_s = 0.0  # after `finish`, so that the share holds
        self._compiled = False
        self._trip_due = 0
        self._trip_from = self._trip_start = -1  # steps, and place in the schedule, as it began
        self._on_trip = False  # whether the sovereign training is under way
        self._blends: list[float] = []  # of its end with its start, still to be judged
        for name in (name for name, wanted in self._with.items() if wanted):
            start = program.fresh(program.genesis)
            self._beside[name] = Beside(program, start, self._average(AVERAGES[name]))
        self._store = self._open(directory, data)

    # Time

    def earn(self, busy_s: float) -> None:
        """The shared training has worked for so long, at one step."""
        self.steps += 1
        self._credit_s += busy_s * self.share / (1 - self.share)

    def work(self, place: Place, shown: Callable[[], Params]) -> dict[str, Any] | None:
        """One step or one judgement if there is time for it; a record to send, or None.

        ``place``: the shared training; ``shown()``: what the user is shown of it.
        """
        if self._program.over(place):
            return None  # the last correction is still to come: `finish` goes on after it
        return self._work(place, shown)

    def _work(self, place: Place, shown: Callable[[], Params]) -> dict[str, Any] | None:
        if self._credit_s <= 0:
            return None
        name = self._next(place)
        if not name:
            self._credit_s = min(self._credit_s, 0.0)  # nothing to do: no time is saved up
            return None
        begin = self._clock()
        told = self._go_on(name, place, shown)
        if self._compiled:
            took_s = self._clock() - begin
            self._credit_s -= took_s
            self._spent_s[name] += took_s
        self._compiled = True  # by the first judgement, whose time is the start's
        return told

    def finish(self, place: Place, shown: Callable[[], Params]) -> dict[str, Any] | None:
        """As `work`, when the shared training is over; `rest_s` says how long to rest then."""
        begin = self._clock()
        self._credit_s = max(self._credit_s, 1e-9)
        told = self._work(place, shown)
        self._credit_s = 0.0
        self.rest_s = (self._clock() - begin) * (1 / self.share - 1)
        return told

    def unfinished(self, place: Place) -> bool:
        """Whether anything is left to do when the shared training is over."""
        return bool(self._ready(place))

    def _next(self, place: Place) -> str:
        """Whose turn it is: who has had least time of those with something to do; '' if none.

        The shared model's first judgement comes before all, since it compiles.
        """
        return min(self._ready(place), key=self._spent_s.__getitem__, default="")

    def _ready(self, place: Place) -> list[str]:
        """Who has something to do."""
        something = {
            TOGETHER: self.steps >= self.tracks[TOGETHER].due,
            ALONE: self._with[ALONE] and not self.tracks[ALONE].ended,
            SOVEREIGN: self._with[SOVEREIGN]
            and (self._on_trip or self._may_begin(place) or self._untold()),
        }
        return [name for name, is_ready in something.items() if is_ready]

    def _may_begin(self, place: Place) -> bool:
        """Whether a sovereign training has a shared model to begin from that none began from.

        The last shared model is worth more than the end of a training from an earlier one.
        """
        ready = not self._on_trip or self._program.over(place)
        return ready and self._trip_from != self.steps

    def _untold(self) -> bool:
        """Whether another's checkpoint has become the sovereign model, and nobody knows."""
        track = self.tracks[SOVEREIGN]
        return track.figures != (track.points[-1][2] if track.points else {})

    # Trainings

    def _go_on(self, name: str, place: Place, shown: Callable[[], Params]) -> dict[str, Any] | None:
        if name == TOGETHER:
            return self._judge_together(shown())
        return self._alone() if name == ALONE else self._sovereign(place, shown)

    def _alone(self) -> dict[str, Any] | None:
        track, beside = self.tracks[ALONE], self._beside[ALONE]
        step = beside.place.step
        if not self._program.over(beside.place) and step < track.due:
            track.ended = not self._step(beside)
            return self._record(ALONE, -1) if track.ended else None
        self._judged(beside.vector, step, track)
        given_up = max(LEAST_STEPS, PATIENCE * track.best_step)
        endless = not self._program.schedule_steps
        track.ended = self._program.over(beside.place) or (endless and step >= given_up)
        return self._told(ALONE, step)

    def _sovereign(self, place: Place, shown: Callable[[], Params]) -> dict[str, Any] | None:
        if self._may_begin(place):
            self._begin_trip(place, self._program.layout.whole(shown()))
            return None
        if not self._on_trip:
            last = [point[0] for point in self.tracks[SOVEREIGN].points[-1:]]
            return self._told(SOVEREIGN, max([self.steps, *last]))
        beside = self._beside[SOVEREIGN]
        if self._blends:
            return self._blended(beside)
        over = self._program.over(beside.place)
        if not over and beside.place.step < self._trip_due:
            self._on_trip = self._step(beside)
            return None
        self._trip.append(self._judged(beside.vector, self._trip_step))
        self._trip_due = beside.place.step + (self._every or EVERY_STEPS)
        if over or (self._given_up(self._trip) and not self._program.over(place)):
            self._blends = list(BLENDS[::2])
        self.apart = self.distance(self._program.layout.whole(shown()))
        return self._told(SOVEREIGN, max(self.steps, self._trip_step))

    @property
    def _trip_step(self) -> int:
        """Own steps of the sovereign training under way, those of the shared model among them."""
        return self._trip_from + self._beside[SOVEREIGN].place.step - self._trip_start

    def _blended(self, beside: Beside) -> dict[str, Any]:
        """Judge a model between the end of a sovereign training and its start."""
        assert beside.start is not None
        share = self._blends.pop()
        self._judged(blend(beside.start, beside.vector, share), self._trip_step)
        self._on_trip = bool(self._blends)
        return self._told(SOVEREIGN, max(self.steps, self._trip_step))

    def _begin_trip(self, place: Place, vector: Vector) -> None:
        program, step = self._program, place.step
        if program.over(place):
            step = round(program.schedule_steps * (1 - LAST_TRIP))
        moments = with_schedule_at(program.owned(place.moments), step)
        start = Place(program.params(vector), moments, step, place.cursor)
        average = self._average(TripAverage, vector)
        self._beside[SOVEREIGN] = Beside(program, start, average, vector.copy())
        self._on_trip, self._blends = True, []
        self._trip_from, self._trip_start = self.steps, step
        self._trip, self._trip_due = [], step  # the shared model itself comes first

    def _given_up(self, scores: list[float]) -> bool:
        """Whether a sovereign training has shown what it can; the last one goes to its end."""
        best = min(range(len(scores)), key=scores.__getitem__)
        return len(scores) - best > TRIP_PATIENCE or len(scores) > TRIPS_JUDGED

    def _step(self, beside: Beside) -> bool:
        begin = self._clock()
        finite = beside.advance()
        self._step_s = self._clock() - begin
        if not finite:
            log.warning("beside: not finite at step %d", beside.place.step)
        return finite

    def _average(self, kind: type[Average], vector: Vector | None = None) -> Average | None:
        if self._program.schedule_steps:
            return None
        return kind(self._program.whole_genesis if vector is None else vector)

    # Judging

    def _judge_together(self, params: Params) -> dict[str, Any]:
        self._judged(self._program.layout.whole(params), self.steps, self.tracks[TOGETHER])
        return self._told(TOGETHER, self.steps)

    def _judged(self, vector: Vector, step: int, *tracks: Track) -> float:
        """The score of a checkpoint, which is offered to ``tracks`` and to the sovereign model.

        That one may be any that this member has. A judgement is the dearer one that finds a new
        best, so the time of such a one says how seldom they come.
        """
        begin = self._clock()
        score = self._judge.held_out(self._program.params(vector))
        own = self.tracks[SOVEREIGN]
        offered = {*tracks, own} if self._with[SOVEREIGN] else set(tracks)
        better = [track for track in offered if -math.inf < score < track.score]
        timed = not self._every and self._step_s > 0  # the first judgement compiles
        if better or timed:
            figures = self._figures(vector)
        for track in better:
            track.score, track.best_step, track.figures = score, step, figures
        if own in better:
            self.best = Checkpoint(vector.copy(), score, step)
        if timed:
            steps = (self._clock() - begin) / self._step_s * (1 / JUDGING - 1)
            self._every = EVERY_STEPS * max(1, math.ceil(steps / EVERY_STEPS))
        return score

    def _figures(self, vector: Vector) -> Figures:
        """What is told of a checkpoint: the figures of the test part that are finite."""
        found = self._judge.report(self._program.params(vector))
        told = {name: float(next(iter(of.values()))) for name, of in found.items() if of}
        return {name: figure for name, figure in told.items() if math.isfinite(figure)}

    def _told(self, name: str, step: int) -> dict[str, Any]:
        track = self.tracks[name]
        track.note(step, self._every or EVERY_STEPS)
        return self._record(name, -1)

    def _record(self, name: str, index: int) -> dict[str, Any]:
        """The link's ``judged`` record of one point of a curve."""
        track = self.tracks[name]
        step, best_step, figures = track.points[index]
        told = {"t": "judged", "track": name, "step": step, "best_step": best_step}
        apart = self.apart if name == SOVEREIGN else 0.0
        return {**told, "ended": track.ended, "apart": apart, "figures": dict(figures)}

    def begin(self, step: int) -> list[dict[str, Any]]:
        """Training begins at ``step``; every point of every curve, to be told.

        What was counted goes on: a node counts in nominal rounds, which are longer or shorter.
        """
        self.steps = self.steps or step
        return [
            self._record(name, index)
            for name, track in self.tracks.items()
            for index in range(len(track.points))
        ]

    def distance(self, vector: Vector) -> float:
        """How far the sovereign model is from another, relative to the norm of that."""
        return norm(self.best.vector - vector) / max(norm(vector), 1e-30)

    def sovereign_params(self) -> Params | None:
        """The sovereign model, once there is one."""
        if not math.isfinite(self.best.score):
            return None
        return self._program.params(self.best.vector)

    # What survives

    def _open(self, directory: Path, data: int) -> StateStore:
        """The store of this measure; what is in it of the same model and data is taken up."""
        program = self._program
        moments = [jax.tree.structure(beside.place.moments) for beside in self._beside.values()]
        told = [FORM, program.layout.whole_schema, moments, program.schedule_steps, data]
        identity = hashlib.sha256(" ".join(map(str, [*told, self._with])).encode())
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        store = StateStore(directory, identity.hexdigest())
        loaded = store.load(self._tree())
        if loaded is not None:
            self._restore(*loaded)
        return store

    def due(self) -> bool:
        """Whether it is time to save."""
        return self._store.due()

    def save(self) -> None:
        """Save everything. OSError."""
        counters: dict[str, Any] = {name: track.pack() for name, track in self.tracks.items()}
        counters["best"] = [self.best.score, self.best.step]
        counters["every"], counters["apart"] = self._every, self.apart
        counters["steps"] = self.steps
        trip = [self._on_trip, self._trip, self._trip_due, self._trip_from, self._trip_start]
        counters["trip"], counters["blends"] = trip, self._blends
        counters["places"] = {
            name: [b.place.step, b.place.cursor, b.average.seen if b.average else 0]
            for name, b in self._beside.items()
        }
        self._store.save(self._tree(), counters)

    def _tree(self) -> Any:
        tree: dict[str, Any] = {}
        for name, beside in self._beside.items():
            tree[name] = {"params": beside.place.params, "moments": beside.place.moments}
            if beside.average:
                tree[name]["average"] = beside.average.vector
        if self._with[SOVEREIGN]:
            start = self._beside[SOVEREIGN].start
            tree["start"] = self._program.whole_genesis if start is None else start
            tree["best"] = self.best.vector
        return tree

    def _restore(self, tree: Any, counters: dict[str, Any]) -> None:
        self.tracks = {name: Track.unpack(counters[name]) for name in TRACKS}
        self._every, self.apart = counters["every"], counters["apart"]
        if self._with[SOVEREIGN]:
            self.best = Checkpoint(tree["best"], *counters["best"])
        self.steps = counters["steps"]
        trip, self._blends = counters["trip"], counters["blends"]
        self._on_trip, self._trip, self._trip_due, self._trip_from, self._trip_start = trip
        for name, (step, cursor, seen) in counters["places"].items():
            kept = tree[name]
            place = self._program.copy(Place(kept["params"], kept["moments"], step, cursor))
            average = AVERAGES[name](kept["average"], seen) if "average" in kept else None
            self._beside[name] = Beside(self._program, place, average)
        if self._on_trip:
            self._beside[SOVEREIGN].start = tree["start"]
