"""benches/soak.py: planted leaks are found, noise is not; a minute of real members shows none."""

from random import Random

import pytest

from benches.soak import DISK, Sample, draw, report, slope, soak, table

COUNTED = ("tasks", "node fds", "node threads", "trainer fds", "trainer threads")


def samples(leak: dict[str, float], seed: int = 0) -> list[list[Sample]]:
    """Three members, 450 rounds in 900 s; RSS with noise and steps; ``leak``: growth per round."""
    random = Random(seed)
    found: list[list[Sample]] = []
    for _ in range(3):
        rows = []
        for second in range(0, 900, 2):
            held = {"node RSS, MB": 90 + random.choice([0.0, 0.1, 0.3]), "trainer RSS, MB": 300.0}
            held |= dict.fromkeys(DISK, 1.0) | dict.fromkeys(COUNTED, 20.0)
            held["store"] += random.uniform(0, 0.05)
            for what, growth in leak.items():
                held[what] += growth * second / 2
            rows.append(Sample(float(second), second // 2, held))
        found.append(rows)
    return found


def missed(leak: dict[str, float]) -> set[str]:
    """What a report with such growth misses, without the units."""
    rows = report(samples(leak), 0)["rows"]
    return {
        row["what"].split(" in 24 h")[0].split(", more")[0] for row in rows if not row["reached"]
    }


def test_noise_is_no_leak() -> None:
    assert missed({}) == set()


@pytest.mark.parametrize(
    ("what", "growth"),
    [
        ("node RSS, MB", 3 / 1350),  # three times the bound
        ("trainer RSS, MB", 2 / 1350),
        ("logs", 20 / 1350),
        ("store", 4 / 1350),
        ("node fds", 0.01),
        ("tasks", 0.01),
        ("trainer threads", 0.01),
    ],
)
def test_a_planted_leak_is_found(what: str, growth: float) -> None:
    title = f"{what}, MB" if what in DISK else what
    assert missed({what: growth}) == {title}


def test_a_restarted_trainer_is_no_quiet_soak() -> None:
    assert not report(samples({}), 1)["sound"]


def test_the_interval_of_a_slope_holds_the_truth_nine_times_in_ten() -> None:
    random, held = Random(1), 0
    x = [float(i) for i in range(300)]
    for _ in range(200):
        found = slope(x, [0.01 * at + random.gauss(0, 1) for at in x])
        held += abs(found.value - 0.01) <= found.give
    assert 160 <= held <= 200


def test_a_slope_wants_enough_samples() -> None:
    with pytest.raises(ValueError, match="at least 10 pairs"):
        slope([1.0], [1.0])


@pytest.mark.integration
def test_a_minute_of_real_members(tmp_path_factory: pytest.TempPathFactory) -> None:
    found = soak(60.0)
    rows = {row["what"]: row for row in found["rows"]}
    assert rows["seconds a round"]["figure"] < 60
    assert rows["trainers restarted"]["reached"]
    for what in COUNTED:
        assert rows[f"{what}, more at the end"]["figure"] <= 2, table(found)
    pytest.importorskip("matplotlib")
    picture = tmp_path_factory.mktemp("soak") / "soak.svg"
    draw(found, picture)
    assert picture.stat().st_size > 1000
