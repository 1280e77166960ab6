"""Saves the copies that a node follows, so that a restart need not fetch them again.

One by one, each as it stands then: nobody waits for the disk but we. A copy that did not move since
is not written again, and at most a twentieth of the time goes into it: a big model's copies would
keep a disk busy for ever.
"""

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from tapestry_p2p.daemon.copies import Copies, Followed
from tapestry_p2p.daemon.disk import Disk
from tapestry_p2p.daemon.fetcher import THREAD_ABOVE
from tapestry_p2p.daemon.store import FollowedCopy, Store
from tapestry_p2p.gossip.protocol import Protocol

EVERY_S = 30.0
SHARE = 20  # saving may take 1/20 of the time


@dataclass
class CopySaver:
    """``mixing`` is held whenever a copy changes; ``keep_known`` saves what the protocol knows."""

    copies: Copies
    protocol: Protocol
    mixing: trio.Lock
    store: Store
    disk: Disk
    keep_known: Callable[[], Awaitable[bool]]
    _saved: dict[bytes, tuple[Followed, int]] = field(default_factory=dict)  # by author, at seq

    async def run(self) -> None:
        """Until cancelled."""
        took_s = 0.0
        while True:
            await trio.sleep(max(EVERY_S, SHARE * took_s))
            began = trio.current_time()
            await self.save()
            took_s = trio.current_time() - began

    async def save(self) -> None:
        """Every copy that moved since it was saved, then what is known of their authors."""
        followed = self.copies.followed
        self._saved = {a: was for a, was in self._saved.items() if followed.get(a) is was[0]}
        for author in list(followed):
            found = await self._frozen(author)
            if found is not None:
                held, copy = found
                await self.disk.write(functools.partial(self.store.save_copy, copy))
                self._saved[author] = held, copy.seq
        await self.disk.insist(self.keep_known)

    async def _frozen(self, author: bytes) -> tuple[Followed, FollowedCopy] | None:
        """The author's copy as it stands, if it is to be saved."""
        async with self.mixing:
            heads = {s.header.author: s for s in self.protocol.snapshot().copies}
            head, held = heads.get(author), self.copies.followed.get(author)
            if head is None or held is None or head.header.seq != held.seq:
                return None
            if self._saved.get(author) == (held, held.seq):
                return None
            take = functools.partial(self.copies.space.copy, held.copy.vector)
            big = len(held.copy) >= THREAD_ABOVE
            vector = await trio.to_thread.run_sync(take) if big else take()
            return held, FollowedCopy(author, held.seq, head.encode(), vector)
