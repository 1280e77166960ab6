"""One compile cache for all trainers of the suite; every trainer is ended with its test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from trainer_kit import Node


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def make_node(tmp_path: Path, cache: Path) -> Iterator[Callable[..., Node]]:
    """make_node(name, **changes to the configuration); the same name is the same directory."""
    nodes: list[Node] = []

    def make(name: str = "trainer", **changes: Any) -> Node:
        nodes.append(Node(tmp_path / name, cache, **changes))
        return nodes[-1]

    yield make
    for node in nodes:
        node.end()
