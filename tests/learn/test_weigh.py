"""A start from others' copies, judged on held-out data: one bit, once; no way to question data."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from trainer_kit import Node, Vector, text_file

from tapestry_p2p import link

MakeNode = Callable[..., Node]


def _trained(node: Node, steps: int) -> Vector:
    """What some steps make of genesis."""
    node.start(0, 0, 0, node.genesis)
    node.train(1, steps, 1)
    return node.vector(node.expect("vector"))


def _weigh(node: Node, vector: Vector) -> None:
    node.order("weigh", seq=0, digest=node._write(0, vector))


def test_what_was_trained_elsewhere_is_better_and_the_training_goes_on_from_it(
    make_node: MakeNode, tmp_path: Path
) -> None:
    data = [str(text_file(tmp_path))]
    elsewhere = make_node("elsewhere", data=data)
    elsewhere.expect("hello")
    vector = _trained(elsewhere, 60)
    joiner = make_node("joiner", data=data)
    joiner.expect("hello")
    _weigh(joiner, vector)
    assert joiner.expect("weighed")["better"] is True
    joiner.start(0, 0, 0, vector)
    joiner.train(1, 1, 1)
    moved = joiner.vector(joiner.expect("vector")) - vector
    assert 0 < np.abs(moved).max() < 0.01, "from that start, at the warm-up's rate"
    _weigh(joiner, vector)
    while (record := joiner.receive())["t"] == "vector":
        pass
    assert record == {"t": "failed", "code": "link"}, "not after the start"


def test_what_is_no_better_is_not_taken_and_nothing_is_weighed_twice(
    make_node: MakeNode, tmp_path: Path
) -> None:
    node = make_node(data=[str(text_file(tmp_path))])
    node.expect("hello")
    _weigh(node, node.genesis)
    assert node.expect("weighed")["better"] is False
    _weigh(node, node.genesis)
    assert node.expect("failed")["code"] == "link"


def test_the_answer_is_one_bit() -> None:
    for record in ({"better": 1}, {"better": True, "loss": 2.5}, {"loss": 2.5}, {}):
        with pytest.raises((link.LinkError, ValueError)):
            link.parse_from_trainer(link.pack_record({"t": "weighed", **record}))
