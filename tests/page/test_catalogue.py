"""The words of the page: six languages say the same, and all that the page says is in them."""

import re
from importlib.resources import files
from typing import Any

import pytest

from tapestry_p2p.page import facts

LANGUAGES = ("en", "fr", "es", "ar", "hi", "zh")
PLURALS = {  # Unicode CLDR, plural rules of cardinal numbers
    "en": {"one", "other"},
    "fr": {"one", "many", "other"},
    "es": {"one", "many", "other"},
    "ar": {"zero", "one", "two", "few", "many", "other"},
    "hi": {"one", "other"},
    "zh": {"other"},
}
Words = dict[str, dict[str, Any]]
STATIC = files("tapestry_p2p.page") / "static"


def forms(text: Any) -> list[str]:
    """A text, or all its plural forms."""
    return list(text.values()) if isinstance(text, dict) else [text]


def slots(text: Any) -> set[str]:
    """The names in braces of the most general form."""
    return set(re.findall(r"\{(\w+)\}", text["other"] if isinstance(text, dict) else text))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_every_text(language: str, words: Words) -> None:
    assert set(words) == set(LANGUAGES)
    english, other = words["en"], words[language]
    assert other.keys() == english.keys()
    for key, text in other.items():
        assert isinstance(text, dict) == isinstance(english[key], dict), key
        assert slots(text) == slots(english[key]), key
        if isinstance(text, dict):
            assert text.keys() == PLURALS[language], key
        for form in forms(text):
            assert form.strip(), key
            assert not re.search(r"[<>]|&\w+;", form), key


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_no_text_was_left_in_english(language: str, words: Words) -> None:
    same = {key for key, text in words[language].items() if text == words["en"][key]}
    assert same <= {"term_distance", "term_influence", "messages", "left_sum"}  # French words too


def test_all_that_the_page_says_is_in_the_catalogue(words: Words) -> None:
    html = (STATIC / "index.html").read_text("utf-8")
    script = (STATIC / "page.js").read_text("utf-8")
    used = set(re.findall(r'data-w="(\w+)"', html)) | set(re.findall(r'\bt\("(\w+)"', script))
    used -= {"mean_", "term_", "error_", "kind_", "verdict_", "why_", "measure_"}
    meant = {
        name for names in re.findall(r'data-meanings="([\w ]+)"', html) for name in names.split()
    }
    used |= {f"{kind}_{name}" for name in meant for kind in ("term", "mean")}
    used |= {f"verdict_{verdict}" for verdict in facts.ORDER}
    used |= {f"why_{verdict}" for verdict in facts.ORDER}
    assert len(used) > 80
    assert used <= words["en"].keys()


def test_every_column_and_number_is_explained(words: Words) -> None:
    terms = {key.removeprefix("term_") for key in words["en"] if key.startswith("term_")}
    assert terms == {key.removeprefix("mean_") for key in words["en"] if key.startswith("mean_")}
    html = (STATIC / "index.html").read_text("utf-8")
    shown = " ".join(re.findall(r'data-meanings="([\w ]+)"', html)).split()
    assert terms - set(shown) == {"uptime"}  # its name says it
