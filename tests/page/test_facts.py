"""What the daemon's answers become: every state has words, and no odd answer breaks the page."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_kit import PEER, STATUS

from tapestry_p2p.errors import FAILURE, NO_DAEMON, TIMEOUT, TapestryError
from tapestry_p2p.page import facts
from tapestry_p2p.page.board import POINTS_MAX, Curve

PAUSED = "paused: by you, on battery"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, "together"),
        ({"mixed": {"authors": []}}, "not_mixed"),
        ({"peers": 0}, "alone"),
        ({"mixing": False, "tolerate": 1}, "too_few"),
        ({"state": "starting"}, "starting"),
        ({"state": "something new"}, "starting"),
        ({"state": "asking peers what they know of us"}, "asking"),
        ({"state": "finished"}, "finished"),
        ({"state": "stopped: retired"}, "stopped"),
        ({"state": "degraded", "fault": "disk full"}, "degraded"),
        ({"state": "trainer is being restarted"}, "restarting"),
        ({"state": PAUSED, "paused": {"battery": "b", "operator": "by you"}}, "paused_operator"),
        ({"state": "paused: x", "paused": {"hours": "until its hours"}}, "paused_hours"),
        ({"state": "paused: x", "paused": {"battery": "x"}}, "paused_battery"),
        ({"state": "paused: x", "paused": {"load": "x"}}, "paused_load"),
        ({"state": "paused: x", "paused": {"disk": "x"}}, "paused_disk"),
        ({"state": "paused: x", "paused": {"moon": "x"}}, "paused_other"),
    ],
)
def test_each_state_has_its_words(
    change: dict[str, Any], code: str, words: dict[str, dict[str, Any]]
) -> None:
    assert facts.situation({**STATUS, **change})["code"] == code
    assert {f"{code}_{part}" for part in ("what", "why", "next")} <= words["en"].keys()


@pytest.mark.parametrize(
    ("exit_code", "code"), [(NO_DAEMON, "no_daemon"), (TIMEOUT, "slow"), (FAILURE, "no_answer")]
)
def test_a_daemon_that_does_not_answer_has_words(
    exit_code: int, code: str, words: dict[str, dict[str, Any]]
) -> None:
    assert facts.failed(TapestryError("x", exit_code))["code"] == code
    assert f"{code}_next" in words["en"]


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "cut"),
        ({"coefficient": 1.0}, "full"),
        ({"coefficient": None}, "not_yet"),
        ({"coefficient": None, "connected": False}, "away"),
        ({"coefficient": None, "probation": 5}, "probation"),
        ({"probation": 5}, "cut"),
        ({"weight_zero": True}, "unmixed"),
    ],
)
def test_each_neighbour_has_a_verdict_and_why(
    change: dict[str, Any], verdict: str, words: dict[str, dict[str, Any]]
) -> None:
    found = facts.neighbours({"peers": [{**PEER, **change}]}, STATUS, facts.Cuts())
    assert found["rows"][0]["verdict"] == verdict
    assert {f"verdict_{verdict}", f"why_{verdict}"} <= words["en"].keys()


def test_cuts_count_each_mixing_once() -> None:
    cuts = facts.Cuts()
    peer = PEER["id"]
    assert cuts.share(peer) is None
    for influence in (1.0, 0.5, 0.5, 0.25, 1.0):
        rows = [{"id": peer, "coefficient": influence, "distance": 1.0}]
        cuts.note({"mixed": {"authors": rows}})
    assert cuts.share(peer) == pytest.approx(2 / 4)  # the repeated .5 is the same mixing


def test_thousands_of_neighbours_are_bounded() -> None:
    peers = [{**PEER, "id": f"id-{number:08d}"} for number in range(5000)]
    found = facts.neighbours({"peers": peers}, STATUS, facts.Cuts())
    assert len(found["rows"]) == facts.NEIGHBOURS_MAX
    assert found["more"] == 5000 - facts.NEIGHBOURS_MAX


def test_the_curve_is_bounded_and_begins_anew_after_a_rollback() -> None:
    curve = Curve()
    for round_ in range(1, 5 * POINTS_MAX):
        curve.note({**STATUS, "round": round_})
        curve.note({**STATUS, "round": round_})
    rounds = [point[0] for point in curve.points]
    assert len(rounds) <= POINTS_MAX
    assert rounds == sorted(set(rounds))
    assert rounds[-1] == 5 * POINTS_MAX - 1
    curve.note({**STATUS, "round": 3})
    assert curve.points == [[3, 2.5]]


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(STATUS)), ODD), ODD)
def test_no_answer_breaks_the_page(change: dict[str, Any], peers: Any) -> None:
    status = {**STATUS, **change}
    cuts = facts.Cuts()
    cuts.note(status)
    curve = Curve()
    curve.note(status)
    shown = [
        facts.situation(status),
        facts.member(status),
        facts.neighbours({"peers": peers}, status, cuts),
        facts.neighbours({"peers": [{**PEER, **change}]}, status, cuts),
        curve.points,
    ]
    json.dumps(shown, allow_nan=False)


def test_three_models_and_what_they_are_worth() -> None:
    answer = {"curves": {"alone": [[0, 8.0], [40, 3.0]], "together": [[0, "x"], [9], 7, [40, 2.2]]}}
    found = facts.gain(STATUS, answer)
    assert found["curves"] == {
        "alone": [[0, 8.0], [40, 3.0]],
        "together": [[40, 2.2]],
        "sovereign": [],
    }
    assert found["now"] == {"alone": 3.0, "together": 2.2, "sovereign": None}
    assert found["gains"] == {"together": 0.1, "sovereign": None}
    assert not found["failed"]
    assert facts.gain({"gain": {"failed": True}}, {})["failed"]  # a measure that gave up is said


def test_claims_are_cleaned_and_bounded() -> None:
    claim = {"id": "12D3KooWBoBoBoBo2222", "name": "\u202eoB", "counted": "yes", "together": "9"}
    row = {"language": "km\n", "together": 5.5, "claims": [claim] * 99}
    (found,) = facts.languages({"languages": [row]})["rows"]
    assert found["language"].isprintable()
    assert len(found["claims"]) == facts.CLAIMS_MAX
    shown = found["claims"][0]
    assert "\u202e" not in shown["name"]
    assert shown["counted"] is False
    assert shown["together"] is None
    assert claim["id"].endswith(shown["short"])
    assert len(facts.languages({"languages": [row] * 99})["rows"]) == facts.LANGUAGES_MAX


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda x: (
            st.lists(x, max_size=3)
            | st.dictionaries(
                st.sampled_from(["gain", "languages", "curves", "alone", "value", "claims", "id"]),
                x,
                max_size=4,
            )
        ),
    )
)
def test_no_odd_measure_breaks_the_page(value: Any) -> None:
    odd = value if isinstance(value, dict) else {"gain": value, "languages": [{"claims": value}]}
    json.dumps([facts.gain(odd, odd), facts.languages(odd)], allow_nan=False)
