"""Texts from Debian: the help of LibreOffice in one language, fetched with apt and cleaned.

Knows the packages' names and the shape of the help's pages. A text holds what its translators
wrote: lines that are the same in English are dropped, and each line stands once.
"""

import re
import shutil
import tempfile
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path

from tapestry_p2p.cli.apt import Apt, need_apt
from tapestry_p2p.errors import FAILURE, TapestryError

# those that are translated, and have more than a megabyte
LANGUAGES = ("de", "el", "en-us", "eu", "fr", "id", "ja", "km", "ko", "ru", "tr", "vi", "zh-cn")
ENGLISH = "en-us"
UNTRANSLATED_MAX = 0.6  # of its lines English: refused (ja: .53, hi: .94 in Debian 12)
LETTERS_MIN = 3  # fewer letters make no text
PAGE_BYTES_MAX = 4 << 20

_BLOCKS = re.compile(r"p|h[1-6]|li|td|th|dt|dd|div|tr|table|br|ul|ol|section")
_SILENT = frozenset({"script", "style", "pre", "code", "nav", "button", "title"})
_TEXT_AREA = "DisplayArea"
_VOID = frozenset({"br", "img", "meta", "input", "link", "hr", "base"})


class Page(HTMLParser):
    """Collects the lines of a help page: the text of its main part, without code and controls."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = [""]
        self._depth = 0  # open elements inside the main part
        self._silent = 0  # of them, those that hold no prose

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not self._depth and ("id", _TEXT_AREA) not in attrs:
            return
        if tag not in _VOID:
            self._depth += 1
            self._silent += tag in _SILENT
        if _BLOCKS.fullmatch(tag):
            self.lines.append("")

    def handle_endtag(self, tag: str) -> None:
        if self._depth and tag not in _VOID:
            self._depth -= 1
            self._silent = max(0, self._silent - (tag in _SILENT))
        if _BLOCKS.fullmatch(tag):
            self.lines.append("")

    def handle_data(self, data: str) -> None:
        if self._depth and not self._silent:
            self.lines[-1] += data


def lines_of(html: str) -> list[str]:
    """The lines of prose on one page, white space reduced, those without words left out."""
    page = Page()
    page.feed(html)
    page.close()
    lines = (" ".join(line.split()) for line in page.lines)
    return [line for line in lines if sum(map(str.isalpha, line)) >= LETTERS_MIN]


def translated(lines: Iterable[str], english: frozenset[str]) -> tuple[list[str], float]:
    """Each line once, without those that are the same in English; and the share of those (0..1)."""
    once = list(dict.fromkeys(lines))
    kept = [line for line in once if line not in english]
    dropped = 1 - len(kept) / len(once) if once else 1.0
    return kept, dropped


def help_texts(languages: Iterable[str]) -> Iterable[tuple[str, bytes]]:
    """(language, UTF-8 text) of each language, one after the other, those that may fail first.

    TapestryError: 1 without apt, 75 if fetching failed, 2 for a language that is not to be had,
    1 for one that is mostly English.
    """
    need_apt("`tapestry data udhr` or texts of your own")
    with tempfile.TemporaryDirectory(prefix="tapestry-debian-") as folder:
        apt = Apt(Path(folder), f"choose among {', '.join(LANGUAGES)}")
        english = _lines(apt, ENGLISH)
        for language in sorted(languages, key=lambda name: name in LANGUAGES):
            if language == ENGLISH:
                yield language, _text(dict.fromkeys(english))
                continue
            lines, untranslated = translated(_lines(apt, language), frozenset(english))
            if untranslated > UNTRANSLATED_MAX:
                raise TapestryError(
                    f"{language}: {untranslated:.0%} of its lines are English, so it would teach"
                    f" little else; leave it out (good ones: {', '.join(LANGUAGES)})",
                    FAILURE,
                )
            yield language, _text(lines)


def _lines(apt: Apt, language: str) -> list[str]:
    folder = apt.unpacked(f"libreoffice-help-{language}")
    lines: list[str] = []
    for path in sorted(folder.glob("usr/share/libreoffice/help/*/text/**/*.html")):
        if path.is_file() and path.stat().st_size <= PAGE_BYTES_MAX:
            lines += lines_of(path.read_text(encoding="utf-8", errors="replace"))
    shutil.rmtree(folder)
    return lines


def _text(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
