"""What every test gets: a home of its own, and the same random examples each time.

`pytest --hypothesis-profile=wide`, or HYPOTHESIS_PROFILE=wide, draws new examples and more of them.
"""

import json
import os
import signal
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("suite", deadline=None, derandomize=True)
settings.register_profile("wide", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


# A shell's background jobs ignore Ctrl-C, and so would every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty TAPESTRY_HOME (not yet made), and no TAPESTRY_ variable from outside."""
    for name in os.environ:
        if name.startswith("TAPESTRY_"):
            monkeypatch.delenv(name)
    folder = tmp_path / "home"
    monkeypatch.setenv("TAPESTRY_HOME", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


@pytest.fixture(scope="session")
def words() -> dict[str, dict[str, Any]]:
    """What the page says: language -> key -> text, or plural category -> text."""
    path = files("tapestry_p2p.page") / "static" / "words.json"
    found: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8"))
    return found
