"""Graphs of the simulator: the eigenvalues that papers quote, degrees, weights, who is hostile."""

from collections.abc import Callable

import numpy as np
import pytest

from tapestry_p2p.mix.topology import BEST_EFFORT, CERTIFIED, IMPOSSIBLE, eigenvalues, estimate
from tapestry_p2p.sim.graphs import (
    Graph,
    complete,
    connected,
    dumbbell,
    erdos_renyi,
    regular,
    ring,
    two_castle,
    two_worlds,
    weighted,
)

ALL: dict[str, Callable[[], Graph]] = {
    "complete": lambda: complete(16, 3),
    "two worlds": two_worlds,
    "ring": lambda: ring(12, 1),
    "regular": lambda: regular(24, 8, 0, 2),
    "odd regular": lambda: regular(10, 3, 0),
    "Erdos-Renyi": lambda: erdos_renyi(12, 0.7, 300, 2),
    "two castles": two_castle,
    "dumbbell": lambda: dumbbell(10, 1),
}


def unit_mu2(graph: Graph) -> float:
    return graph.mu2 / graph.unit


@pytest.mark.parametrize("name", ALL)
def test_every_graph_is_symmetric_connected_and_leaves_a_weight_to_self(name: str) -> None:
    graph = ALL[name]()
    honest = graph.honest
    np.testing.assert_array_equal(graph.weights, graph.weights.T)
    assert connected(graph.honest_weights > 0)
    assert graph.weights[honest].sum(axis=1).max() < 1
    smallest = 1 / (1 + (graph.weights[honest] > 0).sum(axis=1).max())
    assert graph.weights[graph.weights > 0].min() == pytest.approx(smallest)
    np.testing.assert_allclose(
        graph.weights[honest].sum(axis=1),
        graph.honest_weights.sum(axis=1) + graph.byzantine_weight,
    )


@pytest.mark.parametrize(("n", "k", "low", "high"), [
    (24, 6, 2.2, 2.6), (50, 6, 1.7, 2.2), (100, 6, 1.5, 1.9), (24, 8, 3.9, 4.5), (24, 16, 11.7, 13),
])  # fmt: skip
def test_mu2_of_random_regular_graphs(n: int, k: int, low: float, high: float) -> None:
    assert low < np.mean([unit_mu2(regular(n, k, seed)) for seed in range(3)]) < high


@pytest.mark.parametrize(("n", "k"), [(24, 6), (24, 16), (50, 12)])
def test_an_estimate_lies_below_what_is_drawn(n: int, k: int) -> None:
    """Random links, the assumed share of members hostile: the honest part's mu2."""
    found = estimate(n, k, 1)
    random, drawn = np.random.default_rng(n), []
    for seed in range(3):
        links = (regular(n, k, seed).weights > 0).astype(np.float64)
        for _ in range(5):
            honest = random.permutation(n)[found.hostile :]
            drawn.append(eigenvalues(links[np.ix_(honest, honest)])[1])
    assert found.mu2 < np.mean(drawn) < found.mu2 + 1.1


@pytest.mark.parametrize(("graph", "mu2"), [
    (complete(16, 3), 13.0), (two_worlds(), 16.0), (two_worlds(13, 5, 2), 10.0),
    (ring(12), 2 - 3**0.5), (dumbbell(10), 0.154), (two_castle(6, 0), 10.0),
])  # fmt: skip
def test_mu2_of_graphs_with_a_formula(graph: Graph, mu2: float) -> None:
    assert unit_mu2(graph) == pytest.approx(mu2, abs=1e-3)


def test_certificates_of_graphs() -> None:
    assert complete(16, 3).certificate(3) == CERTIFIED
    assert complete(15, 3).certificate(3) == BEST_EFFORT, "mu2 = 4b is not mu2 > 4b"
    assert complete(9, 3).certificate(3) == IMPOSSIBLE, "mu2 = 2b"
    assert two_worlds().certificate(3) == CERTIFIED
    assert two_worlds(byzantine=6).certificate(6) == BEST_EFFORT
    assert ring(12, 1).certificate(1) == IMPOSSIBLE
    assert ring(12).certificate(0) == CERTIFIED
    assert dumbbell(10, 1).certificate(1) == IMPOSSIBLE


def test_regular_graphs_keep_degrees_and_follow_the_seed() -> None:
    graph = regular(24, 8, 5, 2)
    assert set((graph.honest_weights > 0).sum(axis=1)) == {8}
    assert set(graph.byzantine_count) == {2}
    np.testing.assert_array_equal(graph.weights, regular(24, 8, 5, 2).weights)
    assert (graph.weights != regular(24, 8, 6, 2).weights).any()
    assert set((regular(10, 3, 1).weights > 0).sum(axis=1)) == {3}


def test_the_published_graphs() -> None:
    castle, er = two_castle(), erdos_renyi(12, 0.7, 300, 2)
    assert set((castle.weights > 0).sum(axis=1)) == {10}
    assert castle.honest.sum() == er.honest.sum() == 10
    np.testing.assert_array_equal(np.flatnonzero(~castle.honest), [7, 9])
    assert (er.weights > 0).sum() // 2 == pytest.approx(0.7 * 66, abs=12)
    metropolis = 1 / (1 + np.maximum.outer(*2 * [(er.weights > 0).sum(axis=1)]))
    np.testing.assert_allclose(er.weights, metropolis * (er.weights > 0))


def test_a_drawn_graph_is_connected_even_when_most_draws_are_not() -> None:
    graph = erdos_renyi(12, 0.15, 0)
    assert connected(graph.weights > 0)
    assert not connected(np.eye(3, dtype=bool))
    assert regular(8, 2, 1).mu2 > 0


@pytest.mark.parametrize("wrong", [
    lambda: regular(9, 3, 0), lambda: regular(4, 4, 0), lambda: ring(2), lambda: complete(3, 3),
    lambda: two_worlds(3, 4), lambda: erdos_renyi(4, 1.5, 0),
    lambda: Graph(np.array([[0.0, 1], [0.5, 0]]), np.ones(2, bool)),
    lambda: Graph(np.eye(2), np.ones(2, bool)),
    lambda: Graph(np.array([[0.0, -1], [-1, 0]]), np.ones(2, bool)),
])  # fmt: skip
def test_what_is_no_graph_is_refused(wrong: Callable[[], Graph]) -> None:
    with pytest.raises(ValueError, match=r"must|needs"):
        wrong()


def test_metropolis_weights_follow_the_larger_degree() -> None:
    star = np.zeros((4, 4), dtype=bool)
    star[0, 1:] = star[1:, 0] = True
    assert weighted(star, np.ones(4, dtype=bool)).weights[0, 1] == 0.25
