"""benches/sigterm.py, short: members that are told to end at random instants end well."""

from pathlib import Path

import pytest

from benches.sigterm import ended, table

pytestmark = pytest.mark.integration


def test_told_to_end_they_leave_nothing(tmp_path: Path) -> None:
    report = ended(tmp_path, 8, 1)
    assert report["sound"], table(report)
    assert report["ends"] == 8
