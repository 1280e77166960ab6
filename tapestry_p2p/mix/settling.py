"""Settling rounds: whoever stays apart while nobody trains is left out until the next one.

Knows distances, weights, f and round numbers; runs no rule and keeps no state.

While members train, each stands off from the mean as far as its own data drives it, lr * ||g_j||,
and a liar may stand just as far and pull for ever: that spread is what hides the sign flip where
every member holds one class (docs/robustness.md). In a settling round members publish what mixing
made of them, without new training (which goes on and is published with the next entry: none is
lost), and mix once more. Honest members then close in by 1 - mu2 a round; a copy that is held where
it was does not. The distances of that round say whom to leave out until the next one.

What it costs: one more entry every ``every`` rounds. What it keeps: leaving out weight <= b turns a
(b, rho) rule into a (b, rho + 1) one. With K the kept, M the left out, S the honest, A and B the
sums of w ||z||^2 over S in K and S in M:

  ||pull - sum_S w z|| <= sqrt(rho b A) + sqrt(w(M) B) <= sqrt((rho + 1) b (A + B))

so CS+ is certified in the rounds between for mu2 > 6b in place of 4b, CS+H (kappa 2) for 8.25b.
What it does not do: a liar that comes along while all settle is met by the rule alone.
"""

import numpy as np
from numpy.typing import NDArray

from tapestry_p2p.mix.rules.base import Weights
from tapestry_p2p.mix.rules.clipping import radius

EVERY = 10  # more often: liars are found earlier, more entries; rarer: the reverse
KAPPA = 2.0  # lower: more liars found, more honest members left out for a while


def settles(round_: int, every: int = EVERY) -> bool:
    """Whether round ``round_`` = 1, 2, ... ends with a settling: the first, then each ``every``-th.

    ``every`` 0: never.
    """
    return every > 0 and (round_ == 1 or round_ % every == 0)


def restless(
    distances: Weights, weights: Weights, f: int, kappa: float = KAPPA
) -> NDArray[np.bool_]:
    """Whom to leave out until the next settling, bool[k], by ``distances`` float64[k] in this one.

    Those farther than kappa tau, tau the CS+ radius of these distances, the farthest first as long
    as their ``weights`` float64[k] sum to at most b = f max w. f = 0: nobody. A bad neighbour's
    distance is inf. Ties as in CS+: the later position is the farther one. O(k log k).
    """
    out = np.zeros(len(distances), bool)
    budget = f * float(weights.max(initial=0.0))
    if f == 0 or weights.sum() < 2 * budget:  # too few to tell: the rule takes nothing either
        return out
    tau = radius(distances, weights, 2 * budget)
    left = budget * (1 + 1e-12)
    for j in np.lexsort((np.arange(len(distances)), distances))[::-1]:
        if distances[j] <= kappa * tau or weights[j] > left:
            break
        out[j] = True
        left -= float(weights[j])
    return out
