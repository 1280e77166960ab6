"""What a member says of itself: name, languages, addresses, perhaps how well its models do.

Text for people, bounded and plain. Strangers write these, and nobody can check what they claim of
their models; control characters, direction marks and line breaks are refused so that a
name can be shown in a terminal or a log.
"""

from __future__ import annotations

import unicodedata
from dataclasses import asdict, dataclass
from typing import Any

from tapestry_p2p.gossip.canonical import Malformed, fields, pack, unpack

PROFILE_BYTES_MAX = 4096
NAME_MAX = 64  # characters
LANGUAGES_MAX, LANGUAGE_MAX = 8, 32
ADDRESSES_MAX, ADDRESS_MAX = 8, 256
UNITS = ("bits_per_char", "bits_per_byte", "accuracy", "loss")
VALUE_MAX = 64_000  # thousandths


class Unprintable(Malformed):
    """Text with a character that one version of Unicode knows, or allows, and another does not."""


@dataclass(frozen=True)
class Results:
    """What a member claims of its models on its own held-out data. Values in thousandths of a unit.

    0: not told. `together` is the shared model after ``step`` own inner steps.
    """

    unit: str
    step: int
    alone: int = 0
    together: int = 0
    sovereign: int = 0


@dataclass(frozen=True)
class Profile:
    """The payload of a ``profile`` entry."""

    name: str
    languages: tuple[str, ...]
    addresses: tuple[str, ...]  # multiaddr text, without the peer id
    results: Results | None = None


def encode_profile(profile: Profile) -> bytes:
    """The payload bytes. Raises Malformed if the profile breaks a bound (our own bug)."""
    _check(profile)
    row: dict[str, Any] = {
        "addresses": list(profile.addresses),
        "languages": list(profile.languages),
        "name": profile.name,
    }
    if profile.results is not None:
        row["results"] = asdict(profile.results)
    return pack(row)


def decode_profile(data: bytes) -> Profile:
    """Parse a foreign payload; Malformed for anything out of bounds, Unprintable for bad text."""
    shape = {"addresses": list, "languages": list, "name": str}
    found = unpack(data, bytes_max=PROFILE_BYTES_MAX)
    told = isinstance(found, dict) and "results" in found
    row = fields(found, {**shape, "results": dict} if told else shape)
    if not all(type(item) is str for item in row["addresses"] + row["languages"]):
        raise Malformed("not text")
    results = Results(**fields(row["results"], _RESULTS)) if told else None
    profile = Profile(row["name"], tuple(row["languages"]), tuple(row["addresses"]), results)
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
    if profile.results is not None:
        _check_results(profile.results)


def _check_results(results: Results) -> None:
    if results.unit not in UNITS:
        raise Malformed("results in no known unit")
    values = (results.alone, results.together, results.sovereign)
    if not all(0 <= value <= VALUE_MAX for value in values) or not results.together:
        raise Malformed("results out of bounds")


def _plain(texts: list[str] | tuple[str, ...], length_max: int) -> None:
    for text in texts:
        if len(text) > length_max:
            raise Malformed("text of a profile too long")
        found = set(map(unicodedata.category, text))
        if found & _CONTROL:
            raise Malformed("control character in a profile")
        if found & _GROWING:
            raise Unprintable("a character in a profile that nobody should see, or that is new")


_RESULTS = {"alone": int, "sovereign": int, "step": int, "together": int, "unit": str}
_CONTROL = frozenset({"Cc", "Cs", "Co", "Zl", "Zp"})
_GROWING = frozenset({"Cf", "Cn"})  # formats, unassigned: with each version of Unicode others
