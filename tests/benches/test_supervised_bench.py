"""benches/supervised.py, short: each failure of a real trainer is named and got over."""

from pathlib import Path

import pytest

from benches.supervised import KINDS, supervised, table

pytestmark = pytest.mark.integration


def test_each_failure_is_named_and_training_goes_on(tmp_path: Path) -> None:
    report = supervised(tmp_path, 1)
    assert report["sound"], table(report)
    assert report["times"] == dict.fromkeys(KINDS, 1)
