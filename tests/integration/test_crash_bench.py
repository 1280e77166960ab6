"""benches/crash.py, short: killed in every way, members lose nothing and sign nothing twice."""

import pytest

from benches.crash import KINDS, crashed, table

pytestmark = pytest.mark.integration


def test_killed_in_every_way_they_go_on(tmp_path_factory: pytest.TempPathFactory) -> None:
    report = crashed(tmp_path_factory.mktemp("c"), 14, 1)
    assert report["sound"], table(report)
    assert all(report["kills"][kind] for kind in KINDS)
    assert report["points"], "no crash point was hit"
    assert report["entries"] > 10
