"""The guides' commands, typed in the order in which they stand. Real members, real training."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from docs_kit import ROOT
from guides import GUIDES, Reader, follow

pytestmark = pytest.mark.integration

NOTHING_TO_TYPE = {"gpu.md"}  # without a GPU


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_guide_can_be_followed(page: Path, tmp_path: Path) -> None:
    assert follow(page, tmp_path) or page.name in NOTHING_TO_TYPE


def test_the_demo_gives_a_verdict(tmp_path: Path) -> None:
    with ExitStack() as stack:
        reader = Reader(tmp_path / "reader", stack)
        said = reader.types("./tapestry demo --out demo", "")
    assert "VERDICT: " in said
    assert (tmp_path / "reader/demo/alone-together.svg").read_text().count("<path") > 10
