"""benches/wide.py: its bounds, and two real daemons that nobody can dial."""

import pytest

from benches import wide

CALM = {"handed": 60.0, "seq": 60.0, "sent": 1e6, "crossed": 6e5, "lag": 0.1}


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({}, []),
        ({"crossed": 7e5}, ["share of all bytes that cross the slow link"]),
        ({"handed": 50.0}, ["rounds trained, of those in the calm"]),
        ({"seq": 50.0, "lag": 4.0}, ["entries published, of those in the calm",
                                     "entries behind across the link"]),
    ],
)  # fmt: skip
def test_repeats_and_waiting_miss_their_bounds(change: dict[str, float], missed: list[str]) -> None:
    rows = wide.group_rows(3, 60.0, CALM, CALM | change)
    assert [row.figure for row in rows if row.met is False] == missed


def test_two_that_nobody_can_dial_follow_each_other(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wide, "SETTLE_S", 1.0)
    wide.main(["--quick"])
    told = capsys.readouterr().out
    assert "| behind routers: neighbours mixed, least | 2 |  | >= 2 | yes |" in told
    assert "| behind routers: that say so, of 2 | 2 |  | >= 2 | yes |" in told
