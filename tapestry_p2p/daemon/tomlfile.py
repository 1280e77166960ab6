"""TOML text to typed structures and back, with errors that name the key and say what to do.

Knows TOML and msgspec structures; not what any key means. A structure's sections are structures
themselves; every field carries its meaning in `msgspec.Meta`, which becomes the comment above the
key when the text is written.
"""

import difflib
import json
import re
import tomllib
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from tapestry_p2p.errors import BAD_CONFIG, TapestryError

TEXT_BYTES_MAX = 1 << 20  # a configuration is a page or two
WIDTH = 96

Structure = TypeVar("Structure", bound=msgspec.Struct)
_PLACE = re.compile(r"^(?P<what>.*?)(?: - at `\$?\.?(?P<where>.*?)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*?)`")
_MISSING = re.compile(r"Object missing required field `(?P<name>.*?)`")


def parse(text: bytes, name: str) -> dict[str, Any]:
    """The tables of a TOML text. TapestryError (exit 78) with `name` and the line otherwise."""
    if len(text) > TEXT_BYTES_MAX:
        raise TapestryError(f"{name}: longer than {TEXT_BYTES_MAX} bytes", BAD_CONFIG)
    try:
        return tomllib.loads(text.decode())
    except UnicodeDecodeError as error:
        raise TapestryError(f"{name}: not UTF-8 text; save it as UTF-8", BAD_CONFIG) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise TapestryError(f"{name}: not valid TOML: {one_line(error)}", BAD_CONFIG) from error


def convert(tables: Mapping[str, Any], kind: type[Structure], name: str) -> Structure:
    """Tables to a structure. TapestryError (exit 78) that names the key with its section."""
    try:
        return msgspec.convert(dict(tables), kind)
    except msgspec.ValidationError as error:
        raise TapestryError(f"{name}: {_worded(str(error), kind)}", BAD_CONFIG) from error


def sections(kind: type[msgspec.Struct]) -> dict[str, type[msgspec.Struct]]:
    """The sections of a structure and their types, in order."""
    hints = typing.get_type_hints(kind)
    return {field: _section(hints[field]) for field in kind.__struct_fields__}


def _section(hint: Any) -> type[msgspec.Struct]:
    """The structure, also of a section that may be left out."""
    found = next((part for part in typing.get_args(hint) if part is not msgspec.UnsetType), hint)
    return typing.cast("type[msgspec.Struct]", found)


def meaning(section: type[msgspec.Struct], key: str) -> str:
    """What a key means, from its `Meta`; empty if it has none."""
    hint = typing.get_type_hints(section, include_extras=True)[key]
    for part in (hint, *typing.get_args(hint)):  # a key that may be left out is a union
        for note in getattr(part, "__metadata__", ()):
            if isinstance(note, msgspec.Meta) and note.description:
                return note.description
    return ""


def dump(value: msgspec.Struct, head: str, *, hide_defaults: bool = False) -> str:
    """TOML text of a structure of sections, each key under a comment with its meaning.

    The same structure gives the same text. With `hide_defaults` a key at its default is itself a
    comment, to be uncommented when wanted. `head` becomes the comment at the top.
    """
    lines = [f"# {line}".rstrip() for line in head.splitlines()]
    for section, kind in sections(type(value)).items():
        part = getattr(value, section)
        if part is msgspec.UNSET:
            continue
        lines += ["", f"[{section}]  # {(kind.__doc__ or '').splitlines()[0]}"]
        nested: list[str] = []
        for key in kind.__struct_fields__:
            setting = getattr(part, key)
            comment = _wrapped(meaning(kind, key))
            if isinstance(setting, dict) and setting:
                nested += ["", *comment, f"[{section}.{key}]"]
                nested += [f"{_key(item)} = {literal(setting[item])}" for item in sorted(setting)]
                continue
            if setting is msgspec.UNSET:
                lines += [*comment, f"# {key} is not given"]
                continue
            hidden = hide_defaults and setting == _default(kind, key)
            lines += [*comment, f"{'# ' if hidden else ''}{key} = {literal(setting)}"]
        lines += nested
    return "\n".join(lines) + "\n"


def literal(value: Any) -> str:
    """One TOML value: text, number, truth value, list or map of such."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(literal(item) for item in value) + "]"
    if isinstance(value, dict):
        items = ", ".join(f"{_key(key)} = {literal(value[key])}" for key in sorted(value))
        return f"{{ {items} }}" if items else "{}"
    raise TypeError(f"no TOML for {type(value).__name__}")


def one_line(text: object) -> str:
    """Foreign words fit for one line of a terminal: no control characters, at most 200 long."""
    return "".join(c if c.isprintable() else " " for c in str(text))[:200]


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else literal(key)


def _wrapped(comment: str) -> list[str]:
    lines, line = [], "#"
    for word in comment.split():
        if len(line) + 1 + len(word) > WIDTH:
            lines.append(line)
            line = "#"
        line += f" {word}"
    return [*lines, line] if comment else []


def _default(kind: type[msgspec.Struct], key: str) -> Any:
    field = next(field for field in msgspec.structs.fields(kind) if field.name == key)
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def _worded(message: str, kind: type[msgspec.Struct]) -> str:
    """msgspec's finding, with the key first and a likely spelling for an unknown one."""
    match = _PLACE.match(message)
    what, where = (match["what"], match["where"] or "") if match else (message, "")
    if unknown := _UNKNOWN.match(what):
        return _unknown(kind, where, unknown["name"])
    if missing := _MISSING.match(what):
        place = f"{where}.{missing['name']}" if where else f"section [{missing['name']}]"
        return f"{one_line(place)} is missing; add it"
    what = what.replace("`", "") + _choices(kind, where)
    return one_line(f"{where}: {what[:1].lower()}{what[1:]}" if where else what)


def _choices(kind: type[msgspec.Struct], where: str) -> str:
    """ "; one of a, b" if the key is of the kind that has choices."""
    section, _, key = where.partition(".")
    owner = sections(kind).get(section)
    hint = typing.get_type_hints(owner).get(key) if owner else None
    if typing.get_origin(hint) is not typing.Literal:
        return ""
    return "; one of " + ", ".join(map(str, typing.get_args(hint)))


def _unknown(kind: type[msgspec.Struct], section: str, name: str) -> str:
    owner: type[msgspec.Struct] | None = sections(kind).get(section) if section else kind
    known = owner.__struct_fields__ if owner else ()
    near = difflib.get_close_matches(name, known, n=1)
    path = f"{section}.{name}" if section else f"[{name}]"
    advice = f"did you mean {near[0]}?" if near else "remove it or correct its spelling"
    return one_line(f"{path} is not known here; {advice}")
