"""A newcomer's weight in a round: no live member more, nobody's weight less, a bounded pull."""

import numpy as np
import pytest

from tapestry_p2p.mix.copy import PublicCopy
from tapestry_p2p.mix.loom import Loom, LoomSettings
from tapestry_p2p.mix.rules import NAMES

D, NEWCOMER = 50, 99
SHARE = 0.25  # as gossip/probation.py has it; this room does not know


def _loom(rule: str = "cs_plus", f: int = 1) -> Loom[int]:
    zero = np.zeros(D, np.float32)
    return Loom(LoomSettings(rule=rule, f=f, mu=0.0), zero, PublicCopy(zero))


def _copies(loom: Loom[int], established: int, newcomer: float | None) -> dict[int, np.ndarray]:
    random = np.random.default_rng(0)
    copies = {n: random.standard_normal(D).astype(np.float32) for n in range(established)}
    if newcomer is not None:
        copies[NEWCOMER] = np.full(D, newcomer, np.float32)
    for author in copies:
        loom.decoded(author, 0)
    return copies


def test_established_weights_stay_what_they_are() -> None:
    loom = _loom("mean", 0)
    copies = _copies(loom, 4, 1.0)
    alone = {author: copy for author, copy in copies.items() if author != NEWCOMER}
    without = loom.mix_news(alone, 4)
    together = loom.mix_news(copies, 4, {NEWCOMER: SHARE})
    added = np.float32(SHARE / 5) * copies[NEWCOMER]
    assert np.allclose(together.pull, without.pull + added, atol=1e-6)


def test_a_newcomer_is_no_live_member() -> None:
    """3f + 1 = 4 must be there with us; three and a newcomer are not enough."""
    loom = _loom()
    copies = _copies(loom, 2, 1.0)
    assert loom.mix_news(copies, 3, {NEWCOMER: SHARE}).authors == ()
    assert len(loom.mix_news(copies, 3).authors) == 3


@pytest.mark.parametrize("rule", [name for name in NAMES if "mean" not in name])
@pytest.mark.parametrize("far", [1.0, 1e3, 1e12])
def test_however_far_it_stands_a_newcomer_moves_us_no_farther_than_the_honest(
    rule: str, far: float
) -> None:
    loom = _loom(rule)
    copies = _copies(loom, 8, far)
    honest = max(float(np.linalg.norm(copies[n])) for n in range(8))
    mixing = loom.mix_news(copies, 8, {NEWCOMER: SHARE})
    assert NEWCOMER in mixing.authors
    assert float(np.linalg.norm(mixing.pull)) <= honest


def test_a_liar_among_the_established_and_a_newcomer_do_not_set_the_radius_for_f_1() -> None:
    """Together 1.25 w < 2 b: the radius stays the distance of an honest neighbour."""
    loom = _loom()
    copies = _copies(loom, 8, 1e9)
    copies[0] = np.full(D, -1e9, np.float32)
    honest = max(float(np.linalg.norm(copies[n])) for n in range(1, 8))
    tau = loom.mix_news(copies, 8, {NEWCOMER: SHARE}).report
    assert tau is not None
    assert tau.tau <= honest
    whole = loom.mix_news(copies, 8).report
    assert whole is not None
    assert whole.tau > 1e9, "as a full neighbour it would"
