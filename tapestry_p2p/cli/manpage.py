"""A man page's source (roff with the man macros) becomes plain lines of prose.

Knows the macros and escapes of man(7) that stand in translated pages; code, tables and synopses of
no-fill text are left out, and what it does not know is dropped, never shown. It runs no macro.
"""

import re
from unicodedata import east_asian_width

# what ends what is left out: code, tables, equations, comments, definitions
_ENDS = {"nf": "fi", "EX": "EE", "TS": "TE", "EQ": "EN", "PS": "PE", "ig": ".", "de": "."}
_HEADINGS = frozenset({"SH", "SS"})
_INLINE = frozenset({"B", "I", "R", "SM", "SB"})
_ALTERNATING = frozenset({"BR", "RB", "IR", "RI", "BI", "IB"})
_BREAKS = frozenset("PP P LP TP TQ IP HP RS RE br sp UR MT".split())
_MDOC = "Dd"  # begins a page of the other macro set, mdoc(7): left out whole

_REQUEST = re.compile(r"\.[ \t]*([A-Za-z]{1,2}|\.)?[ \t]*(.*)")
_ARGUMENT = re.compile(r'"((?:[^"]|"")*)"?|((?:\\.|\S)+)')
_ESCAPE = re.compile(
    r"""\\(?:
      [fmMgFkYVn$](?:\[[^\]]*\]|\(..|.)?           # fonts, colours, numbers
    | s(?:\[[^\]]*\]|\([+-]?..|[+-]?\d{1,2}|'[^']*')?  # sizes
    | [hvwlLDXobZAB]'[^']*'                            # movements, drawings
    | \*?(?:\((?P<two>..)|\[(?P<long>[^\]]*)\])         # characters and strings by name
    | \*(?P<string>.)
    | (?P<one>.|$)
    )""",
    re.VERBOSE,
)
_NAMED = {
    "aq": "'",
    "Aq": "'",
    "cq": "’",
    "oq": "‘",
    "lq": "“",
    "rq": "”",
    "dq": '"',
    "Fo": "«",
    "Fc": "»",
    "en": "–",
    "em": "—",
    "hy": "-",
    "mi": "-",
    "ha": "^",
    "ti": "~",
    "rs": "\\",
    "bu": "•",
    "co": "©",
    "ss": "ß",
    "<=": "≤",
    ">=": "≥",
}
_SINGLE = {"-": "-", " ": " ", "~": " ", "0": " ", "t": " ", "e": "\\", "'": "'", "`": "`"}
_SINGLE |= {".": ".", "(": "(", "\\": "\\"}


def lines_of(source: str) -> list[str]:
    """The page's paragraphs, headings and the names of its options, a line each, in order."""
    lines: list[str] = [""]
    until = ""  # inside something that is left out: the request that ends it
    for raw in source.splitlines():
        text = raw.split('\\"')[0].rstrip()
        request = _REQUEST.fullmatch(text)
        if request is None:
            if not until and not text.startswith("'"):
                _continue(lines, _plain(text))
                if not text:
                    lines.append("")
            continue
        name, rest = request[1] or "", request[2]
        if until:
            until = "" if name == until else until
        elif name == _MDOC:
            return []
        elif name in _ENDS:
            until = _ENDS[name]
        else:
            _macro(lines, name, rest)
    return [line for line in (" ".join(line.split()) for line in lines) if line]


def _macro(lines: list[str], name: str, rest: str) -> None:
    """What one request does to the text: a heading, words in it, a break, or nothing."""
    words = [_plain(a.replace('""', '"') or b) for a, b in _ARGUMENT.findall(rest)]
    if name in _HEADINGS:
        lines += [" ".join(words), ""]
    elif name in _INLINE:
        _continue(lines, " ".join(words))
    elif name in _ALTERNATING:
        _continue(lines, "".join(words))
    elif name in _BREAKS:
        lines.append("")


def _continue(lines: list[str], text: str) -> None:
    """Add to the last line; a space between, but for scripts that write none."""
    last = lines[-1]
    wide = last and text and all(east_asian_width(c) in "WF" for c in (last[-1], text[0]))
    lines[-1] = f"{last}{text}" if wide or not last else f"{last} {text}"


def _plain(text: str) -> str:
    return _ESCAPE.sub(_character, text)


def _character(found: re.Match[str]) -> str:
    name = found["two"] or found["long"] or found["string"]
    if name is None:
        return _SINGLE.get(found["one"] or "", "")
    code = re.fullmatch(r"u([0-9A-F]{4,5})", name)
    return chr(int(code[1], 16)) if code else _NAMED.get(name, "")
