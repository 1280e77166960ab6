"""Strings that others chose, made fit to be shown; and which names look like one another.

Knows text alone. Control, format (bidirectional marks, joiners that hide) and unassigned
characters go, lengths are bounded. A look-alike is judged on a skeleton, in the manner of Unicode
Technical Standard 39: decomposed, without marks, folded, with the commonest confusable letters of
Greek, Cyrillic, Armenian and digits mapped to Latin ones; and a name of letters that no language
writes together is told, by that standard's highly restrictive level. It warns; it decides nothing.
"""

import unicodedata
from collections.abc import Iterable

NAME_CHARS_MAX = 64
SHORT_ID = 8  # last characters of a peer id, as the verbs show it beside every name
_HIDDEN = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}
_ALIKE = str.maketrans(
    "асеорхуіјѕԁһԛԝкмтвнгɑαοιυνρτκηχ013569|lı!ӏүɡօոսցյհℓ",
    "aceopxyijsdhqwkmtbhraaoiuvptknxoiesbgiiiiiygonugjhi",
)
_CAPITALS = str.maketrans("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "ABEZHIKMNOPTYX")  # unlike their small letters
_BLANK = {"ᅟ", "ᅠ", "ㅤ", "ﾠ", "⠀"}  # letters and signs that show nothing


def clean(text: object, most: int = NAME_CHARS_MAX) -> str:
    """One line of visible characters, at most ``most``; anything but a string is ''."""
    if not isinstance(text, str):
        return ""
    kept = "".join(c for c in text[: 4 * most] if _visible(c))
    kept = " ".join(unicodedata.normalize("NFC", kept).split())
    calm, marks = [], 0
    for c in kept:  # a heap of combining marks paints over its neighbours
        marks = marks + 1 if unicodedata.category(c) in ("Mn", "Me") else 0
        if marks <= 2:
            calm.append(c)
    return "".join(calm)[:most].strip()


def _visible(c: str) -> bool:
    return c in "\t\n " or (unicodedata.category(c) not in _HIDDEN and c not in _BLANK)


def readable(text: str) -> str:
    """A text of the model: its lines stay, control characters and turned directions do not."""
    return "".join(c for c in text if c in "\n\t" or not _commands(c))


def _commands(c: str) -> bool:
    return unicodedata.category(c) == "Cc" or "\u202a" <= c <= "\u202e" or "\u2066" <= c <= "\u2069"


def short(peer_id: object) -> str:
    """The end of a peer id, shown beside a name."""
    return clean(peer_id, 128)[-SHORT_ID:]


def skeleton(name: str) -> str:
    """What a hasty eye sees: equal for names that look alike."""
    text = unicodedata.normalize("NFKD", clean(name)).translate(_CAPITALS).casefold()
    text = "".join(c for c in text if unicodedata.category(c)[0] in "LN" or c in "|!")
    return text.translate(_ALIKE).replace("rn", "m").replace("vv", "w")


# letters of these are written together: Japanese, Chinese with its phonetic signs, Korean
_TOGETHER = (
    {"LATIN", "CJK", "HIRAGANA", "KATAKANA"}, {"LATIN", "CJK", "BOPOMOFO"},
    {"LATIN", "CJK", "HANGUL"},
)  # fmt: skip
_SAME = {"FULLWIDTH": "LATIN", "HALFWIDTH": "KATAKANA", "IDEOGRAPHIC": "CJK"}


def mixed_scripts(name: str) -> list[str]:
    """The scripts of a name whose letters no language writes together, such as CYRILLIC, LATIN.

    Empty for honest names. A script is known by the first word of a letter's name in Unicode.
    """
    found = set()
    for c in clean(name):
        if unicodedata.category(c)[0] == "L":
            word = unicodedata.name(c, "").partition(" ")[0].partition("-")[0]
            found.add(_SAME.get(word, word))
    found -= {"", "MODIFIER", "FEMININE", "MASCULINE", "MATHEMATICAL", "DOUBLE", "SCRIPT"}
    if len(found) < 2 or any(found <= together for together in _TOGETHER):
        return []
    return sorted(found)


def called(name: object, peer_id: object) -> str:
    """How a member is named to people: what it calls itself, and the end of what it is."""
    return f"{clean(name) or '(no name)'} …{short(peer_id)}"


def alike(names: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """(id, name) pairs -> for each id the other ids whose names look like its own."""
    groups: dict[str, list[str]] = {}
    for peer_id, name in names:
        if seen := skeleton(name):
            groups.setdefault(seen, []).append(peer_id)
    return {
        peer_id: [other for other in ids if other != peer_id]
        for ids in groups.values()
        if len(ids) > 1
        for peer_id in ids
    }
