"""benches/sybils.py in small: a swarm costs the honest next to nothing, without probation a lot."""

from benches.sybils import LOSS_MAX, Case, measure, table

SMALL = Case(honest=6, sybils=16, f=1, seconds=14.0)


def test_a_swarm_costs_little_and_the_control_shows_that_it_tried() -> None:
    found = measure(SMALL)
    rows = found["rows"]
    assert found["within"]
    assert rows["sybils"]["loss_ratio"] <= LOSS_MAX
    assert 0 < rows["sybils"]["newcomers_of_b"] <= 0.25
    assert rows["sybils"]["attacks"] > 100
    assert rows["sybils"]["links_lost"] == rows["sybils"]["sparse"] == 0
    assert rows["without probation"]["loss_ratio"] > 1.2
    assert "holds" in table(found)


def test_a_loss_beyond_the_bound_is_said() -> None:
    rows = {name: {
        "loss_ratio": 1.5, "newcomers_of_b": 1.0, "links_lost": 3, "sparse": 0.5, "rounds": 9,
    } for name in ("clean", "sybils")}  # fmt: skip
    assert "DOES NOT HOLD" in table({"rows": rows, "within": False})
