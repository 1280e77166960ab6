"""The shipped data is there, whole, and says where it comes from."""

import subprocess
import sys
from importlib.resources import files

import pytest

from tapestry_p2p import data


@pytest.mark.parametrize("code", data.udhr_languages())
def test_every_language_is_a_text_of_its_own(code: str) -> None:
    text = data.udhr(code).decode()
    assert 2_500 < len(text) < 20_000
    assert "<" not in text
    assert "&" not in text
    assert len(text.splitlines()) > 50


def test_there_are_28_languages_and_none_twice() -> None:
    assert len({data.udhr(code) for code in data.udhr_languages()}) == 28


def test_a_language_we_do_not_have() -> None:
    with pytest.raises(KeyError):
        data.udhr("../digits")


def test_digits_are_8x8_pixels_and_a_label() -> None:
    rows = [[int(n) for n in line.split(b",")] for line in data.digits_csv().splitlines()]
    assert len(rows) == 1797
    assert {len(row) for row in rows} == {65}
    assert {row[-1] for row in rows} == set(range(10))
    assert {pixel for row in rows for pixel in row[:-1]} == set(range(17))


def test_the_notice_names_every_licence() -> None:
    notice = files(data).joinpath("NOTICE").read_text()
    for words in ("MIT", "BSD 3-Clause", "Titus Wormer", "scikit-learn developers"):
        assert words in notice


def test_data_loads_without_anything_heavy() -> None:
    code = "import sys, tapestry_p2p.data; print([m for m in ('numpy', 'jax') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
