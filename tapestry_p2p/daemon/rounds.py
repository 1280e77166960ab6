"""Our own rounds: publish what was trained, mix what neighbours published, hand corrections back.

Knows the Loom, the copies, our stream and the trainer; no sockets, and of peers only whom the
protocol follows. Mixing and copies take turns on one lock (``fetcher.mixing``), whoever publishes
or saves our own copy on another (``speaking``): a disk that refuses holds up nobody else's copy.
"""

import contextlib
import functools
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import trio

from tapestry_p2p.bulk import Piece
from tapestry_p2p.daemon.copies import Copies, Followed, split
from tapestry_p2p.daemon.cores import on_all_cores
from tapestry_p2p.daemon.disk import Disk
from tapestry_p2p.daemon.fetcher import Fetcher, FetchError
from tapestry_p2p.daemon.joiner import Joiner
from tapestry_p2p.daemon.manifest import Manifest
from tapestry_p2p.daemon.recovery import Recovered
from tapestry_p2p.daemon.rollback import earlier
from tapestry_p2p.daemon.store import Store
from tapestry_p2p.daemon.tempo import Tempo
from tapestry_p2p.daemon.trainer import THREAD_ABOVE, TrainedVector, Trainer
from tapestry_p2p.daemon.voice import ASK_DEADLINE_S, SETTLE_S, OwnVoice, SilencedError
from tapestry_p2p.errors import NOT_READY, TapestryError
from tapestry_p2p.gossip import events as ev
from tapestry_p2p.gossip.header import DIFFERENCE
from tapestry_p2p.gossip.identity import peer_id_of
from tapestry_p2p.gossip.merkle import merkle_root
from tapestry_p2p.gossip.protocol import Protocol
from tapestry_p2p.mix.codec import Vector
from tapestry_p2p.mix.loom import Difference, Loom, LoomSettings, Mixing

log = logging.getLogger("tapestry.node")
T = TypeVar("T")
Mix = Callable[[Mapping[bytes, Vector], int, Mapping[bytes, float]], Mixing[bytes]]

SPEAK_POLL_S = 0.25
GENESIS_RETRY_S = 1.0
SAVE_SHARE = 20  # saving may take 1/20 of the time
ROOT_ALWAYS_BELOW = 10_000_000  # parameters; larger copies state a root every keyframe_every
NEWS_SHARE = 1 / 8  # of a round: news of neighbours is mixed at most so often
NEWS_MIN_S = 0.02


@dataclass(frozen=True, slots=True)
class Pace:
    """How this member works."""

    inner_steps: int = 0  # 0: the manifest's
    last: int = 0  # round to end with; 0: for ever
    wait: bool = False  # train only after ``go``
    round_s: float = 0.0  # wanted; 0: rounds have the manifest's steps, however long they take


class Rounds:
    """A member's rounds, and the state that they move: x, momentum, the own copy.

    ``act`` lets the protocol judge an event; ``introduce`` publishes our profile.
    """

    def __init__(
        self,
        manifest: Manifest,
        pace: Pace,
        protocol: Protocol,
        copies: Copies,
        fetcher: Fetcher,
        store: Store,
        disk: Disk,
        recovered: Recovered,
        act: Callable[[ev.Event], Awaitable[None]],
        introduce: Callable[[], Awaitable[None]],
    ) -> None:
        self.manifest, self.pace = manifest, pace
        self.loom: Loom[bytes] | None = None
        self.round = recovered.round
        self.finished = trio.Event()
        self.go = trio.Event()
        if not pace.wait:
            self.go.set()
        self.greeted = trio.Event()  # a neighbour has told what it holds of us
        self.moved = trio.Event()  # a copy moved since news were last mixed
        self.payload: Piece = b""  # of the difference that is being published
        self.mixed: dict[str, Any] = {"authors": [], "tau": None}
        self.adopted: tuple[bytes, ...] = ()  # whose copies we began from, in this life
        self._protocol, self._copies, self._fetcher = protocol, copies, fetcher
        self._store, self._disk = store, disk
        self._recovered_x = recovered.x
        self._introduce = introduce
        self._unapplied: dict[int, Vector] = {}
        self._unadded: dict[int, Vector] = {}
        self._saved_at = self._save_took = 0.0
        self.uplink_s: Callable[[int], float] = lambda size: 0.0  # to give an entry to all peers
        self.kept_back = 0  # rounds that the next difference held as well
        self._untold_tokens = 0  # trained on since our last entry
        self._room_at = 0.0  # when the upload has room for another entry
        self._rounding = trio.Lock()
        self.speaking = trio.Lock()
        steps = pace.inner_steps or manifest.training.inner_steps
        self.tempo = Tempo(steps, pace.round_s)
        self._nominal_steps = steps
        self._round_s = 0.0
        self.voice = OwnVoice(
            protocol,
            copies,
            self.speaking,
            self.greeted,
            act,
            self.save,
            lambda: self.round,
            recovered.rolled_back,
            recovered.reverted,
        )

    @property
    def settled(self) -> bool:
        """Whether all news of neighbours are mixed, and nothing is being mixed now."""
        return not (self.moved.is_set() or self.working)

    @property
    def working(self) -> bool:
        """Whether a round or news are being mixed now."""
        return self._rounding.locked()

    # -- where we begin

    async def begin(self, trainer: Trainer, genesis: Vector) -> None:
        """A trainer said hello: settle the genesis, then tell it where to start."""
        if not await self._in_thread(functools.partial(self._copies.set_genesis, genesis)):
            log.warning("this machine makes another first vector; fetching the network's")
            await self._fetch_genesis()
        await self._settle_start(trainer)
        await self.settle_stream()
        loom = self.loom
        assert loom is not None
        self._unapplied.clear()
        self._unadded.clear()
        await self.go.wait()
        with trio.move_on_after(ASK_DEADLINE_S + SETTLE_S):  # a round now would be kept back
            await self._may_speak()
        await trainer.start(loom.latest, self.round, self.round * self._nominal_steps)
        last = self.pace.last
        if last and self.round >= last:
            self.finished.set()
        else:
            await trainer.train(self.round + 1, self.tempo.steps, last)

    async def adopt_genesis(self) -> None:
        """Take the first vector from peers and begin our stream: a member without a trainer."""
        await self._fetch_genesis()
        await self.settle_stream()

    async def _settle_start(self, trainer: Trainer) -> None:
        """A new member may begin from the middle of its peers' copies."""
        copies = self._copies
        if self.loom is not None or copies.own is not None or self.voice.rolled_back:
            return
        joiner = Joiner(self._protocol, copies, self._fetcher, self.greeted)
        start = await joiner.find(trainer.weigh)
        if start is not None:
            take = functools.partial(copies.space.copy, start.copy.vector)
            self._recovered_x = await self._in_thread(take)
            self.adopted = start.authors
            self.voice.adoption = start.payload
            copies.own = Followed(-1, start.copy, start.root)
            chunks = split(start.payload, self.manifest.limits.chunk_bytes_max)
            copies.chunks.put_own(0, dict(chunks), self.manifest.streams.ring)

    async def settle_stream(self) -> None:
        """Genesis is known: take up our stream, or begin one."""
        copies = self._copies
        assert copies.genesis is not None
        if self.loom is not None:
            return
        own, x = copies.own, self._recovered_x
        if own is None or x is None:
            x = copies.genesis.vector
            copy = await self._in_thread(functools.partial(copies.copy, x))
            own = Followed(-1, copy, copies.genesis_root)
        loom = await self._in_thread(functools.partial(self._woven, x, own))
        copies.own, self._recovered_x = own, None
        self._weave(loom)
        async with self.speaking:
            with contextlib.suppress(SilencedError):  # we then ask, and resume
                await self.voice.begin(own)
        await self._introduce()

    def _woven(self, x: Vector, own: Followed) -> Loom[bytes]:
        """A new Loom at x, float32[d]."""
        return Loom(self._loom_settings(), x, own.copy, on_all_cores, self._copies.space)

    def _weave(self, loom: Loom[bytes]) -> None:
        """Go on with this Loom; it sees whom we follow."""
        self.loom = loom
        for author, followed in self._copies.followed.items():
            loom.decoded(author, followed.seq)

    def _loom_settings(self) -> LoomSettings:
        m = self.manifest
        mixing = m.mixing
        return LoomSettings(
            rule=mixing.rule,
            f=mixing.f,
            eta=mixing.outer_rate,
            gamma=mixing.gamma,
            mu=mixing.mu,
            rho=mixing.rho,
            codec=m.streams.codec,
            ttl=m.streams.ttl,
            view=mixing.view,
        )

    async def _fetch_genesis(self) -> None:
        root = bytes.fromhex(self.manifest.genesis.root)
        author = self._protocol.public_key
        while True:
            await self.greeted.wait()
            try:
                vector = await self._fetcher.keyframe(author, 0, root, self._protocol.greeted())
                if await self._in_thread(functools.partial(self._copies.set_genesis, vector)):
                    return
            except FetchError as error:
                log.info("nobody could give us the first vector yet: %s", error.reason)
            await trio.sleep(GENESIS_RETRY_S)

    async def roll_back(self, back: int, trainer: Trainer | None) -> dict[str, int]:
        """Go on from our own copy as it stood ``back`` rounds ago; what was done.

        A ``resume`` states it: followers take it whole. Rounds are counted on. TapestryError: not
        kept (rollback.py), or not now (4).
        """
        async with self._rounding, self.speaking:
            own = self._copies.own
            if self.loom is None or own is None or self.voice.is_silent():
                raise TapestryError("the member is still starting; try again soon", NOT_READY)
            norm_max = self.manifest.limits.norm_max
            job = functools.partial(earlier, self._store, back, self.round, norm_max)
            vector, round_ = await trio.to_thread.run_sync(job)
            save = functools.partial(
                self._store.save_own, own.seq, self.round, vector, vector, True
            )
            await self._disk.write(save)
            copy = await self._in_thread(functools.partial(self._copies.copy, vector))
            own = Followed(own.seq, copy, b"")
            loom = await self._in_thread(functools.partial(self._woven, vector, own))
            self._copies.own = own
            self._weave(loom)
            if trainer is not None:
                trainer.renew()
            self.voice.reverted = True
            with contextlib.suppress(SilencedError):  # we then ask, and resume from it as well
                await self.voice.resume(own)
                self._copies.pin(own.root, own.copy)  # the next entry is near
            log.warning("rolled back from round %d to the state of round %d", self.round, round_)
            return {"round": self.round, "taken": round_, "seq": own.seq}

    # -- rounds

    async def keep_up(self, trainer: Trainer) -> None:
        """Do a round with every vector that the trainer hands over; until cancelled."""
        async for trained in trainer.vectors():
            async with self._rounding:
                await self._one_round(trainer, trained)

    async def _one_round(self, trainer: Trainer, trained: TrainedVector) -> None:
        """Mix what was trained, publish the difference, hand back the correction."""
        record, loom = trained.record, self.loom
        if loom is None or trained.life != trainer.life:
            return
        if self.tempo.took(record["steps"], record["seconds"]):
            await trainer.pace(self.tempo.steps, trained.life)
        y = await self._in_thread(functools.partial(self._with_pending, trained))
        self._untold_tokens += record["tokens"]
        while True:
            with contextlib.suppress(SilencedError):  # just now: it is kept back
                await self._finish_round(trainer, trained, loom, y)
                break

    async def _finish_round(
        self, trainer: Trainer, trained: TrainedVector, loom: Loom[bytes], y: Vector
    ) -> None:
        """Publish or keep back ``y``, what was trained with all that is pending."""
        record = trained.record
        round_ = record["round"]
        last = round_ == self.pace.last
        if last:  # no later difference would hold it
            await self._may_speak()
            if trained.life != trainer.life:
                return  # its next life trains this round again
        if self.voice.is_silent() or not (last or trio.current_time() >= self._room_at):
            loom.x = loom.latest = y  # kept back: the next difference holds it all
            self.kept_back += 1
            nothing = await self._in_thread(functools.partial(self._copies.space.zeros, len(y)))
            await trainer.correct(record["seq"], nothing, trained.life)
        else:
            await self._publish_round(loom, y, round_, self._untold_tokens)
            self._untold_tokens = 0
            self._room_at = trio.current_time() + self.uplink_s(len(self.payload))
            correction = await self._mix(loom, functools.partial(loom.mix, y))
            if await trainer.correct(record["seq"], correction, trained.life):
                self._unapplied[record["seq"]] = correction
            self._round_s = record["seconds"]
        if last:
            self.finished.set()

    def _with_pending(self, trained: TrainedVector) -> Vector:
        """What was trained, and every correction that the trainer has still to add: in place."""
        record, y = trained.record, trained.vector
        self._unapplied = {s: c for s, c in self._unapplied.items() if s > record["applied"]}
        self._unadded = {s: c for s, c in self._unadded.items() if s > record["added"]}
        for pending in (*self._unapplied.values(), *self._unadded.values()):
            for block in self._copies.space.blocks(len(y)):
                y[block] += pending[block]
        return y

    async def _may_speak(self) -> None:
        """Wait until we may publish, or never may again."""
        while self.voice.is_silent() and not self._protocol.stopped:
            await trio.sleep(SPEAK_POLL_S)

    async def mix_news(self, trainer: Trainer) -> None:
        """Mix what neighbours publish between our rounds; the trainer adds it when it can."""
        while True:
            await self.moved.wait()
            await trio.sleep(max(NEWS_MIN_S, NEWS_SHARE * self._round_s))
            async with self._rounding:
                self.moved = trio.Event()
                loom = self.loom
                if loom is None or not (loom.rounds or self.round) or not trainer.begun:
                    continue
                if self.voice.is_silent():
                    continue
                life = trainer.life
                addition = await self._mix(loom, loom.mix_news)
                number = await trainer.add(addition, life)
                if number:
                    self._unadded[number] = addition

    async def _publish_round(self, loom: Loom[bytes], y: Vector, round_: int, tokens: int) -> None:
        async with self.speaking:
            difference = await self._in_thread(functools.partial(loom.difference, y))
            await self.publish_difference(difference, round_, tokens)
            loom.published(difference, y)
            self.round = round_
            own = self._copies.own
            if own is not None and own.root and len(own.copy) >= ROOT_ALWAYS_BELOW:
                self._copies.pin(own.root, own.copy)  # the next entry states no root

    async def _mix(self, loom: Loom[bytes], mix: Mix) -> Vector:
        """Mix and save; the vector float32[d] that the trainer has to add."""
        protocol, copies = self._protocol, self._copies
        async with self._fetcher.mixing:
            shares = {author: protocol.share(author) for author in copies.followed}
            zero = frozenset(author for author, share in shares.items() if not share)
            job = functools.partial(mix, copies.vectors(zero), protocol.neighbours, shares)
            mixing = await self._in_thread(job)
            loom.mixed(mixing)
        async with self.speaking:
            await self.save(throttled=True)
        self._note_mixing(mixing)
        return mixing.correction

    async def publish_difference(self, difference: Difference, round_: int, tokens: int) -> None:
        """Publish a coded difference of the own copy. The caller then moves the copy by it."""
        own, streams = self._copies.own, self.manifest.streams
        assert own is not None
        payload = difference.payload
        chunks = split(payload, self.manifest.limits.chunk_bytes_max)
        self._copies.chunks.put_own(own.seq + 1, dict(chunks), streams.ring)
        root = b""
        if len(own.copy) < ROOT_ALWAYS_BELOW or (own.seq + 1) % streams.keyframe_every == 0:
            leaves = functools.partial(own.copy.leaves_after, difference.vector)
            root = merkle_root(await self._in_thread(leaves))
        self.payload = payload
        await self.voice.publish(
            ev.Publish(
                DIFFERENCE,
                trio.current_time(),
                codec=streams.codec,
                chunks=tuple(name for name, _ in chunks),
                payload_bytes=len(payload),
                root=root,
                round=round_,
                tokens=tokens,
            )
        )
        self.payload = stored = self._store.last_payload(payload)
        if stored is not payload:  # what peers ask for later is read from the log
            most = self.manifest.limits.chunk_bytes_max
            views = (stored[i : i + most] for i in range(0, len(stored), most))
            kept = dict(zip((name for name, _ in chunks), views, strict=True))
            self._copies.chunks.put_own(own.seq, kept, streams.ring)

    def _note_mixing(self, mixing: Mixing[bytes]) -> None:
        report = mixing.report
        self.mixed = {"authors": [], "tau": None}
        if report is not None:
            rows = zip(mixing.authors, report.coefficients, report.distances, strict=True)
            self.mixed = {
                "tau": report.tau if math.isfinite(report.tau) else None,
                "authors": [
                    {"id": peer_id_of(a), "coefficient": round(c, 4), "distance": round(d, 5)}
                    for a, c, d in rows
                ],
            }

    async def _in_thread(self, job: Callable[[], T]) -> T:
        if self.manifest.schema.parameters < THREAD_ABOVE:
            return job()
        return await trio.to_thread.run_sync(job)

    async def save(self, throttled: bool = False) -> None:
        """Save x and the own copy; throttled, at most 1/20 of the time goes into it."""
        loom, own = self.loom, self._copies.own
        if loom is None or own is None or (own.seq < 0 and not self.voice.adoption):
            return
        now = trio.current_time()
        if throttled and now - self._saved_at < SAVE_SHARE * self._save_took:
            return
        state = own.seq, self.round, loom.latest, own.copy.vector, self.voice.reverted
        await self._disk.write(functools.partial(self._store.save_own, *state))
        self._saved_at = trio.current_time()
        self._save_took = self._saved_at - now
