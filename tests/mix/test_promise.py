"""What operators are told: exact all-to-all, by the rule's own bound; estimated where links are."""

import pytest

from tapestry_p2p.mix.promise import promise, promise_sparse, proven
from tapestry_p2p.mix.rules import NAMES
from tapestry_p2p.mix.topology import BEST_EFFORT, CERTIFIED, IMPOSSIBLE, certificate


@pytest.mark.parametrize(("rule", "f", "members", "word", "why"), [
    ("cs_plus", 1, 6, CERTIFIED, "members > 5f: 6 > 5"),
    ("cs_plus", 1, 5, BEST_EFFORT, "members > 5f does not hold: 5 <= 5"),
    ("cs_plus", 2, 6, IMPOSSIBLE, "members > 3f does not hold: 6 <= 6"),
    ("gts", 1, 9, BEST_EFFORT, "members > 9f does not hold: 9 <= 9"),
    ("gts", 1, 10, CERTIFIED, "members > 9f: 10 > 9"),
    ("cs_plus_h", 2, 14, BEST_EFFORT, "members > 7.25f does not hold: 14 <= 14.5"),
    ("mean", 1, 16, BEST_EFFORT, "no bound is proven for mean"),
    ("nnm+cs_plus", 1, 16, BEST_EFFORT, "no bound is proven for nnm+cs_plus"),
    ("mean", 0, 2, CERTIFIED, "nobody hostile is tolerated"),
])  # fmt: skip
def test_all_to_all(rule: str, f: int, members: int, word: str, why: str) -> None:
    found = promise(rule, f, members)
    assert found == (word, why, 0.0)
    if rule == "cs_plus":
        assert word == certificate(members, f)


@pytest.mark.parametrize("rule", NAMES)
def test_links_chosen_by_secrets_never_certify(rule: str) -> None:
    for f, members, k in ((0, 50, 16), (1, 50, 16), (1, 1000, 16), (2, 40, 24), (1, 50, 6)):
        assert promise_sparse(rule, f, members, k).word in (BEST_EFFORT, IMPOSSIBLE)


def test_an_estimate_says_how_many_it_assumes_and_what_follows() -> None:
    found = promise_sparse("cs_plus", 1, 100, 16)
    assert found.word == BEST_EFFORT
    assert found.why == (
        "an estimate: 5 hostile of 100 members assumed, 18 % of neighbourhoods hold more than 1;"
        " mu2 about 8.1"
    )
    assert found.chance == pytest.approx(0.183, abs=0.001)
    poor = promise_sparse("cs_plus", 1, 100, 6)
    assert poor.word == IMPOSSIBLE
    assert "1.1 <= 2" in poor.why


def test_only_four_rules_are_proven() -> None:
    assert {rule for rule in NAMES if proven(rule)} == {"cs_plus", "cs_plus_h", "gts"}
