"""The node: wires protocol, rounds, copies, store, transport and trainer together. Decides little.

One owner of all state; one order of effects: whatever the protocol asks for is performed one by
one, and what must be durable is on disk before the next. While a disk refuses an entry of ours,
other events go on, and no byte that holds its signature leaves. Three loops: foreign events,
trained vectors (rounds.py), time.
"""

import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import trio

from tapestry_p2p.daemon.address import Address, parse_address
from tapestry_p2p.daemon.answers import Answers
from tapestry_p2p.daemon.audit import AuditLog, left_by
from tapestry_p2p.daemon.awake import Awake
from tapestry_p2p.daemon.copies import Copies, Followed, copy_root, split
from tapestry_p2p.daemon.disk import Disk
from tapestry_p2p.daemon.fetcher import Fetcher, FetchError
from tapestry_p2p.daemon.manifest import Manifest, dump_manifest
from tapestry_p2p.daemon.patience import RATE_LEAST
from tapestry_p2p.daemon.pauses import Pauses, govern
from tapestry_p2p.daemon.rates import Pacer, Paces
from tapestry_p2p.daemon.recovery import Recovered
from tapestry_p2p.daemon.rounds import Pace, Rounds
from tapestry_p2p.daemon.saving import CopySaver
from tapestry_p2p.daemon.store import LoggedEntry, Store
from tapestry_p2p.daemon.tap import Tap
from tapestry_p2p.daemon.trainer import STOP_S, Trainer
from tapestry_p2p.daemon.transport import Transport, TransportError
from tapestry_p2p.daemon.voice import SilencedError
from tapestry_p2p.errors import REFUSED, TapestryError
from tapestry_p2p.gossip import effects as ef
from tapestry_p2p.gossip import events as ev
from tapestry_p2p.gossip.header import DIFFERENCE, PROFILE, SignedHeader, decode_signed
from tapestry_p2p.gossip.identity import Identity, peer_id_of, public_key_of
from tapestry_p2p.gossip.profile import Profile, encode_profile
from tapestry_p2p.gossip.protocol import Protocol
from tapestry_p2p.gossip.settings import Settings
from tapestry_p2p.mix.codec import payload_bytes
from tapestry_p2p.mix.copy import PublicCopy

log = logging.getLogger("tapestry.node")

TICK_S, CALM_TICK_S = 0.25, 1.0  # while something is due, and else: a tick is most of idleness
DIGEST_EVERY_S = 15.0  # heads are pushed; this heals what was missed, at some 400 bytes a peer
ANSWER_S = 8.0  # whoever asks over the control socket is answered within ten
FETCH_LEAST_S = 120.0  # for a fetch; a whole copy may come by the slowest link that is any use
SAVE_S = 2.0  # for saving at the end; what is not saved then is replayed from the log
EVENTS_MAX = 4096
Order = tuple[type, bytes, tuple[bytes, ...]]  # what is fetched, its header's hash, whom first


@dataclass(frozen=True)
class NodeOptions:
    """This machine's part: who we are, where we listen, how long we run."""

    name: str = ""
    languages: tuple[str, ...] = ()
    tell_results: bool = True  # in the profile
    listen: tuple[Address, ...] = ()
    announce: tuple[Address, ...] = ()
    bootstrap: tuple[Address, ...] = ()
    trusted: tuple[str, ...] = ()  # peer ids that skip probation here
    blocked: tuple[str, ...] = ()  # peer ids with which we have nothing to do
    inner_steps: int = 0  # 0: the manifest's
    rounds: int = 0  # 0: for ever
    round_s: float = 0.0  # wanted seconds of a round; 0: as many steps as the manifest says
    wait: bool = False  # train only after ``go`` (testnets)
    hold: dict[str, int] = field(default_factory=dict)  # peer id -> deliver its frames n at a time
    upload: float = 0.0  # bytes/s at most; 0: no limit
    download: float = 0.0
    leaving: bool = False  # started only to say goodbye
    tap: Path | None = None  # folder that gets a copy of every byte that crosses (tests)


class Node:
    """A running member. ``run`` returns when ``stop`` was called."""

    def __init__(
        self,
        manifest: Manifest,
        options: NodeOptions,
        identity: Identity,
        seed: bytes,
        store: Store,
        recovered: Recovered,
        make_trainer: Callable[["Node"], Trainer] | None,
        random: Random,
    ) -> None:
        self.manifest, self.options, self.identity = manifest, options, identity
        self.store = store
        self.key = identity.public_key
        self.started_at = 0.0
        self.disk, self.audit = Disk(store.directory), AuditLog(store.directory)
        self.pauses = Pauses(store.directory / "paused")
        self.entries_published = self.payload_bytes = self.entry_bytes = 0  # of own entries
        self._recovered = recovered
        self._random = random
        self.protocol = self._make_protocol(recovered)
        self.tap = None if options.tap is None else Tap(options.tap)
        paces = Paces(Pacer(options.upload), Pacer(options.download))
        self.transport = Transport(seed, self, self.tap, self._admits, paces, self._vouches)
        self.copies = Copies(
            self.key,
            bytes.fromhex(manifest.genesis.root),
            manifest.network_id,
            dump_manifest(manifest).encode(),
            manifest.streams.ring,
            store.space,
        )
        self.fetcher = self._make_fetcher()
        self.saver = self._make_saver()
        self._events_in, self._events_out = trio.open_memory_channel[ev.Event](EVENTS_MAX)
        self._effects = trio.Lock()
        self.awake = Awake()
        self._auditing = trio.Lock()
        self._unstored = b""  # signature of an entry that the disk refuses: nobody may see it
        self._keeping_known = trio.Lock()
        self._known_waits = False  # for a disk that refused it
        self._stop = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._held: dict[bytes, list[tuple[str, bytes]]] = {}
        self._fetching: dict[bytes, dict[Order, trio.CancelScope]] = {}  # by author
        self.rounds = Rounds(
            manifest,
            Pace(options.inner_steps, options.rounds, options.wait, options.round_s),
            self.protocol,
            self.copies,
            self.fetcher,
            store,
            self.disk,
            recovered,
            self.act,
            self._publish_profile,
        )
        self.rounds.uplink_s = lambda size: paces.upload.share_s(size, len(self.protocol.greeted()))
        self.voice = self.rounds.voice
        self.answers = self._make_answers()
        self.trainer = make_trainer(self) if make_trainer else None

    def _make_answers(self) -> Answers:
        parameters, mixing = self.manifest.schema.parameters, self.fetcher.mixing
        speaking, traffic = self.rounds.speaking, self.transport.traffic
        return Answers(self.copies, self.key, parameters, mixing, speaking, traffic)

    def _make_saver(self) -> CopySaver:
        mixing, known = self.fetcher.mixing, self._keep_known
        return CopySaver(self.copies, self.protocol, mixing, self.store, self.disk, known)

    def _make_fetcher(self) -> Fetcher:
        return Fetcher(
            self.transport.connections,
            self.copies,
            self.manifest.schema.parameters,
            self.manifest.limits.norm_max,
            self.manifest.limits.chunk_bytes_max,
            TransportError,
            lambda author: author in self.protocol.followed(),
            self.protocol.read_adoption,
            download=self.transport.paces.download,
        )

    def _make_protocol(self, recovered: Recovered) -> Protocol:
        m = self.manifest
        bootstrap: dict[bytes, list[str]] = {}
        for address in self.options.bootstrap:
            plain = str(Address(address.kind, address.host, address.port))
            bootstrap.setdefault(public_key_of(address.peer_id), []).append(plain)
        bootstrap.pop(self.key, None)
        settings = Settings(
            network=m.network_id,
            codecs={m.streams.codec: payload_bytes(m.streams.codec, m.schema.parameters)},
            genesis_root=bytes.fromhex(m.genesis.root),
            wire=m.network.wire,
            ring=m.streams.ring,
            chunk_bytes_max=m.limits.chunk_bytes_max,
            all_to_all_max=m.mixing.all_to_all_max,
            k=m.mixing.links,
            f=m.mixing.f,
            entries_per_minute_max=m.limits.entries_per_minute_max,
            probation_rounds=m.mixing.probation,
            founders=frozenset(map(public_key_of, m.genesis.members)),
            trusted=frozenset(map(public_key_of, self.options.trusted)),
            blocked=frozenset(map(public_key_of, self.options.blocked)),
            digest_every_s=DIGEST_EVERY_S,
            fetch_timeout_s=FETCH_LEAST_S + 4 * m.schema.parameters / RATE_LEAST,
            bootstrap=tuple((key, tuple(found)) for key, found in bootstrap.items()),
        )
        return Protocol(
            settings,
            self.key,
            self.identity.sign,
            self._random,
            recovered.known,
            at=trio.current_time(),
            mute=recovered.seq >= 0 or recovered.rolled_back,
            leaving=self.options.leaving,
        )

    # -- life

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen, gossip, train, mix; until ``stop``. Raises TapestryError for the operator."""
        self.started_at = trio.current_time()
        await self.transport.listen(self.options.listen)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._catch_up)
            await nursery.start(self.transport.serve)
            self._restore_copies()
            nursery.start_soon(self._event_loop)
            nursery.start_soon(self._ticker)
            nursery.start_soon(self.saver.run)
            if self.trainer is not None:
                nursery.start_soon(self.rounds.keep_up, self.trainer)
                nursery.start_soon(self.rounds.mix_news, self.trainer)
                nursery.start_soon(self.trainer.run)
                nursery.start_soon(govern, self.pauses, self.trainer)
            if self.protocol.mute:
                nursery.start_soon(self.voice.ask_then_speak)
            task_status.started()
            await self._stop.wait()
            await self._end()
            nursery.cancel_scope.cancel()

    @property
    def events_waiting(self) -> int:
        """Foreign events that are not judged yet."""
        return self._events_in.statistics().current_buffer_used

    async def run_and_then(
        self,
        after: Callable[[], None],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """``run``, then call ``after``."""
        await self.run(task_status)
        after()

    def announced(self) -> list[Address]:
        """Where peers may reach us: the announced hosts with the ports we listen on."""
        found: list[Address] = []
        for bound in self.transport.addresses:
            if bound.host not in ("0.0.0.0", "::"):
                found.append(bound)
            found += [Address(a.kind, a.host, a.port or bound.port) for a in self.options.announce]
        return list(dict.fromkeys(found))[:8]

    def stop(self) -> None:
        """Begin to end: the trainer saves, the state is saved, connections are cut."""
        self._stop.set()

    async def roll_back(self, back: int) -> dict[str, int]:
        """Take up our own state of ``back`` rounds ago; see Rounds.roll_back.

        Done to its end even if whoever asked for it does not wait. A large model on a slow disk
        takes long: then only the round is told, and that it is under way.
        """
        assert self._nursery is not None
        done, told = trio.Event(), dict[str, int]()
        refused: list[TapestryError] = []

        async def work() -> None:
            try:
                told.update(await self.rounds.roll_back(back, self.trainer))
            except TapestryError as error:
                refused.append(error)
            done.set()

        self._nursery.start_soon(work)
        with trio.move_on_after(ANSWER_S):
            await done.wait()
        if refused:
            raise refused[0]
        return told or {"round": self.rounds.round, "under_way": 1}

    async def _end(self) -> None:
        with trio.move_on_after(STOP_S + 0.2):
            if self.trainer is not None:
                await self.trainer.stop()
                await self.trainer.stopped.wait()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + SAVE_S):
            async with self.rounds.speaking:
                await self.rounds.save()
            await self.saver.save()

    def _restore_copies(self) -> None:
        r = self._recovered
        if r.copy is not None:
            copy = PublicCopy.holding(r.copy, self.copies.space)
            self.copies.own = Followed(r.seq, copy, copy_root(copy))
        for followed in r.copies:
            copy = self.copies.copy(followed.vector)
            self.copies.followed[followed.author] = Followed(followed.seq, copy, copy_root(copy))
        for entry in r.entries[-self.manifest.streams.ring :]:
            chunks = split(entry.payload, self.manifest.limits.chunk_bytes_max)
            self.copies.chunks.put_own(entry.seq, dict(chunks), self.manifest.streams.ring)
        r.x, r.copy, r.copies = None, None, []  # theirs now

    # -- what the transport tells us

    async def connected(self, peer: bytes, address: str) -> None:
        """A connection is up."""
        log.info("connected to %s at %s", peer_id_of(peer), address)
        await self._events_in.send(ev.Connected(peer, trio.current_time(), address))

    async def disconnected(self, peer: bytes) -> None:
        """The connection is gone."""
        log.info("disconnected from %s", peer_id_of(peer))
        self._held.pop(peer, None)
        await self._events_in.send(ev.Disconnected(peer, trio.current_time()))

    def _admits(self, peer: bytes) -> bool:
        if peer in self.protocol.settings.blocked:
            return False
        return not self.protocol.is_barred(peer, trio.current_time() - self.awake.slept_s)

    def _vouches(self, peer: bytes) -> bool:
        return self.protocol.probation(peer) <= 0

    async def message(self, peer: bytes, channel: str, data: bytes) -> None:
        """A hello or sync frame; waits while we are behind, which slows the sender down."""
        batch = self.options.hold.get(peer_id_of(peer), 0) if self.options.hold else 0
        if batch > 1 and channel == "sync":
            held = self._held.setdefault(peer, [])
            held.append((channel, data))
            if len(held) < batch:
                return
            frames, self._held[peer] = held, []
        else:
            frames = [(channel, data)]
        for name, frame in frames:
            await self._events_in.send(ev.Message(peer, name, frame, trio.current_time()))

    async def serve(self, peer: bytes, request: bytes) -> tuple[bytes, bytes]:
        """Answer a fetch request."""
        return await self.answers.give(peer, request)

    # -- events and effects

    async def _event_loop(self) -> None:
        async for event in self._events_out:
            await self.act(event)
            if self.protocol.greeted():
                self.rounds.greeted.set()

    async def _ticker(self) -> None:
        while True:
            await trio.sleep(CALM_TICK_S if self.protocol.is_calm else TICK_S)
            await self.act(ev.Tick(trio.current_time()))

    async def act(self, event: ev.Event) -> None:
        """Let the protocol judge an event, and perform what it asks for, in order.

        SilencedError if it was to publish, and another life of ours has been shown meanwhile.
        """
        useful = isinstance(event, ev.Publish) and event.kind == DIFFERENCE
        async with self._effects:
            event = self._awake_at(event)
            if isinstance(event, ev.Publish) and self.voice.is_silent(event.kind):
                raise SilencedError
            for effect in self.protocol.step(event):
                await self._perform(effect)
                if useful and isinstance(effect, ef.Send):
                    self.transport.traffic.useful_sent += len(effect.data)

    def _awake_at(self, event: ev.Event) -> ev.Event:
        """The event at the time that the protocol lives by (awake.py)."""
        if self.awake.look(trio.current_time()):
            log.warning("slept, or was stopped: %.0f s in all", self.awake.slept_s)
        if self.awake.slept_s:
            return replace(event, at=self.awake.at(event.at))
        return event

    async def _perform(self, effect: ef.Effect) -> None:
        assert self._nursery is not None
        match effect:
            case ef.Send(peer, channel, data):
                connection = self.transport.connections.get(peer)
                shown = self._unstored and self._unstored in data
                if connection is not None and not shown:  # it will ask again
                    connection.send(channel, data)
            case ef.Persist():
                await self._persist(effect)
            case ef.Arrived(author, seq):
                if self.rounds.loom is not None:
                    self.rounds.loom.arrived(author, seq)
            case ef.Fetch() | ef.FetchKeyframe():
                self._nursery.start_soon(self._fetch, effect)
            case ef.Advanced(author, signed):
                followed = self.copies.followed.get(author)
                if followed is not None:
                    followed.seq = signed.header.seq
            case ef.Unfollow(author, reason):
                log.info("no longer following %s: %s", peer_id_of(author), reason)
                self._forget(author)
            case ef.Dial(peer, addresses):
                self._nursery.start_soon(self._dial, peer, addresses)
            case ef.Drop(peer, reason, fault):
                log.warning("dropping %s: %s", peer_id_of(peer), reason)
                connection = self.transport.connections.get(peer)
                if connection is not None:
                    connection.abort(reason, fault)
            case ef.OwnHead(signed):
                log.warning("a peer knows entry %d of ours, we do not", signed.header.seq)
                self._nursery.start_soon(self.voice.ask_then_speak)
            case ef.CloneSeen():
                raise TapestryError(
                    "another running daemon signs with this key: stop one of them, or give one a "
                    "key of its own (tapestry init in another TAPESTRY_HOME)",
                    REFUSED,
                )
            case ef.Forked(author):
                log.warning("%s signed two entries with one number: weight 0", peer_id_of(author))
            case ef.Left(author):
                log.info("%s said goodbye: no member until it speaks again", peer_id_of(author))
            case ef.ProfileDue():
                self._nursery.start_soon(self._publish_profile)

    async def _catch_up(self) -> None:
        """Note in the audit log what the store holds and a crash kept from it."""
        entries = [left_by(entry.signed, entry.payload) for entry in self._recovered.entries]
        async with self._auditing:
            await self.disk.write(functools.partial(self.audit.catch_up, entries, time.time()))
        self._recovered.entries = []  # views of the log as it was: it could never be given back

    async def _persist(self, effect: ef.Persist) -> None:
        assert self._nursery is not None
        if effect.record != "own":
            if not await self._keep_known() and not self._known_waits:
                self._known_waits = True
                self._nursery.start_soon(self.disk.insist, self._keep_known)
            return
        signed = decode_signed(effect.data)
        payload = self.rounds.payload if signed.header.kind == DIFFERENCE else effect.payload
        entry = LoggedEntry(effect.seq, effect.data, payload)
        async with self._letting_others_on(signed) as let_on:
            append = functools.partial(self.store.append_entry, entry)
            if not await self.disk.attempt(append):
                let_on()
                await self.disk.write(append)
            if self.tap is not None:
                self.tap.signed(effect.data)
            if self._auditing.locked():
                let_on()
            async with self._auditing:
                left = left_by(effect.data, payload)
                note = functools.partial(self.audit.append, left, time.time())
                if not await self.disk.attempt(note):
                    let_on()
                    await self.disk.write(note)
        self.entries_published += 1
        if signed.header.kind == DIFFERENCE:
            self.entry_bytes += len(effect.data) + len(payload)
            self.payload_bytes += len(payload)

    @contextlib.asynccontextmanager
    async def _letting_others_on(self, signed: SignedHeader) -> AsyncIterator[Callable[[], None]]:
        """Once what it yields is called, other events are handled until the block ends.

        None of them shows ``signed``, which is not stored yet: its signature is in no message. If
        the block is cancelled it stays so, to the end of this process.
        """

        def let_on() -> None:
            if not self._unstored:
                self._unstored = signed.signature
                self._effects.release()

        try:
            yield let_on
        finally:
            if self._unstored:
                with trio.CancelScope(shield=True):
                    await self._effects.acquire()
        self._unstored = b""

    async def _keep_known(self) -> bool:
        """Save what the protocol knows; whether the disk took it."""
        async with self._keeping_known:
            job = functools.partial(self.store.save_known, self.protocol.snapshot().encode())
            kept = await self.disk.attempt(job)
            self._known_waits = self._known_waits and not kept
            return kept

    async def _dial(self, peer: bytes, addresses: tuple[str, ...]) -> None:
        parsed = []
        for text in addresses:
            try:
                parsed.append(parse_address(text))
            except ValueError:
                log.debug("%s names an address we cannot dial", peer_id_of(peer))
        if not await self.transport.dial(peer, parsed):
            await self._events_in.send(ev.DialFailed(peer, trio.current_time()))

    async def _fetch(self, effect: ef.Fetch | ef.FetchKeyframe) -> None:
        """Fetch what was ordered, and tell the protocol what came of it.

        An order that comes again while the same source still answers waits for that answer, else a
        slow source would be asked ever more; an order for another entry ends those before it.
        """
        header = effect.signed_header.header
        order = (type(effect), header.hash, effect.sources[:1])
        running = self._fetching.setdefault(effect.author, {})
        if order in running:
            return
        for (_, entry, _), scope in running.items():
            if entry != header.hash:
                scope.cancel()
        event: ev.Event | None = None
        with trio.CancelScope() as running[order]:
            event = await self._fetched(effect)
        del running[order]
        if not running and self._fetching.get(effect.author) is running:
            del self._fetching[effect.author]
        if event is not None:
            await self.act(event)

    async def _fetched(self, effect: ef.Fetch | ef.FetchKeyframe) -> ev.Event:
        author, header = effect.author, effect.signed_header.header
        held = self.copies.followed.get(author)
        try:
            if held is not None and held.seq == header.seq and isinstance(effect, ef.Fetch):
                root = held.root
            elif isinstance(effect, ef.Fetch):
                root = await self.fetcher.entry(author, header, effect.sources)
            else:
                root = await self.fetcher.whole(author, header, effect.sources)
        except FetchError as error:
            log.debug("entry %d of %s: %s", header.seq, author.hex()[:8], error.reason)
            return ev.ApplyFailed(author, header.seq, error.reason, trio.current_time())
        if self.rounds.loom is not None:
            self.rounds.loom.decoded(author, header.seq)
        self.rounds.moved.set()
        return ev.Applied(author, header.seq, root, trio.current_time())

    def _forget(self, author: bytes) -> None:
        self.copies.followed.pop(author, None)
        self.copies.chunks.forget(author)
        self.fetcher.partials.forget(author)
        if self.rounds.loom is not None:
            self.rounds.loom.forget(author)
        with contextlib.suppress(OSError):  # a refusing disk keeps it, and the next start drops it
            self.store.drop_copy(author)

    # -- our own stream

    async def _publish_profile(self) -> None:
        if self.voice.is_silent() or self.copies.own is None:
            return
        addresses = tuple(map(str, self.announced()))
        results = self.trainer.results if self.trainer and self.options.tell_results else None
        profile = Profile(self.options.name, self.options.languages, addresses, results)
        async with self.rounds.speaking:
            root, now = self.copies.own.root, trio.current_time()
            with contextlib.suppress(SilencedError):
                told = encode_profile(profile)
                await self.voice.publish(
                    ev.Publish(PROFILE, now, root=root, round=self.rounds.round, payload=told)
                )

    @property
    def settled(self) -> bool:
        """Whether all news of neighbours are mixed and added."""
        return self.rounds.settled and not (self.trainer and self.trainer.adding)
