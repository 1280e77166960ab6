"""benches/averaging.py: two real nodes average exactly; what is no namespace counts no bytes."""

from pathlib import Path
from typing import cast

import numpy as np
import pytest

from benches.averaging import error_of, exact, size, tolerated
from benches.averaging_faults import QUICK, apart, faults, means
from benches.averaging_member import Vector, genesis, mark, marks_from, step
from benches.averaging_world import Cluster, Job, Ours
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


def test_a_survivors_vector_may_hold_the_dead_ones_new_last_or_no_vector() -> None:
    handed = {m: step(D, 0.01, 3, 1, m) for m in range(2)}
    last, new = step(D, 0.01, 3, 0, 2), step(D, 0.01, 3, 1, 2)

    class Told:
        job = Job(3, D)

        def handed_by(self, member: int) -> Vector | None:
            return new

    possible = means(0, 2, handed, last, cast("Cluster", Told()))
    job = Told.job
    for told in (new, last, handed[0]):
        mean = (handed[0] + handed[1] + told) / 3
        assert min(apart(mean, one, job) for one in possible) < 1e-6
    wrong = (handed[0] + 2 * handed[1]) / 3
    assert min(apart(wrong, one, job) for one in possible) > 0.1
    assert apart(np.full(D, np.nan, np.float32), last, job) == float("inf")


@pytest.mark.integration
def test_what_goes_wrong_with_a_peer_leaves_the_others_right(tmp_path: Path) -> None:
    rows = list(faults(Rival("hivemind", "", "not asked for"), QUICK, tmp_path))
    assert len(rows) == 7
    assert not [row for row in rows if row.met is not True]


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
