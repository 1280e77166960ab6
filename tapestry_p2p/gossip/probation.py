"""Who is new to us, and for how many of our own rounds it has been here.

Keys are free, so a stream that nobody vouched for must last before it weighs like another: its
author is new until it was here in ``probation_rounds`` rounds of OURS. What an author claims counts
for nothing. Genesis, inviting and trusted keys are never new, unless they forked: then they begin
anew. One newcomer at a time has the turn, in an order that only our secret knows. Holds no streams.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from tapestry_p2p.gossip.settings import Settings

TURN_RINGS = 4  # so many rings of own rounds a turn lasts; a turn costs a whole copy
SHARE = 0.25  # of a neighbour's weight w, for all newcomers together: at most b/4, as b = f w


class Probation:
    """A capped table: author -> own rounds in which it was here."""

    def __init__(self, settings: Settings, own_key: bytes) -> None:
        self._settings = settings
        inviters = {key for key, _ in settings.bootstrap}
        self.exempt = frozenset({own_key, *settings.founders, *settings.trusted, *inviters})
        self._rounds: dict[bytes, int] = {}

    @property
    def rows(self) -> tuple[tuple[bytes, int], ...]:
        """Every author counted, and its rounds: what to store."""
        return tuple(self._rounds.items())

    def restore(self, rows: Iterable[tuple[bytes, int]]) -> None:
        """Go on from stored rows."""
        self._rounds = dict(rows)

    def rounds(self, author: bytes) -> int:
        """How many of our rounds the author has been here, as far as they count."""
        needed = self._settings.probation_rounds
        return min(needed, self._rounds.get(author, needed if author in self.exempt else 0))

    def is_new(self, author: bytes) -> bool:
        """Whether the author is on probation."""
        needed = self._settings.probation_rounds
        return needed > 0 and self.rounds(author) < needed

    def count(self, author: bytes) -> None:
        """One more own round with a newcomer; of too many the one least here is forgotten."""
        if author not in self._rounds and len(self._rounds) >= self._settings.members_max:
            least = min(self._rounds, key=self._worth)
            if not self.is_new(least) or least in self.exempt:
                return
            del self._rounds[least]
        self._rounds[author] = self.rounds(author) + 1

    def begin_anew(self, author: bytes) -> None:
        """The author forked and has resumed: whoever it is, it is new again."""
        self._rounds.pop(author, None)
        while len(self._rounds) >= self._settings.members_max:
            del self._rounds[min(self._rounds, key=self._worth)]
        self._rounds[author] = 0

    def _worth(self, author: bytes) -> tuple[bool, int]:
        """What forgetting its row would cost: an exempt one's row is there because it forked."""
        return author in self.exempt, self.rounds(author)

    def turn(self, newcomers: Iterable[bytes], round_: int, secret: bytes) -> bytes | None:
        """Whose turn it is in own round ``round_``; None if there is no newcomer."""
        salt = (round_ // (TURN_RINGS * self._settings.ring)).to_bytes(8, "big")

        def place(author: bytes) -> bytes:
            return blake2b(author, key=secret, salt=salt, person=b"turn", digest_size=8).digest()

        return min(newcomers, key=place, default=None)
