"""Every law of sim/laws for every rule that claims it; and the controls, each of which must fail.

`HYPOTHESIS_PROFILE=wide` draws more; benches/properties.py runs the inequalities 200,000 times.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapestry_p2p.mix.rules import NAMES, Rule, coordinate, mix
from tapestry_p2p.sim.laws import rounds
from tapestry_p2p.sim.laws.controls import CONTROLS, symmetric_step
from tapestry_p2p.sim.laws.table import CLAIMS, LAWS, broken

SEEDS = st.integers(0, 2**32 - 1)
EXAMPLES = max(12, settings().max_examples // 5)  # of each of some two hundred claims
ROUNDS = ("diameter", "mean", "contraction", "drift", "healing")  # a graph each: ten times dearer


@pytest.mark.parametrize(("law", "rule"), [c for c in CLAIMS if c[0] not in ROUNDS])
@settings(max_examples=EXAMPLES)
@given(seed=SEEDS)
def test_a_rule_keeps_the_laws_that_it_claims(law: str, rule: str, seed: int) -> None:
    assert LAWS[law][0](rule, seed) <= 1


@pytest.mark.parametrize(("law", "rule"), [c for c in CLAIMS if c[0] in ROUNDS])
@settings(max_examples=max(6, EXAMPLES // 3))
@given(seed=SEEDS)
def test_rounds_keep_the_laws_that_a_rule_claims(law: str, rule: str, seed: int) -> None:
    assert LAWS[law][0](rule, seed) <= 1


def test_the_table_speaks_of_every_rule_and_the_default_claims_the_most() -> None:
    claims = {rule: sum(rule in rules for _, rules in LAWS.values()) for rule in NAMES}
    assert min(claims.values()) >= 6
    assert max(claims.values()) == claims["cs_plus"] == len(LAWS)


@pytest.mark.parametrize(
    ("rule", "law"),
    [
        ("mean", "split"),
        ("mean", "contraction"),
        ("mean", "drift"),
        ("balance", "translation"),
        ("balance", "mean"),
        ("trimmed_mean", "rotation"),
        ("median", "rotation"),
        ("ios", "split"),
        ("geometric_median", "split"),
        ("multi_krum", "split"),
        ("fixed tau", "scale"),
        ("fixed tau", "split"),
        ("fixed tau", "contraction"),
        ("quantile without weights", "split"),
        ("quantile without weights", "radius"),
    ],
)
def test_a_control_breaks_its_law(rule: str, law: str) -> None:
    row: str | Rule = CONTROLS.get(rule, rule)
    assert rule not in LAWS[law][1]
    assert broken(row, law, 100) is not None


@pytest.mark.parametrize("fault", [name for name in CONTROLS if name.startswith("planted")])
def test_a_fault_planted_in_cs_plus_is_caught(fault: str) -> None:
    """By the laws that CS+ claims, in no more examples than each of them gets here."""
    claimed = [law for law, (_, rules) in LAWS.items() if "cs_plus" in rules]
    caught = [law for law in claimed if broken(CONTROLS[fault], law, 12) is not None]
    assert "radius" in caught
    assert [law for law in claimed if broken("cs_plus", law, 12) is not None] == []


def test_a_radius_that_both_ends_of_a_link_share_diverges_under_attack() -> None:
    """Edge-symmetric CS+ keeps the mean exactly, until somebody lies about his radius."""
    strains = [rounds.contraction_and_drift("cs_plus", s, symmetric_step) for s in range(60)]
    assert max(contracted for contracted, _ in strains) > 1
    assert max(drifted for _, drifted in strains) > 1
    crowd, _ = rounds.draw(1, 0.0, honest_only=True)
    after = symmetric_step("cs_plus", crowd, crowd.x, None)
    np.testing.assert_allclose(after.mean(0), crowd.x.mean(0), atol=1e-6)


# ---- networks --------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(1, 13))
def test_networks_put_every_order_right(n: int) -> None:
    """The 0-1 principle (Knuth 5.3.4): what orders all zeros and ones orders everything."""
    cases = np.array(list(product((0, 1), repeat=n)), np.float32).T
    for f in range((n + 1) // 2):
        lines = list(cases.copy())
        coordinate.arrange(lines, coordinate.network(n, f))
        middle = np.sort(np.array(lines[f : n - f]), axis=0)
        np.testing.assert_array_equal(middle, np.sort(cases, axis=0)[f : n - f])


@pytest.mark.parametrize("n", [2, 3, 15, 16, 17, 31, 32])
def test_median_and_trimmed_mean_are_numpys(n: int) -> None:
    z = np.random.default_rng(n).standard_normal((n - 1, 999)).astype(np.float32)
    own, weights = np.zeros(999, np.float32), np.full(n - 1, 1 / n)
    median, _ = mix("median", own, z, weights, f=1)
    np.testing.assert_allclose(median, np.median([own, *z], axis=0), atol=1e-6)
    for f in range((n - 1) // 2):
        trimmed, _ = mix("trimmed_mean", own, z, weights, f=f)
        middle = np.sort(z, axis=0)[f : n - 1 - f]
        np.testing.assert_allclose(trimmed, middle.sum(0) / (len(middle) + 1), atol=1e-5)


@pytest.mark.parametrize("name", ["cs_plus", "ios", "median", "nnm+trimmed_mean"])
def test_threads_change_no_bit(name: str) -> None:
    d = 1_200_000  # three jobs
    random = np.random.default_rng(0)
    rows = [random.standard_normal(d).astype(np.float32) for _ in range(6)]
    weights = np.full(5, 1 / 6)
    alone, report = mix(name, rows[0], rows[1:], weights, f=1)
    with ThreadPoolExecutor(3) as pool:
        together, same = mix(name, rows[0], rows[1:], weights, f=1, each=pool.map)
    assert together.tobytes() == alone.tobytes()
    assert same == report


def test_close_ones_far_from_us_are_told_apart() -> None:
    """Their squared distance is less than float32 leaves of the inner products from here."""
    random = np.random.default_rng(0)
    cluster = 1000 + random.standard_normal((7, 50)) * np.array([[1]] * 6 + [[4]])
    own = np.zeros(50, np.float32)
    _, report = mix("multi_krum", own, cluster.astype(np.float32), np.full(7, 1 / 8), f=1)
    assert report.coefficients == (1,) * 7  # we are the outlier
    _, report = mix("multi_krum", own, cluster.astype(np.float32), np.full(7, 1 / 8), f=2)
    assert report.coefficients == (1,) * 6 + (0,)
