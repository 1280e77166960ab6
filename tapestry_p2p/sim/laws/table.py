"""One table: which rule claims which law. Every claim is tested; a new rule is a row in each."""

from __future__ import annotations

from tapestry_p2p.mix.rules import NAMES, RULES
from tapestry_p2p.mix.rules.table import NNM
from tapestry_p2p.sim.laws import rounds, single
from tapestry_p2p.sim.laws.single import Law, Named

COORDINATE = frozenset(name for name in NAMES if RULES[name.removeprefix(NNM)].reduce)
BALANCE = frozenset(name for name in NAMES if name.removeprefix(NNM) == "balance")
ALL = frozenset(NAMES)
BOUNDED = frozenset(name for name in RULES if RULES[name].rho)  # (b, rho)
# Mixed points are often equal or opposite, so that two neighbours tie and the position decides.
TIED = frozenset({"nnm+gts", "nnm+ios", "nnm+multi_krum"})
AVERAGING = frozenset({"mean", "cs_plus", "cs_plus_h", "gts", "ios"})

LAWS: dict[str, tuple[Law, frozenset[str]]] = {
    "finite": (single.finite, ALL),
    "absent": (single.absent, ALL),
    "agreement": (single.agreement, ALL),
    "permutation": (single.permutation, ALL - TIED),
    "translation": (single.translation, ALL - BALANCE),
    "scale": (single.scale, ALL),
    "rotation": (single.rotation, ALL - COORDINATE),
    "box": (single.box, ALL),
    "hull": (single.hull, ALL - COORDINATE),
    "diameter": (rounds.diameter, ALL - COORDINATE),
    "split": (single.split, BOUNDED),
    "radius": (single.radius, frozenset({"cs_plus", "cs_plus_h"})),
    "tighter": (single.tighter, BOUNDED),
    "mean": (rounds.mean_kept, AVERAGING),
    "contraction": (rounds.contraction, BOUNDED),
    "drift": (rounds.drift, BOUNDED),
    "healing": (rounds.healing, BOUNDED),
}
CLAIMS = [(law, rule) for law, (_, rules) in LAWS.items() for rule in NAMES if rule in rules]


def broken(rule: Named, law: str, examples: int) -> int | None:
    """The first seed below ``examples`` at which the rule breaks the law, or None."""
    find = LAWS[law][0]
    return next((seed for seed in range(examples) if not find(rule, seed) <= 1), None)
