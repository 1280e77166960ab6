"""Pages of HTML become lines of prose: those of LibreOffice's help, those of a DocBook handbook.

Knows where the text of each kind of page stands and which elements hold no prose. It fetches
nothing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html.parser import HTMLParser

LETTERS_MIN = 3  # fewer letters make no text

_BLOCKS = re.compile(r"p|h[1-6]|li|td|th|dt|dd|div|tr|table|br|ul|ol|section|pre")
_VOID = frozenset({"br", "img", "meta", "input", "link", "hr", "base"})


@dataclass(frozen=True)
class Layout:
    """Which element holds a page's text, by one attribute's values; which in it hold no prose."""

    attribute: str
    values: frozenset[str]
    silent: frozenset[str]


_CONTROLS = frozenset({"script", "style", "pre", "button", "title", "nav"})
HELP = Layout("id", frozenset({"DisplayArea"}), _CONTROLS | {"code"})
# in a handbook commands are part of its sentences
HANDBOOK = Layout("class", frozenset({"section", "chapter", "preface", "appendix"}), _CONTROLS)


def has_words(line: str) -> bool:
    """Whether there is text in it, not only numbers and signs."""
    return sum(map(str.isalpha, line)) >= LETTERS_MIN


def lines_of(html: str, layout: Layout = HELP) -> list[str]:
    """The lines of prose on one page, white space reduced, those without words left out."""
    page = _Page(layout)
    page.feed(html)
    page.close()
    return [line for line in (" ".join(line.split()) for line in page.lines) if has_words(line)]


class _Page(HTMLParser):
    """Collects the lines of a page: the text of its main part, without code and controls."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.lines: list[str] = [""]
        self._layout = layout
        self._depth = 0  # open elements inside the main part
        self._silent = 0  # of them, those that hold no prose

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not self._depth and not self._begins(dict(attrs)):
            return
        if tag not in _VOID:
            self._depth += 1
            self._silent += tag in self._layout.silent
        if _BLOCKS.fullmatch(tag):
            self.lines.append("")

    def handle_endtag(self, tag: str) -> None:
        if self._depth and tag not in _VOID:
            self._depth -= 1
            self._silent = max(0, self._silent - (tag in self._layout.silent))
        if _BLOCKS.fullmatch(tag):
            self.lines.append("")

    def handle_data(self, data: str) -> None:
        if self._depth and not self._silent:
            self.lines[-1] += data

    def _begins(self, attributes: Mapping[str, str | None]) -> bool:
        return attributes.get(self._layout.attribute) in self._layout.values
