"""The table of languages: strangers' numbers, bounded, one vote a key, nothing decided by them."""

from typing import Any

import pytest

from tapestry_p2p.daemon.claims import CLAIMS_MAX, LANGUAGES_MAX, diversity, table
from tapestry_p2p.gossip.profile import Profile, Results

ME = bytes(32)


def _key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def _profile(together: int, *languages: str, **more: Any) -> Profile:
    results = Results("bits_per_char", 100, together=together, **more)
    return Profile("Somebody", languages, (), results)


def _everyone(key: bytes) -> bool:
    return True


def test_the_worst_language_comes_first_by_the_median_of_its_members() -> None:
    members = {
        _key(1): _profile(3000, "de"),
        _key(2): _profile(3400, "DE"),
        _key(3): _profile(9000, "de "),
        _key(4): _profile(5000, "km"),
    }
    rows = table((ME, _profile(2000, "fr", sovereign=1500)), members, _everyone)
    assert [row["language"] for row in rows] == ["km", "de", "fr"]
    assert [row["together"] for row in rows] == [5.0, 3.4, 2.0]
    assert [row["members"] for row in rows] == [1, 3, 1]
    assert rows[2]["sovereign"] == 1.5
    assert rows[2]["alone"] is None
    assert rows[1]["claims"][0]["id"].startswith("12D3Koo")


def test_new_keys_without_a_share_move_no_median() -> None:
    own = (ME, _profile(3000, "de"))
    liars = {_key(n): _profile(64_000, "de") for n in range(1, 60)}
    (row,) = table(own, liars, lambda _: False)
    assert row["together"] == 3.0
    assert row["not_counted"] == 59
    assert len(row["claims"]) == CLAIMS_MAX
    assert row["claims"][0]["counted"]
    assert diversity(own, liars, lambda _: False) is None


def test_one_lie_moves_the_median_no_farther_than_the_next_honest_claim() -> None:
    honest = {_key(n): _profile(3000 + n, "de") for n in range(1, 5)}
    (row,) = table((ME, _profile(3000, "de")), {**honest, _key(9): _profile(1, "de")}, _everyone)
    assert 3.0 <= row["together"] <= 3.004


def test_strangers_cannot_make_the_table_grow_or_change_its_unit() -> None:
    members = {_key(n): _profile(3000, f"x{n}") for n in range(1, 200)}
    other = Profile("", ("zz",), (), Results("loss", 1, together=64_000))
    rows = table((ME, _profile(2000, "fr")), {**members, _key(999): other}, _everyone)
    assert len(rows) == LANGUAGES_MAX
    assert {row["unit"] for row in rows} == {"bits_per_char"}


def test_of_accuracies_the_lowest_is_the_worst() -> None:
    def of(value: int, language: str) -> Profile:
        return Profile("", (language,), (), Results("accuracy", 1, together=value))

    rows = table((ME, of(900, "a")), {_key(1): of(600, "b")}, _everyone)
    assert [row["language"] for row in rows] == ["b", "a"]


def test_without_results_there_is_no_table() -> None:
    assert table((ME, Profile("Me", ("fr",), ())), {_key(1): Profile("", (), ())}, _everyone) == []


def test_diversity_is_the_spread_of_members_own_models() -> None:
    members = {_key(1): _profile(3000, "de", sovereign=3000)}
    found = diversity((ME, _profile(2000, "fr", sovereign=1000)), members, _everyone)
    assert found == pytest.approx(0.5)
