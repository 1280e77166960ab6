"""docs/security.md: every promise names tests that hold it, and those tests exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)


def promises() -> list[str]:
    """The points under "Promised" in the section about the network."""
    section = PAGE.split("## The network")[1].split("\n## ")[0]
    return re.findall(r"^- (.*(?:\n  .*)*)", section, re.MULTILINE)


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_a_named_test_exists(file: str, name: str) -> None:
    assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE)


@pytest.mark.parametrize("promise", promises(), ids=lambda text: text.strip("*")[:30])
def test_a_promise_names_its_tests(promise: str) -> None:
    assert "::test_" in promise


def test_the_page_says_what_is_not_promised() -> None:
    assert len(promises()) >= 12
    section = PAGE.split("## What is not promised")[1].split("\n## ")[0]
    for word in ("Vectors can leak", "Membership is open", "Availability"):
        assert word in section
