"""Who may hold a socket of ours: few strangers, few from one place, and never the idle for long.

Knows hosts and whether somebody has said anything yet; no socket, no libp2p. A stranger who says
something is worth more than one who does not: when places are short, the silent go first, the
oldest of them at once, then whoever takes too long over its handshake. So no number of idle
sockets keeps an honest member out.

A handshake costs us 4 ms whoever wants it, so each address block has a few to spend, and those
where no established member was ever seen have a few together. Who speaks and goes without one has
spent one too, for it held a place. Who breaks the protocol pays with its block's, and is barred
when it has done so several times. This machine pays nothing.
"""

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from tapestry_p2p.gossip.bucket import Bucket

STRANGERS_MAX = 32  # sockets that have not proven who they are, in all
STRANGERS_PER_BLOCK = 3  # ... from one address block
SLOW_S = 2.0  # an honest handshake takes a tenth of that on a busy machine
PER_BLOCK = 8  # sockets from one address block, members included
SHAKES_PER_S, SHAKES = 0.2, 8.0  # handshakes of one address block; and at once
KNOWN_PER_S, KNOWN_SHAKES = 1.0, 48.0  # ... where an established member was seen
OTHERS_PER_S, OTHERS_SHAKES = 2.0, 32.0  # of all other blocks together: 1/100 of a core
OTHERS_KEPT = 16.0  # ... of these for blocks that had none of late: a few cannot use up all
FAULT_SHAKES = 6.0  # what a broken connection costs its block
DEBT_SHAKES = 30.0  # at most: a block waits two minutes
FAULTS, FAULTS_PER_S = 4.0, 4 / 600  # of one identity; then it is barred
ROWS_MAX = 1024  # blocks, and identities, that are remembered


OWN = ("127.0.0.1", "::1")
Key = TypeVar("Key", str, bytes)


class Buckets(Generic[Key]):
    """Token buckets by key, full at first; the key that was used longest ago is forgotten."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._rows: OrderedDict[Key, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: Key) -> bool:
        return key in self._rows

    def has(self, key: Key, at: float) -> bool:
        """Whether a token is left."""
        return key not in self._rows or self._rows[key].has(1.0, at)

    def charge(self, key: Key, tokens: float, at: float) -> None:
        """Take tokens, on credit if need be."""
        bucket = self._rows.setdefault(key, Bucket(self._per_s, self._burst, at))
        bucket.take(0.0, at)
        bucket.level = max(-DEBT_SHAKES, bucket.level - tokens)
        self._rows.move_to_end(key)
        if len(self._rows) > ROWS_MAX:
            self._rows.popitem(last=False)


def block_of(host: str) -> str:
    """The address block of a host: an IPv4 address, the first 64 bits of an IPv6 one.

    "" for this machine as it calls itself: all members of a testnet are there.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    if str(address) in OWN:
        return ""
    if address.version == 6:
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return str(address)


def is_public(host: str) -> bool:
    """Whether a share per block holds there: not on loopback and private networks."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_global
    except ValueError:
        return False


@dataclass(eq=False)
class Guest:
    """A socket that somebody opened. ``silent`` tells whether it has said nothing yet."""

    host: str
    silent: Callable[[], bool]
    cut: Callable[[], None]
    since: float  # when it came, seconds on any clock that does not jump
    known: bool = False  # has proven who it is
    shook: bool = False  # has asked for a handshake, and paid if it got one

    def __post_init__(self) -> None:
        self.block = block_of(self.host)


class Gate:
    """All sockets that others opened to us, in the order in which they came."""

    def __init__(self, strangers_max: int = STRANGERS_MAX) -> None:
        self._strangers_max = strangers_max
        self._guests: dict[Guest, None] = {}
        self._shakes = Buckets[str](SHAKES_PER_S, SHAKES)
        self._known = Buckets[str](KNOWN_PER_S, KNOWN_SHAKES)
        self._others = Bucket(OTHERS_PER_S, OTHERS_SHAKES)
        self._faults = Buckets[bytes](FAULTS_PER_S, FAULTS)
        self._established: OrderedDict[str, None] = OrderedDict()
        self.refused: Counter[str] = Counter()

    @property
    def strangers(self) -> list[Guest]:
        """Those who have not proven who they are, the oldest first."""
        return [guest for guest in self._guests if not guest.known]

    def enter(self, guest: Guest) -> bool:
        """Let a stranger in, maybe in another's place; False if there is none."""
        if not self._may_shake(guest.block, guest.since):
            self.refused["handshakes"] += 1
            return False
        near = [other for other in self.strangers if other.block == guest.block]
        crowded = bool(guest.block) and len(near) >= STRANGERS_PER_BLOCK
        if crowded and not self._show_out(near, guest.since, "strangers_per_block"):
            return False
        everybody = self.strangers
        full = len(everybody) >= self._strangers_max
        if full and not self._show_out(everybody, guest.since, "strangers", guest.block):
            return False
        self._guests[guest] = None
        return True

    def _may_shake(self, block: str, at: float) -> bool:
        if not block:
            return True
        if block in self._established:
            return self._known.has(block, at)
        needed = 1.0 + OTHERS_KEPT * (block in self._shakes)
        return self._shakes.has(block, at) and self._others.has(needed, at)

    def shake(self, guest: Guest, at: float) -> bool:
        """Spend a handshake of the guest's block, before anything is computed; False: none left."""
        block, guest.shook = guest.block, True
        if not self._may_shake(block, at):
            self.refused["handshakes"] += 1
            return False
        self._charge(block, 1.0, at)
        if block and block not in self._established:
            self._others.take(1.0, at)
        return True

    def _charge(self, block: str, handshakes: float, at: float) -> None:
        if not block:
            return
        if block in self._established:
            self._known.charge(block, handshakes, at)
        else:
            self._shakes.charge(block, handshakes, at)

    def vouch(self, host: str) -> None:
        """An established member was seen at that address."""
        self._established[block_of(host)] = None
        self._established.move_to_end(block_of(host))
        if len(self._established) > ROWS_MAX:
            self._established.popitem(last=False)

    def blame(self, guest: Guest, at: float, peer: bytes = b"") -> None:
        """The guest, who was ``peer``, broke the protocol; nobody: it was barred already."""
        if peer:
            self._faults.charge(peer, 1.0, at)
        self._charge(guest.block, FAULT_SHAKES, at)

    def is_barred(self, peer: bytes, at: float) -> bool:
        """Whether a peer has broken the protocol too often of late."""
        return not self._faults.has(peer, at)

    def prove(self, guest: Guest) -> bool:
        """The guest has proven who it is; False if its block has all the places it may have."""
        if is_public(guest.host):
            members = sum(other.known and other.block == guest.block for other in self._guests)
            if members >= PER_BLOCK:
                self.refused["per_block"] += 1
                return False
        guest.known = True
        return True

    def leave(self, guest: Guest, at: float) -> None:
        """The socket is gone."""
        self._guests.pop(guest, None)
        if not guest.shook and not guest.silent():
            guest.shook = True
            self._charge(guest.block, 1.0, at)

    def __len__(self) -> int:
        """Sockets that others opened to us, members and strangers."""
        return len(self._guests)

    def _show_out(self, guests: list[Guest], now: float, reason: str, block: str = "") -> bool:
        """Make room: the oldest silent one goes, or the slowest, or for ``block``, where a member
        was seen, the oldest from elsewhere; else the newcomer stays out."""
        self.refused[reason] += 1
        silent = [guest for guest in guests if guest.silent()]
        slow = [guest for guest in guests if now - guest.since > SLOW_S]
        others = [guest for guest in guests if guest.block not in self._established]
        for guest in [*silent, *slow, *(others if block in self._established else ())]:
            self.leave(guest, now)
            guest.cut()
            return True
        return False
