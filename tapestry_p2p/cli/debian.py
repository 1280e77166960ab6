"""Texts from Debian in one language: LibreOffice's help, man pages, the Debian handbook.

Knows the packages, where each keeps its pages, and which languages are worth having. A text holds
what its translators wrote: lines that are the same in English are dropped, and each line stands
once. Beside it comes the package's own statement of its licence.
"""

import gzip
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tapestry_p2p.cli.apt import Apt, need_apt
from tapestry_p2p.cli.helppage import HANDBOOK, HELP, Layout, has_words, lines_of
from tapestry_p2p.cli.manpage import lines_of as lines_of_man
from tapestry_p2p.errors import FAILURE, USAGE, TapestryError

ENGLISH = "en-us"
UNTRANSLATED_MAX = 0.6  # of its lines English: refused (help: ja .53, hi .94 in Debian 12)
PAGE_BYTES_MAX = 4 << 20


@dataclass(frozen=True)
class Source:
    """Where a kind of text is to be had, language by language."""

    name: str
    what: str
    languages: tuple[str, ...]  # those that are translated and hold .2 MB or more
    place: Callable[[str], tuple[str, str]]  # of a language: its package, a pattern of its files
    read: Callable[[Path], list[str]]  # one file's lines

    @property
    def suffix(self) -> str:
        """What a text's file is called after its language, so that two sources do not collide."""
        return "" if self.name == "help" else f"-{self.name}"


@dataclass(frozen=True)
class Text:
    """One language's text, UTF-8, and its licence in the package's own words."""

    language: str
    content: bytes
    copyright: bytes


def _help(language: str) -> tuple[str, str]:
    return f"libreoffice-help-{language}", "usr/share/libreoffice/help/*/text/**/*.html"


def _manpages(language: str) -> tuple[str, str]:
    if language == ENGLISH:
        return "manpages", "usr/share/man/man*/*.gz"
    place = _MAN_PLACES.get(language, language)
    package = language if language == "pt-br" else language.split("-")[0]
    return f"manpages-{package}", f"usr/share/man/{place}/man*/*.gz"


def _handbook(language: str) -> tuple[str, str]:
    name, _, region = language.partition("-")
    return "debian-handbook", f"{_HANDBOOK_PLACE}/{name}-{region.upper() or '*'}/*.html"


def _read_html(path: Path, layout: Layout) -> list[str]:
    return lines_of(path.read_text(encoding="utf-8", errors="replace"), layout)


def _read_man(path: Path) -> list[str]:
    with gzip.open(path) as file:
        source = file.read(PAGE_BYTES_MAX).decode("utf-8", errors="replace")
    return [line for line in lines_of_man(source) if has_words(line)]


_MAN_PLACES = {"zh-cn": "zh_CN", "zh-tw": "zh_TW", "pt-br": "pt_BR"}
_HANDBOOK_PLACE = "usr/share/doc/debian-handbook/html"
_HELP_LANGUAGES = "de el en-us eu fr id ja km ko ru tr vi zh-cn"
_MAN_LANGUAGES = "cs da de en-us es fr it ja nl pl pt-br ru uk zh-cn zh-tw"
_HANDBOOK_LANGUAGES = "ar ca de en-us es fa fr id it ja nb pt-br ru sv zh-cn"
SOURCES = {
    source.name: source
    for source in (
        Source(
            "help",
            "the help of LibreOffice",
            tuple(_HELP_LANGUAGES.split()),
            _help,
            partial(_read_html, layout=HELP),
        ),
        Source("manpages", "man pages", tuple(_MAN_LANGUAGES.split()), _manpages, _read_man),
        Source(
            "handbook",
            "the Debian Administrator's Handbook",
            tuple(_HANDBOOK_LANGUAGES.split()),
            _handbook,
            partial(_read_html, layout=HANDBOOK),
        ),
    )
}


def translated(lines: Iterable[str], english: frozenset[str]) -> tuple[list[str], float]:
    """Each line once, without those that are the same in English; and the share of those (0..1)."""
    once = list(dict.fromkeys(lines))
    kept = [line for line in once if line not in english]
    dropped = 1 - len(kept) / len(once) if once else 1.0
    return kept, dropped


def texts(source: Source, languages: Iterable[str], bytes_max: int | None = None) -> Iterator[Text]:
    """The text of each language, one after the other, those that may fail first.

    ``bytes_max`` keeps a text's first whole lines up to so many bytes. TapestryError: 1 without
    apt, 75 if fetching failed, 2 for a language that is not to be had, 1 for one that is mostly
    English.
    """
    need_apt("`tapestry data udhr` or texts of your own")
    with tempfile.TemporaryDirectory(prefix="tapestry-debian-") as folder:
        packages = _Packages(Apt(Path(folder), f"choose among {', '.join(source.languages)}"))
        english = packages.lines(source, ENGLISH)
        for language in sorted(languages, key=lambda name: name in source.languages):
            if language == ENGLISH:
                lines = list(dict.fromkeys(english))
            else:
                lines = _translation(source, language, packages, frozenset(english))
            content = _text(lines, bytes_max)
            yield Text(language, content, packages.copyright(source, language))


def _translation(
    source: Source, language: str, packages: "_Packages", english: frozenset[str]
) -> list[str]:
    found = packages.lines(source, language)
    if not found:
        raise TapestryError(
            f"{source.what} is not in {language}; choose among {', '.join(source.languages)}",
            USAGE,
        )
    lines, untranslated = translated(found, english)
    if untranslated > UNTRANSLATED_MAX:
        raise TapestryError(
            f"{language}: {untranslated:.0%} of its lines are English, so it would teach"
            f" little else; leave it out (good ones: {', '.join(source.languages)})",
            FAILURE,
        )
    return lines


class _Packages:
    """Unpacked packages; one at a time is kept, since several languages may lie in one."""

    def __init__(self, apt: Apt) -> None:
        self._apt = apt
        self._name = ""
        self._folder = Path()

    def lines(self, source: Source, language: str) -> list[str]:
        """All lines of the language's pages, in the order of the files' names."""
        package, pattern = source.place(language)
        lines: list[str] = []
        for path in sorted(self._unpacked(package).glob(pattern)):
            if path.is_symlink() or not path.is_file() or path.stat().st_size > PAGE_BYTES_MAX:
                continue  # another name of a page that is here
            lines += source.read(path)
        return lines

    def copyright(self, source: Source, language: str) -> bytes:
        """The package's file of that name; a line that says where to look if it has none."""
        package, _ = source.place(language)
        path = self._unpacked(package) / "usr/share/doc" / package / "copyright"
        if path.is_symlink() or not path.is_file():
            return f"See the copyright file of the Debian package {package}.\n".encode()
        return path.read_bytes()

    def _unpacked(self, package: str) -> Path:
        if package != self._name:
            if self._name:
                shutil.rmtree(self._folder)
            self._folder = self._apt.unpacked(package)
            self._name = package
        return self._folder


def _text(lines: Iterable[str], bytes_max: int | None) -> bytes:
    whole = [f"{line}\n".encode() for line in lines]
    if bytes_max is not None:
        room = bytes_max
        for number, line in enumerate(whole):
            room -= len(line)
            if room < 0:
                return b"".join(whole[:number])
    return b"".join(whole)
