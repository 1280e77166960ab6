"""benches/performance.py and compare.py: bounds decide, the page gets its table, a tenth fails."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benches import compare
from benches.performance import DOCS, Result, Row, add_options, finish

BENCHES = Path(compare.__file__).parent


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (Row("wall", 1.0, "s", 2.0, bound=1.0), True),
        (Row("wall", 1.1, "s", 2.0, bound=1.0), False),
        (Row("share", 0.99, bound=0.99, better="more"), True),
        (Row("share", 0.98, bound=0.99, better="more"), False),
        (Row("wall", None, "s", bound=1.0), False),
        (Row("bytes", 7.0, better="neither"), None),
    ],
)
def test_the_bound_decides_and_what_was_not_measured_misses_it(row: Row, met: bool | None) -> None:
    assert row.met is met
    assert Result("x", [row]).missed == ([] if met is not False else [row.figure])


def test_a_bound_without_a_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="direction"):
        Row("bytes", 1.0, bound=2.0, better="neither")


def test_the_table_goes_between_its_marks_and_the_exit_code_says_whether_all_is_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- x -->\nold\n<!-- end x -->\nafter\n")
    rows = [Row("wall", 1.234567, "s", 2.0, bound=1.0), Row("CPU", 3.0, "s", bound=4.0)]
    assert finish("x", rows, ["a note"], options("--write-docs"), page) == 1
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| wall, s | 1.23 | 2 | <= 1 | **no** |" in text
    assert "* a note" in text
    assert "Missed: wall." in text
    assert "cores" in text
    assert "old" not in text
    assert "| CPU, s | 3 |  | <= 4 | yes |" in capsys.readouterr().out
    assert finish("x", rows[1:], [], options(), page) == 0


def test_every_bench_of_the_page_has_its_marks() -> None:
    for name in ("averaging", "endtoend", "overlap", "big", "many", "wide"):
        assert f"<!-- {name} -->" in DOCS.read_text()
        assert f"<!-- end {name} -->" in DOCS.read_text()


def run(tmp_path: Path, old: list[Row], new: list[Row]) -> subprocess.CompletedProcess[str]:
    """benches/compare.py on two results."""
    paths = [tmp_path / "old.json", tmp_path / "new.json"]
    for path, rows in zip(paths, (old, new), strict=True):
        path.write_text(json.dumps(Result("x", rows).record()))
    return subprocess.run(
        [sys.executable, BENCHES / "compare.py", *paths], capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("old", "new", "closes"),
    [
        (Row("f", 10.0), Row("f", 10.9), False),
        (Row("f", 10.0), Row("f", 11.2), True),
        (Row("f", 10.0, better="more"), Row("f", 8.9, better="more"), True),
        (Row("f", 10.0, better="more"), Row("f", 20.0, better="more"), False),
        (Row("f", 10.0, baseline=20.0), Row("f", 20.0, baseline=40.0), False),  # both slowed
        (Row("f", 10.0, baseline=20.0), Row("f", 20.0, baseline=20.0), True),
        (Row("f", 10.0, baseline=20.0), Row("f", 10.0, baseline=5.0), False),  # the other's gain
        (Row("f", 0.0), Row("f", 1.0), True),
        (Row("f", 10.0, bound=10.4), Row("f", 10.5, bound=10.4), True),
        (Row("f", 1.0), Row("g", 1.0), True),
        (Row("f", 1.0), Row("f", None), True),
        (Row("f", None), Row("f", 1.0), False),
        (Row("f", 1.0, better="neither"), Row("f", 9.0, better="neither"), False),
    ],
)
def test_the_gate(old: Row, new: Row, closes: bool) -> None:
    changes = compare.compare(Result("x", [old]).record(), Result("x", [new]).record())
    assert [change.fails(compare.TOLERANCE) for change in changes] == [closes]


def test_the_command_names_what_is_worse(tmp_path: Path) -> None:
    good, bad = [Row("wall", 10.0), Row("CPU", 5.0)], [Row("wall", 12.0), Row("CPU", 5.0)]
    said = run(tmp_path, good, bad)
    assert said.returncode == 1
    assert "Worse by more than 10 %: wall." in said.stdout
    assert run(tmp_path, good, good).returncode == 0


def test_results_of_different_benches_are_not_compared(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("{}")
    with pytest.raises(ValueError, match="no result"):
        compare.load(tmp_path / "x")
    with pytest.raises(ValueError, match="one is of a, the other of b"):
        compare.compare({"bench": "a", "rows": []}, {"bench": "b", "rows": []})
