"""The examples of the docs train in a testnet of real processes, as their pages say."""

import json
from pathlib import Path

import pytest

from tapestry_p2p.cli.main import main

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.mark.integration
@pytest.mark.parametrize(("name", "parameters"), [("vision", 9930), ("jepa", 27936)])
def test_a_testnet_trains_the_example(name: str, parameters: int, tmp_path: Path) -> None:
    words = ["testnet", "--members", "2", "--data", "digits", "--rounds", "3", "--inner-steps", "5"]
    model = f"{EXAMPLES / name}.py:make_task"
    assert main([*words, "--model", model, "--out", str(tmp_path / "net"), "--json"]) == 0
    report = json.loads((tmp_path / "net" / "report.json").read_text())
    assert report["parameters"] == parameters  # of jepa without the target, which stays
    for row in report["members"]:
        assert row["rounds"] == 3
        assert row["copies_equal"]
        assert 0 < row["accuracy"]["together"] <= 1
