"""Connections as the protocol sees them: who is there, who has said hello, when to dial again.

Knows peers by key and time by argument. Holds each peer's token buckets and the claims it made
about what it holds; claims choose whom to ask first and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from random import Random

from tapestry_p2p.gossip.bucket import Bucket
from tapestry_p2p.gossip.messages import Row
from tapestry_p2p.gossip.settings import Settings

DIGESTS = 4.0  # answered per ``digest_every_s``, twice as many as an honest peer sends
DIGEST_ROWS = 32  # a digest of more rows (55 bytes each) is sent less often
SHORT_S = 5.0  # a connection that ends sooner counts as a failed dial
AWAY_ATTEMPTS = 4  # who comes back after so many failed dials was away, perhaps with others
AGAIN_EVERY_S = 15.0  # others are dialled early at most so often, whoever comes and goes


@dataclass(slots=True)
class Link:
    """One peer, connected or remembered."""

    peer: bytes
    messages: Bucket
    volume: Bucket
    blames: Bucket
    digests: Bucket  # of the peer's, answered: asking is cheap, and looking up all it lacks is not
    repeats: Bucket  # frames that held nothing new
    connected: bool = False
    connected_at: float = 0.0
    idle_since: float = 0.0  # when it was last connected, or first considered
    greeted: bool = False  # its hello was accepted on this connection
    knew_us: bool | None = None  # its first hello since we started named our stream
    address: str = ""  # where the connection came from, or went
    hello_at: float = 0.0  # when ours was last sent
    digest_at: float = 0.0  # when ours is due
    heads: dict[bytes, int] = field(default_factory=dict)  # author -> seq of newest header
    copies: dict[bytes, int] = field(default_factory=dict)  # author -> seq of its copy
    said: dict[bytes, int] = field(default_factory=dict)  # of copies, where more was read into it
    relays: dict[bytes, float] = field(default_factory=dict)  # author -> until when we show it on
    dialling_since: float | None = None
    attempts: int = 0
    is_away: bool = False  # the last dial failed
    dial_at: float | None = None  # not before; None: not yet considered

    def is_barred(self, at: float) -> bool:
        """Whether its blames are used up."""
        return not self.blames.has(1, at)

    def is_busy(self, at: float) -> bool:
        """Whether its row, though idle, still serves: it is being dialled, or kept out."""
        return self.dialling_since is not None or self.is_barred(at)

    def holds(self, author: bytes, seq: int) -> bool:
        """Whether the peer says that it holds the author's header at ``seq``, or a higher one."""
        return self.heads.get(author, -1) >= seq

    def claim(self, rows: Iterable[Row], authors_max: int) -> None:
        """Remember what the peer says it holds."""
        kept = list(rows)[:authors_max]
        self.heads = {row.author: row.head - 1 for row in kept}
        self.copies = {row.author: row.copy - 1 for row in kept}
        self.said = {}

    def shows(self, author: bytes, seq: int) -> bool:
        """The peer showed a header: if it keeps that author's copy, it should hold the entry."""
        if self.peer == author or not 0 <= self.copies.get(author, -1) < seq:
            return False
        self.heads[author] = max(seq, self.heads.get(author, -1))
        self.said.setdefault(author, self.copies[author])
        self.copies[author] = seq
        return True

    def withdraw(self, author: bytes, seq: int) -> None:
        """The entry at ``seq`` is not there: what was read into a header shown is taken back."""
        if self.copies.get(author, -1) >= seq > self.said.get(author, seq):
            self.copies[author] = self.said.pop(author)


class Links:
    """A capped table of peers."""

    def __init__(
        self,
        settings: Settings,
        own_key: bytes,
        random: Random,
        is_new: Callable[[bytes], bool] = lambda _: False,
    ) -> None:
        self._settings = settings
        self._own_key = own_key
        self._random = random
        self._is_new = is_new  # on probation: takes the row of one who is not last of all
        self._links: dict[bytes, Link] = {}
        self._again_at = 0.0
        self._forget_at = 0.0

    def __len__(self) -> int:
        return len(self._links)

    def get(self, peer: bytes) -> Link | None:
        """The peer, if remembered."""
        return self._links.get(peer)

    def barred(self, at: float) -> int:
        """How many peers are kept out now."""
        return sum(link.is_barred(at) for link in self._links.values())

    def connected(self) -> Iterator[Link]:
        """Every peer with an open connection."""
        return (link for link in self._links.values() if link.connected)

    def greeted(self) -> Iterator[Link]:
        """Every connected peer whose hello was accepted."""
        return (link for link in self._links.values() if link.connected and link.greeted)

    def is_greeted(self, peer: bytes) -> bool:
        """Whether the peer is connected and its hello was accepted."""
        link = self._links.get(peer)
        return link is not None and link.connected and link.greeted

    def seen_at(self, peer: bytes) -> str:
        """The address at which a peer was last connected; "" if that is not known."""
        link = self._links.get(peer)
        return link.address if link else ""

    def connect(self, peer: bytes, at: float, address: str = "") -> Link | None:
        """Note an open connection; None if the table is full of connected peers."""
        link = self._obtain(peer, at)
        if link is None:
            return None
        link.dialling_since, link.address = None, address or link.address
        if link.connected:
            return link
        if link.is_away and link.attempts >= AWAY_ATTEMPTS and at >= self._again_at:
            self._dial_again(at)
        link.connected, link.connected_at, link.greeted, link.is_away = True, at, False, False
        link.digest_at = at + self._spread(self._settings.digest_every_s)
        return link

    def _dial_again(self, at: float) -> None:
        """Somebody long away is back: whoever else is may be too, so do not wait to the end."""
        self._again_at = at + AGAIN_EVERY_S
        for link in self._links.values():
            if link.is_away and link.dial_at is not None:
                link.dial_at = min(link.dial_at, at + self._turn(link.peer))

    def disconnect(self, peer: bytes, at: float) -> None:
        """Note a lost connection and when to dial again."""
        link = self._links.get(peer)
        if link is None or not link.connected:
            return
        short = not link.greeted or at - link.connected_at < SHORT_S
        link.connected, link.greeted, link.idle_since = False, False, at
        link.heads, link.copies, link.said, link.relays = {}, {}, {}, {}
        link.attempts = link.attempts + 1 if short else 0
        link.dial_at = at + self._turn(peer) + self._backoff(link)

    def dial_failed(self, peer: bytes, at: float) -> None:
        """Note a failed dial; the wait doubles."""
        link = self._links.get(peer)
        if link is not None and not link.connected:
            link.dialling_since, link.is_away = None, True
            link.attempts += 1
            link.dial_at = at + self._backoff(link)

    def shun(self, peer: bytes, at: float) -> None:
        """Dial this peer again only after the longest wait."""
        link = self._links.get(peer)
        if link is not None:
            link.is_away = False
            link.attempts, link.dial_at = 16, at + self._settings.dial_retry_max_s

    def forget_spent(self, at: float) -> None:
        """Drop the rows of peers that are long gone and that nobody dials any more.

        Their buckets are full again and no wait is left; else whoever was met once keeps a row.
        """
        if at < self._forget_at:
            return
        window = self._settings.blame_window_s  # the slowest bucket fills in that time
        self._forget_at = at + window / 8
        for peer, link in list(self._links.items()):
            last = max(link.idle_since, link.dial_at or 0.0)
            if not link.connected and link.dialling_since is None and at - last >= window:
                del self._links[peer]

    def is_full_for(self, peer: bytes) -> bool:
        """Whether there is no room even to dial a peer."""
        if peer in self._links or len(self._links) < self._settings.peers_max:
            return False
        return all(link.connected for link in self._links.values())

    def due(self, wanted: Iterable[bytes], at: float) -> Iterator[bytes]:
        """Those of ``wanted`` to dial now; marks them as being dialled."""
        for peer in wanted:
            link = self._obtain(peer, at)
            if link is None or link.connected:
                continue
            if link.dialling_since is not None:
                if at - link.dialling_since < self._settings.dial_timeout_s:
                    continue
                self.dial_failed(peer, at)
            if link.dial_at is None:
                link.dial_at = at + self._turn(peer)
            if at >= link.dial_at:
                link.dialling_since = at
                yield peer

    def next_digest(self, link: Link, at: float, rows: int) -> None:
        """Set when the next digest is due: later where it is long, so that its cost has a bound."""
        longer = max(1.0, rows / DIGEST_ROWS)
        link.digest_at = at + longer * self._spread(self._settings.digest_every_s)

    def _obtain(self, peer: bytes, at: float) -> Link | None:
        link = self._links.get(peer)
        if link is not None:
            return link
        if len(self._links) >= self._settings.peers_max:
            victim = self._replaceable(peer, at)
            if victim is None:
                return None
            del self._links[victim.peer]
        config = self._settings
        link = Link(
            peer,
            Bucket(config.messages_per_s, 8 * config.messages_per_s),
            Bucket(config.bytes_per_s, 8 * config.bytes_per_s),
            Bucket(config.blames_max / config.blame_window_s, config.blames_max),
            Bucket(DIGESTS / config.digest_every_s, 2 * DIGESTS),
            Bucket(config.repeats_per_s, config.repeats_max),
            idle_since=at,
        )
        self._links[peer] = link
        return link

    def _replaceable(self, peer: bytes, at: float) -> Link | None:
        """The idle row that gives way to ``peer``: a newcomer's first, a failed dial's last.

        For a newcomer no row is forgotten of one who is none and is being dialled, or is barred.
        """
        is_new = self._is_new
        idle = [link for link in self._links.values() if not link.connected]
        if is_new(peer):
            idle = [link for link in idle if is_new(link.peer) or not link.is_busy(at)]

        def worth(link: Link) -> tuple[bool, bool, bool]:
            return not is_new(link.peer), link.is_busy(at), link.attempts > 0

        return min(idle, key=worth, default=None)

    def _turn(self, peer: bytes) -> float:
        """The lower key dials at once; the higher one gives it time, then dials too."""
        if self._own_key < peer:
            return 0.2 * self._random.random()
        return self._spread(self._settings.dial_patience_s)

    def _backoff(self, link: Link) -> float:
        if link.attempts == 0:
            return 0.0
        config = self._settings
        wait = config.dial_retry_s * 2 ** min(link.attempts - 1, 16)
        return self._spread(min(config.dial_retry_max_s, wait))

    def _spread(self, seconds: float) -> float:
        return seconds * (0.5 + self._random.random() / 2)
