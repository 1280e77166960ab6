"""The rules' one door: what it takes and refuses, what the report says, and each rule by hand."""

import numpy as np
import pytest

from tapestry_p2p.mix.rules import NAMES, RULES, Report, check_rule, mix
from tapestry_p2p.mix.topology import (
    BEST_EFFORT,
    CERTIFIED,
    IMPOSSIBLE,
    certificate,
    default_tolerance,
)

Floats = np.ndarray
OWN = np.zeros(2, np.float32)


def equal(k: int) -> Floats:
    return np.full(k, 1 / (k + 1))


def rows(*points: tuple[float, float]) -> list[Floats]:
    return [np.array(point, np.float32) for point in points]


def run(name: str, points: list[Floats], f: int) -> tuple[Floats, Report]:
    return mix(name, np.zeros_like(points[0]), points, equal(len(points)), f=f)


POINTS = rows((3, 0), (0, 4), (0, -5), (12, 0))


@pytest.mark.parametrize(
    ("name", "f", "pull"),
    [
        ("mean", 1, (15 / 5, -1 / 5)),
        ("cs_plus", 1, ((3 + 5) / 5, (4 - 5) / 5)),  # tau = 5, the 2nd largest
        ("cs_plus", 0, (15 / 5, -1 / 5)),
        ("cs_plus_h", 1, (3 / 5, -1 / 5)),  # 12 > 2 tau: left out
        ("gts", 1, (3 / 5, -1 / 5)),
        ("ios", 1, (3 / 4, -1 / 4)),
        ("trimmed_mean", 1, (3 / 3, 0)),  # middles 0, 3 and -0, 0; self counts
        ("median", 1, (0, 0)),
        ("multi_krum", 1, (3 / 4, -1 / 4)),
    ],
)
def test_a_rule_by_hand(name: str, f: int, pull: tuple[float, float]) -> None:
    np.testing.assert_allclose(run(name, POINTS, f)[0], pull, atol=1e-6)


def test_the_geometric_median_is_where_unit_vectors_cancel() -> None:
    pull, _ = run("geometric_median", POINTS, 1)
    steps = np.array([OWN, *POINTS]) - pull
    lengths = np.linalg.norm(steps, axis=1)
    inner = lengths < 0.1  # smoothed: it may stand on a point, which then holds it
    force = (steps[~inner] / lengths[~inner, None]).sum(0)
    assert np.linalg.norm(force) <= inner.sum() + 1e-3


def test_balance_takes_whoever_is_near_for_our_own_length() -> None:
    own = np.array([0, 10], np.float32)
    near, far = own + np.float32(1), own + np.float32(7)
    pull, report = mix("balance", own, [near, far], equal(2), f=1)
    assert report.coefficients == (1, 0)
    assert report.tau == pytest.approx(3)
    np.testing.assert_allclose(pull, [1 / 3, 1 / 3], rtol=1e-5)
    assert mix("balance", own, [near], equal(1), f=1, age=9999)[1].tau == pytest.approx(3 / np.e)


def test_nearest_mixing_replaces_each_point_by_the_mean_of_its_nearest() -> None:
    points = rows((1, 0), (0, 1), (2, 2), (90, 90))
    mixed = {0: (3 / 4, 3 / 4), 1: (3 / 4, 3 / 4), 2: (3 / 4, 3 / 4), 3: (3 / 4, 3 / 4)}
    mixed[4] = ((90 + 2 + 1 + 0) / 4, (90 + 2 + 0 + 1) / 4)
    expected = np.mean(list(mixed.values()), axis=0)
    np.testing.assert_allclose(run("nnm+mean", points, 1)[0], expected, atol=1e-5)
    np.testing.assert_allclose(run("nnm+trimmed_mean", points, 1)[0], (0.75, 0.75), atol=1e-5)
    np.testing.assert_allclose(run("nnm+cs_plus", points, 1)[0], (0.75, 0.75), atol=1e-5)


def test_the_report_says_what_was_done() -> None:
    pull, report = mix("cs_plus", OWN, POINTS, equal(4), f=1, certificate=CERTIFIED)
    assert report.distances == pytest.approx((3, 4, 5, 12))
    assert report.tau == pytest.approx(5)
    assert report.coefficients == pytest.approx((1, 1, 1, 5 / 12))
    assert report.shares == pytest.approx((0.2, 0.2, 0.2, 0.2 * 5 / 12))
    assert report.clipped_weight == pytest.approx(0.2)
    assert report.clipped == 1
    assert report.certificate == CERTIFIED
    np.testing.assert_allclose(pull, np.array(report.shares) @ np.array(POINTS), atol=1e-6)
    assert run("median", POINTS, 1)[1].shares == ()


def test_bases_stand_for_our_own_vector() -> None:
    bases = rows((1, 1), (2, 2), (3, 3), (4, 4))
    moved = [point + base for point, base in zip(POINTS, bases, strict=True)]
    for name in NAMES:
        if "balance" not in name:
            pull, _ = mix(name, OWN, moved, equal(4), f=1, bases=bases)
            np.testing.assert_allclose(pull, run(name, POINTS, 1)[0], atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_an_array_and_jobs_in_any_order_give_the_same(name: str) -> None:
    """Blocks and jobs: more columns than one job has, results independent of who runs them."""
    random = np.random.default_rng(0)
    points = random.standard_normal((5, 270_001)).astype(np.float32)
    own = random.standard_normal(270_001).astype(np.float32)
    pull, report = mix(name, own, list(points), equal(5), f=1)
    again, same = mix(name, own, points, equal(5), f=1, each=lambda job, jobs: [*map(job, jobs)])
    assert again.tobytes() == pull.tobytes()
    assert same == report


@pytest.mark.parametrize("name", NAMES)
def test_nobody_there_or_nobody_sane_pulls_nothing(name: str) -> None:
    bad = rows((np.nan, 0), (np.inf, 1), (3e38, 3e38))
    pull, report = mix(name, OWN, bad, equal(3), f=1)
    assert not pull.any()
    assert report.distances == (np.inf,) * 3
    assert report.coefficients == (0,) * 3
    assert not mix(name, OWN, [], np.zeros(0), f=1)[0].any()


def test_what_is_refused() -> None:
    two = POINTS[:2]
    with pytest.raises(KeyError):
        mix("unknown", OWN, two, equal(2), f=0)
    with pytest.raises(ValueError, match="one of each"):
        mix("mean", OWN, two, equal(3), f=0)
    with pytest.raises(ValueError, match="one of each"):
        mix("mean", OWN, two, equal(2), f=0, bases=[OWN])
    with pytest.raises(ValueError, match="not float32"):
        mix("mean", OWN, [OWN, np.zeros(3, np.float32)], equal(2), f=0)
    with pytest.raises(ValueError, match="not float32"):
        mix("mean", OWN, [OWN, np.zeros(2)], equal(2), f=0)  # type: ignore[list-item]
    for weights, f in ((np.array([0.6, 0.6]), 0), (np.array([0.0, 0.1]), 0), (equal(2), -1)):
        with pytest.raises(ValueError, match="must hold"):
            mix("mean", OWN, two, weights, f=f)
    with pytest.raises(ValueError, match="own vector"):
        mix("mean", np.array([np.nan, 0], np.float32), two, equal(2), f=0)


@pytest.mark.parametrize(
    ("name", "members", "f", "words"),
    [
        ("cs_plus", 4, 1, ""),
        ("cs_plus", 3, 1, "members > 3f does not hold: 3 <= 3; no rule can help"),
        ("multi_krum", 4, 1, "members > 2f + 2, which multi_krum needs, does not hold: 4 <= 4"),
        ("nnm+multi_krum", 5, 1, ""),
        ("mean", 1, 0, ""),
        ("nnm+median", 7, 2, ""),
        ("nnm+nnm+median", 7, 2, "the rule must be one of"),
        ("krum", 7, 2, "the rule must be one of"),
    ],
)
def test_an_impossible_f_is_refused_with_the_inequality(
    name: str, members: int, f: int, words: str
) -> None:
    found = check_rule(name, members, f)
    assert (found or "").startswith(words)
    assert bool(found) == bool(words)


def test_every_row_is_a_weighing_or_a_coordinate_rule() -> None:
    for rule in RULES.values():
        assert (rule.weigh is None) != (rule.reduce is None)


def test_one_attacker_moves_the_mean_anywhere_but_not_cs_plus() -> None:
    z = np.random.default_rng(4).standard_normal((6, 6)).astype(np.float32)
    far = [*z[:5], np.full(6, 1e9, np.float32)]
    bounded, report = run("cs_plus", far, 1)
    assert np.linalg.norm(bounded) <= np.linalg.norm(z[:5], axis=1).max()
    assert report.coefficients[-1] < 1e-6
    assert np.linalg.norm(run("mean", far, 1)[0]) > 1e8


@pytest.mark.parametrize(
    ("members", "f", "expected"),
    [
        (5, 0, CERTIFIED),
        (6, 1, CERTIFIED),
        (5, 1, BEST_EFFORT),
        (4, 1, BEST_EFFORT),
        (3, 1, IMPOSSIBLE),
        (11, 2, CERTIFIED),
        (10, 2, BEST_EFFORT),
        (6, 2, IMPOSSIBLE),
    ],
)
def test_certificate(members: int, f: int, expected: str) -> None:
    assert certificate(members, f) == expected
    assert certificate(members, default_tolerance(members)) == CERTIFIED
