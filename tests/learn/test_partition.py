"""Records are shared out whole: nobody's twice, none forgotten."""

import numpy as np
import pytest

from tapestry_p2p.learn import partition

LABELS = np.random.default_rng(0).integers(0, 10, 3000)


@pytest.mark.parametrize("members", [1, 4, 10, 13, 26])
def test_every_record_goes_to_exactly_one_member(members: int) -> None:
    for parts in (
        partition.iid(len(LABELS), members, 1),
        partition.label_separated(LABELS, members, 1),
        partition.dirichlet(LABELS, members, 1.0, 1, smallest=1),
    ):
        assert len(parts) == members
        assert sorted(np.concatenate(parts)) == list(range(len(LABELS)))


def test_equal_members_hold_equally_much() -> None:
    assert {len(part) for part in partition.iid(3001, 4, 0)} == {750, 751}


@pytest.mark.parametrize(("members", "classes"), [(10, 1), (5, 2), (20, 1)])
def test_separated_members_hold_few_classes(members: int, classes: int) -> None:
    parts = partition.label_separated(LABELS, members, 0)
    assert {len(np.unique(LABELS[part])) for part in parts} == {classes}


def test_a_small_alpha_is_less_even() -> None:
    def spread(alpha: float) -> float:
        parts = partition.dirichlet(LABELS, 8, alpha, 3)
        assert min(map(len, parts)) >= 32
        return float(np.mean([np.bincount(LABELS[p], minlength=10).max() / len(p) for p in parts]))

    assert spread(100.0) < 0.2 < spread(0.1)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="under 2000"):
        partition.dirichlet(LABELS, 4, 0.1, 0, smallest=2000)
    with pytest.raises(ValueError, match="at least 1"):
        partition.iid(10, 0, 0)


def test_poisoned_labels_are_mirrored_and_nothing_else() -> None:
    records = np.array([[5.0, 7.0, 0.0], [1.0, 2.0, 9.0]], np.float32)
    assert np.array_equal(partition.flipped(records), [[5, 7, 9], [1, 2, 0]])
    assert records[0, -1] == 0
