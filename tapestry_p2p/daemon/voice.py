"""When our own stream may grow: after a restart it asks first, and resumes where others know more.

Knows the protocol's voice and the own copy. All entries of ours are published here, and what must
come first is signed under the lock that rounds take, so that none of them comes between.
"""

import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from tapestry_p2p.daemon.copies import Copies, Followed, copy_root
from tapestry_p2p.gossip import events as ev
from tapestry_p2p.gossip.header import ADOPT, DIFFERENCE, GENESIS, RESUME
from tapestry_p2p.gossip.protocol import Protocol

log = logging.getLogger("tapestry.node")

ASK_DEADLINE_S = 10.0  # a restarted node waits so long for somebody to show it its own head
SETTLE_S = 0.5  # and at least so long for others, once one has answered
OTHERS_S = ASK_DEADLINE_S  # and so long for all of them: without, it has to resume


class SilencedError(Exception):
    """An entry of ours may not be signed now: first we have to ask, or to resume."""


@dataclass
class OwnVoice:
    """Publishes own entries. ``lock`` is held by whoever changes or publishes the own copy."""

    protocol: Protocol
    copies: Copies
    lock: trio.Lock
    greeted: trio.Event  # set once a neighbour has told what it holds of us
    act: Callable[[ev.Event], Awaitable[None]]
    save: Callable[[], Awaitable[None]]  # the own state, durably
    round: Callable[[], int]
    rolled_back: bool
    reverted: bool = False  # our copy is an earlier one, by our own will: no entry states it yet
    adoption: bytes = b""  # names the copies that ours starts from, unless at the first vector
    _asking: bool = False

    def is_silent(self, kind: str = DIFFERENCE) -> bool:
        """Whether such an entry must not be signed now."""
        return self.protocol.mute or (self.protocol.must_resume and kind != RESUME)

    async def publish(self, event: ev.Publish) -> None:
        """Sign, store, announce one entry; the own copy then stands at it. Hold ``lock``.

        SilencedError if another life of ours has been shown meanwhile.
        """
        await self.act(event)
        head = self.protocol.head(self.protocol.public_key)
        if head is not None and self.copies.own is not None:
            self.copies.own.seq = head.header.seq
            moved = event.kind == DIFFERENCE  # of a large model most entries state no root
            self.copies.own.root = event.root if moved else event.root or self.copies.own.root

    async def begin(self, own: Followed) -> None:
        """Sign the first entry if nothing of ours is known anywhere. Hold ``lock``."""
        kind = ADOPT if self.adoption else GENESIS
        if self.protocol.own_highest is None and not self.is_silent(kind):
            now = trio.current_time()
            if self.adoption:  # a crash after the next line must find the copy that it names
                await self.save()
            await self.publish(ev.Publish(kind, now, root=own.root, payload=self.adoption))
            self.rolled_back = False
            await self.save()

    async def ask_then_speak(self) -> None:
        """Stay mute until a neighbour has shown what it holds of our stream; resume if need be."""
        if self._asking:
            return
        self._asking = True
        try:
            if self.protocol.followed() or self.protocol.settings.bootstrap:
                with trio.move_on_after(math.inf if self.rolled_back else ASK_DEADLINE_S):
                    await self.greeted.wait()
                    await trio.sleep(SETTLE_S)
                    with trio.move_on_after(OTHERS_S):
                        while not self.protocol.has_heard_all():
                            await trio.sleep(SETTLE_S)
            while not await self._has_spoken():
                await trio.sleep(SETTLE_S)
        finally:
            self._asking = False

    async def _has_spoken(self) -> bool:
        """Unmute and sign what must come first; False if that has to wait."""
        protocol = self.protocol
        async with self.lock:
            own = self.copies.own
            if own is None:
                return False  # no trainer has told us the first vector yet
            try:
                await self.act(ev.Unmute(trio.current_time()))
                await self.begin(own)
                while protocol.must_resume or self.rolled_back or self.reverted:
                    await self.resume(own)
            except SilencedError:
                return False
        return bool(protocol.stopped) or not protocol.mute

    async def resume(self, own: Followed) -> None:
        """State our copy as it is by a ``resume``. Hold ``lock``. SilencedError as `publish`."""
        own.root = copy_root(own.copy)
        now = trio.current_time()
        await self.publish(ev.Publish(RESUME, now, root=own.root, round=self.round()))
        self.rolled_back = self.reverted = False
        await self.save()
        log.warning("resumed our stream at entry %d", own.seq)
