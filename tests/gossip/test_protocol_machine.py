"""Members under loss, replays, corruption, crashes and a forker; then they must agree.

Rule: no honest author is ever accused or contradicts itself, and a forger's bytes change nothing.
Three honest members join, leave, publish, lose disks; frames come late, twice or never. A fourth
key forks its stream and resumes, replays, and sends what is not signed. The shell is the smallest
honest one: it fetches only what a source truly stands at, keeps what it persisted, and asks before
it speaks.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from hashlib import sha256
from random import Random

from gossip_kit import GENESIS_ROOT, PAYLOAD, Author, key, make_settings
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tapestry_p2p.gossip import effects as ef
from tapestry_p2p.gossip import events as ev
from tapestry_p2p.gossip.fork import ForkProof
from tapestry_p2p.gossip.header import SignedHeader, decode_signed
from tapestry_p2p.gossip.known import Known, decode_known
from tapestry_p2p.gossip.messages import (
    HELLO,
    SYNC,
    Heads,
    Hello,
    Members,
    decode_hello,
    decode_sync,
    encode_hello,
    encode_sync,
)
from tapestry_p2p.gossip.profile import Profile, encode_profile
from tapestry_p2p.gossip.protocol import Protocol

COUNT, RING = 3, 4
FORKER = 9
ADDRESS = ("/ip4/127.0.0.1/tcp/1",)
SETTINGS = make_settings(
    ring=RING, bootstrap=tuple((key(n).public_key, ADDRESS) for n in range(1, COUNT + 1)),
    retry_max_s=4.0, dial_retry_max_s=4.0, fetch_timeout_s=10.0,
)  # fmt: skip
KEYS = st.integers(1, COUNT).map(lambda n: key(n).public_key)
LOSSES = ("nothing", "nothing", "entries", "entries", "copies", "known")
HISTORY = 60  # frames of the past that may be said again
TALK = frozenset({"hello", "digest", "want", "link"})  # accepted, and no entry of anybody

Frame = tuple[bytes, bytes, str, bytes]  # from, to, channel, bytes


@dataclass
class Node:
    """One member: its process (a Protocol, jobs) and its disk (everything else)."""

    n: int
    joined: bool = False
    protocol: Protocol | None = None
    jobs: dict[bytes, ef.Fetch | ef.FetchKeyframe] = field(default_factory=dict)
    own: list[SignedHeader] = field(default_factory=list)
    root: bytes = GENESIS_ROOT
    copies: dict[bytes, SignedHeader] = field(default_factory=dict)
    known: bytes = b""
    rolled_back: bool = False
    lost_entries: bool = False  # ever: only then, or in doubt, may it have to resume
    in_doubt: bool = False  # not everybody answered before it spoke, or somebody knew it not
    named: set[bytes] = field(default_factory=set)  # whose first hello named it, in this life
    met: set[bytes] = field(default_factory=set)  # whose hello came at all, in this life

    def greeted(self) -> tuple[bytes, ...]:
        return self.protocol.greeted() if self.protocol is not None else ()

    next_entry: bytes = b""  # what the process that died was about to publish
    starts: int = 0

    @property
    def key(self) -> bytes:
        return key(self.n).public_key

    @property
    def head_seq(self) -> int:
        return self.own[-1].header.seq if self.own else -1

    def may_publish(self, kind: str) -> bool:
        protocol = self.protocol
        if protocol is None or protocol.mute or (protocol.must_resume and kind != "resume"):
            return False
        return bool(self.own) or kind in ("genesis", "resume", "profile")

    def event(self, kind: str, at: float) -> ev.Publish:
        """The next entry of that kind; a difference always leads to the same root from here."""
        if kind == "difference":
            root = sha256(self.root + bytes([len(self.own) % 256])).digest()
            return ev.Publish(
                kind, at, codec="2bit", chunks=(root,), payload_bytes=PAYLOAD, root=root
            )
        payload = encode_profile(Profile(f"{self.n}", (), ADDRESS)) if kind == "profile" else b""
        return ev.Publish(kind, at, payload=payload, root=self.root)


class Machine(RuleBasedStateMachine):
    """See the module's docstring."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.nodes = {key(n).public_key: Node(n) for n in range(1, COUNT + 1)}
        self.links: set[frozenset[bytes]] = set()
        self.flying: list[Frame] = []
        self.late: list[Frame] = []
        self.said: list[Frame] = []
        self.signed: dict[bytes, set[bytes]] = {k: set() for k in self.nodes}
        self.rejected: Counter[bytes] = Counter()  # by node, of frames that the forger corrupted
        self.forker = Author(FORKER, SETTINGS.network)
        self.forker.genesis()
        self.twins: tuple[SignedHeader, ...] = ()  # a fork that no resume has cited
        self.accused: set[bytes] = set()  # nodes that found the fork in this life
        self.signed[self.forker.key] = {self.forker.last.header.hash}
        for node in list(self.nodes.values())[:2]:
            node.joined = True
            self._start(node)

    # -- the shell

    def _start(self, node: Node) -> None:
        stored = decode_known(node.known) if node.known else Known()
        known = replace(stored, own=tuple(node.own), copies=tuple(node.copies.values()))
        identity = key(node.n)
        node.starts += 1
        node.protocol = Protocol(
            SETTINGS, node.key, identity.sign, Random(100 * node.n + node.starts), known,
            at=self.now, mute=bool(node.own) or node.rolled_back,
        )  # fmt: skip
        if not node.own and not node.rolled_back:
            self._publish(node, "genesis")
            self._publish(node, "profile")

    def _step(self, node: Node, event: ev.Event) -> list[ef.Effect]:
        assert node.protocol is not None
        effects = node.protocol.step(event)
        for effect in effects:
            self._perform(node, effect)
        return effects

    def _perform(self, node: Node, effect: ef.Effect) -> None:
        match effect:
            case ef.Send(peer, channel, data):
                if peer in self.nodes and frozenset((node.key, peer)) in self.links:
                    self.flying.append((node.key, peer, channel, data))
            case ef.Persist(record="own", data=data):
                self._persist_own(node, data)
            case ef.Persist():
                assert node.protocol is not None
                node.known = node.protocol.snapshot().encode()
            case ef.Fetch(author) | ef.FetchKeyframe(author):
                node.jobs[author] = effect
            case ef.Advanced(author, signed):
                node.copies[author] = signed
            case ef.Unfollow(author):
                node.copies.pop(author, None)
            case ef.Dial(peer):
                self._dial(node, peer)
            case ef.Drop(peer, reason):
                assert peer == self.forker.key or reason == "no_hello", f"dropped: {reason}"
                self._cut(node.key, peer)
            case ef.Forked(author, proof):
                assert author == self.forker.key, "an honest author is accused"
                assert {proof.first, proof.second} == set(self.twins), "a false proof"
                self.accused.add(node.key)
            case ef.CloneSeen():
                raise AssertionError("there is no clone")

    def _persist_own(self, node: Node, data: bytes) -> None:
        """An own entry: it continues the log, or resumes, which only a lost disk may need."""
        signed = decode_signed(data)
        header = signed.header
        assert header.hash not in self.signed[node.key]
        back = bool(node.own) and node.own[-1].header.kind == "leave"
        if header.kind == "resume":
            needed = node.lost_entries or node.in_doubt or back
            assert needed, "a plain crash needs no resume"
            node.next_entry, node.in_doubt = b"", False
        elif node.own:
            assert not back, "who left comes back by a resume"
            last = node.own[-1].header
            assert (header.seq, header.prev) == (last.seq + 1, last.hash)
            assert header.incarnation == last.incarnation
        if node.next_entry and header.kind == "difference":
            assert data == node.next_entry, "the crash changed the entry"
        node.next_entry = b""
        node.own.append(signed)
        self.signed[node.key].add(header.hash)

    def _dial(self, node: Node, peer: bytes) -> None:
        if self.nodes[peer].protocol is None:
            self._step(node, ev.DialFailed(peer, self.now))
        else:
            self._connect(node, self.nodes[peer])

    def _connect(self, one: Node, other: Node) -> None:
        self.links.add(frozenset((one.key, other.key)))
        self._step(one, ev.Connected(other.key, self.now))
        self._step(other, ev.Connected(one.key, self.now))

    def _cut(self, one: bytes, other: bytes) -> None:
        self.links.discard(frozenset((one, other)))
        self.flying = [f for f in self.flying if {f[0], f[1]} != {one, other}]
        self.late = [f for f in self.late if {f[0], f[1]} != {one, other}]
        for a, b in ((one, other), (other, one)):
            node = self.nodes.get(a)
            if node is not None and node.protocol is not None:
                self._step(node, ev.Disconnected(b, self.now))

    def _die(self, node: Node) -> None:
        node.protocol, node.jobs, node.named, node.met = None, {}, set(), set()
        self.accused.discard(node.key)
        self.rejected[node.key] = 0
        for link in list(self.links):
            if node.key in link:
                self._cut(*link)

    def _publish(self, node: Node, kind: str) -> None:
        if node.may_publish(kind):
            event = node.event(kind, self.now)
            if kind == "difference":
                node.root = event.root
            self._step(node, event)

    def _speak(self, node: Node) -> None:
        """Ask before speaking; resume if others know more, or if the disk went back in time."""
        protocol = node.protocol
        if protocol is None or not protocol.greeted():
            return
        if protocol.mute and not protocol.stopped:
            asked = set(protocol.followed()) or self.nodes.keys() - {node.key}
            node.in_doubt = not asked <= set(protocol.greeted()) & node.named
            self._step(node, ev.Unmute(self.now))
        if protocol.must_resume or (node.rolled_back and protocol.own_highest):
            self._publish(node, "resume")
        if protocol.own_highest is None:
            self._publish(node, "genesis")
        node.rolled_back = False

    def _serves(self, source: bytes, job: ef.Fetch | ef.FetchKeyframe) -> bool:
        if source == self.forker.key:
            return True
        node, header = self.nodes[source], job.signed_header.header
        if node.protocol is None:
            return False
        if source == header.author:
            held = {entry.header.hash for entry in node.own[-RING:]}
            stands = bool(node.own) and node.own[-1].header.root == header.root
        else:
            copy = node.copies.get(header.author)
            held = {copy.header.hash} if copy else set()
            stands = copy is not None and copy.header.root == header.root
        return stands if isinstance(job, ef.FetchKeyframe) else header.hash in held

    def _finish(self, node: Node, author: bytes) -> None:
        job = node.jobs.pop(author, None)
        if job is None or node.protocol is None:
            return
        signed = job.signed_header
        seq, whole = signed.header.seq, isinstance(job, ef.FetchKeyframe)
        copy = node.copies.get(author)
        free = signed.header.kind == "genesis"
        if copy is not None and copy.header.hash == signed.header.hash:
            self._step(node, ev.Applied(author, seq, signed.header.root, self.now))
        elif not whole and not free and (copy is None or copy.header.hash != signed.header.prev):
            self._step(node, ev.ApplyFailed(author, seq, "root", self.now))
        elif free or any(
            frozenset((node.key, s)) in self.links and self._serves(s, job) for s in job.sources
        ):
            node.copies[author] = signed
            self._step(node, ev.Applied(author, seq, signed.header.root, self.now))
        else:
            self._step(node, ev.ApplyFailed(author, seq, "missing", self.now))

    # -- what may happen to honest members

    @rule()
    def join(self) -> None:
        for node in self.nodes.values():
            if not node.joined:
                node.joined = True
                self._start(node)
                return

    @rule(data=st.data())
    def publish(self, data: st.DataObject) -> None:
        node = self.nodes[data.draw(KEYS)]
        kind = data.draw(st.sampled_from(["difference"] * 9 + ["profile"]))
        for _ in range(data.draw(st.sampled_from([1, 1, 1, 2, RING + 2]))):
            self._publish(node, kind)

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), fate=st.sampled_from(["arrive"] * 8 + ["vanish", "double", "late"]))
    def frame(self, data: st.DataObject, fate: str) -> None:
        index = data.draw(st.integers(0, min(6, len(self.flying) - 1)))
        for _ in range(data.draw(st.integers(1, 12))):
            if not self.flying:
                return
            frame = self.flying[min(index, len(self.flying) - 1)]
            if fate != "double":
                self.flying.remove(frame)
            if fate == "late":
                self.late.append(frame)
            elif fate != "vanish":
                self._deliver(frame)

    @precondition(lambda self: self.late)
    @rule()
    def late_frames(self) -> None:
        """What was held back comes all at once, the last first."""
        while self.late:
            self._deliver(self.late.pop())

    def _note_named(self, source: bytes, target: bytes, channel: str, payload: bytes) -> None:
        """Whether a peer's first hello names the target's stream: it knew it before."""
        node, rows = self.nodes[target], decode_hello(payload, len(payload)).rows
        if source not in node.met and any(row.author == target and row.head for row in rows):
            node.named.add(source)
        node.met.add(source)

    def _deliver(self, frame: Frame) -> list[ef.Effect]:
        source, target, channel, payload = frame
        if self.nodes[target].protocol is None:
            return []
        if channel == SYNC:
            self.said = [*self.said, frame][-HISTORY:]
        elif source not in self.nodes[target].greeted():
            self._note_named(*frame)
        return self._step(self.nodes[target], ev.Message(source, channel, payload, self.now))

    @rule(seconds=st.sampled_from([0.1, 0.5, 0.5, 2.0, 11.0]))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        for node in self.nodes.values():
            if node.protocol is not None:
                self._step(node, ev.Tick(self.now))
                self._speak(node)

    @rule(data=st.data(), loses=st.booleans())
    def finish_jobs(self, data: st.DataObject, loses: bool) -> None:
        for node in self.nodes.values():
            for author in list(node.jobs):
                if loses and data.draw(st.booleans()):
                    del node.jobs[author]  # a shell that never answers
                else:
                    self._finish(node, author)

    @precondition(lambda self: self.links)
    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        pair = data.draw(st.sampled_from(sorted(tuple(sorted(link)) for link in self.links)))
        self._cut(pair[0], pair[1])

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """Say goodbye; it comes back with the next restart."""
        node = self.nodes[data.draw(KEYS)]
        if node.may_publish("leave") and node.own:
            self._publish(node, "leave")
            for frame in [f for f in self.flying if f[0] == node.key]:
                self.flying.remove(frame)
                self._deliver(frame)
            self._die(node)

    @rule(data=st.data(), loss=st.sampled_from(LOSSES))
    def crash(self, data: st.DataObject, loss: str) -> None:
        node = self.nodes[data.draw(KEYS)]
        if node.protocol is None:
            return
        if loss == "nothing" and node.own and node.may_publish("difference"):
            self._crash_before_persist(node)
        self._die(node)
        if loss == "entries" and node.own:
            del node.own[-data.draw(st.integers(1, len(node.own))) :]
            node.root = node.own[-1].header.root or node.root if node.own else GENESIS_ROOT
            node.rolled_back = node.lost_entries = True
        elif loss == "copies":
            node.copies = {}
        elif loss == "known":
            node.known = b""

    def _crash_before_persist(self, node: Node) -> None:
        """It signed an entry and died before the first effect: the next life signs the same."""
        assert node.protocol is not None
        first = node.protocol.step(node.event("difference", self.now))[0]
        assert isinstance(first, ef.Persist)
        node.next_entry = first.data

    @rule()
    def restart(self) -> None:
        for node in self.nodes.values():
            if node.protocol is None and node.joined:
                self._start(node)

    # -- what the fourth key does

    def _reach(self, node: Node) -> bool:
        """Have the forker connected to a node and greeted, unless the node bars it."""
        if node.protocol is None:
            return False
        if self.forker.key not in node.protocol.greeted():
            self.links.add(frozenset((node.key, self.forker.key)))
            self._step(node, ev.Connected(self.forker.key, self.now))
            hello = encode_hello(Hello(SETTINGS.network, 1, (), (), False))
            self._step(node, ev.Message(self.forker.key, HELLO, hello, self.now))
        return self.forker.key in node.protocol.greeted()

    def _show(self, node: Node, signed: SignedHeader) -> None:
        """The forker shows an entry of its own; who holds its twin must find the fork."""
        if not self._reach(node):
            return
        assert node.protocol is not None
        held = node.protocol.head(self.forker.key)
        self._say(node, encode_sync(Heads((signed,))))
        if held in self.twins and signed in self.twins and held != signed:
            assert node.protocol.weight_zero(self.forker.key), "a fork was seen and not proved"
            assert node.key in self.accused

    def _say(self, node: Node, data: bytes) -> list[ef.Effect]:
        return self._step(node, ev.Message(self.forker.key, SYNC, data, self.now))

    @rule(data=st.data(), forks=st.booleans())
    def forker_publishes(self, data: st.DataObject, forks: bool) -> None:
        """The next entry, or two with one seq, and each node is shown one or both of them."""
        entries: tuple[SignedHeader, ...]
        if forks and not self.twins:
            twin = self.forker.fork().difference(salt=7)
            self.twins = (self.forker.difference(), twin)
            entries = self.twins
        else:
            entries = (self.forker.difference(),)
        self.signed[self.forker.key].update(entry.header.hash for entry in entries)
        for node in self.nodes.values():
            for place in data.draw(st.permutations(range(len(entries)))):
                if data.draw(st.booleans()):
                    self._show(node, entries[place])

    @precondition(lambda self: self.twins)
    @rule()
    def forker_confronts(self) -> None:
        """Show everybody both faces, if nothing newer was published."""
        if self.forker.last in self.twins:
            for node in self.nodes.values():
                for twin in self.twins:
                    self._show(node, twin)

    @precondition(lambda self: self.accused)
    @rule()
    def forker_resumes(self) -> None:
        one, other = sorted(self.twins, key=lambda signed: signed.header.hash)
        proof = ForkProof(one, other)
        self.signed[self.forker.key].add(self.forker.resume(cites=proof.id).header.hash)
        self.twins, accusers = (), list(self.accused)
        self.accused = set()
        for node in map(self.nodes.__getitem__, accusers):
            if self._reach(node):
                self._say(node, encode_sync(Heads((self.forker.last,))))
                assert node.protocol is not None
                assert not node.protocol.weight_zero(self.forker.key), "resumed, and still out"

    @precondition(lambda self: self.said)
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        """An old frame comes again, through the forker: if its entries are known, in vain."""
        _, target, _, payload = self.said[data.draw(st.integers(0, len(self.said) - 1))]
        node = self.nodes[target]
        if not self._reach(node):
            return
        assert node.protocol is not None
        spent = self._is_spent(node.protocol, payload)
        before = self._state(node)
        effects = self._say(node, payload)
        if spent:
            assert self._state(node) == before, "a replay changed something"
            assert not effects, "a replay led to something"

    def _is_spent(self, protocol: Protocol, payload: bytes) -> bool:
        """Whether the copies stand at these entries or beyond them, in the same life."""
        message = decode_sync(payload, SETTINGS.message_bytes_max)
        if not isinstance(message, Heads):
            return False
        headers = [signed.header for signed in message.heads]
        heads = [protocol.head(header.author) for header in headers]
        return all(
            head is not None
            and header.incarnation == head.header.incarnation
            and header.seq <= protocol.position(header.author)
            for header, head in zip(headers, heads, strict=True)
        )

    @rule(data=st.data())
    def corrupt(self, data: st.DataObject) -> None:
        """A frame of signed bytes, new or known to its target, with one bit or its tail wrong."""
        node = self.nodes[data.draw(KEYS)]
        logs = [*(other.own for other in self.nodes.values()), self.forker.log]
        entries = [log[-1] for log in logs if log]
        signed = entries[data.draw(st.integers(0, len(entries) - 1))]
        message = Members(((signed, b"payload"),)) if data.draw(st.booleans()) else Heads((signed,))
        frame = bytearray(encode_sync(message))
        place = data.draw(st.integers(0, 8 * len(frame) - 1))
        if data.draw(st.booleans()):
            frame[place // 8] ^= 1 << place % 8
        else:
            del frame[place // 8 :]
        if not self._reach(node):
            return
        before, rejects = self._state(node), self._rejects(node)
        self._say(node, bytes(frame))
        found = self._rejects(node) - rejects
        assert found <= 1, "one wrong entry is one fault, of the peer that sent it"
        self.rejected[node.key] += found
        assert self._state(node) == before, "corrupt bytes changed something"

    def _rejects(self, node: Node) -> int:
        assert node.protocol is not None
        return sum(node.protocol.statistics()["reject"].values())

    def _state(self, node: Node) -> object:
        """All that a node knows, and how many entries it accepted."""
        protocol = node.protocol
        assert protocol is not None
        accepts = protocol.statistics()["accept"]
        stands = [
            (author, protocol.head(author), protocol.position(author), protocol.weight_zero(author))
            for author in protocol.followed()
        ]
        taken = sum(count for reason, count in accepts.items() if reason not in TALK)
        return protocol.snapshot(), stands, protocol.mute, protocol.must_resume, taken

    # -- what must hold

    @invariant()
    def copies_are_what_their_authors_signed(self) -> None:
        for node in self.nodes.values():
            for author, signed in node.copies.items():
                assert signed.header.hash in self.signed[author]

    @invariant()
    def no_honest_member_is_blamed(self) -> None:
        for node in self.nodes.values():
            if node.protocol is not None:
                assert self._rejects(node) == self.rejected[node.key]
                tables = node.protocol.statistics()["tables"]
                assert tables["headers"] <= COUNT * (RING + 40)

    @invariant()
    def no_honest_member_is_accused_or_barred(self) -> None:
        """By anybody, itself included: the fourth key is the only one that ever forks."""
        for node in self.nodes.values():
            if node.protocol is None:
                continue
            proofs = node.protocol.snapshot().proofs
            assert {proof.author for proof in proofs} <= {self.forker.key}
            assert not any(node.protocol.is_barred(peer, self.now) for peer in self.nodes)

    @invariant()
    def who_found_the_fork_gives_the_forker_no_weight(self) -> None:
        for name in self.accused:
            protocol = self.nodes[name].protocol
            assert protocol is not None
            assert protocol.weight_zero(self.forker.key)

    def teardown(self) -> None:
        """Heal: everything arrives, jobs finish; within two minutes all copies are equal.

        Every link is made anew, and each member publishes once more meanwhile: an author whose disk
        was lost may stand at the very seq of its old life, which only its next entry can tell
        apart. Whoever knows of the forker at all knows of its fork, if anybody does.
        """
        for node in self.nodes.values():
            node.joined = True
        self.restart()
        for link in list(self.links):
            self._cut(*link)
        for count in range(240):
            if count == 40:
                for node in self.nodes.values():
                    self._publish(node, "difference")
            if count > 40 and self._agree() and self._agree_on_the_fork():
                return
            while self.flying:
                self._deliver(self.flying.pop(0))
            for node in self.nodes.values():
                for author in list(node.jobs):
                    self._finish(node, author)
            self.tick(0.5)
        raise AssertionError(f"no agreement: {self._shown()}")

    def _agree_on_the_fork(self) -> bool:
        protocols = [node.protocol for node in self.nodes.values() if node.protocol]
        return not self.accused or all(p.weight_zero(self.forker.key) for p in protocols)

    def _agree(self) -> bool:
        return all(
            node.own
            and node.protocol is not None
            and not node.protocol.mute
            and not node.protocol.must_resume
            and all(
                other.copies.get(node.key) is not None
                and other.copies[node.key].header.hash == node.own[-1].header.hash
                and other.protocol is not None
                and other.protocol.position(node.key) == node.head_seq
                for other in self.nodes.values()
                if other is not node
            )
            for node in self.nodes.values()
        )

    def _shown(self) -> list[object]:
        return [
            (n.n, n.head_seq, n.protocol and n.protocol.mute, n.key in self.accused,
             {a[:2].hex(): s.header.seq for a, s in n.copies.items()}, list(n.jobs))
            for n in self.nodes.values()
        ]  # fmt: skip


TestMembers = Machine.TestCase
TestMembers.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
