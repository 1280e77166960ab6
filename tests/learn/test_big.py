"""A big model, with its last good place and its vectors in files, trains to the same bits."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tapestry_p2p.bulk import IN_MEMORY, Shelf
from tapestry_p2p.learn.good import Good
from tapestry_p2p.learn.judge import Judge
from tapestry_p2p.learn.keep import Keeper
from tapestry_p2p.learn.learner import Program
from tapestry_p2p.learn.load import load
from tapestry_p2p.learn.task import Data

ROOT = Path(__file__).parents[2]
PARAMETERS = (1 << 20) + 77


def make(shelf: Shelf) -> Program:
    task = load(f"{ROOT}/benches/big_task.py:make_task", {"parameters": PARAMETERS}, Data([], 1))
    return Program(task, seed=1, batch_seed=2, schedule_steps=0, shelf=shelf)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Program, Program]:
    folder = tmp_path_factory.mktemp("vectors")
    return make(IN_MEMORY), make(Shelf(folder, mapped_from=PARAMETERS))


def lived(program: Program, folder: Path) -> list[Any]:
    """What a trainer does in its life, and every vector that it sees."""
    keeper = Keeper(folder, program, Judge(None, program))
    place = keeper.resume(program.genesis, 0)
    good = Good(program, place)
    seen: list[Any] = []
    assert keeper.average is not None
    for _ in range(2):
        seen += [program.advance(place) for _ in range(2)]
        good.take(place)
        vector = program.layout.flatten(place.params, program.shelf.empty)
        keeper.average.follow(vector)
        correction = np.float32(0.01) * vector
        program.add(place, correction)
        good.add(correction)
        seen += [vector, program.layout.flatten(place.params), keeper.average.vector]
    seen.append(program.advance(place))
    place = good.again()
    seen += [program.layout.flatten(place.params), program.advance(place)]
    keeper.save(good.place, place.cursor)
    again = Keeper(folder, program, Judge(None, program))
    assert again.restored
    place = again.resume(program.layout.flatten(good.place.params), place.step)
    seen += [program.advance(place), program.layout.flatten(place.params)]
    assert again.average is not None
    return [*seen, again.average.vector]


def test_both_ways_see_the_same_bits(programs: tuple[Program, Program], tmp_path: Path) -> None:
    small, big = programs
    assert (small.big, big.big) == (False, True)
    (tmp_path / "small").mkdir()
    (tmp_path / "big").mkdir()
    one, other = lived(small, tmp_path / "small"), lived(big, tmp_path / "big")
    assert len(one) == len(other) == 16
    for at, (a, b) in enumerate(zip(one, other, strict=True)):
        assert np.array_equal(a, b), at


def test_the_good_place_of_a_big_model_is_not_on_the_device(
    programs: tuple[Program, Program],
) -> None:
    for program in programs:
        place = program.fresh(program.genesis)
        good = Good(program, place)
        leaves = jax.tree.leaves((good.place.params, good.place.moments))
        assert all(isinstance(leaf, jax.Array) is not program.big for leaf in leaves)
        before = program.layout.flatten(good.place.params)
        program.advance(place)  # the place is donated, the good one stays
        assert np.array_equal(program.layout.flatten(good.place.params), before)


def test_the_parts_of_a_tree_are_its_vector(programs: tuple[Program, Program]) -> None:
    for program in programs:
        params = program.params(program.genesis)
        parts = np.concatenate(list(program.layout.parts(params)))
        assert np.array_equal(parts, program.genesis)
