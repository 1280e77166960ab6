"""Quantities in plain words, as people write them into tapestry.toml: "200 kB/s", "1.5 GB".

Knows units and their factors; not what is measured. k, M, G are powers of 1000, Ki, Mi, Gi of 1024.
"""

import re

RATE_MIN = 20_000.0  # bytes/s; below it sixteen neighbours' answers take longer than they wait
MEMORY_MIN = 300e6
_FORM = re.compile(r"(\d{1,12}(?:\.\d{1,6})?) ?([A-Za-z]+)(/s)?")
_PREFIXES: dict[str, float] = {"": 1, "k": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
_PREFIXES |= {"Ki": 1024, "Mi": 1024**2, "Gi": 1024**3, "Ti": 1024**4}
_BYTES = {f"{prefix}B": factor for prefix, factor in _PREFIXES.items()}
_BITS = {f"{prefix}bit": factor / 8 for prefix, factor in _PREFIXES.items()}


def parse_rate(text: str) -> float:
    """Bytes per second of "200 kB/s" or "2 Mbit/s"; 0 of "", which is no limit. ValueError."""
    return _parse(text, {**_BYTES, **_BITS}, "/s", "like 200 kB/s or 2 Mbit/s") if text else 0.0


def parse_size(text: str) -> float:
    """Bytes of "1.5 GB" or "800 MiB"; 0 of "", which is no limit. ValueError."""
    return _parse(text, _BYTES, None, "like 1.5 GB or 800 MB") if text else 0.0


def format_size(size: float) -> str:
    """Bytes in words of three digits or so: 812 B, 1.5 kB, 23 MB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}" if size < 1000 * factor else f"{size / 1e9:.0f} GB"
    return f"{size:.0f} B"


def _parse(text: str, units: dict[str, float], per: str | None, like: str) -> float:
    found = _FORM.fullmatch(text.strip())
    if found is None or found[2] not in units or found[3] != per:
        raise ValueError(f"{text[:20]!r} is not {like}")
    return float(found[1]) * units[found[2]]
