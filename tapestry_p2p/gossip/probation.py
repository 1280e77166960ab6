"""Who is new to us, and for how many of our own rounds it has been here.

Keys are free, so a stream that nobody vouched for must last before it weighs like another: its
author is new until it was here in ``probation_rounds`` rounds of OURS. What an author claims counts
for nothing. Genesis, inviting and trusted keys are never new, unless they forked: then they begin
anew. One newcomer at a time has the turn, in an order that only our secret knows. Holds no streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b

from tapestry_p2p.gossip.settings import Settings

TURN_RINGS = 4  # so many rings of own rounds a turn lasts; a turn costs a whole copy
# Of a neighbour's weight w, for all newcomers together: at most b/4, as b = f w. With f established
# liars that is (f + 1/4) w > b, beyond what is proven: b covers f - 1 of them and a newcomer.
SHARE = 0.25  # decisions/0009


class Probation:
    """A capped table: author -> own rounds in which it was here."""

    def __init__(self, settings: Settings, own_key: bytes) -> None:
        self._settings = settings
        inviters = {key for key, _ in settings.bootstrap}
        self.exempt = frozenset({own_key, *settings.founders, *settings.trusted, *inviters})
        self._rounds: dict[bytes, int] = {}

    @property
    def rows(self) -> tuple[tuple[bytes, int, bool], ...]:
        """Every author counted, its rounds, and whether it is here though exempt: what to store."""
        return tuple((a, rounds, a in self.exempt) for a, rounds in self._rounds.items())

    def restore(self, rows: Iterable[tuple[bytes, int, bool]]) -> None:
        """Go on from stored rows, without those who have become exempt since: they never forked."""
        self._rounds = {a: rounds for a, rounds, so in rows if so or a not in self.exempt}

    def rounds(self, author: bytes) -> int:
        """How many of our rounds the author has been here, as far as they count."""
        needed = self._settings.probation_rounds
        return min(needed, self._rounds.get(author, needed if author in self.exempt else 0))

    def is_new(self, author: bytes) -> bool:
        """Whether the author is on probation."""
        needed = self._settings.probation_rounds
        return needed > 0 and self.rounds(author) < needed

    def count(self, author: bytes, is_gone: Callable[[bytes], bool]) -> None:
        """One more own round with a newcomer; of too many rows one is forgotten.

        First that of one who passed and is gone, else that of the newcomer least here; never that
        of an exempt author, who forked.
        """
        if author not in self._rounds and len(self._rounds) >= self._settings.members_max:
            victim = self._forgettable(is_gone)
            if victim is None:
                return
            del self._rounds[victim]
        self._rounds[author] = self.rounds(author) + 1

    def _forgettable(self, is_gone: Callable[[bytes], bool]) -> bytes | None:
        rows = [author for author in self._rounds if author not in self.exempt]
        newcomers = [author for author in rows if self.is_new(author)]
        gone = (author for author in rows if not self.is_new(author) and is_gone(author))
        return next(gone, None) or min(newcomers, key=self.rounds, default=None)

    def has_row(self, author: bytes) -> bool:
        """Whether the author was counted, or forked."""
        return author in self._rounds

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
