"""benches/many.py: a crowd settles and is measured, bounds decide, real daemons mix."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from benches import many
from benches.many_crowd import (
    HAPPENED,
    LINKS,
    Crowd,
    averaged,
    held_bytes,
    reached,
    regular,
    rounds_to_mean,
    run,
    second_eigenvalue,
)


@pytest.fixture(scope="module")
def crowd() -> Crowd:
    return run(24, seed=3, settle_s=150.0, window_s=150.0)


def test_a_crowd_settles_and_everything_promised_happens(crowd: Crowd) -> None:
    assert crowd.alone == 0
    assert crowd.links > 10
    assert crowd.mu2 > 2
    assert min(crowd.bytes_s, crowd.memory_kb, crowd.cpu_us, crowd.rounds) > 0
    assert all(crowd.happened[what] for what in HAPPENED)


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({}, 0),
        ({"bytes_s": 1.06}, 1),
        ({"memory_kb": 1.06, "cpu_us": 1.06}, 2),
        ({"rounds": 2.0}, 1),
    ],
)
def test_a_cost_that_grows_with_the_number_misses_its_bound(
    crowd: Crowd, change: dict[str, float], missed: int
) -> None:
    happened = dict.fromkeys(HAPPENED, 1)
    small = replace(crowd, members=100, happened=happened, rounds=7)
    large = replace(small, members=10_000, rounds=11)
    for name, factor in change.items():
        large = replace(large, **{name: factor * getattr(large, name)})
    rows = many.crowd_rows([small, large])
    assert sum(row.met is False for row in rows) == missed
    alone = replace(large, alone=1, happened={})
    assert sum(row.met is False for row in many.crowd_rows([small, alone])) == missed + 2


def test_rounds_grow_with_the_way_that_news_have_to_go() -> None:
    ring = [[(n - 1) % 40, (n + 1) % 40] for n in range(40)]
    full = [[m for m in range(17) if m != n] for n in range(17)]
    assert rounds_to_mean(full) == 1
    assert rounds_to_mean(ring) > 100
    assert reached([[1], [0], []]) == 2
    assert averaged(ring, np.ones(40)).tolist() == [1.0] * 40


def test_a_random_regular_graph_mixes_as_such_graphs_do() -> None:
    """Friedman: the second eigenvalue of the Laplacian is near k - 2 sqrt(k - 1) = 8.25."""
    graph = regular(200, seed=1)
    assert {len(set(row)) for row in graph} == {LINKS}
    assert all(n in graph[other] and other != n for n, row in enumerate(graph) for other in row)
    assert 8.0 < second_eigenvalue(graph) < 9.5
    assert rounds_to_mean(graph) in (6, 7)
    assert graph == regular(200, seed=1) != regular(200, seed=2)


def test_what_is_held_is_weighed_once() -> None:
    shared = bytes(1000)
    assert 1000 < held_bytes([shared, shared]) < 1300
    assert held_bytes({"a": [shared], "b": (bytes(1001),)}) > 2000
    assert held_bytes(SimpleNamespace(a=shared)) < 1000, "only what is ours is entered"


def test_three_real_daemons_and_two_small_crowds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    many.main(["--quick"])
    told = capsys.readouterr().out
    assert "| 3 daemons: members that mix at the end | 3 |  | >= 3 | yes |" in told
    assert "| 36 members: living members out of reach | 0 |  | <= 0 | yes |" in told
    assert "seed 1" in told
