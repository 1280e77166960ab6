"""The measure of the gain: fair to all three, within its share of the time, whole after a crash."""

import math
import socket
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from trainer_kit import TINY, Node, text_file

from tapestry_p2p import link
from tapestry_p2p.learn.gain import EVERY_STEPS, POINTS_MAX, TRACKS, Gain, Track
from tapestry_p2p.learn.judge import BLENDS, Judge, blend
from tapestry_p2p.learn.keep import Keeper
from tapestry_p2p.learn.learner import Average, Place, Program
from tapestry_p2p.learn.load import load
from tapestry_p2p.learn.loop import Loop
from tapestry_p2p.learn.task import Data
from tapestry_p2p.learn.vector import Params

BOTH = {"share": 0.5, "alone": True, "sovereign": True}
STEPS = 60
ENOUGH_S = 5.0  # of a shared step: then there is always time for one beside it

FAILS = """
import jax.numpy as jnp
import numpy as np


class Line:
    name = "line"
    judged = 0

    def init(self, key):
        return {"a": jnp.zeros(3)}

    def loss(self, params, batch, key):
        x, y = batch
        return jnp.mean((x @ params["a"] - y) ** 2), {}

    def batches(self, split, seed):
        def batch(cursor):
            x = np.random.default_rng([seed, cursor]).normal(size=(8, 3)).astype(np.float32)
            return x, x @ np.array([1, 2, 3], np.float32)

        return batch

    def evaluate(self, params, split, paths):
        self.judged += 1
        return {"loss": 1.0} if self.judged < 3 else {}["loss"]


def make_task(options, data):
    return Line()
"""


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = text_file(tmp_path_factory.mktemp("data"), 6000)
    return load("language", {**TINY, "learning_rate": 0.02}, Data([path], 7))


@pytest.fixture(scope="module")
def program(task: Any) -> Program:
    return Program(task, seed=1, batch_seed=2, schedule_steps=STEPS)


@pytest.fixture(scope="module")
def endless(task: Any) -> Program:
    return Program(task, seed=1, batch_seed=2, schedule_steps=0)


def _gain(program: Program, folder: Path, clock: Callable[[], float], **changes: Any) -> Gain:
    return Gain({**BOTH, **changes}, program, Judge(None, program), folder, 5, clock)


def _still() -> float:
    """A clock by which nothing takes any time."""
    return 0.0


def _pace() -> Callable[[], float]:
    """A clock by which everything takes a second."""
    ticks: Iterator[int] = count()
    return lambda: float(next(ticks))


def _trained(
    program: Program, gain: Gain, steps: int, step_s: float = 1.0
) -> tuple[Place, list[dict[str, Any]]]:
    """A shared training of so many steps, with at most one unit of work beside each."""
    place, told = program.fresh(program.genesis), []
    for _ in range(steps):
        program.advance(place)
        gain.earn(step_s)
        told.append(gain.work(place, lambda: place.params))
    return place, [record for record in told if record]


def test_the_twin_takes_the_steps_that_a_member_alone_would_take(
    program: Program, tmp_path: Path
) -> None:
    gain = _gain(program, tmp_path, _still, sovereign=False)
    place, told = _trained(program, gain, STEPS)
    while gain.unfinished(place):
        record = gain.finish(place, lambda: place.params)
        told += [record] if record else []
    alone = program.fresh(program.genesis)
    for _ in range(STEPS):
        program.advance(alone)
    twin = gain._beside["alone"]
    assert np.array_equal(twin.vector, program.layout.whole(alone.params))
    last = [record for record in told if record["track"] == "alone"][-1]
    assert last["ended"]
    assert last["step"] == STEPS
    judge = Judge(None, program)
    judged = {
        step: judge.held_out(program.params(program.layout.whole(place.params)))
        for step, place in _places(program)
        if step % EVERY_STEPS == 0
    }
    assert last["best_step"] == min(judged, key=judged.__getitem__)


def test_a_twin_that_leaves_the_finite_is_told_to_have_ended(
    program: Program, tmp_path: Path
) -> None:
    gain = _gain(program, tmp_path, _still, sovereign=False)
    _place, told = _trained(program, gain, 30)
    assert [record for record in told if record["track"] == "alone"][-1]["ended"] is False
    twin = gain._beside["alone"].place
    twin.params = jax.tree.map(lambda leaf: leaf * math.nan, twin.params)
    _place, told = _trained(program, gain, 1)
    [last] = told
    assert (last["track"], last["ended"]) == ("alone", True)
    assert math.isfinite(last["figures"]["bits_per_byte"])


def _places(program: Program) -> Iterator[tuple[int, Place]]:
    place = program.fresh(program.genesis)
    yield 0, place
    while not program.over(place):
        program.advance(place)
        yield place.step, place


def test_what_is_told_comes_from_text_that_chose_no_checkpoint(
    program: Program, tmp_path: Path
) -> None:
    gain = _gain(program, tmp_path, _still)
    _place, told = _trained(program, gain, 20)
    first = next(record for record in told if record["track"] == "together")
    assert first["step"] == 1
    start = program.fresh(program.genesis)
    program.advance(start)
    judge = Judge(None, program)
    test = judge.report(start.params)["bits_per_byte"]["own"]
    assert first["figures"]["bits_per_byte"] == test
    assert test != judge.held_out(start.params)


def test_the_measure_takes_its_share_of_the_time(endless: Program, tmp_path: Path) -> None:
    for share in (0.1, 0.5):
        clock = _pace()
        gain = _gain(endless, tmp_path / str(share), clock, share=share)
        _trained(endless, gain, 200)
        spent = sum(gain._spent_s.values())
        allowed = 200 * share / (1 - share)
        assert allowed - 10 < spent <= allowed + 10, (share, spent)
        trained = gain._spent_s["alone"], gain._spent_s["sovereign"]
        assert gain._spent_s["together"] <= min(trained) + 10  # judging leaves time to train


class _Slow(Judge):
    """A judge who takes three seconds to choose by, and six to tell."""

    now, spent = 0.0, 0.0
    told = 0

    def held_out(self, params: Params) -> float:
        self._take(3.0)
        return -self.now  # ever better

    def report(self, params: Params) -> dict[str, Any]:
        self._take(6.0)
        self.told += 1
        return {"loss": {"own": self.now}}

    def _take(self, seconds: float) -> None:
        self.now += seconds
        self.spent += seconds


def test_judging_takes_half_of_a_training_s_time_at_most_and_tells_each_checkpoint_once(
    endless: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, advance = _Slow(None, endless), endless.advance

    def timed(place: Place) -> float:
        judge.now += 0.1
        return advance(place)

    gain = Gain(BOTH, endless, judge, tmp_path, 5, lambda: judge.now)
    place = endless.fresh(endless.genesis)
    monkeypatch.setattr(endless, "advance", timed)
    judged = 0
    for _ in range(1200):
        endless.advance(place)
        gain.earn(1.0)
        judged += gain.work(place, lambda: place.params) is not None
    before = 4 * 9.0  # until it is known how long it takes
    trained = judge.now - judge.spent
    assert judge.told == judged
    assert judged > 8
    assert judge.spent - before <= trained + 3 * 9.0


def test_the_sovereign_model_is_no_worse_than_the_shared_one_it_comes_from(
    endless: Program, tmp_path: Path
) -> None:
    gain = _gain(endless, tmp_path, _pace(), alone=False)
    place = endless.fresh(endless.genesis)
    average, trips, judge = Average(endless.whole_genesis), [], Judge(None, endless)
    for _ in range(400):
        endless.advance(place)
        if place.step % EVERY_STEPS == 0:
            average.follow(endless.layout.whole(place.params))
        gain.earn(ENOUGH_S)
        before = gain._beside.get("sovereign")
        gain.work(place, lambda: endless.params(average.vector))
        after = gain._beside.get("sovereign")
        if after is not None and after is not before:
            trips.append(judge.held_out(endless.params(after.vector)))
            began = after.place.step
    sovereign = gain.sovereign_params()
    assert trips
    assert gain._beside["sovereign"].place.step > began, "it takes steps of its own"
    assert sovereign is not None
    score = judge.held_out(sovereign)
    assert score < min(trips), "a step of a trip is the best"
    assert score < gain.tracks["together"].score
    assert gain.distance(endless.layout.whole(place.params)) > 0


def _finished(gain: Gain, place: Place) -> list[dict[str, Any] | None]:
    """What each unit of work gave, when the shared training was over and until all is done."""
    given: list[dict[str, Any] | None] = []
    while gain.unfinished(place):
        given.append(gain.finish(place, lambda: place.params))
        assert len(given) < 2000, "it never ends"
    return given


def test_a_schedule_s_end_leaves_the_twin_and_the_last_word_on_the_own_model(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gain = _gain(program, tmp_path, _pace())
    place, told = _trained(program, gain, STEPS)
    taken: list[int] = []
    advance = program.advance

    def counted(at: Place) -> float:
        taken.append(at.step)
        return advance(at)

    monkeypatch.setattr(program, "advance", counted)
    given = _finished(gain, place)
    told += [record for record in given if record]
    idle = len(given) - len(taken) - sum(record is not None for record in given)
    assert idle == 1, "each turn takes a step or judges, but for the last trip's beginning"
    assert gain.tracks["alone"].ended
    own = [record for record in told if record["track"] == "sovereign"]
    assert own[-1]["figures"] == gain.tracks["sovereign"].figures
    assert [record["step"] for record in own] == sorted(record["step"] for record in own)
    judged = Judge(None, program).report(program.params(gain.best.vector))
    assert own[-1]["figures"]["bits_per_byte"] == judged["bits_per_byte"]["own"]


@pytest.mark.parametrize("ends", [True, False])
def test_the_last_shared_model_is_trained_on_once(
    program: Program, endless: Program, tmp_path: Path, ends: bool
) -> None:
    trained = program if ends else endless
    gain = _gain(trained, tmp_path, _pace(), alone=False)
    place, _ = _trained(trained, gain, STEPS, ENOUGH_S)
    shared = trained.layout.whole(place.params)
    begun, told = [], []
    while gain.unfinished(place):
        before = gain._beside["sovereign"]
        told.append(gain.finish(place, lambda: place.params))
        trip = gain._beside["sovereign"]
        if trip is not before:
            begun.append(trip.place.step)
            assert np.array_equal(trip.vector, shared)
        assert len(begun) < 3
    assert begun == [STEPS // 2 if ends else STEPS]
    if ends:  # the second half of the schedule again, to its end
        assert trip.place.step == STEPS
        steps = [record["step"] for record in told if record and record["track"] == "sovereign"]
        assert steps[-1] == STEPS + STEPS // 2


def test_a_trip_ends_with_models_between_its_end_and_the_shared_one(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gain = _gain(program, tmp_path, _pace(), alone=False)
    place, _ = _trained(program, gain, STEPS, ENOUGH_S)
    shared = program.layout.whole(place.params)
    seen, held_out = [], gain._judge.held_out

    def keeps(params: Params) -> float:
        seen.append(program.layout.whole(params))
        return held_out(params)

    monkeypatch.setattr(gain._judge, "held_out", keeps)
    while gain.unfinished(place):
        gain.finish(place, lambda: place.params)
        if len(gain._blends) == 1 and gain._on_trip:  # the rest of it comes after a kill
            gain.save()
            left = _gain(program, tmp_path, _pace(), alone=False)
            assert left._blends == gain._blends
            start = left._beside["sovereign"].start
            assert start is not None
            assert np.array_equal(start, shared)
    end = gain._beside["sovereign"].vector
    shares = BLENDS[::2][::-1]
    assert len(seen) > len(shares)
    for vector, share in zip(seen[-len(shares) :], shares, strict=True):
        assert np.array_equal(vector, blend(shared, end, share))
    assert gain.best.score == min(held_out(program.params(vector)) for vector in seen)


def test_where_sharing_does_not_help_the_own_model_is_the_twin(
    endless: Program, tmp_path: Path
) -> None:
    gain = _gain(endless, tmp_path, _still)
    place = endless.fresh(endless.genesis)
    for _ in range(300):  # the shared model stays as it was
        gain.earn(1.0)
        gain.work(place, lambda: place.params)
        gain._on_trip = False
        gain.tracks["together"].due = 1000
    alone, sovereign = gain.tracks["alone"], gain.tracks["sovereign"]
    assert alone.best_step >= EVERY_STEPS
    assert (sovereign.score, sovereign.figures) == (alone.score, alone.figures)
    assert gain.best.score == alone.score


def test_after_a_crash_it_goes_on_as_if_there_was_none(endless: Program, tmp_path: Path) -> None:
    gain = _gain(endless, tmp_path / "one", _pace())
    place, _ = _trained(endless, gain, 150, ENOUGH_S)
    began = gain.tracks["sovereign"].points[0][0]
    assert gain._beside["sovereign"].place.step > began, "in the middle of a trip"
    gain.save()

    def rest(gain: Gain) -> list[Any]:
        going = endless.copy(place)
        told = []
        for _ in range(120):
            endless.advance(going)
            gain.earn(ENOUGH_S)
            told.append(gain.work(going, lambda: going.params))
        return told

    again = _gain(endless, tmp_path / "one", _pace())
    kept = [point for track in gain.tracks.values() for point in track.points]
    assert len(again.begin(place.step)) == len(kept) > 6
    again._credit_s = gain._credit_s
    again._spent_s, again._compiled = dict(gain._spent_s), True
    assert rest(again) == rest(gain)


class _Numbers(Judge):
    """A judge two of whose three losses are no numbers, as one of its figures."""

    def __init__(self, program: Program) -> None:
        super().__init__(None, program)
        self._calls: Iterator[int] = count()

    def held_out(self, params: Params) -> float:
        return (math.nan, -math.inf, super().held_out(params))[next(self._calls) % 3]

    def report(self, params: Params) -> dict[str, Any]:
        return {**super().report(params), "bits_per_char": {"own": math.inf}}


def test_what_is_no_number_is_never_the_best_and_never_told(
    endless: Program, tmp_path: Path
) -> None:
    gain = Gain(BOTH, endless, _Numbers(endless), tmp_path, 5, _pace())
    _, told = _trained(endless, gain, 150, ENOUGH_S)
    for record in told:
        link.pack_record(record)  # ValueError if a figure is not finite
        assert "bits_per_char" not in record["figures"]
    assert {record["track"] for record in told if record["figures"]} == {*gain.tracks}
    assert all(math.isfinite(track.score) for track in gain.tracks.values())


def test_an_evaluate_that_fails_ends_the_measure_and_not_the_training(
    make_node: Callable[..., Node], tmp_path: Path
) -> None:
    (tmp_path / "fails.py").write_text(FAILS)
    node = make_node(task=f"{tmp_path / 'fails.py'}:make_task", gain=BOTH)
    node.expect("hello")
    node.start(0, 1, 0, node.genesis)
    node.train(1, 40, 0)
    for _ in range(100):
        while (record := node.receive())["t"] == "judged":
            pass
        if record["t"] == "unmeasured":
            break
        assert record["t"] == "vector", (record, node.log())
        node.correct(record["seq"], np.zeros_like(node.genesis))
    else:
        pytest.fail("it never failed")
    assert "not measured any more" in node.log()
    assert "KeyError" in node.log()
    assert node.expect("vector")["memory_mb"] > 0
    assert node.hang_up() == 0


def test_each_state_is_saved_when_it_is_due_and_all_at_the_end(
    endless: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, gain = Judge(None, endless), _gain(endless, tmp_path / "gain", _still)
    keeper = Keeper(tmp_path, endless, judge)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    vectors = link.SharedVectors.create(endless.layout.parameters)
    saved: list[str] = []
    with ours, theirs:
        loop = Loop(ours, endless, vectors, keeper, judge, None, 1.0, gain)
        for name, store in (("training", keeper), ("gain", gain)):
            monkeypatch.setattr(store, "save", lambda *_, name=name: saved.append(name))
        for due, expected in ((keeper, "training"), (gain, "gain")):
            monkeypatch.setattr(keeper, "due", lambda due=due: due is keeper)
            monkeypatch.setattr(gain, "due", lambda due=due: due is gain)
            loop._save()
            assert saved == [expected]
            saved.clear()
        loop._save(at_once=True)
        assert saved == ["training", "gain"]
        loop.close()


def test_other_data_begins_a_new_measure(endless: Program, tmp_path: Path) -> None:
    gain = _gain(endless, tmp_path, _still)
    _trained(endless, gain, 40)
    gain.save()
    other = Gain(BOTH, endless, Judge(None, endless), tmp_path, 6)
    assert not other.begin(40)
    assert other.sovereign_params() is None


def test_steps_are_counted_where_they_are_taken_whatever_the_node_calls_them(
    endless: Program, tmp_path: Path
) -> None:
    gain = _gain(endless, tmp_path, _pace())
    _trained(endless, gain, 150, ENOUGH_S)
    gain.save()
    best, score = gain.best.vector, gain.best.score
    assert math.isfinite(score)

    again = _gain(endless, tmp_path, _pace())
    told = again.begin(20)  # its rounds are longer than the nominal ones it counts in
    steps = [record["step"] for record in told if record["track"] == "together"]
    assert steps == [point[0] for point in gain.tracks["together"].points]
    assert max(steps) > 100
    assert again.sovereign_params() is not None
    assert np.array_equal(again.best.vector, best)
    place = endless.fresh(endless.genesis, 20)
    for _ in range(100):
        again.earn(ENOUGH_S)
        again.work(place, lambda: place.params)
    assert again.tracks["together"].points[-1][0] > 200
    assert again.best.score <= score


def test_a_curve_is_bounded_and_keeps_its_newest_point() -> None:
    track = Track()
    for step in range(0, 100_000, 20):
        track.note(step, 20)
        assert len(track.points) <= POINTS_MAX
        assert track.points[-1][0] == step
    assert track.points[0][0] < 100


def test_a_trainer_tells_its_measure_again_after_a_kill_and_answers_as_either_model(
    make_node: Callable[..., Node], tmp_path: Path
) -> None:
    data = [str(text_file(tmp_path))]
    node = make_node("member", data=data, gain=BOTH)
    node.expect("hello")
    node.start(0, 1, 0, node.genesis)
    node.train(1, 20, 0)
    told: list[dict[str, Any]] = []
    worth: list[Any] = [0, 0]
    for rounds in range(1, 200):
        while (record := node.receive())["t"] == "judged":
            told.append(record)
        node.correct(record["seq"], np.zeros_like(node.genesis))
        if rounds >= 12 and {record["track"] for record in told} == set(TRACKS):
            asked = [node.ask(do="evaluate", model=model) for model in ("shared", "sovereign")]
            worth = [answer["loss"] for answer in asked]
            if worth[0] != worth[1]:  # equal while the newest shared model is the best of all
                break
    assert worth[0] != worth[1]
    texts = [node.ask(do="generate", model=model) for model in ("shared", "sovereign")]
    assert all(text["text"] for text in texts)
    assert "shared or sovereign" in node.ask(do="generate", model="mine")["error"]
    while not (node.home / "gain" / "state.1").exists():
        record = node.receive()
        if record["t"] == "vector":
            node.correct(record["seq"], np.zeros_like(node.genesis))
    node.kill()

    again = make_node("member", data=data, gain=BOTH)
    again.expect("hello")
    again.start(0, 1, 100_000, again.genesis)
    known = [(record["track"], record["step"]) for record in told]
    first = again.expect("judged")
    assert (first["track"], first["step"]) in known


def test_without_a_measure_there_is_no_sovereign_model(
    make_node: Callable[..., Node], tmp_path: Path
) -> None:
    node = make_node(data=[str(text_file(tmp_path))])
    node.expect("hello")
    node.start(0, 1, 0, node.genesis)
    node.train(1, 5, 1)
    node.expect("vector")
    assert "no sovereign model" in node.ask(do="generate", model="sovereign")["error"]
