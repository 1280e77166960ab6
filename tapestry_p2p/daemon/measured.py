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
POINTS_MAX = 1024  # of each curve; a trainer keeps fewer
ALONE = "alone"
STEPS_LEAST = 100  # of the twin, before it is compared with anybody

Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Point:
    """What the best checkpoint until ``step`` is worth."""

    step: int
    best_step: int
    figures: Figures


@dataclass(slots=True)
class Measured:
    """The curves of one trainer's life; `clear` with the next, which tells them again."""

    curves: dict[str, list[Point]] = field(default_factory=lambda: {name: [] for name in TRACKS})
    ended: dict[str, bool] = field(default_factory=dict)
    failed: bool = False  # something in the measure, such as the task's `evaluate`: no more of it
    apart: float = 0.0  # of the sovereign model from the shared one, relative to that one's norm

    def clear(self) -> None:
        """Another life begins."""
        self.curves, self.ended, self.apart = {name: [] for name in TRACKS}, {}, 0.0
        self.failed = False

    def note(self, record: Mapping[str, Any]) -> None:
        """Take in one ``judged`` record."""
        curve = self.curves[record["track"]]
        point = Point(record["step"], record["best_step"], record["figures"])
        while curve and curve[-1].step >= point.step:
            curve.pop()
        curve.append(point)
        if len(curve) > POINTS_MAX:
            del curve[:-1:2]
        self.ended[record["track"]] = record["ended"]
        self.apart = record["apart"] or self.apart

    @property
    def unit(self) -> str:
        """Which figure is shown; '' before the first judgement."""
        known = [point.figures for curve in self.curves.values() for point in curve[-1:]]
        return next((unit for unit in UNITS if any(unit in figures for figures in known)), "")

    def results(self) -> Results | None:
        """What other members may be told; None before the shared model was judged."""
        newest = {name: curve[-1] for name, curve in self.curves.items() if curve}
        shared = newest.get("together")
        unit = next((u for u in CLAIMED if shared and u in shared.figures), "")
        if shared is None or not unit:
            return None
        values = {
            name: min(VALUE_MAX, max(1, round(1000 * point.figures[unit])))
            for name, point in newest.items()
            if unit in point.figures
        }
        return Results(unit=unit, step=shared.step, **values)

    def series(self) -> dict[str, list[list[float]]]:
        """[step, figure] of each curve, oldest first."""
        unit = self.unit
        return {
            name: [[p.step, p.figures[unit]] for p in curve if unit in p.figures]
            for name, curve in self.curves.items()
        }

    def status(self) -> dict[str, Any]:
        """For ``status``: the newest of each curve, and the gain at equal steps."""
        unit = self.unit
        return {
            "unit": unit,
            **{name: self._arm(name, unit) for name in TRACKS},
            **self._gains(unit),
            "sovereign_distance": self.apart,
            "failed": self.failed,
        }

    def _arm(self, name: str, unit: str) -> dict[str, Any] | None:
        curve = self.curves[name]
        if not curve or unit not in curve[-1].figures:
            return None
        newest = curve[-1]
        return {
            "steps": newest.step,
            "best_step": newest.best_step,
            "value": newest.figures[unit],
            "ended": self.ended.get(name, False),
        }

    def _gains(self, unit: str) -> dict[str, Any]:
        """By how much the others are better than the twin, as a share of its figure.

        Until the twin ends, at its number of steps; afterwards at each one's best.
        """
        alone = self._arm(ALONE, unit)
        gains: dict[str, Any] = {"compared_at_step": alone["steps"] if alone else 0}
        if alone and alone["steps"] < STEPS_LEAST:
            alone = None  # too young to say anything
        for name in TRACKS:
            if name != ALONE:
                value = self._at(name, unit, alone) if alone else None
                gains[f"gain_{name}"] = _better(unit, value, alone["value"]) if alone else None
        return gains

    def _at(self, name: str, unit: str, alone: Mapping[str, Any]) -> float | None:
        curve = [(p.step, p.figures[unit]) for p in self.curves[name] if unit in p.figures]
        if not curve or alone["ended"]:
            return curve[-1][1] if curve else None
        return _interpolated(curve, alone["steps"])


def _interpolated(curve: list[tuple[int, float]], step: int) -> float | None:
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
