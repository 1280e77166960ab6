"""The registry of attacks. A new attack is a function, and a row here.

``messages(scene)`` is the omniscient form, one message for each receiver. A row is playable when a
real process can play it: one message for all, made of the copies it follows, of the strength its
paper uses; ``play`` gives it the vector to steer its public copy to. Rows with ``spoils`` publish
what no honest encoder makes: they spoil the payload on its way out.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from tapestry_p2p.sim.attacks import lines, points
from tapestry_p2p.sim.attacks.lines import Line, constant
from tapestry_p2p.sim.attacks.points import Point
from tapestry_p2p.sim.attacks.scene import Aim, Scene, Vector
from tapestry_p2p.sim.graphs import complete

# two bytes that repeat: a bfloat16 or float32 scale of that kind, wherever it stands
_PATTERNS = {
    "nan": b"\xff\xff",
    "inf": b"\x80\x7f",
    "huge": b"\x7f\x7f",
    "denormal": b"\x01\x00",
}


@dataclass(frozen=True)
class AttackRow:
    """One attack: a line (with a strength) or a point."""

    summary: str
    line: Line | None = None
    point: Point | None = None
    playable: bool = False
    needs_learning: bool = False
    spoils: str = ""  # a kind of spoil()

    def messages(self, scene: Scene) -> Vector:
        """What every receiver is told, float32[h, d]; may hold anything but a wrong shape."""
        if self.line is not None:
            return lines.messages(self.line, scene)
        assert self.point is not None
        with np.errstate(over="ignore", invalid="ignore"):
            return self.point(scene)

    def play(self, genesis: Vector, honest: Vector) -> Vector:
        """Where a hostile process steers its copy to, float32[d].

        From the genesis float32[d] and the k >= 1 copies it follows, float32[k, d]. The same sight
        gives the same answer, chance included.
        """
        if not self.playable:
            raise ValueError("this attack tells receivers different things; no process plays it")
        chance = np.random.default_rng(int.from_bytes(sha256(honest.tobytes()).digest()[:8]))
        scene = Scene(
            complete(len(honest) + 1, 1), honest, "mean", 0, chance,
            genesis=genesis, aim=Aim("fixed"),
        )  # fmt: skip
        return np.asarray(self.messages(scene)[0])


def spoil(kind: str, payload: bytes) -> bytes:
    """A payload that no honest encoder makes: of a wrong length, or with spoiled scales."""
    if kind == "wrong_shape":
        return payload[:-1]
    return (_PATTERNS[kind] * (len(payload) // 2 + 1))[: len(payload)]


def _line(summary: str, line: Line, playable: bool = False) -> AttackRow:
    return AttackRow(summary, line=line, playable=playable)


def _point(summary: str, point: Point, playable: bool = True) -> AttackRow:
    return AttackRow(summary, point=point, playable=playable)


def _spoiled(summary: str, kind: str, value: float) -> AttackRow:
    return AttackRow(summary, point=points.filled(value), playable=True, spoils=kind)


ATTACKS: dict[str, AttackRow] = {
    "sign_flip": _point("-mean", points.sign_flip),
    "alie+": _line("mean + z sd", Line(lines.alie(1.0), lines.alie_z), True),
    "alie-": _line("mean - z sd", Line(lines.alie(-1.0), lines.alie_z), True),
    "foe": _line("-eps mean", Line(lines.foe, constant(1.1), 1.0), True),
    "mimic": _point("one honest member once more, always the same", points.mimic),
    "dissensus": _line("the opposite of the honest pull", Line(lines.dissensus, constant(1.0))),
    "spectral": _line("feeds the slowest disagreement", Line(lines.spectral, constant(1.0))),
    "label_flip": AttackRow(
        "honest, but its labels are flipped", point=points.label_flip, needs_learning=True
    ),
    "gaussian": _point("mean + 30 times normal noise", points.gaussian),
    "zero": _point("zeros", points.zero),
    "isolation": _point("makes a plain mean stand still", points.isolation, False),
    "duplicate": _point("a random honest neighbour once more", points.duplicate),
    "scale": _point("100 times the mean", points.scale),
    "stale": _point("the genesis for ever", points.stale),
    "replay": _point("what a member said in the first round", points.replay, False),
    "min_max": _point("as far as the honest are apart", points.min_max),
    "min_sum": _point("as far in sum as the honest are apart", points.min_sum),
    "mirror": _point("undoes the training threefold", points.mirror),
    "equivocation": _line(
        "drives every second receiver the other way", Line(lines.equivocation, constant(1.0))
    ),
    "drive": _line(
        "one way for all, and apart", Line(lines.drive(lines.dissensus, 0.4), constant(2.0))
    ),
    "drive_spectral": _line(
        "one way for all, and slowly", Line(lines.drive(lines.spectral, 0.6), constant(2.0))
    ),
    "nan": _spoiled("not a number", "nan", float("nan")),
    "inf": _spoiled("infinities", "inf", float("inf")),
    "huge": _spoiled("1e38 everywhere", "huge", 1e38),
    "denormal": _spoiled("1e-40 everywhere", "denormal", 1e-40),
    "wrong_shape": _spoiled("a payload cut short; as a vector nothing", "wrong_shape", np.nan),
}
OURS = ("drive", "drive_spectral")  # in no paper: kept apart where published numbers are compared
PLAYABLE = tuple(name for name, row in ATTACKS.items() if row.playable)
