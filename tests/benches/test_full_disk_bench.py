"""benches/full_disk.py, short: a real member whose disk refuses stays, says so, and goes on."""

from pathlib import Path

import pytest

from benches.full_disk import refused, table

pytestmark = pytest.mark.integration


def test_it_stays_says_so_and_goes_on(tmp_path: Path) -> None:
    report = refused(tmp_path, steady_s=0.5, start_last=12, every=11)
    assert report["sound"], table(report)
    steady = report["rows"][:2]
    assert all(len(row["begun"]) > 5 for row in steady), table(report)
