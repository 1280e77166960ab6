"""Who mixes with whom, and what that can promise: certificates and equal weights.

Knows counts only. Source: Gaucher et al. 2025; unit weights on the complete graph give
mu2 = n - f for the honest subgraph, so CERTIFIED (mu2 > 4b) iff n > 5f, IMPOSSIBLE iff n <= 3f.
"""

CERTIFIED, BEST_EFFORT, IMPOSSIBLE = "CERTIFIED", "BEST-EFFORT", "IMPOSSIBLE"


def certificate(members: int, f: int) -> str:
    """What all-to-all mixing of ``members`` (Byzantine ones included) promises against ``f``."""
    if f < 0 or members < 1:
        raise ValueError(f"members={members} and f={f} must be >= 1 and >= 0")
    if f == 0 or members > 5 * f:
        return CERTIFIED
    return IMPOSSIBLE if members <= 3 * f else BEST_EFFORT


def default_tolerance(members: int) -> int:
    """The largest certified f of an all-to-all network: floor((n - 1) / 5)."""
    return max(0, (members - 1) // 5)


def enough_live(live: int, f: int) -> bool:
    """Whether ``live`` members (self included) suffice to mix at all: live >= 3f + 1."""
    return live >= 3 * f + 1
