"""benches/full_disk.py, short: a real member whose disk refuses stays, says so, and goes on."""

from pathlib import Path

import pytest

from benches.full_disk import refused, table

pytestmark = pytest.mark.integration


def test_it_stays_says_so_and_goes_on(tmp_path: Path) -> None:
    report = refused(tmp_path, steady_times=2, start_last=12, every=11)
    assert report["sound"], table(report)
    assert sum(row["tried"] for row in report["rows"]) == 8
