"""What the documents' tests share: pages as blocks, commands, links and headings.

Knows Markdown as these pages write it, and the comments that say why a block is not run:
`<!-- not run: WHY -->` before it, or `<!-- before: COMMAND -->` for what a reader has at hand.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# what a reader would type; a block with none of them shows a file, a message, a drawing
PROGRAMS = (
    "(?:./)?tapestry|python|sudo|git|cp|ssh|pytest|npm|mkdir|cat|export|curl|apt-get|systemctl"
)

_FENCE = re.compile(r"^( *)```(.*)$")
_COMMENT = re.compile(r"^<!-- (not run|before): (.*?) -->$")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_COMMAND = re.compile(rf"(?:{PROGRAMS})\b")


@dataclass(frozen=True)
class Block:
    """A fenced block: who types it (a reader with a name of their own), and its lines."""

    page: Path
    line: int
    language: str
    person: str
    text: str
    not_run: str  # why; empty: it is run
    before: tuple[str, ...]  # commands that make what the reader has

    @property
    def commands(self) -> list[str]:
        """The lines that a reader would type, comments left out, long ones in one."""
        if self.language == "text":  # a form, or an answer
            return []
        lines = re.sub(r"\\\n\s*", " ", self.text).splitlines()
        bare = [re.split(r"\s{2,}#|^#", line)[0].strip() for line in lines]
        return [line for line in bare if _COMMAND.match(line) or (line and self.is_shell)]

    @property
    def is_shell(self) -> bool:
        return self.language == "sh"

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The page's fenced blocks, in order."""
    found: list[Block] = []
    inside: list[str] | None = None
    notes: list[tuple[str, str]] = []
    head, begin = "", 0
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if inside is not None and fence is None:
            inside.append(line)
        elif inside is not None:
            language, _, person = head.partition(" ")
            why = " ".join(text for kind, text in notes if kind == "not run")
            before = tuple(text for kind, text in notes if kind == "before")
            found.append(Block(page, begin, language, person, "\n".join(inside), why, before))
            inside, notes = None, []
        elif fence is not None:
            inside, head, begin = [], fence[2].strip(), number
        elif comment := _COMMENT.match(line.strip()):
            notes.append((comment[1], comment[2]))
        elif line.strip():
            notes = []
    assert inside is None, f"{page}: a block that does not end"
    return found


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    kept, outside = [], True
    for line in page.read_text(encoding="utf-8").splitlines():
        if _FENCE.match(line):
            outside = not outside
        elif outside:
            kept.append(line)
    return "\n".join(kept)


def links(page: Path) -> Iterator[str]:
    """The targets of its links and pictures."""
    yield from _LINK.findall(re.sub(r"`[^`\n]*`", "", prose(page)))


def anchors(page: Path) -> set[str]:
    """What one can link to in it: its headings, as the usual forges name them."""
    names: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower().strip()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.add(f"{name}-{names[name]}" if names[name] else name)
        names[name] += 1
    return found
