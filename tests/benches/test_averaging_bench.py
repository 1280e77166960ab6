"""benches/averaging.py: two real nodes average exactly; what is no namespace counts no bytes."""

from pathlib import Path

import numpy as np
import pytest

from benches.averaging import error_of, exact, size, tolerated
from benches.averaging_member import genesis, mark, marks_from, step
from benches.averaging_world import Job, Ours
from benches.rivals import Rival

D = 20_000


def test_marks_are_nobody_elses() -> None:
    steps = [step(D, 0.01, 2, round_, member) for round_ in (1, 2) for member in (0, 1)]
    marks = [mark(D, 2, round_, member) for round_ in (1, 2) for member in (0, 1)]
    for one, vector in enumerate(steps):
        for other, where in enumerate(marks):
            assert bool(vector[where].any()) == (one == other)
    assert not genesis(D, 0.01)[marks_from(D) :].any()


def test_the_exact_mean_is_the_plain_one_without_attackers() -> None:
    handed = {m: step(D, 1.0, 3, 1, m) for m in range(3)}
    mean = np.mean([handed[m] for m in range(3)], axis=0)
    np.testing.assert_allclose(exact(1, handed, 0), mean, atol=1e-6)


def test_numbers_are_read_and_f_is_a_testnets() -> None:
    assert [size("20k"), size("10M"), size("7")] == [20_000, 10_000_000, 7]
    assert [tolerated(n) for n in (2, 4, 8)] == [0, 0, 1]


def test_who_is_not_here_is_told() -> None:
    assert Rival("hivemind", "", "no registry").note == "hivemind: not here: no registry"


@pytest.mark.integration
def test_two_nodes_average_to_the_exact_mean(tmp_path: Path) -> None:
    with Ours(Job(2, D, "fp32"), tmp_path / "o") as ours:
        for keep in (False, True):
            ours.next_round()
            done = ours.hand(keep=keep)
            assert done.ok == {0: True, 1: True}
            assert not done.late
        assert error_of(ours, ours.job) < 1e-5
        if done.wire_bytes is not None:
            assert 2 * 4 * D < done.wire_bytes < 2 * 6 * D
