"""Who is there: the newest profile of every member we heard of, and what we forgot on purpose.

Time is the observer's own monotonic clock: a member expires when no higher-numbered profile of it
came for a while, and a tombstone keeps the number so that an old profile cannot bring it back.
Tables are capped; profiles only heard of are counted per address block, under a secret salt, and
newcomers make way for those who are none. Where members are more than anybody can list (``wide``)
the table is a sample: who is in it stays until it expires, so that no flood washes it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

from tapestry_p2p.gossip.header import SignedHeader
from tapestry_p2p.gossip.profile import Profile
from tapestry_p2p.gossip.settings import Settings

PRIVATE = (
    "127.", "10.", "192.168.", "169.254.", *(f"172.{second}." for second in range(16, 32)),
)  # fmt: skip


@dataclass
class Member:
    """A member's newest profile entry."""

    signed: SignedHeader
    payload: bytes
    profile: Profile
    fresh_at: float  # when its number last rose
    bucket: int | None  # of its first address, as ``Membership`` counts blocks
    worked: bool = False  # we have been connected to it

    @property
    def number(self) -> int:
        """The seq of the profile entry."""
        return self.signed.header.seq


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What is left of a member: the number of its profile, and its newest entry if it was held."""

    number: int = -1
    newest: SignedHeader | None = None

    @property
    def seq(self) -> int:
        """No entry up to this one brings it back."""
        return max(self.number, self.newest.header.seq if self.newest else -1)


NOBODY = Tombstone()


class Membership:
    """A capped table of members, with tombstones of the expired and the departed."""

    def __init__(
        self, settings: Settings, salt: bytes, is_new: Callable[[bytes], bool] = lambda _: False
    ) -> None:
        self._settings = settings
        self._salt = salt
        self._is_new = is_new
        self._members: dict[bytes, Member] = {}
        self._tombstones: dict[bytes, Tombstone] = {}
        self.wide = False

    def __contains__(self, author: bytes) -> bool:
        return author in self._members

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def get(self, author: bytes) -> Member | None:
        """The member, if known."""
        return self._members.get(author)

    @property
    def _most(self) -> int:
        """How many members the table holds."""
        settings = self._settings
        return min(settings.members_max, settings.view_max) if self.wide else settings.members_max

    @property
    def tombstones(self) -> int:
        """How many tombstones are kept."""
        return len(self._tombstones)

    def number(self, author: bytes) -> int:
        """The highest profile seq known of ``author``, also from a tombstone; -1 if none."""
        member = self._members.get(author)
        return member.number if member else self._tombstones.get(author, NOBODY).number

    def is_buried(self, author: bytes, seq: int) -> bool:
        """Whether an entry is too old to bring a forgotten author back."""
        return author not in self._members and seq <= self._tombstones.get(author, NOBODY).seq

    def last_words(self, author: bytes) -> SignedHeader | None:
        """The newest entry of an author that we forgot: news to one who wakes in an old backup."""
        return self._tombstones.get(author, NOBODY).newest

    def has_room(self, author: bytes, profile: Profile, trusted: bool) -> bool:
        """Whether a profile may enter: known and connected ones always, hearsay within bounds."""
        if author in self._members:
            return True
        if len(self._members) >= self._most:
            if not self._is_new(author) and any(map(self._is_new, self._members)):
                return True
            return trusted and any(not member.worked for member in self._members.values())
        return trusted or not self._block_full(profile)

    def put(
        self, signed: SignedHeader, payload: bytes, profile: Profile, at: float, trusted: bool
    ) -> None:
        """Store a verified profile that is higher than the one we had."""
        author = signed.header.author
        before = self._members.pop(author, None)
        while len(self._members) >= self._most:
            self.forget(min(self._members, key=self._worth))
        worked = trusted or (before is not None and before.worked)
        bucket = self._bucket(profile)
        self._members[author] = Member(signed, payload, profile, at, bucket, worked)
        self._tombstones.pop(author, None)

    def _worth(self, author: bytes) -> tuple[bool, bool]:
        """What is kept longest, where there is too much: the established, then the met."""
        return not self._is_new(author), self._members[author].worked

    def mark_worked(self, author: bytes) -> None:
        """We are connected to it: hearsay can no longer push it out."""
        member = self._members.get(author)
        if member:
            member.worked = True

    def forget(self, author: bytes, newest: SignedHeader | None = None) -> None:
        """Remove a member, keeping its number and its newest entry."""
        number = self.number(author)
        member = self._members.pop(author, None)
        if member is None and newest is None:
            return
        before = self._tombstones.pop(author, NOBODY)
        self._tombstones[author] = Tombstone(number, newest or before.newest)
        while len(self._tombstones) > self._settings.tombstones_max:
            del self._tombstones[next(iter(self._tombstones))]

    def wait(self, seconds: float) -> None:
        """Time that counts for nobody: we were cut off."""
        for member in self._members.values():
            member.fresh_at += seconds

    def expired(self, at: float) -> list[bytes]:
        """Whoever has not renewed its profile in time."""
        limit = at - self._settings.member_expiry_s
        return [author for author, member in self._members.items() if member.fresh_at < limit]

    def _block_full(self, profile: Profile) -> bool:
        block = self._bucket(profile)
        if block is None:
            return False
        hearsay = (member for member in self._members.values() if not member.worked)
        same = sum(member.bucket == block for member in hearsay)
        return same >= self._settings.members_per_block_max

    def _bucket(self, profile: Profile) -> int | None:
        """A salted number for the profile's first address block; None for local addresses."""
        block = address_block(profile.addresses[0]) if profile.addresses else "none"
        if block is None:
            return None
        digest = blake2b(block.encode(), key=self._salt, digest_size=2).digest()
        return int.from_bytes(digest, "big") % self._settings.members_max


def address_block(address: str) -> str | None:
    """The /16 (IPv4) or first two groups (IPv6) of a multiaddress; None if loopback or private."""
    parts = address.split("/")
    if len(parts) < 3:
        return "other"
    family, host = parts[1], parts[2]
    if family == "ip4":
        return None if _is_private(host) else ".".join(host.split(".")[:2])
    if family == "ip6":
        local = host == "::1" or host.lower().startswith(("fc", "fd", "fe80"))
        return None if local else ":".join(host.lower().split(":")[:2])
    return host[-32:]


def _is_private(host: str) -> bool:
    return host.startswith(PRIVATE)
