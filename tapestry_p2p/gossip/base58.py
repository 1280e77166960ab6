"""Base58 as Bitcoin writes it, the spelling of libp2p peer ids. Knows nothing of keys."""

from __future__ import annotations

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VALUE = {letter: value for value, letter in enumerate(ALPHABET)}


def encode(data: bytes) -> str:
    """Base58 text of ``data``; leading zero bytes become leading ``1``."""
    number, letters = int.from_bytes(data, "big"), ""
    while number:
        number, rest = divmod(number, 58)
        letters = ALPHABET[rest] + letters
    zeros = len(data) - len(data.lstrip(b"\0"))
    return "1" * zeros + letters


def decode(text: str, *, length_max: int = 128) -> bytes:
    """The bytes of ``text``. Raises ValueError for a foreign letter or more than ``length_max``."""
    if len(text) > length_max:
        raise ValueError("base58 text too long")
    number = 0
    for letter in text:
        if letter not in _VALUE:
            raise ValueError("not a base58 letter")
        number = number * 58 + _VALUE[letter]
    zeros = len(text) - len(text.lstrip("1"))
    return b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")
