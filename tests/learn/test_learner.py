"""A training continues exactly where it stopped, and every arm is judged fairly."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trainer_kit import TINY, text_file

from tapestry_p2p.learn.judge import BLENDS, Judge
from tapestry_p2p.learn.keep import Keeper
from tapestry_p2p.learn.learner import Average, Place, Program, norm, with_schedule_at
from tapestry_p2p.learn.load import load
from tapestry_p2p.learn.loop import near
from tapestry_p2p.learn.task import Data

STEPS = 40


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    path = text_file(tmp_path_factory.mktemp("data"), 3000)
    task = load("language", {**TINY, "learning_rate": 0.02}, Data([path], 7))
    return Program(task, seed=1, batch_seed=2, schedule_steps=STEPS)


def _judge(program: Program, **changes: Any) -> Judge:
    spec = {"texts": {}, "own": "own", "every_steps": 10, "sovereign_from_step": 30, **changes}
    return Judge(spec, program)


def _vector(program: Program, place: Place) -> Any:
    return program.layout.flatten(place.params)


def _advanced(program: Program, place: Place, steps: int) -> list[float]:
    return [program.advance(place) for _ in range(steps)]


def test_after_a_restart_come_the_same_batches_and_the_same_bits(
    program: Program, tmp_path: Path
) -> None:
    place = program.fresh(program.genesis)
    _advanced(program, place, 10)
    keeper = Keeper(tmp_path, program, Judge(None, program))
    assert not keeper.restored
    keeper.save(place, place.cursor)
    vector = _vector(program, place)
    losses = _advanced(program, place, 10)

    again = Keeper(tmp_path, program, Judge(None, program))
    assert again.restored
    resumed = again.resume(vector, 10)
    assert (resumed.step, resumed.cursor) == (10, 10)
    assert _advanced(program, resumed, 10) == losses
    assert np.array_equal(_vector(program, resumed), _vector(program, place))


def test_without_a_state_the_cursor_stands_at_the_step(program: Program, tmp_path: Path) -> None:
    resumed = Keeper(tmp_path, program, Judge(None, program)).resume(program.genesis, 25)
    assert (resumed.step, resumed.cursor) == (25, 25)


def test_what_the_judge_collected_survives(program: Program, tmp_path: Path) -> None:
    judge = _judge(program)
    place = program.fresh(program.genesis)
    for _ in range(35):
        program.advance(place)
        judge.corrected(place, last=False)
    Keeper(tmp_path, program, judge).save(place, place.cursor)

    fresh = _judge(program)
    Keeper(tmp_path, program, fresh)
    assert fresh.judged_at == 30
    for kept, seen in ((fresh.best, judge.best), (fresh.best_own, judge.best_own)):
        assert (kept.score, kept.step) == (seen.score, seen.step)
        assert np.array_equal(kept.vector, seen.vector)
    # A trainer outside a testnet does not take a testnet's state for its own.
    assert not Keeper(tmp_path, program, Judge(None, program)).restored


def test_a_schedule_follows_the_networks_step(program: Program) -> None:
    moments = program.fresh(program.genesis, step=33).moments
    assert 33 in [int(leaf) for leaf in _counts(moments)]
    assert {int(leaf) for leaf in _counts(with_schedule_at(moments, 5))} == {0, 5}


def _counts(moments: Any) -> list[Any]:
    found: list[Any] = optax.tree_utils.tree_get_all_with_path(moments, "count")
    return [value for _, value in found]


def test_a_copy_is_not_touched_by_training(program: Program) -> None:
    place = program.fresh(program.genesis)
    copy = program.copy(place)
    _advanced(program, place, 3)
    assert np.array_equal(_vector(program, copy), program.genesis)


def test_the_average_settles_where_the_newest_jitter() -> None:
    random = np.random.default_rng(0)
    goal = np.full(50, 3, np.float32)
    average = Average(np.full(50, 100, np.float32))
    for _ in range(300):
        average.follow(goal + random.normal(size=50).astype(np.float32))
    assert average.vector.dtype == np.float32
    assert float(np.std(average.vector - goal)) < 0.3
    assert abs(float(np.mean(average.vector - goal))) < 0.1


def test_the_average_weighs_rounds_by_the_polynomial_and_then_by_its_memory() -> None:
    """Shamir and Zhang: weights fall as (s / t)^ETA, so the last t / (ETA + 1) rounds count."""

    def weights(rounds: int) -> Any:
        average = Average(np.zeros(rounds, np.float32))
        for row in np.eye(rounds, dtype=np.float32):
            average.follow(row)
        return average.vector.astype(np.float64)

    assert weights(1).tolist() == [1]
    for rounds in (10, 300):
        found = weights(rounds)
        assert found.sum() == pytest.approx(1, abs=1e-5)
        assert (np.diff(found) >= -1e-9).all()
        age = (np.arange(rounds)[::-1] * found).sum()
        assert age == pytest.approx(rounds / (Average.ETA + 2), rel=0.2, abs=0.5)
    old = Average(np.zeros(1, np.float32), seen=10**6)
    old.follow(np.ones(1, np.float32))
    assert old.vector[0] == pytest.approx(1 / Average.MEMORY)


def test_an_average_goes_on_from_near_and_begins_anew_from_afar() -> None:
    random = np.random.default_rng(0)
    average, last = Average(np.zeros(50, np.float32)), np.zeros(50, np.float32)
    for _ in range(100):
        last = random.normal(size=50).astype(np.float32)
        average.follow(last)
    before = average.vector
    average.restart(last + np.float32(0.1), last)
    assert average.seen == 100
    assert average.vector is before
    average.restart(last + np.float32(20), last)
    assert average.seen == 0
    assert np.array_equal(average.vector, last + np.float32(20))


def test_the_average_survives_a_restart(tmp_path: Path, program: Program) -> None:
    endless = Program(program.task, seed=1, batch_seed=2, schedule_steps=0)
    keeper = Keeper(tmp_path, endless, Judge(None, endless))
    place = keeper.place
    assert keeper.average is not None
    for _ in range(3):
        _advanced(endless, place, 4)
        keeper.average.follow(_vector(endless, place))
    keeper.save(place, place.cursor)
    again = Keeper(tmp_path, endless, Judge(None, endless))
    assert again.restored
    assert again.average is not None
    assert again.average.seen == 3
    assert np.array_equal(again.average.vector, keeper.average.vector)
    assert not np.array_equal(again.average.vector, _vector(endless, again.place))
    # A network with an end shows its newest parameters, and does not take this state for its own.
    ending = Keeper(tmp_path, program, Judge(None, program))
    assert ending.average is None
    assert not ending.restored


def test_a_correction_is_added_exactly(program: Program) -> None:
    place = program.fresh(program.genesis)
    correction = np.random.default_rng(0).normal(size=len(program.genesis)).astype(np.float32)
    program.add(place, correction)
    assert np.array_equal(_vector(program, place), program.genesis + correction)


def _collected(program: Program) -> Judge:
    """A judge that saw a whole training, in which nothing was mixed."""
    judge = _judge(program)
    place = program.fresh(program.genesis)
    while not program.over(place):
        program.advance(place)
        judge.corrected(place, last=program.over(place))
    return judge


def test_arms_without_mixing_are_one_training_and_the_own_model_goes_on_from_it(
    program: Program,
) -> None:
    judge, between = _collected(program), []
    arms = {
        name: judge.arm(name, lambda: between.append(1))
        for name in ("untrained", "together", "alone", "sovereign")
    }
    losses = {name: arm["loss"]["own"] for name, arm in arms.items()}
    assert losses["untrained"] > losses["together"] == losses["alone"]
    assert {arms[name]["best_step"] for name in ("together", "alone")} <= {20, 30, 40}
    assert len(between) == STEPS + 10  # alone, and the end of the schedule again
    assert judge.arm("sovereign", _nothing)["best_step"] > STEPS
    own = judge._sovereign(_nothing)
    assert own.score < judge.best_own.score
    assert own.score == judge.held_out(program.params(own.vector))


def test_after_a_restart_the_twin_is_trained_for_whoever_asks_first(program: Program) -> None:
    judge = _judge(program)
    between: list[int] = []
    sovereign, alone = (
        judge.arm(name, lambda: between.append(1)) for name in ("sovereign", "alone")
    )
    assert len(between) == 10 + STEPS
    assert sovereign["best_step"] == alone["best_step"], "ten steps from genesis are worse"
    assert sovereign["loss"] == alone["loss"]


@pytest.mark.parametrize("end", [0.4, 0.6], ids=["better", "worse than where it began"])
def test_the_own_model_may_lie_between_the_shared_one_and_what_own_data_made_of_it(
    end: float, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = _collected(program)
    shared, seen = judge.best_own.vector, []

    def held_out(params: Any) -> float:  # worth by order: the third on the line is the best
        seen.append(program.layout.whole(params))
        return {0: 0.5, 1: end, 4: 0.1}.get(len(seen) - 1, 0.9)

    judge._alone(_nothing)
    monkeypatch.setattr(judge, "held_out", held_out)
    found = judge._sovereign(_nothing)
    assert len(seen) == 2 + len(BLENDS)
    assert np.array_equal(seen[0], shared)
    assert np.array_equal(found.vector, shared + np.float32(BLENDS[2]) * (seen[1] - shared))
    assert norm(found.vector, shared) == pytest.approx(BLENDS[2] * norm(seen[1], shared), rel=1e-5)


def test_the_checkpoint_is_chosen_on_validation_and_reported_on_the_rest(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = _judge(program)
    asked: list[tuple[float, str]] = []
    scores = iter([0.5, 0.1, 0.9, 0.7])

    def evaluate(params: Any, split: str, paths: Any) -> dict[str, float]:
        asked.append((float(jnp.mean(params["norm"]["scale"])), split))
        return {"loss": next(scores) if split == "validation" else 0.3}

    monkeypatch.setattr(judge, "_evaluate", evaluate)
    place = program.fresh(program.genesis)
    for step in range(4):
        place.step = 10 * (step + 1)
        judge.corrected(place, last=False)
        program.add(place, np.ones_like(program.genesis))
    report = judge.arm("together", _nothing)
    assert report["best_step"] == 20
    assert [split for _, split in asked] == ["validation"] * 4 + ["test"]
    assert asked[-1][0] == asked[1][0]  # the parameters of the second checkpoint
    assert report["loss"] == {"own": 0.3}
    assert report["accuracy"] is None


def _nothing() -> None:
    return None


def test_the_central_arm_is_judged_on_all_languages(program: Program, tmp_path: Path) -> None:
    texts = {}
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        texts[name] = [str(text_file(folder, 500)), str(text_file(folder, 500))]
    report = _judge(program, texts=texts, own="").arm("alone", _nothing)
    assert set(report["bits_per_byte"]) == {"one", "two"}


@pytest.mark.parametrize(
    ("change", "believed"),
    [
        (lambda own: own, True),
        (lambda own: 5 * own, True),
        (lambda own: own + 0.5, True),
        (lambda own: own * 1e6, False),
        (lambda own: own * np.float32("nan"), False),
        (lambda own: np.full_like(own, 3e38), False),
    ],
)
def test_a_start_must_be_near_the_last_own_vector(
    program: Program, change: Callable[[Any], Any], believed: bool
) -> None:
    assert near(change(program.genesis), program.genesis) is believed
