"""Who may hold a socket of ours: few strangers, few from one place, and never the idle for long.

Knows hosts and whether somebody has said anything yet; no socket, no libp2p. A stranger who says
something is worth more than one who does not: when places are short, the silent go first, the
oldest of them at once, then whoever takes too long over its handshake. So no number of idle
sockets keeps an honest member out.
"""

import ipaddress
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

STRANGERS_MAX = 32  # sockets that have not proven who they are, in all
STRANGERS_PER_BLOCK = 3  # ... from one address block
SLOW_S = 2.0  # an honest handshake takes a tenth of that on a busy machine
PER_BLOCK = 8  # sockets from one address block, members included


def block_of(host: str) -> str:
    """The address block of a host: an IPv4 address, the first 64 bits of an IPv6 one.

    "" for the machine's own addresses: all members of a testnet are there.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    if address.is_loopback:
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

    def __post_init__(self) -> None:
        self.block = block_of(self.host)


class Gate:
    """All sockets that others opened to us, in the order in which they came."""

    def __init__(self, strangers_max: int = STRANGERS_MAX) -> None:
        self._strangers_max = strangers_max
        self._guests: dict[Guest, None] = {}
        self.refused: Counter[str] = Counter()

    @property
    def strangers(self) -> list[Guest]:
        """Those who have not proven who they are, the oldest first."""
        return [guest for guest in self._guests if not guest.known]

    def enter(self, guest: Guest) -> bool:
        """Let a stranger in, maybe in another's place; False if there is none."""
        near = [other for other in self.strangers if other.block == guest.block]
        crowded = bool(guest.block) and len(near) >= STRANGERS_PER_BLOCK
        if crowded and not self._show_out(near, guest.since, "strangers_per_block"):
            return False
        everybody = self.strangers
        full = len(everybody) >= self._strangers_max
        if full and not self._show_out(everybody, guest.since, "strangers"):
            return False
        self._guests[guest] = None
        return True

    def prove(self, guest: Guest) -> bool:
        """The guest has proven who it is; False if its block has all the places it may have."""
        if is_public(guest.host):
            members = sum(other.known and other.block == guest.block for other in self._guests)
            if members >= PER_BLOCK:
                self.refused["per_block"] += 1
                return False
        guest.known = True
        return True

    def leave(self, guest: Guest) -> None:
        """The socket is gone."""
        self._guests.pop(guest, None)

    def __len__(self) -> int:
        """Sockets that others opened to us, members and strangers."""
        return len(self._guests)

    def _show_out(self, guests: list[Guest], now: float, reason: str) -> bool:
        """Make room: the oldest silent one goes, or the slowest; else the newcomer stays out."""
        self.refused[reason] += 1
        slow = [guest for guest in guests if now - guest.since > SLOW_S]
        for guest in [*(guest for guest in guests if guest.silent()), *slow]:
            self._guests.pop(guest)
            guest.cut()
            return True
        return False
