"""What survives a simulated crash, and what a power cut takes: whatever was not yet synced.

Own entries are synced one by one, before they are shown to anybody. Copies and what is known of
others are written now and then; until the next sync each of these writes may be torn, and a torn
record is found by its digest and gives way to the older one. Losing the newest synced entries is
how a restored backup looks from inside.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

from tapestry_p2p.gossip.header import DIFFERENCE, SignedHeader, Verify
from tapestry_p2p.gossip.known import Known, decode_known
from tapestry_p2p.sim.vault import Point, Vault


@dataclass
class Disk:
    """One member's state directory. ``genesis`` is the manifest's vector."""

    genesis: Point
    entries: list[SignedHeader] = field(default_factory=list)
    payloads: dict[int, bytes] = field(default_factory=dict)  # of own differences, the newest
    copies: dict[bytes, tuple[SignedHeader, Point]] = field(default_factory=dict)
    known: Known | None = None
    rolled_back: bool = False  # and the member can tell (an older generation was used)
    _saves: list[tuple[int, Point]] = field(default_factory=list)  # entries held, own copy; two
    _unsynced: list[tuple[bytes, tuple[SignedHeader, Point] | Known]] = field(default_factory=list)

    # -- our own stream, synced at once

    def append(self, signed: SignedHeader, payload: bytes) -> None:
        """An own entry is durable."""
        self.entries.append(signed)
        if signed.header.kind == DIFFERENCE:
            self.payloads[len(self.entries) - 1] = payload

    def save_own(self, own: Point) -> None:
        """The own copy as it stands after the newest entry. Two saves are kept."""
        self._saves = [*self._saves, (len(self.entries), own)][-2:]
        oldest = self._saves[0][0] if len(self._saves) == 2 else 0
        for place in [place for place in self.payloads if place < oldest]:
            del self.payloads[place]

    def own_copy(self, vault: Vault) -> Point:
        """Our public copy: the saved one, or genesis, plus the differences since."""
        count, point = self._saves[-1] if self._saves else (0, self.genesis)
        for place in range(count, len(self.entries)):
            if place in self.payloads:
                codec = self.entries[place].header.codec
                point = vault.after(point, codec, self.payloads[place])
        return point

    def lose(self, count: int) -> int:
        """An older generation is used: up to ``count`` of the newest entries are gone; how many."""
        oldest = self._saves[0][0] if len(self._saves) == 2 else 0
        count = min(count, len(self.entries) - oldest)
        if count:
            del self.entries[len(self.entries) - count :]
            left = len(self.entries)
            self.payloads = {place: data for place, data in self.payloads.items() if place < left}
            self._saves = [save for save in self._saves if save[0] <= left]
            self.rolled_back = True
        return count

    # -- the rest, synced now and then

    def write_copy(self, signed: SignedHeader, point: Point) -> None:
        """Where the copy of an author stands."""
        self._unsynced.append((signed.header.author, (signed, point)))

    def write_known(self, known: Known) -> None:
        """What the protocol knows. It is made bytes where it is read: few of them are."""
        self._unsynced.append((b"", known))

    def drop_copy(self, author: bytes) -> None:
        """The copy is not wanted any more; that it is gone needs no sync."""
        self._unsynced = [write for write in self._unsynced if write[0] != author]
        self.copies.pop(author, None)

    def sync(self) -> None:
        """All that was written is durable."""
        for slot, value in self._unsynced:
            self._store(slot, value)
        self._unsynced = []

    def cut_power(self, random: Random) -> int:
        """Each write since the last sync is kept or torn; the number of torn ones."""
        writes, self._unsynced = self._unsynced, []
        torn = 0
        for slot, value in writes:
            if random.random() < 0.5:
                self._store(slot, value)
            else:
                torn += 1
        return torn

    def _store(self, slot: bytes, value: tuple[SignedHeader, Point] | Known) -> None:
        if isinstance(value, Known):
            self.known = value
        else:
            self.copies[slot] = value

    def knowledge(self, verify: Verify) -> Known:
        """What a restarted protocol starts from."""
        stored = decode_known(self.known.encode(), verify) if self.known else Known()
        copies = tuple(signed for signed, _ in self.copies.values())
        return replace(stored, own=tuple(self.entries), copies=copies)
