"""Attacks: every row does what its name says, and searched ones beat every fixed strength."""

from dataclasses import replace

import numpy as np
import pytest

from tapestry_p2p.mix.codec import CODECS, CodecError, decode, payload_bytes
from tapestry_p2p.mix.copy import PublicCopy
from tapestry_p2p.sim.attacks import ATTACKS, PLAYABLE, Aim, Scene, flip_labels, spoil
from tapestry_p2p.sim.attacks.lines import GRID, alie_z, flat, maximise, quantile
from tapestry_p2p.sim.graphs import Graph, complete, ring, two_castle, two_worlds

Floats = np.ndarray
SEARCHED = [name for name, row in ATTACKS.items() if row.line is not None]
SPOILED = [name for name, row in ATTACKS.items() if row.spoils]


def scene(graph: Graph | None = None, rule: str = "cs_plus", d: int = 12, seed: int = 0) -> Scene:
    graph = graph or complete(11, 2)
    random = np.random.default_rng(seed)
    honest = (1 + random.standard_normal((int(graph.honest.sum()), d))).astype(np.float32)
    return Scene(
        graph, honest, rule, int(graph.byzantine_count.max()), random,
        genesis=np.full(d, 0.5, np.float32), poisoned=np.full(d, 9.0, np.float32),
    )  # fmt: skip


def told(name: str, **changes: object) -> tuple[Scene, Floats]:
    there = replace(scene(), **changes)  # type: ignore[arg-type]
    return there, ATTACKS[name].messages(there)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("graph", [complete(6, 1), two_worlds(4, 2, 1), ring(5, 1), two_castle()])
def test_every_attack_tells_every_receiver_something(name: str, graph: Graph) -> None:
    there = scene(graph, d=5)
    messages = ATTACKS[name].messages(there)
    assert messages.shape == there.honest.shape
    assert messages.dtype == np.float32
    assert np.isfinite(messages).all() == (name not in ("nan", "inf", "wrong_shape"))
    after = there.mixed(messages)
    assert np.isfinite(after).all(), "a bad neighbour is an absent neighbour"
    assert np.abs(after).max() < 20


@pytest.mark.parametrize("name", ["mimic", "alie+", "dissensus", "spectral", "equivocation"])
def test_agreement_leaves_an_attacker_nothing_to_amplify(name: str) -> None:
    agreed = np.ones((9, 4), np.float32)
    there, messages = told(name, honest=agreed, genesis=None, poisoned=None)
    np.testing.assert_allclose(messages, agreed)
    np.testing.assert_array_equal(there.mixed(messages), agreed)


def test_formulas_on_the_complete_graph() -> None:
    there = scene()
    x = there.honest.astype(np.float64)
    mean, sd = x.mean(axis=0), x.std(axis=0)
    expected = {
        "sign_flip": -mean,
        "zero": 0 * mean,
        "scale": 100 * mean,
        "mirror": 0.5 - 3 * (mean - 0.5),
        "stale": 0 * mean + 0.5,
        "mimic": x[0],
        "replay": x[0],
        "label_flip": 0 * mean + 9,
        "huge": 0 * mean + 1e38,
    }
    for name, wanted in expected.items():
        np.testing.assert_allclose(ATTACKS[name].messages(there)[4], wanted, rtol=1e-5, atol=1e-6)
    fixed = replace(there, aim=Aim("fixed", 2.0))
    pull = (mean - x) * 9 / 11
    expected = {
        "alie+": mean + 2 * sd + 0 * x,
        "alie-": mean - 2 * sd + 0 * x,
        "foe": -2 * mean + 0 * x,
        "dissensus": x - 2 * pull / (2 / 11),
    }
    for name, wanted in expected.items():
        np.testing.assert_allclose(ATTACKS[name].messages(fixed), wanted, rtol=1e-4, atol=1e-4)


def test_neighbourhoods_are_the_receivers_own() -> None:
    there = scene(ring(6, 1), d=3)
    x = there.honest.astype(np.float64)
    near = np.stack([x[5], x[0], x[1]])
    np.testing.assert_allclose(ATTACKS["sign_flip"].messages(there)[0], -near.mean(0), rtol=1e-5)
    np.testing.assert_allclose(there.deviations[0], near.std(axis=0))
    apart = [np.linalg.norm(x[0] - x[5]), np.linalg.norm(x[0] - x[1])]
    assert there.spread[0] == pytest.approx(np.median(apart))


def test_isolation_makes_the_mean_stand_still_and_dissensus_drives_apart() -> None:
    there = scene(two_worlds(4, 2, 2), rule="mean")
    np.testing.assert_allclose(
        there.mixed(ATTACKS["isolation"].messages(there)), there.honest, atol=1e-5
    )
    further = replace(there, aim=Aim("fixed", 3.0))
    after = further.mixed(ATTACKS["dissensus"].messages(further))
    assert ((after - after.mean(0)) ** 2).sum() > 1.5 * (there.centred**2).sum()


def test_spectral_lives_on_the_slowest_disagreement() -> None:
    there = replace(scene(two_worlds(4, 1, 1)), aim=Aim("fixed", 1.0))
    push = ATTACKS["spectral"].messages(there) - there.honest
    worlds = np.repeat([1.0, -1.0], 4)
    between = worlds @ there.centred / 8
    np.testing.assert_allclose(push, np.outer(worlds, between), atol=1e-5)


def test_equivocation_tells_different_things_and_gaussian_new_noise() -> None:
    _, messages = told("equivocation")
    assert not np.allclose(messages[0], messages[1])
    there, noise = told("gaussian")
    assert (noise[0] != noise[1]).any()
    assert (noise - there.middle).std() == pytest.approx(30, rel=0.2)


def test_duplicate_is_an_honest_neighbour() -> None:
    there = scene(ring(6, 1), d=3)
    messages = ATTACKS["duplicate"].messages(there)
    for i, message in enumerate(messages):
        near = there.honest[[(i - 1) % 6, (i + 1) % 6]]
        assert (message == near).all(axis=1).any()


def test_replay_and_mimic_follow_their_victim() -> None:
    there = replace(scene(), victim=3)
    later = there.then(there.honest + 1)
    assert later.age == 1
    np.testing.assert_array_equal(ATTACKS["replay"].messages(later)[0], there.honest[3])
    np.testing.assert_array_equal(ATTACKS["mimic"].messages(later)[0], there.honest[3] + 1)


def test_min_max_and_min_sum_reach_their_bound_and_no_further() -> None:
    there = scene()
    x = there.honest.astype(np.float64)
    apart = np.linalg.norm(x[:, None] - x[None, :], axis=2)
    far = np.linalg.norm(ATTACKS["min_max"].messages(there)[0] - x, axis=1)
    assert far.max() == pytest.approx(apart.max(), rel=1e-5)
    summed = (np.linalg.norm(ATTACKS["min_sum"].messages(there)[0] - x, axis=1) ** 2).sum()
    assert summed == pytest.approx((apart**2).sum(axis=1).max(), rel=1e-5)


def test_alie_strength_is_that_of_the_paper() -> None:
    assert quantile(0.5) == pytest.approx(0, abs=1e-9)
    assert quantile(0.975) == pytest.approx(1.959964, abs=1e-5)
    z = alie_z(scene(complete(50, 12)))  # 49 neighbours: s = 25 - 12 = 13, p = 36/49
    np.testing.assert_allclose(z, quantile(36 / 49))


# -- searches


@pytest.mark.parametrize("rule", ["cs_plus", "gts", "trimmed_mean", "ios"])
@pytest.mark.parametrize("name", SEARCHED)
def test_a_search_harms_more_than_any_strength_of_its_grid(name: str, rule: str) -> None:
    there = scene(two_worlds(5, 2, 2), rule)
    goal = there.target

    def harm(aim: Aim) -> Floats:
        aimed = replace(there, aim=aim)
        after = aimed.mixed(ATTACKS[name].messages(aimed))
        return np.asarray(np.linalg.norm(after - goal, axis=1))

    searched = harm(Aim("away"))
    for t in (*GRID, 0.7, 1.35):
        grid = t in GRID
        assert (searched >= harm(Aim("relative", t)) * (1 - (1e-4 if grid else 0.05))).all()
    assert (searched > harm(Aim("relative", 0.0)) * 1.001).any()


@pytest.mark.parametrize("name", SEARCHED)
def test_along_moves_farther_in_the_attacks_direction_than_away_does(name: str) -> None:
    there = scene(two_worlds(5, 2, 2), "gts")
    row = ATTACKS[name].line
    assert row is not None
    _, direction = row.at(there)

    def way(aim: Aim) -> float:
        aimed = replace(there, aim=aim)
        moved = aimed.mixed(ATTACKS[name].messages(aimed)) - aimed.honest
        return float((moved * direction).sum())

    away = way(Aim("away"))
    assert way(Aim("along")) >= away - 0.05 * abs(away)


@pytest.mark.parametrize("rule", ["cs_plus", "ios", "geometric_median"])
def test_few_coordinates_give_the_same_search(rule: str) -> None:
    """Beyond as many parameters as vectors the search is made in the space these span."""
    small = scene(complete(6, 1), rule, d=10)
    random = np.random.default_rng(5)
    turn = np.linalg.qr(random.standard_normal((200, 10)))[0].T.astype(np.float32)
    large = replace(small, honest=small.honest @ turn, genesis=None, poisoned=None)
    for name in ("dissensus", "foe", "spectral"):
        off = small.mixed(ATTACKS[name].messages(small)) - small.middle
        spanned = large.mixed(ATTACKS[name].messages(large)) - large.middle
        np.testing.assert_allclose(
            np.linalg.norm(spanned, axis=1), np.linalg.norm(off, axis=1), rtol=1e-2, atol=1e-4
        )


def test_flat_keeps_lengths_and_angles() -> None:
    rows = np.random.default_rng(0).standard_normal((4, 50))
    np.testing.assert_allclose(flat(rows) @ flat(rows).T, rows @ rows.T, atol=1e-9)
    assert flat(rows).shape == (4, 4)


def test_maximise_finds_a_peak_between_the_grid_points() -> None:
    assert maximise(lambda t: -((t - 1.3) ** 2)) == pytest.approx(1.3, abs=0.1)
    assert maximise(lambda t: -t) < 0.1
    assert maximise(lambda t: t) == GRID[-1]


# -- what a real process plays


def test_playable_attacks_make_one_vector_of_what_is_seen() -> None:
    random = np.random.default_rng(1)
    genesis, honest = np.zeros(8, np.float32), random.standard_normal((3, 8)).astype(np.float32)
    for name in PLAYABLE:
        row = ATTACKS[name]
        found = row.play(genesis, honest)
        assert found.shape == (8,)
        np.testing.assert_array_equal(found, row.play(genesis, honest), "same sight, same answer")
        assert row.play(genesis, honest[:1]).shape == (8,)
    with pytest.raises(ValueError, match="different things"):
        ATTACKS["dissensus"].play(genesis, honest)
    assert {"mirror", "sign_flip", "alie+", "alie-", "foe", "nan", "stale"} < set(PLAYABLE)
    np.testing.assert_allclose(
        ATTACKS["foe"].play(genesis, honest), -1.1 * honest.mean(axis=0), atol=1e-5
    )


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("name", SPOILED)
def test_spoiled_payloads_are_refused_by_every_codec(name: str, codec: str) -> None:
    payload = spoil(ATTACKS[name].spoils, bytes(payload_bytes(codec, 600)))
    if codec == "fp32" and name == "huge":
        copy = PublicCopy(np.zeros(600, np.float32))
        with pytest.raises(CodecError, match="longer"):
            copy.advance(codec, payload, 1e6)
    else:
        with pytest.raises(CodecError):
            decode(codec, payload, 600)


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="flipped labels"):
        told("label_flip", poisoned=None)
    with pytest.raises(ValueError, match="an aim is one of"):
        Aim("sideways")
    with pytest.raises(ValueError, match="vectors for"):
        replace(scene(), honest=np.zeros((3, 4), np.float32))
    assert str(Aim("fixed", 1.1)) == "fixed 1.1"
    np.testing.assert_array_equal(flip_labels(np.array([0, 3, 9]), 10), [9, 6, 0])
