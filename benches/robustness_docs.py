"""Tables in Markdown, and their place in a page: between two marks, the text around them stays.

Knows rows of text; nothing of what they say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table."""
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def write_docs(page: Path, name: str, text: str) -> None:
    """``text`` goes between the marks `<!-- name -->`, `<!-- end name -->`. ValueError: none."""
    first, last = f"<!-- {name} -->\n", f"<!-- end {name} -->"
    before, mark, rest = page.read_text().partition(first)
    _, end, after = rest.partition(last)
    if not mark or not end:
        raise ValueError(f"{page.name} has no marks for {name}")
    page.write_text(f"{before}{mark}\n{text}\n\n{end}{after}")
