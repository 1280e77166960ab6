"""What ``status`` says of the gain: values of now, and the comparison at the twin's step apart."""

from typing import Any

from tapestry_p2p.cli.member import gain_lines


def _arm(value: float, steps: int, ended: bool = False) -> dict[str, Any]:
    return {"steps": steps, "best_step": steps, "value": value, "ended": ended}


def _told(**gain: Any) -> list[str]:
    usual = {"unit": "bits_per_byte", "alone": None, "together": None, "sovereign": None}
    shares = {"gain_together": None, "gain_sovereign": None, "failed": False}
    return gain_lines({"gain": {**usual, **shares, **gain}, "languages": []})


def test_before_anything_is_judged_nothing_is_said() -> None:
    assert _told(unit="") == []


def test_a_young_twin_is_not_compared() -> None:
    assert _told(together=_arm(2.234, 650), alone=_arm(4.76, 20)) == [
        "gain       bits_per_byte on held-out data: the shared model 2.23",
        "alone      a twin is at 4.76 after 20 steps",
    ]


def test_a_loss_at_equal_steps_is_not_taken_for_one_of_now() -> None:
    told = _told(
        together=_arm(2.05, 5600), sovereign=_arm(2.16, 5600), alone=_arm(2.59, 220),
        gain_together=-0.06, gain_sovereign=0.256,
    )  # fmt: skip
    assert told == [
        "gain       bits_per_byte on held-out data: the shared model 2.05, your sovereign one 2.16",
        "alone      a twin is at 2.59 after 220 steps; at that step the shared model was"
        " 6.0 % worse, your sovereign one was 25.6 % better",
    ]


def test_a_measure_that_failed_is_named_beside_what_is_known() -> None:
    assert len(_told(unit="", failed=True)) == 1
    known, failed = _told(together=_arm(2.0, 300), failed=True)
    assert "2" in known
    assert "not measured" in failed
    assert "`evaluate`" in failed


def test_beside_a_twin_that_has_ended_the_best_of_each_counts() -> None:
    told = _told(together=_arm(2.0, 9000), alone=_arm(2.5, 3000, ended=True), gain_together=0.2)
    assert told[1].endswith("after 3000 steps; beside that the shared model was 20.0 % better")
