"""benches/forks.py in small: one world of each kind keeps every bound; results are kept."""

from pathlib import Path

from benches.forks import report, rows, table
from benches.forks_worlds import KINDS


def test_a_small_run_keeps_every_bound(tmp_path: Path) -> None:
    pieces = tmp_path / "pieces.jsonl"
    found = report(rounds=500, count=len(KINDS), clones=1, forkers=1, seed=0, path=pieces)
    assert [what for what, _, _, holds in rows(found) if not holds] == []
    assert found["restores"] == dict.fromkeys(KINDS, 1)
    assert found["rounds"] >= 500
    assert "MISSED" not in table(found)
    assert len(pieces.read_text().splitlines()) == 3
    again = report(rounds=500, count=len(KINDS), clones=1, forkers=1, seed=0, path=pieces)
    assert {**again, "cpu_s": 0} == {**found, "cpu_s": 0}
