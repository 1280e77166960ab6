"""The gain that a member is shown: at equal steps, in the figure that its task has."""

from typing import Any

import pytest

from tapestry_p2p.daemon.measured import POINTS_MAX, Measured


def _judged(track: str, step: int, value: float, **more: Any) -> dict[str, Any]:
    figures = {"bits_per_byte": value, "loss": value}
    told = {"track": track, "step": step, "best_step": step, "ended": False, "apart": 0.0}
    return {**told, "figures": figures, **more}


@pytest.fixture
def measured() -> Measured:
    found = Measured()
    for step, value in ((0, 8.0), (200, 5.0), (400, 4.0), (4000, 2.0)):
        found.note(_judged("together", step, value))
    for step, value in ((0, 8.0), (400, 5.0)):
        found.note(_judged("alone", step, value))
    found.note(_judged("sovereign", 4000, 1.5))
    return found


def test_the_twin_is_compared_at_its_own_number_of_steps(measured: Measured) -> None:
    status = measured.status()
    assert status["unit"] == "bits_per_byte"
    assert status["compared_at_step"] == 400
    assert status["gain_together"] == pytest.approx(1 - 4 / 5)
    assert status["gain_sovereign"] is None  # it had 4000 steps


def test_between_two_judgements_the_shared_model_is_taken_from_the_line(
    measured: Measured,
) -> None:
    measured.note(_judged("alone", 2200, 4.0))
    assert measured.status()["gain_together"] == pytest.approx(1 - 3 / 4)


def test_a_twin_that_has_just_begun_is_compared_with_nobody() -> None:
    measured = Measured()
    for track in ("alone", "together"):
        measured.note(_judged(track, 20, 5.0))
    assert measured.status()["gain_together"] is None


def test_a_twin_that_ended_is_compared_with_the_best(measured: Measured) -> None:
    measured.note(_judged("alone", 600, 5.0, ended=True, best_step=400))
    status = measured.status()
    assert status["gain_together"] == pytest.approx(1 - 2 / 5)
    assert status["gain_sovereign"] == pytest.approx(1 - 1.5 / 5)
    assert status["alone"] == {"steps": 600, "best_step": 400, "value": 5.0, "ended": True}


def test_of_an_accuracy_more_is_better() -> None:
    measured = Measured()
    for track, value in (("alone", 0.5), ("together", 0.6)):
        measured.note(_judged(track, 100, 1.0, figures={"loss": 1.0, "accuracy": value}))
    assert measured.status()["unit"] == "accuracy"
    assert measured.status()["gain_together"] == pytest.approx(0.2)


def test_nothing_measured_says_so() -> None:
    status = Measured().status()
    assert status["unit"] == ""
    assert status["alone"] is None
    assert status["gain_together"] is None


def test_a_way_back_cuts_a_curve_and_no_curve_grows_for_ever(measured: Measured) -> None:
    measured.note(_judged("together", 300, 4.5))
    assert measured.series()["together"] == [[0, 8.0], [200, 5.0], [300, 4.5]]
    for step in range(1000, 1000 + 5 * POINTS_MAX):
        measured.note(_judged("together", step, 3.0))
    assert len(measured.curves["together"]) <= POINTS_MAX
    measured.failed = True
    assert measured.status()["failed"] is True
    measured.clear()
    assert measured.series()["together"] == []
    assert measured.status()["failed"] is False
