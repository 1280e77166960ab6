"""Canonical msgpack: one value has one encoding, and any other encoding is refused.

Admits non-negative integers below 2**63, bytes, text, lists, and maps with text keys in
ascending order. No floats, booleans, nil, extension types or repeated keys. Knows nothing of
what the values mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import msgpack

INTEGER_MAX = 2**63 - 1
NODES_MAX = 16_384  # list items, map entries and scalars in one value: bounds the work of a frame
DEPTH_MAX = 8
_SCALARS = (bytes, int, str)


class Malformed(ValueError):  # noqa: N818 - a verdict on bytes, not a failure
    """Foreign bytes that break the format. The only error that parsing raises."""


def pack(value: Any) -> bytes:
    """The canonical encoding of ``value``. Raises Malformed for a type that is not admitted."""
    _admit(value)
    return _encode(_sorted(value))


def unpack(data: bytes, *, bytes_max: int) -> Any:
    """The value whose canonical encoding is ``data``; Malformed for anything else."""
    if len(data) > bytes_max:
        raise Malformed("longer than allowed")
    try:
        value = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=False,
            object_pairs_hook=_ordered,
            ext_hook=_no_extension,
            max_str_len=len(data),
            max_bin_len=len(data),
            max_array_len=NODES_MAX,
            max_map_len=NODES_MAX,
            max_ext_len=0,
        )
    except Malformed:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise Malformed("not msgpack of an admitted type") from error
    _admit(value)
    if _encode(value) != data:  # maps keep the order they came in, which was checked
        raise Malformed("not the canonical encoding")
    return value


def _encode(value: Any) -> bytes:
    encoded = msgpack.packb(value, use_bin_type=True)
    if not isinstance(encoded, bytes):
        raise Malformed("not encodable")
    return encoded


def _sorted(value: Any) -> Any:
    if type(value) is dict:
        return {key: _sorted(value[key]) for key in sorted(value)}
    if type(value) in (list, tuple):
        return [item if type(item) in _SCALARS else _sorted(item) for item in value]
    return value


def _ordered(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    previous: str | None = None
    for key, _ in pairs:
        if type(key) is not str or (previous is not None and key <= previous):
            raise Malformed("map keys are not ascending text")
        previous = key
    return dict(pairs)


def _no_extension(code: int, data: bytes) -> NoReturn:
    raise Malformed("extension type")


def _admit(value: Any) -> None:
    """Walk the value level by level and refuse types, numbers, sizes that are not admitted."""
    level: list[Any] = [value]
    nodes = 1
    for _ in range(DEPTH_MAX):
        deeper: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is bytes:
                continue
            if kind is int:
                if not 0 <= item <= INTEGER_MAX:
                    raise Malformed("integer out of range")
            elif kind is list or kind is tuple:
                deeper += item
            elif kind is str:
                _admit_text(item)
            elif kind is dict:
                for key in item:
                    _admit_key(key)
                deeper += item.values()
            else:
                raise Malformed("type not admitted")
        if not deeper:
            return
        nodes += len(deeper)
        if nodes > NODES_MAX:
            raise Malformed("too many values")
        level = deeper
    raise Malformed("nested too deeply")


def _admit_key(key: Any) -> None:
    if type(key) is not str:
        raise Malformed("map keys are not text")
    _admit_text(key)


def _admit_text(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Malformed("text is not UTF-8") from error


def fields(value: Any, shape: Mapping[str, type]) -> dict[str, Any]:
    """``value`` if it is a map with exactly the keys and types of ``shape``; else Malformed."""
    if type(value) is not dict or value.keys() != shape.keys():
        raise Malformed("wrong keys")
    for key, kind in shape.items():
        if type(value[key]) is not kind:
            raise Malformed(f"wrong type of {key}")
    return value
