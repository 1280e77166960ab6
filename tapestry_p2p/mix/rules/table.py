"""The table of rules, what each demands, and the one function that runs any of them.

A name is a row of RULES, or "nnm+" and a row's name: nearest-neighbour mixing first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tapestry_p2p.mix.rules import blocks, clipping, coordinate, selection
from tapestry_p2p.mix.rules.base import (
    Each,
    Reduce,
    Report,
    Scene,
    Vector,
    Vectors,
    Weigh,
    Weighing,
    Weights,
)
from tapestry_p2p.mix.space import MEMORY, Space

NNM = "nnm+"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: a weighing rule or a coordinate rule, and what it promises.

    rho     (b, rho)-robust sum: ||pull - sum_S w z||^2 <= rho b sum_S w ||z||^2 for every split
            with w(rest) <= b; certified in a synchronous round for mu2 > 2 rho b. None: no such
            bound.
    needed  members needed, ``factor * f + constant``, the member itself counted
    """

    weigh: Weigh | None = None
    reduce: Reduce | None = None
    compares: bool = False  # needs the inner products of neighbours
    whole: bool = True  # takes most neighbours alike: their plain sum is worth having
    rho: float | None = None
    needed: tuple[int, int] = (3, 1)


RULES: dict[str, Rule] = {
    "mean": Rule(clipping.mean),
    "cs_plus": Rule(clipping.cs_plus, rho=2.0),
    "cs_plus_h": Rule(clipping.cs_plus_h, rho=2 * (1 + 1 / (2 * clipping.KAPPA)) ** 2),
    "gts": Rule(clipping.gts, rho=4.0),
    "ios": Rule(selection.ios, compares=True),
    "trimmed_mean": Rule(reduce=coordinate.trimmed_mean),
    "median": Rule(reduce=coordinate.median),
    "geometric_median": Rule(selection.geometric_median, compares=True, whole=False),
    "multi_krum": Rule(selection.multi_krum, compares=True, needed=(2, 3)),
    "balance": Rule(clipping.balance),
}
NAMES = (*RULES, *(NNM + name for name in RULES))


def find_rule(name: str | Rule) -> tuple[Rule, bool]:
    """The row of a rule's name, and whether NNM comes first. KeyError for an unknown name."""
    if isinstance(name, Rule):
        return name, False
    return RULES[name.removeprefix(NNM)], name.startswith(NNM)


def check_rule(name: str, members: int, f: int) -> str | None:
    """The inequality that ``members`` all-to-all members (self included) break, or None."""
    if name not in NAMES:
        return f"the rule must be one of {', '.join(RULES)}, or nnm+ and one of these"
    factor, constant = find_rule(name)[0].needed
    needed = max(3 * f + 1, factor * f + constant)
    if members >= needed:
        return None
    if needed == 3 * f + 1:
        return f"members > 3f does not hold: {members} <= {3 * f}; no rule can help"
    least = f"{factor}f + {constant - 1}"
    return f"members > {least}, which {name} needs, does not hold: {members} <= {needed - 1}"


def mix(
    rule: str | Rule,
    own: Vector,
    neighbours: Vectors,
    weights: Weights,
    *,
    f: int,
    age: int = 0,
    certificate: str = "",
    bases: Sequence[Vector] | None = None,
    each: Each = map,
    space: Space = MEMORY,
) -> tuple[Vector, Report]:
    """The pull float32[d] of ``neighbours`` on ``own``, and a report; own + pull is the new point.

    rule         a name of NAMES, or a row of one's own (a control, an experiment)
    own          float32[d], finite
    neighbours   k vectors float32[d], x_j: separate arrays, or the rows of one float32[k, d]. One
                 that is not finite or farther than DISTANCE_MAX is bad: as if absent.
    weights      float64[k], each > 0, their sum <= 1; an absent neighbour's stays with self
    f            how many neighbours may be Byzantine; b = f * max w
    age          own rounds so far, for a rule with a schedule (balance)
    certificate  passed through to the report
    bases        vectors that stand for own in z_j = x_j - base_j, for views that are not of now
    each         runs jobs over blocks of columns: `map`, or a thread pool's map
    space        where the pull shall live

    Pure; changes nothing. Memory: some hundred kB for each job, no k*d temporary.
    ValueError: shapes, weights, f, or own not finite; KeyError: unknown rule.
    """
    row, first = find_rule(rule)
    rows = blocks.Rows(own, neighbours, bases, each, space)
    _check(rows, weights, f)
    if row.reduce is not None:
        pull, found, seen = _by_columns(row.reduce, first, rows, weights, f)
    else:
        assert row.weigh is not None
        pull, found, seen = _by_weight(row.weigh, row, first, rows, weights, f, age)
    if len(seen.good) < len(rows) and not np.isfinite(own).all():
        raise ValueError("the own vector is not finite")
    return pull, _report(found, seen, weights, certificate)


def _by_weight(
    weigh: Weigh, row: Rule, first: bool, rows: blocks.Rows, weights: Weights, f: int, age: int
) -> tuple[Vector, Weighing, blocks.Survey]:
    whole = row.whole and not first
    seen = blocks.survey(rows, row.compares or first, weights if whole else None)
    if not seen.good:
        return rows.space.zeros(len(rows.own)), Weighing(np.zeros(0), np.zeros(0)), seen
    scene = _scene(rows, weights, f, age, seen)
    found = selection.after_nearest_mixing(weigh, scene) if first else weigh(scene)
    return blocks.combine(rows.only(seen.good), found.shares, scene.weights, seen), found, seen


def _by_columns(
    reduce: Reduce, first: bool, rows: blocks.Rows, weights: Weights, f: int
) -> tuple[Vector, Weighing, blocks.Survey]:
    if first:
        seen = blocks.survey(rows, True, None)
        good, pull = seen.good, rows.space.zeros(len(rows.own))
        if good:
            matrix = selection.nearest_mixing(_scene(rows, weights, f, 0, seen))
            pull, _ = blocks.reduce_columns(rows.only(good), reduce, weights[good], f, matrix)
    else:
        pull, seen = blocks.reduce_columns(rows, reduce, weights, f, None)
        good = seen.good
        if len(good) < len(rows):  # rare: once more without the bad ones
            pull, _ = blocks.reduce_columns(rows.only(good), reduce, weights[good], f, None)
    return pull, Weighing(np.zeros(0), np.ones(len(good))), seen


def _scene(rows: blocks.Rows, weights: Weights, f: int, age: int, seen: blocks.Survey) -> Scene:
    good = seen.good
    rows = rows.only(good)
    return Scene(
        weights[good],
        f,
        age,
        seen.lengths[good],
        seen.products[np.ix_(good, good)] if seen.products.size else seen.products,
        lambda: blocks.norm(rows.own),
        lambda i, j: blocks.square_between(rows, i, j),
    )


def _check(rows: blocks.Rows, weights: Weights, f: int) -> None:
    k, d = len(rows), len(rows.own)
    if len(weights) != k or (rows.bases is not None and len(rows.bases) != k):
        raise ValueError(f"{k} neighbours, {len(weights)} weights: one of each is needed")
    if f < 0 or not (weights > 0).all() or weights.sum() > 1 + 1e-9:
        raise ValueError("f >= 0, weights > 0 and sum of weights <= 1 must hold")
    for row in (*rows.vectors, *(rows.bases or ())):
        if row.shape != (d,) or row.dtype != np.float32:
            raise ValueError(f"a vector is {row.dtype}{list(row.shape)}, not float32[{d}]")


def _report(found: Weighing, seen: blocks.Survey, weights: Weights, certificate: str) -> Report:
    """One number for each neighbour as given, the bad ones included."""
    good = np.array(seen.good, dtype=np.intp)
    coefficients, shares = np.zeros(len(weights)), np.zeros(len(weights))
    coefficients[good] = found.coefficients
    weighing = len(found.shares) == len(good)
    if weighing:
        shares[good] = found.shares
    shortened = good[found.coefficients < 1]
    return Report(
        tau=found.tau,
        coefficients=tuple(coefficients.tolist()),
        distances=tuple(seen.lengths.tolist()),
        shares=tuple(shares.tolist()) if weighing else (),
        clipped_weight=float(weights[shortened].sum()),
        certificate=certificate,
    )
