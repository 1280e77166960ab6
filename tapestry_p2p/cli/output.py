"""How verbs print: the result on stdout, as text or as JSON; anything else on stderr.

Knows nothing of what is printed.
"""

import json
import sys
from collections.abc import Iterable
from typing import Any


def show(value: dict[str, Any], *, as_json: bool, lines: Iterable[str] | None = None) -> None:
    """Print a result: JSON if asked for, else the lines given, else its keys and values."""
    if as_json:
        print(json.dumps(value, indent=2, ensure_ascii=False))
        return
    if lines is None:
        width = max(map(len, value), default=0)
        lines = (f"{key:{width}}  {item}" for key, item in value.items())
    say(*lines)


def say(*lines: str) -> None:
    """Print lines of the result."""
    for line in lines:
        print(plain(line))


def note(text: str) -> None:
    """A message for the person who watches; no part of the result."""
    print(plain(text), file=sys.stderr)


def plain(text: str) -> str:
    """The text without control characters: peers choose names, and terminals obey."""
    return "".join(c if c.isprintable() else "?" for c in text)
