"""The trainer as a real process, driven over its link."""

import stat
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from trainer_kit import TINY, Node, text_file

from tapestry_p2p.learn.state import _read

MakeNode = Callable[..., Node]

STILL = {**TINY, "learning_rate": 0.0, "noise": 0.0}

ASTRAY = '''
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np


class Line:
    """Fits y = a x + b; one batch is not finite, and from cursor 60 all are.

    The batches of round k + 2 come once the k-th vector is answered: an answer is a byte in a file.
    """

    name = "line"

    def init(self, key):
        return {"a": jnp.zeros(3), "b": jnp.zeros(())}

    def loss(self, params, batch, key):
        x, y = batch
        return jnp.mean((x @ params["a"] + params["b"] - y) ** 2), {}

    def batches(self, split, seed):
        answers = Path(__file__).with_name("answers")

        def batch(cursor):
            while answers.stat().st_size < (cursor - 6) // 5:
                time.sleep(0.001)
            x = np.random.default_rng([seed, cursor]).normal(size=(8, 3)).astype(np.float32)
            y = x @ np.array([1, 2, 3], np.float32) + 1
            return x, y * np.float32("nan") if cursor == 7 or cursor >= 60 else y

        return batch


def make_task(options, data):
    return Line()
'''


def test_a_training_from_hello_to_the_last_correction(make_node: MakeNode, tmp_path: Path) -> None:
    node = make_node(options=STILL, data=[str(text_file(tmp_path))])
    hello = node.expect("hello")
    assert hello["pid"] == node.process.pid
    assert len(node.genesis) == hello["parameters"] == 256 * 16 + 12 * 16**2 + 3 * 16

    # Two vectors, then no third while both are unanswered: it trains on instead of waiting.
    node.train(1, 3, 3)
    first, second = node.expect("vector"), node.expect("vector")
    assert [first["round"], second["round"]] == [1, 2]
    assert first["steps"] == second["steps"] == 3
    assert first["tokens"] == 3 * 4 * 16
    assert np.array_equal(node.vector(first), node.genesis)
    assert node.quiet(0.3)

    # A correction frees a slot and is added once.
    one, two, three = (np.full_like(node.genesis, by) for by in (0.5, 0.25, 0.125))
    node.correct(1, one)
    third = node.expect("vector")
    assert (third["seq"], third["round"], third["applied"]) == (3, 3, 1)
    assert third["steps"] > 3
    assert np.array_equal(node.vector(third), node.genesis + one)
    node.correct(2, two)
    assert node.expect("applied")["seq"] == 2
    node.correct(3, three)
    assert node.expect("applied")["seq"] == 3

    # A vector to start from replaces the parameters; sequence numbers go on from its own.
    node.start(10, 4, 9, node.genesis)
    node.train(4, 1, 4)
    again = node.expect("vector")
    assert (again["seq"], again["round"], again["applied"]) == (11, 4, 10)
    assert np.array_equal(node.vector(again), node.genesis)

    # A start beyond all reason is refused.
    node.start(11, 5, 10, node.genesis + 1000)
    assert node.expect("failed")["code"] == "start_too_far"
    assert node.process.wait(20) == 1


def test_killed_and_started_again_it_goes_on(make_node: MakeNode, tmp_path: Path) -> None:
    data = [str(text_file(tmp_path))]
    node = make_node(data=data)
    node.expect("hello")
    node.train(1, 4, 0)
    saved = tmp_path / "trainer" / "state.1"
    told = node.expect("vector")
    while not saved.exists():
        node.correct(told["seq"], np.zeros_like(node.genesis))
        told = node.expect("vector")
    last = node.vector(told)
    node.kill()
    assert node.receive() == {"t": "end"}

    node = make_node(data=data)
    node.expect("hello")
    node.start(0, told["round"] + 1, 4 * told["seq"], last)
    node.train(told["round"] + 1, 4, told["round"] + 2)
    told_again = node.run(2)
    assert [record["round"] for record in told_again] == [told["round"] + 1, told["round"] + 2]
    assert told_again[-1]["loss"] < told["loss"] + 0.3  # goes on from what was learned

    begin = time.monotonic()
    node.order("stop")
    assert node.process.wait(20) == 0
    assert time.monotonic() - begin < 5
    assert not (tmp_path / "trainer" / "text.sock").exists()
    assert node.log() == ""


def test_the_local_user_asks_and_the_node_hangs_up(make_node: MakeNode, tmp_path: Path) -> None:
    text = text_file(tmp_path, 4000)
    judge = {
        "texts": {"loom": [str(text), str(text)]},
        "own": "loom",
        "every_steps": 10,
        "sovereign_from_step": 30,
    }
    options = {**TINY, "learning_rate": 0.01, "warmup_steps": 5}
    node = make_node(options=options, data=[str(text)], judge=judge, schedule_steps=40)
    node.expect("hello")
    node.train(1, 10, 4)
    told = node.run(4)
    assert sum(record["steps"] for record in told) == 40  # not one step beyond the schedule

    mode = (tmp_path / "trainer" / "text.sock").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    said = node.ask(do="generate", prompt="warp ", bytes=40, temperature=0.5, seed=1)
    assert said == node.ask(do="generate", prompt="warp ", bytes=40, temperature=0.5, seed=1)
    assert 0 < len(said["text"]) <= 40
    for wrong in ({"prompt": 3}, {"bytes": 0}, {"bytes": "9"}, {"temperature": "hot"}):
        assert "error" in node.ask(do="generate", **wrong)
    assert "error" in node.ask(do="dance")

    untrained, together, alone, sovereign = (
        node.ask(do="arm", name=name) for name in ("untrained", "together", "alone", "sovereign")
    )
    assert untrained["bits_per_byte"]["loom"] > 7
    for arm in (together, alone, sovereign):
        assert arm["bits_per_byte"]["loom"] < untrained["bits_per_byte"]["loom"] - 1
        assert arm["bits_per_char"] == arm["bits_per_byte"]  # one byte a character here
        assert arm["accuracy"] is None
    # Nothing was mixed, so two are the same training, and the third goes on from its end.
    assert np.isclose(alone["bits_per_byte"]["loom"], together["bits_per_byte"]["loom"])
    assert sovereign["bits_per_byte"]["loom"] <= alone["bits_per_byte"]["loom"]
    assert alone["best_step"] == together["best_step"]
    assert node.ask(do="evaluate")["bits_per_byte"]["loom"] < 7

    exported = node.ask(do="export", path=str(tmp_path))
    assert exported["parameters"] == len(node.genesis)
    assert (tmp_path / "model.safetensors").stat().st_size > 4 * len(node.genesis)
    assert (tmp_path / "model.int8.safetensors").stat().st_size < 2 * len(node.genesis)
    exact, rounded = (found["bits_per_byte"]["loom"] for found in exported["scores"].values())
    assert np.isclose(exact, rounded, rtol=0.01)
    assert node.hang_up() == 0


def test_a_vector_that_is_not_finite_never_leaves(make_node: MakeNode, tmp_path: Path) -> None:
    (tmp_path / "astray.py").write_text(ASTRAY)
    answers = tmp_path / "answers"
    answers.touch()
    node = make_node(task=f"{tmp_path / 'astray.py'}:make_task")
    assert node.expect("hello")["parameters"] == 4
    node.train(1, 5, 0)
    steps = skipped = 0
    while (record := node.receive())["t"] == "vector":
        assert np.isfinite(node.vector(record)).all()
        steps += record["steps"]
        skipped += record["skipped"]
        node.correct(record["seq"], np.zeros_like(node.genesis))
        answers.write_bytes(answers.read_bytes() + b".")
    assert 40 <= steps < 60  # the one bad batch was skipped
    assert skipped == 1
    assert record == {"t": "failed", "code": "nonfinite"}
    assert node.process.wait(20) == 1
    assert "not finite" in node.log()
    states = [state for path in tmp_path.rglob("state.[01]") if (state := _read(path))]
    cursor = max(states, key=lambda state: int(state["generation"]))["counters"]["cursor"]
    assert cursor >= 60, "its next life would be led astray by the same batches"


def test_what_cannot_be_trained_is_told_by_a_code(make_node: MakeNode, tmp_path: Path) -> None:
    (tmp_path / "small.txt").write_text("too small")
    (tmp_path / "broken.py").write_text("def make_task(options, data):\n    return 1 / 0\n")
    nodes = {
        ("data_missing", 78): make_node("a", data=[str(tmp_path / "nowhere.txt")]),
        ("data_too_small", 78): make_node("b", data=[str(tmp_path / "small.txt")]),
        ("task_not_found", 78): make_node("c", task="juggling"),
        ("task_error", 1): make_node("d", task=f"{tmp_path / 'broken.py'}:make_task"),
    }
    for (code, status), node in nodes.items():
        assert node.expect("failed")["code"] == code
        assert node.process.wait(20) == status
        assert code == "data_missing" or node.log()


def test_a_trainer_that_was_told_no_start_saves_nothing(
    make_node: MakeNode, tmp_path: Path
) -> None:
    """It may have been made for another network: what lies in its folder stays as it is."""
    home = tmp_path / "home"
    node = make_node(home, data=[str(text_file(tmp_path))])
    node.expect("hello")
    while not (home / "text.sock").exists():  # it compiles
        assert node.process.poll() is None
        time.sleep(0.01)
    node.ask(t="nothing of the kind")  # answered: it listens, and would save at the node's end
    assert node.hang_up() == 0
    assert not list(home.glob("state.*"))
