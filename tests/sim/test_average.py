"""Average consensus under attack: the figures, what nothing can help, what the report says."""

import json

import numpy as np
import pytest

from tapestry_p2p.mix.topology import BEST_EFFORT, CERTIFIED, IMPOSSIBLE
from tapestry_p2p.sim.attacks import Aim
from tapestry_p2p.sim.average import (
    AIMS,
    RUINED,
    aims_of,
    average,
    report,
    starts,
    topology_of,
)
from tapestry_p2p.sim.graphs import Graph, complete, regular, two_worlds

FAR = Aim("relative", 100.0)
HARD = {"foe": FAR, "spectral": Aim("relative", 1.5), "alie-": FAR}


def worst(graph: Graph, rule: str, f: int, start: str = "normal") -> float:
    """Over the attacks that hurt CS+ most, at strengths the searches end at."""
    return max(
        average(graph, rule, name, f=f, seed=0, aim=aim, start=start).mse
        for name, aim in HARD.items()
    )


def test_without_attackers_members_find_the_exact_average() -> None:
    end = average(complete(13, 0), "cs_plus", "zero", f=0, seed=0)
    assert end.mse < 1e-6
    assert end.rounds == 1, "all-to-all weights 1/n average in one round"
    slow = average(regular(12, 4, 0), "cs_plus", "zero", f=0, seed=0, rounds=200)
    assert slow.mse < 1e-6
    assert 1 < slow.rounds < 100


def test_acceptance_on_certified_graphs() -> None:
    assert worst(complete(16, 3), "cs_plus", 3) <= 0.15
    assert worst(two_worlds(), "cs_plus", 3) <= 0.15
    assert worst(two_worlds(), "cs_plus", 3, "sides") <= 0.15
    assert worst(topology_of("regular:8", 25, 1), "cs_plus", 1) <= 0.15
    assert worst(topology_of("regular:8", 26, 2), "cs_plus", 2) < 1


def test_a_mean_is_ruined_and_gts_held_where_its_bound_ends() -> None:
    graph = complete(16, 3)
    assert average(graph, "mean", "foe", f=3, seed=0, aim=FAR).mse == RUINED
    held = {
        rule: average(graph, rule, "drive", f=3, seed=0, rounds=25, aim=Aim("away")).mse
        for rule in ("cs_plus", "gts")
    }
    assert held["cs_plus"] < 0.16 < 0.3 < held["gts"]


def test_two_aims_at_once_beat_either_alone() -> None:
    graph = complete(16, 3)
    mse = {
        name: average(graph, "cs_plus", name, f=3, seed=1, aim=FAR, start="sides").mse
        for name in ("foe", "dissensus", "drive")
    }
    assert mse["drive"] > 1.1 * mse["foe"] > 1.1 * mse["dissensus"]


def test_same_seed_same_end_and_rounds_end_when_all_agree() -> None:
    runs = [average(two_worlds(4, 2, 1), "cs_plus", "gaussian", f=1, seed=s) for s in (3, 3, 4)]
    assert runs[0] == runs[1] != runs[2]
    assert runs[0].rounds < 60
    assert runs[0].spread < 1e-6


def test_starts_have_the_spread_they_say() -> None:
    random = np.random.default_rng(0)
    graph = two_worlds()
    assert starts(graph, "normal", 500, random).var(axis=0).mean() == pytest.approx(1, abs=0.1)
    sides = starts(graph, "sides", 500, random)
    apart = ((sides[:13].mean(axis=0) - sides[13:].mean(axis=0)) ** 2).mean()
    assert apart == pytest.approx(4, rel=0.2)
    assert sides[:13].var(axis=0).mean() == pytest.approx(0.25, rel=0.2)


def test_a_report_is_ready_for_json_and_says_what_was_run() -> None:
    said: list[str] = []
    found = report("complete", 11, 2, "scale", "cs_plus", 0, 20, said.append)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["certificate"] == CERTIFIED
    assert found["mu2"] == pytest.approx(9 / 11)
    assert found["b"] == pytest.approx(2 / 11)
    assert found["honest"] == 9
    assert list(found["attacks"]) == ["scale"]
    assert list(found["attacks"]["scale"]) == ["cs_plus", "gts", "mean"]
    row = found["attacks"]["scale"]["cs_plus"]
    assert 0 < row["worst_mse"] <= row["sides_mse"] < 0.3
    assert found["worst"]["cs_plus"] == row["worst_mse"]
    assert found["worst_of_all"]["cs_plus"] == row["sides_mse"]
    assert found["worst"]["mean"] > 10
    assert [line.split()[1] for line in said] == ["cs_plus", "gts", "mean"]


def test_lines_are_reported_at_their_worst_strength() -> None:
    found = report("two-worlds:2", 9, 1, "foe", "mean", 0, 2)
    row = found["attacks"]["foe"]["mean"]
    assert row["t"] in map(str, aims_of("foe"))
    assert row["worst_mse"] > 10
    assert set(AIMS) < set(aims_of("foe"))
    assert aims_of("zero") == (Aim(),)


@pytest.mark.parametrize(("name", "members", "byzantine", "certificate"), [
    ("complete", 16, 3, CERTIFIED), ("complete", 9, 3, IMPOSSIBLE),
    ("two-worlds", 29, 3, CERTIFIED), ("two-worlds", 32, 6, BEST_EFFORT),
    ("regular", 25, 1, CERTIFIED), ("regular:8", 26, 2, BEST_EFFORT), ("ring", 13, 1, IMPOSSIBLE),
    ("dumbbell", 21, 1, IMPOSSIBLE), ("two-castle", 12, 2, BEST_EFFORT), ("er", 12, 2, IMPOSSIBLE),
])  # fmt: skip
def test_topologies(name: str, members: int, byzantine: int, certificate: str) -> None:
    graph = topology_of(name, members, byzantine)
    assert len(graph.honest) == members
    assert (~graph.honest).sum() == byzantine
    assert graph.certificate(int(graph.byzantine_count.max())) == certificate


@pytest.mark.parametrize("wrong", [
    ("star", 5, 1, "zero", "cs_plus"), ("complete", 5, 4, "zero", "cs_plus"),
    ("complete:3", 5, 1, "zero", "cs_plus"), ("two-worlds", 28, 3, "zero", "cs_plus"),
    ("complete", 11, 2, "nice", "cs_plus"), ("complete", 11, 2, "label_flip", "cs_plus"),
    ("complete", 11, 2, "zero", "kind"), ("complete", 6, 2, "zero", "cs_plus"),
    ("regular:3", 10, 1, "zero", "cs_plus"),
])  # fmt: skip
def test_what_cannot_be_run_is_refused_in_words(wrong: tuple[str, int, int, str, str]) -> None:
    with pytest.raises(ValueError, match=r"choose|hold|halves|number|must"):
        report(*wrong, 0, 2)
