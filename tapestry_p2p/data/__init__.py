"""The data that comes with the package: a text in 28 languages, and small pictures of digits.

Knows where they lie and how to unpack them, nothing of what they are used for. Standard library
only. Origins and licences: NOTICE beside this file; how they were made: scripts/ in the repository.
"""

import gzip
from importlib.resources import files

UDHR_LANGUAGES = {
    "eng": "English",
    "fra": "French",
    "deu_1996": "German",
    "spa": "Spanish",
    "por_BR": "Portuguese (Brazil)",
    "ita": "Italian",
    "nld": "Dutch",
    "pol": "Polish",
    "ukr": "Ukrainian",
    "rus": "Russian",
    "ell_monotonic": "Greek",
    "tur": "Turkish",
    "arb": "Arabic",
    "pes_1": "Persian",
    "hin": "Hindi",
    "ben": "Bengali",
    "tam": "Tamil",
    "kor": "Korean",
    "jpn": "Japanese",
    "cmn_hans": "Chinese (simplified)",
    "vie": "Vietnamese",
    "ind": "Indonesian",
    "swh": "Swahili",
    "yor": "Yoruba",
    "amh": "Amharic",
    "kaz": "Kazakh",
    "heb": "Hebrew",
    "tha": "Thai",
}
# the same in their order, as most people abbreviate them
_SHORT = (
    "en fr de es pt it nl pl uk ru el tr ar fa hi bn ta ko ja zh vi id sw yo am kk he th"
).split()


def udhr_languages() -> tuple[str, ...]:
    """The codes of the languages that come with the package."""
    return tuple(UDHR_LANGUAGES)


def udhr_code(language: str) -> str | None:
    """The code of a language given by code, two letters, three letters or English name."""
    wanted = language.casefold()
    for (code, name), short in zip(UDHR_LANGUAGES.items(), _SHORT, strict=True):
        if wanted in (code.casefold(), code[:3], short, name.casefold()):
            return code
    return None


def udhr(code: str) -> bytes:
    """The Universal Declaration of Human Rights in one language, UTF-8, a paragraph a line.

    KeyError if the package does not have that language.
    """
    if code not in UDHR_LANGUAGES:
        raise KeyError(code)
    return gzip.decompress(files(__name__).joinpath("udhr", f"{code}.txt.gz").read_bytes())


def digits_csv() -> bytes:
    """1797 handwritten digits, one a line: 64 pixels of 0..16, row by row, then the digit 0..9."""
    return gzip.decompress(files(__name__).joinpath("digits.csv.gz").read_bytes())
