"""How a new member starts: from the middle of its peers' copies, if that beats the first vector.

Asks before it begins: who has a stream already never adopts. Then it reads some copies, has their
authors keep them for a while, and lets the trainer judge their median on its own held-out data.
Whoever invited us can so at best give us a better start, and at worst none. Knows no data.
"""

import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from tapestry_p2p.daemon.copies import Copies, copy_root
from tapestry_p2p.daemon.fetcher import Fetcher, FetchError
from tapestry_p2p.daemon.voice import ASK_DEADLINE_S
from tapestry_p2p.gossip.adoption import Reference, encode_adoption, most
from tapestry_p2p.gossip.identity import peer_id_of
from tapestry_p2p.gossip.protocol import Protocol
from tapestry_p2p.mix.adoption import coordinate_median
from tapestry_p2p.mix.codec import Vector
from tapestry_p2p.mix.copy import PublicCopy

log = logging.getLogger("tapestry.node")

LOOK_S = 2.0  # for peers to show whether anybody has trained yet, while some are still to come
COPIES_S = 600.0  # for 2f+1 copies to come; then the first vector must do
PATIENCE_S = 30.0  # for more than 2f+1 of them, at most
PATIENCE_SHARE, PATIENCE_MIN_S = 2.0, 1.0  # ... and so much longer than those took, at least
POLL_S = 0.25
KEEP_S = 5.0  # an author may move on while we ask it to keep its copy, or not be here yet
KEEP_TRIES = 8  # it is here and has moved on each time: its rounds are shorter than our way to it
ASK_AGAIN_S = 0.05  # that often: rounds may be as short

Weigh = Callable[[Vector], Awaitable[bool]]
Named = dict[bytes, tuple[Reference, Vector]]  # by author: what is named of it


@dataclass(frozen=True)
class Start:
    """A start other than the first vector, and the payload that declares it."""

    copy: PublicCopy
    root: bytes
    payload: bytes
    authors: tuple[bytes, ...]


@dataclass
class Joiner:
    """Finds a start. ``greeted`` is set once a peer has told what it holds."""

    protocol: Protocol
    copies: Copies
    fetcher: Fetcher
    greeted: trio.Event

    async def find(self, weigh: Weigh) -> Start | None:
        """A start that ``weigh`` says is better than the first vector; None: begin there."""
        if not await self._can_adopt():
            return None
        log.info("reading the members' copies, to begin from their middle")
        named: Named = {}
        with trio.move_on_after(COPIES_S):
            named = await self._named()
        if not named:
            log.warning("the members' copies did not come: beginning at the first vector")
            return None
        start = _median(named)
        names = ", ".join(map(peer_id_of, start.authors))
        if not await weigh(start.copy.vector):
            log.warning("no better on our own data than the first vector: the middle of %s", names)
            return None
        log.info("beginning from the middle of %s", names)
        for reference, vector in named.values():
            self.copies.pin(reference.root, PublicCopy.holding(vector, self.copies.space))
        return start

    async def _can_adopt(self) -> bool:
        """Whether enough others have trained, and we have no stream from an earlier life."""
        if not self.protocol.settings.bootstrap:
            return False  # we found the network
        with trio.move_on_after(ASK_DEADLINE_S):
            await self.greeted.wait()
        if not self.greeted.is_set():
            return False
        with trio.move_on_after(LOOK_S):
            while self.protocol.trained() <= 2 * self.protocol.settings.f:
                if self.protocol.is_untrained:
                    return False
                await trio.sleep(POLL_S)
            return self.protocol.own_highest is None
        return False

    async def _named(self) -> Named:
        """What our start rests on: copies that we have, and that their authors keep if they can."""
        kept: Named = {}
        moved: Counter[bytes] = Counter()  # times that an author had moved on when we asked
        began, took, asked_from = trio.current_time(), math.inf, math.inf
        while True:
            references = self.protocol.references()
            now = trio.current_time()
            if references:
                took = min(took, now - began)
            patience = max(PATIENCE_MIN_S, (1 + PATIENCE_SHARE) * took)
            late = now - began > min(PATIENCE_S, patience)
            if not references or not (late or len(references) >= self._most()):
                await trio.sleep(POLL_S)
                continue
            asked_from = min(asked_from, now)
            for reference in references:  # before anything is waited for: it moves on here as well
                if now - asked_from > KEEP_S or moved[reference.author] >= KEEP_TRIES:
                    self._take(reference, kept)
            await self._ask_to_keep(references, kept, moved)
            if all(reference.author in kept for reference in references):
                return {reference.author: kept[reference.author] for reference in references}
            await trio.sleep(ASK_AGAIN_S)

    def _most(self) -> int:
        """How many references there will be in the end, if all who trained can be read."""
        return min(most(self.protocol.settings), self.protocol.trained())

    async def _ask_to_keep(
        self, references: tuple[Reference, ...], kept: Named, moved: Counter[bytes]
    ) -> None:
        """The vectors of those references into ``kept`` that their authors keep for us."""
        for reference in references:
            if reference.author not in kept:
                try:
                    await self.fetcher.ask_to_keep(reference)
                    vector = await self.fetcher.referenced(reference, ())
                except FetchError as error:
                    moved[reference.author] += error.reason == "missing"
                    log.debug("reference to %s: %s", reference.author.hex()[:8], error.reason)
                else:
                    kept[reference.author] = reference, vector

    def _take(self, reference: Reference, kept: Named) -> None:
        """Our own copy of an author into ``kept``, where there is none: we serve it ourselves."""
        author = reference.author
        vector = None if author in kept else self.copies.named(author, reference.root)
        if vector is not None:
            kept[author] = reference, vector


def _median(named: Named) -> Start:
    authors = tuple(sorted(named))
    copy = PublicCopy(coordinate_median([named[author][1] for author in authors]))
    payload = encode_adoption(named[author][0] for author in authors)
    return Start(copy, copy_root(copy), payload, authors)
