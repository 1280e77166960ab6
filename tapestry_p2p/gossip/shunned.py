"""Authors whose own signature stands under what no honest program makes, and until when.

The bytes were named by hash in a signed header, or by a signed root, so nobody but the author can
have made them. It is left alone for a while, twice as long each time; a copy of it is fetched at
most so often. Nothing is told to others: each finds out for itself. Holds no streams.
"""

from __future__ import annotations

from tapestry_p2p.gossip.settings import Settings


class Shunned:
    """A capped table: author -> (how often, until when)."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rows: dict[bytes, tuple[int, float]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def holds(self, author: bytes, at: float) -> bool:
        """Whether the author is left alone now."""
        return author in self._rows and at < self._rows[author][1]

    def add(self, author: bytes, at: float) -> None:
        """Once more. Of too many, whoever may come back first is forgotten."""
        settings = self._settings
        times = self._rows.get(author, (0, 0.0))[0] + 1
        wait = min(settings.shunned_max_s, settings.shunned_s * 2 ** min(times - 1, 32))
        self._rows[author] = (times, at + wait)
        if len(self._rows) > settings.members_max:
            del self._rows[min(self._rows, key=lambda key: self._rows[key][1])]
