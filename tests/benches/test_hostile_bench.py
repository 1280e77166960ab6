"""benches/hostile.py: a row for every program, with its promise; the run is by hand."""

from benches.hostile import table
from tapestry_p2p.sim.hostile.table import PROGRAMS


def test_every_program_has_a_row_that_says_what_must_happen() -> None:
    rows = [
        {"program": name, "rate": 1.0, "rate_share": 0.97, "growth_mb": 0.5, "did": {"said": 3}}
        for name in PROGRAMS
    ]
    lines = table({"rows": rows}).splitlines()[2:]
    assert len(lines) == len(PROGRAMS) == 22
    for name, line in zip(PROGRAMS, lines, strict=True):
        _, program, promise, rate, _, did, _ = (cell.strip() for cell in line.split("|"))
        assert program == f"`{name}`"
        assert len(promise) > 20
        assert rate == "97 %"
        assert did == "said 3"
