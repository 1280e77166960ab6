"""What a member says of itself: name, languages, addresses. Text for people, bounded and plain.

Strangers write these; control characters, direction marks and line breaks are refused so that a
name can be shown in a terminal or a log.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from tapestry_p2p.gossip.canonical import Malformed, fields, pack, unpack

PROFILE_BYTES_MAX = 4096
NAME_MAX = 64  # characters
LANGUAGES_MAX, LANGUAGE_MAX = 8, 32
ADDRESSES_MAX, ADDRESS_MAX = 8, 256


@dataclass(frozen=True)
class Profile:
    """The payload of a ``profile`` entry."""

    name: str
    languages: tuple[str, ...]
    addresses: tuple[str, ...]  # multiaddr text, without the peer id


def encode_profile(profile: Profile) -> bytes:
    """The payload bytes. Raises Malformed if the profile breaks a bound (our own bug)."""
    _check(profile)
    row = {
        "addresses": list(profile.addresses),
        "languages": list(profile.languages),
        "name": profile.name,
    }
    return pack(row)


def decode_profile(data: bytes) -> Profile:
    """Parse a foreign payload; Malformed for anything out of bounds."""
    shape = {"addresses": list, "languages": list, "name": str}
    row = fields(unpack(data, bytes_max=PROFILE_BYTES_MAX), shape)
    if not all(type(item) is str for item in row["addresses"] + row["languages"]):
        raise Malformed("not text")
    profile = Profile(row["name"], tuple(row["languages"]), tuple(row["addresses"]))
    _check(profile)
    return profile


def _check(profile: Profile) -> None:
    if len(profile.languages) > LANGUAGES_MAX or len(profile.addresses) > ADDRESSES_MAX:
        raise Malformed("too many items in a profile")
    _plain([profile.name], NAME_MAX)
    _plain(profile.languages, LANGUAGE_MAX)
    _plain(profile.addresses, ADDRESS_MAX)
    if not all(address.startswith("/") and address.isascii() for address in profile.addresses):
        raise Malformed("not a multiaddress")


def _plain(texts: list[str] | tuple[str, ...], length_max: int) -> None:
    for text in texts:
        if len(text) > length_max:
            raise Malformed("text of a profile too long")
        if any(unicodedata.category(letter) in _CONTROL for letter in text):
            raise Malformed("control character in a profile")


_CONTROL = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
