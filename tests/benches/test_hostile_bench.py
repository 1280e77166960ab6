"""benches/hostile.py: a row and a figure for every program; the run is by hand."""

from typing import Any

import pytest

from benches.hostile import missed, played, table
from benches.hostile_figures import FIGURES, LINKS, Seen
from tapestry_p2p.sim.hostile.table import PROGRAMS


def test_every_program_has_a_row_that_says_what_must_happen() -> None:
    rows = [
        {
            "program": name,
            "rate_share": 0.97,
            "growth_mb": 0.5,
            "cpu": 0.01,
            "what": FIGURES[name].what,
            "figure": 0.0,
            "bound": FIGURES[name].bound,
            "did": {"said": 3},
            "reached": True,
        }
        for name in PROGRAMS
    ]
    *lines, _, last = table({"rows": rows}).splitlines()[2:]
    assert last == "Missed: nothing."
    assert len(lines) == len(PROGRAMS) == 22
    for name, line in zip(PROGRAMS, lines, strict=True):
        _, program, promise, rate, _, _, figure, did, _ = (cell.strip() for cell in line.split("|"))
        assert program == f"`{name}`"
        assert len(promise) > 20
        assert rate == "97 %"
        assert f"at most {FIGURES[name].bound:g}" in figure
        assert did == "said 3"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"rate_share": 0.94}, ["rate 94 %"]),
        ({"growth_mb": 5.1, "figure": 9}, ["growth 5.1 MB", "figure 9"]),
        ({"did": {}}, ["it did nothing, or told us nothing"]),
    ],
)
def test_the_table_says_what_was_missed(changes: dict[str, Any], words: list[str]) -> None:
    row: dict[str, Any] = {
        "program": "grinder", "rate_share": 0.95, "growth_mb": 5.0, "cpu": 0.0, "what": "links",
        "figure": 0, "bound": 0, "did": {"said": 1}, **changes,
    }  # fmt: skip
    assert missed(row) == words
    last = table({"rows": [{**row, "reached": not words}]}).splitlines()[-1]
    assert last == f"Missed: `grinder` ({', '.join(words)})." if words else "Missed: nothing."


def status(**changes: Any) -> dict[str, Any]:
    tables = {"streams": 4, "members": 4, "links": 3, "proofs": 0}
    plain = {"sockets": 3, "tasks": 50, "following": 3, "verdicts": {"reject": {}}}
    return {**plain, "tables": {**tables, **changes.pop("tables", {})}, **changes}


# what a node that fails its row would say
WORSE: dict[str, dict[str, Any]] = {
    "idle_flood": {"sockets": 400},
    "reconnector": {"sockets": 4},
    "slow_reader": {"tasks": 90},
    "bad_signature_flood": {"verdicts": {"reject": {"signature": 9}}},
    "replayer": {"tables": {"members": 90}},
    "stale_sender": {"tables": {"streams": 90}},
    "table_poisoner": {"tables": {"members": 999}},
    **{name: {"following": 2} for name, figure in FIGURES.items() if figure is LINKS},
}
TOLD = {"plaintext_impostor": "accepted", "garbage_streamer": "connected", "bombs": "connected"}


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_figure_tells_good_from_bad(name: str) -> None:
    proved = [status(tables={"proofs": 1})] * 4
    after = proved if name in ("forker", "selective_publisher") else [status()] * 4
    good = Seen({}, [status()] * 4, [[status()] * 4], after, [{"coefficient": None}])
    did = {TOLD.get(name, "endured"): 99}
    worse = [status(), status(**WORSE.get(name, {})), status(), status()]
    bad = Seen(did, [status()] * 4, [worse], worse, [{"coefficient": 0.2}])
    figure = FIGURES[name]
    assert figure.of(good) <= figure.bound < figure.of(bad)


def test_who_repeats_pays_rows_for_its_names_and_none_for_its_words() -> None:
    calm, figure = [status()] * 4, FIGURES["replayer"].of
    for more, streams in ((0, 8), (1, 9)):
        after = [status(tables={"streams": streams, "links": 5})] * 4
        assert figure(Seen({}, calm, [calm], after, [])) == more


def test_a_program_that_did_nothing_or_told_nothing_reaches_no_bound() -> None:
    assert played({"said": 3})
    assert not played({})
    assert not played({"said": 0})
    assert not played({"unfinished": 1})
