"""What a rule on a topology promises against f hostile neighbours, in words for the operator.

Knows rules and counts. CERTIFIED needs a rule with a proven bound, (b, rho): ||pull - sum_S w z||^2
<= rho b sum_S w ||z||^2 for every split; then a synchronous round brings the honest members closer
whatever the others send, if mu2 > 2 rho b. CS+ has rho = 2, hence mu2 > 4b (Gaucher et al. 2025).
"""

from typing import NamedTuple

from tapestry_p2p.mix.rules import RULES
from tapestry_p2p.mix.topology import (
    ASSUMED_SHARE,
    BEST_EFFORT,
    CERTIFIED,
    IMPOSSIBLE,
    certificate,
    estimate,
)


class Promise(NamedTuple):
    """``word`` is the certificate; ``why`` the inequality that holds or does not, with numbers."""

    word: str
    why: str
    chance: float = (
        0.0  # that a neighbourhood holds more than f hostile members; 0: no chance in it
    )


def proven(rule: str) -> float | None:
    """rho of the rule's proven bound; None if there is none (a pre-step voids it)."""
    return RULES[rule].rho if rule in RULES else None


def promise(rule: str, f: int, members: int) -> Promise:
    """All-to-all among ``members``, oneself included: exact."""
    rho = proven(rule)
    if f == 0:
        return Promise(CERTIFIED, "nobody hostile is tolerated")
    if certificate(members, f) == IMPOSSIBLE:
        return Promise(IMPOSSIBLE, f"members > 3f does not hold: {members} <= {3 * f}")
    if rho is None:
        return Promise(BEST_EFFORT, f"no bound is proven for {rule}")
    needed = (1 + 2 * rho) * f  # mu2 = members - f > 2 rho f
    law = f"members > {1 + 2 * rho:g}f"
    if members > needed:
        return Promise(CERTIFIED, f"{law}: {members} > {needed:g}")
    return Promise(BEST_EFFORT, f"{law} does not hold: {members} <= {needed:g}")


def promise_sparse(
    rule: str, f: int, members: int, k: int, assumed_share: float = ASSUMED_SHARE
) -> Promise:
    """``k`` links each, chosen by secrets: an estimate, never CERTIFIED."""
    if f == 0:
        return Promise(BEST_EFFORT, "nobody hostile is tolerated")
    found = estimate(members, min(k, members - 1), f, assumed_share)
    if found.word == IMPOSSIBLE:
        why = f"mu2 > 2f is not to be expected of {k} links: about {found.mu2:.1f} <= {2 * f}"
        return Promise(IMPOSSIBLE, why, found.chance)
    if proven(rule) is None:
        return Promise(BEST_EFFORT, f"no bound is proven for {rule}", found.chance)
    why = (
        f"an estimate: {found.hostile} hostile of {members} members assumed,"
        f" {100 * found.chance:.2g} % of neighbourhoods hold more than {f};"
        f" mu2 about {found.mu2:.1f}"
    )
    return Promise(BEST_EFFORT, why, found.chance)
