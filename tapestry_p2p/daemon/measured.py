"""What the trainer told of its measure of the gain: three curves, and what they say together. Pure.

Knows the link's ``judged`` records alone. A curve holds, by own inner steps, what the best
checkpoint so far is worth on held-out data. The twin that trains alone is slower, for it has a
share of the time only: the gain compares it with the others at ITS number of steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tapestry_p2p.gossip.profile import UNITS as CLAIMED
from tapestry_p2p.gossip.profile import VALUE_MAX, Results
from tapestry_p2p.link import TRACKS

UNITS = ("bits_per_byte", "bits_per_char", "accuracy", "loss")  # the first that there is, is shown
POINTS_MAX = 256  # of each curve, as in the trainer; full, every second one goes
ALONE = "alone"
STEPS_LEAST = 100  # of the twin, before it is compared with anybody

Figures = Mapping[str, float]
Curve = list[tuple[int, float]]  # step, and what the best checkpoint until then is worth


@dataclass(frozen=True, slots=True)
class Newest:
    """One track's last judgement: what its best checkpoint until ``step`` is worth."""

    step: int
    best_step: int
    figures: Figures
    ended: bool


@dataclass(slots=True)
class Measured:
    """The curves of one trainer's life; `clear` with the next, which tells them again."""

    unit: str = ""  # the figure that is shown; '' before the first judgement
    newest: dict[str, Newest] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=lambda: {name: [] for name in TRACKS})
    failed: bool = False  # something in the measure, such as the task's `evaluate`: no more of it
    apart: float = 0.0  # of the sovereign model from the shared one, relative to that one's norm

    def clear(self) -> None:
        """Another life begins."""
        self.unit, self.newest, self.curves = "", {}, {name: [] for name in TRACKS}
        self.failed, self.apart = False, 0.0

    def note(self, record: Mapping[str, Any]) -> None:
        """Take in one ``judged`` record."""
        track, step, figures = record["track"], record["step"], record["figures"]
        self.newest[track] = Newest(step, record["best_step"], figures, record["ended"])
        self.apart = record["apart"] or self.apart
        self.unit = self.unit or next((unit for unit in UNITS if unit in figures), "")
        curve = self.curves[track]
        while curve and curve[-1][0] >= step:
            curve.pop()
        if self.unit in figures:
            curve.append((step, figures[self.unit]))
        if len(curve) > POINTS_MAX:
            del curve[:-1:2]

    def results(self) -> Results | None:
        """What other members may be told; None before the shared model was judged."""
        shared = self.newest.get("together")
        unit = next((u for u in CLAIMED if shared and u in shared.figures), "")
        if shared is None or not unit:
            return None
        values = {
            name: min(VALUE_MAX, max(1, round(1000 * track.figures[unit])))
            for name, track in self.newest.items()
            if unit in track.figures
        }
        return Results(unit=unit, step=shared.step, **values)

    def series(self) -> dict[str, list[list[float]]]:
        """[step, figure] of each curve, oldest first."""
        return {name: [list(point) for point in curve] for name, curve in self.curves.items()}

    def status(self) -> dict[str, Any]:
        """For ``status``: the newest of each curve, and the gain at equal steps."""
        return {
            "unit": self.unit,
            **{name: self._arm(name) for name in TRACKS},
            **self._gains(),
            "sovereign_distance": self.apart,
            "failed": self.failed,
        }

    def _arm(self, name: str) -> dict[str, Any] | None:
        newest = self.newest.get(name)
        if newest is None or self.unit not in newest.figures:
            return None
        return {
            "steps": newest.step,
            "best_step": newest.best_step,
            "value": newest.figures[self.unit],
            "ended": newest.ended,
        }

    def _gains(self) -> dict[str, Any]:
        """By how much the others are better than the twin, as a share of its figure.

        Until the twin ends, at its number of steps; afterwards at each one's best.
        """
        alone = self._arm(ALONE)
        gains: dict[str, Any] = {"compared_at_step": alone["steps"] if alone else 0}
        if alone and alone["steps"] < STEPS_LEAST:
            alone = None  # too young to say anything
        for name in TRACKS:
            if name != ALONE:
                value = self._at(name, alone) if alone else None
                gains[f"gain_{name}"] = _better(self.unit, value, alone["value"]) if alone else None
        return gains

    def _at(self, name: str, alone: Mapping[str, Any]) -> float | None:
        curve = self.curves[name]
        if not curve or alone["ended"]:
            return curve[-1][1] if curve else None
        return _interpolated(curve, alone["steps"])


def _interpolated(curve: Curve, step: int) -> float | None:
    """The curve at ``step``, on the line between two judgements; None before the first."""
    for (first, before), (last, after) in pairwise(curve):
        if first <= step <= last:
            return before + (after - before) * (step - first) / (last - first)
    return curve[-1][1] if step >= curve[-1][0] else None


def _better(unit: str, value: float | None, alone: float) -> float | None:
    """1 - value / alone, rounded; for an accuracy, of which more is better, the other way."""
    if value is None or not alone:
        return None
    share = value / alone - 1 if unit == "accuracy" else 1 - value / alone
    return round(share, 4)
