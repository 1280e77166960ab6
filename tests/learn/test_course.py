"""The trainer's rounds, driven through thousands of worlds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapestry_p2p.learn.course import FINISHED, HAND_OVER, IDLE, STEP, UNANSWERED_MAX, WAIT, Course
from tapestry_p2p.link import LinkError

EVENTS = st.lists(st.sampled_from(["turn", "turn", "turn", "answer"]), max_size=120)


@given(EVENTS, st.integers(1, 4), st.integers(0, 6), st.integers(0, 40))
def test_never_idle_never_ahead_by_more_than_two(
    events: list[str], steps: int, last: int, schedule: int
) -> None:
    course = Course()
    assert course.next(False) == WAIT
    course.train(1, steps, last)
    taken, handed = 0, 0
    for event in events:
        if event == "answer":
            if course.unanswered:
                course.correct(course.applied + 1)
            continue
        over = 0 < schedule <= taken
        action = course.next(over)
        if action == STEP:
            assert not over
            course.stepped()
            taken += 1
        elif action == HAND_OVER:
            assert course.unanswered < UNANSWERED_MAX
            assert over or course.round_steps >= steps
            assert course.round == handed + 1
            handed += 1
            assert course.handed_over() == handed
        else:  # it waits only if the rounds or the schedule are over
            assert course.phase == FINISHED or (over and course.unanswered == UNANSWERED_MAX)
    assert not last or handed <= last
    assert course.seq == handed


def test_corrections_are_added_once_and_in_order() -> None:
    course = Course()
    course.train(1, 1, 0)
    for _ in range(2):
        course.stepped()
        course.handed_over()
    for wrong in (0, 2, 3):
        with pytest.raises(LinkError):
            course.correct(wrong)
    course.correct(1)
    with pytest.raises(LinkError):
        course.correct(1)
    assert (course.applied, course.unanswered) == (1, 1)


def test_a_start_forgets_what_was_unanswered() -> None:
    course = Course()
    course.train(1, 1, 0)
    course.stepped()
    course.handed_over()
    course.start(7, 5)
    assert (course.phase, course.seq, course.unanswered) == (IDLE, 7, 0)
    course.train(5, 1, 5)
    course.stepped()
    assert course.handed_over() == 8
    assert course.phase == FINISHED


@pytest.mark.parametrize(("steps", "last"), [(0, 0), (5, 2)])
def test_impossible_rounds_are_refused(steps: int, last: int) -> None:
    with pytest.raises(LinkError):
        Course().train(3, steps, last)


def test_a_new_pace_holds_at_once_and_loses_no_step() -> None:
    course = Course()
    course.train(1, 10, 0)
    for _ in range(4):
        assert course.next(False) == STEP
        course.stepped()
    course.pace(4)
    assert course.next(False) == HAND_OVER
    course.handed_over()
    course.pace(6)
    assert course.round_steps == 0
    for _ in range(6):
        assert course.next(False) == STEP
        course.stepped()
    assert course.next(False) == HAND_OVER
    with pytest.raises(LinkError):
        course.pace(0)
