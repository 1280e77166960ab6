"""The catalogue of words, for tests of what is shown."""

import json
from importlib.resources import files
from typing import Any

import pytest


@pytest.fixture(scope="session")
def words() -> dict[str, dict[str, Any]]:
    """Language -> key -> text, or plural category -> text."""
    path = files("tapestry_p2p.page") / "static" / "words.json"
    found: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8"))
    return found
