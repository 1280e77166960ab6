"""Three members under loss, doubling, reordering, cuts, crashes and lost disks must then agree.

The shell here is the smallest honest one: it fetches only what a source truly stands at, keeps on
disk what it persisted, asks before it speaks, and resumes when its disk went back in time.
"""

from dataclasses import dataclass, field
from hashlib import sha256
from random import Random

from gossip_kit import GENESIS_ROOT, PAYLOAD, key, make_settings
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tapestry_p2p.gossip import effects as ef
from tapestry_p2p.gossip import events as ev
from tapestry_p2p.gossip.header import SignedHeader, decode_signed
from tapestry_p2p.gossip.known import Known, decode_known
from tapestry_p2p.gossip.profile import Profile, encode_profile
from tapestry_p2p.gossip.protocol import Protocol

COUNT, RING = 3, 4
ADDRESS = ("/ip4/127.0.0.1/tcp/1",)
SETTINGS = make_settings(
    ring=RING, bootstrap=tuple((key(n).public_key, ADDRESS) for n in range(1, COUNT + 1)),
    retry_max_s=4.0, dial_retry_max_s=4.0, fetch_timeout_s=10.0,
)  # fmt: skip


@dataclass
class Node:
    """One member: its process (a Protocol, jobs) and its disk (everything else)."""

    n: int
    protocol: Protocol | None = None
    jobs: dict[bytes, ef.Fetch | ef.FetchKeyframe] = field(default_factory=dict)
    own: list[SignedHeader] = field(default_factory=list)
    root: bytes = GENESIS_ROOT
    copies: dict[bytes, SignedHeader] = field(default_factory=dict)
    known: bytes = b""
    rolled_back: bool = False
    starts: int = 0

    @property
    def key(self) -> bytes:
        return key(self.n).public_key

    @property
    def head_seq(self) -> int:
        return self.own[-1].header.seq if self.own else -1


class Members(RuleBasedStateMachine):
    """See the module's docstring."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.nodes = {key(n).public_key: Node(n) for n in range(1, COUNT + 1)}
        self.links: set[frozenset[bytes]] = set()
        self.flying: list[tuple[bytes, bytes, str, bytes]] = []
        self.signed: dict[bytes, set[bytes]] = {k: set() for k in self.nodes}
        self.forks = 0
        for node in self.nodes.values():
            self._start(node)

    # -- the shell

    def _start(self, node: Node) -> None:
        stored = decode_known(node.known) if node.known else Known()
        known = Known(
            own=tuple(node.own), seen=stored.seen, copies=tuple(node.copies.values()),
            profiles=stored.profiles, proofs=stored.proofs, retired=stored.retired,
        )  # fmt: skip
        identity = key(node.n)
        node.starts += 1
        node.protocol = Protocol(
            SETTINGS, node.key, identity.sign, Random(100 * node.n + node.starts), known,
            at=self.now, mute=bool(node.own) or node.rolled_back,
        )  # fmt: skip
        if not node.own and not node.rolled_back:
            self._publish(node, "genesis")
            self._publish(node, "profile")

    def _step(self, node: Node, event: ev.Event) -> None:
        assert node.protocol is not None
        for effect in node.protocol.step(event):
            self._perform(node, effect)

    def _perform(self, node: Node, effect: ef.Effect) -> None:
        match effect:
            case ef.Send(peer, channel, data):
                if frozenset((node.key, peer)) in self.links:
                    self.flying.append((node.key, peer, channel, data))
            case ef.Persist(record="own", data=data):
                signed = decode_signed(data)
                assert signed.header.hash not in self.signed[node.key]
                node.own.append(signed)
                self.signed[node.key].add(signed.header.hash)
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
                assert reason == "no_hello", f"an honest peer was dropped: {reason}"
                self._cut(node.key, peer)
            case ef.Forked():
                self.forks += 1
            case ef.CloneSeen():
                raise AssertionError("there is no clone")

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
        for a, b in ((one, other), (other, one)):
            if self.nodes[a].protocol is not None:
                self._step(self.nodes[a], ev.Disconnected(b, self.now))

    def _publish(self, node: Node, kind: str) -> None:
        protocol = node.protocol
        if protocol is None or protocol.mute or (protocol.must_resume and kind != "resume"):
            return
        if kind == "difference":
            node.root = sha256(node.root + bytes([len(node.own) % 256])).digest()
            event = ev.Publish(
                kind, self.now, codec="2bit", chunks=(node.root,), payload_bytes=PAYLOAD,
                root=node.root,
            )  # fmt: skip
        elif kind == "profile":
            payload = encode_profile(Profile(f"{node.n}", (), ADDRESS))
            event = ev.Publish(kind, self.now, payload=payload, root=node.root)
        else:
            event = ev.Publish(kind, self.now, root=node.root)
        self._step(node, event)

    def _speak(self, node: Node) -> None:
        """Ask before speaking; resume if others know more, or if the disk went back in time."""
        protocol = node.protocol
        if protocol is None or not protocol.greeted():
            return
        if protocol.mute and not protocol.stopped:
            self._step(node, ev.Unmute(self.now))
        if protocol.must_resume or (node.rolled_back and protocol.own_highest):
            self._publish(node, "resume")
        if protocol.own_highest is None:
            self._publish(node, "genesis")
        node.rolled_back = False

    def _serves(self, source: bytes, job: ef.Fetch | ef.FetchKeyframe) -> bool:
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

    # -- what may happen

    @rule(data=st.data())
    def publish(self, data: st.DataObject) -> None:
        node = data.draw(st.sampled_from(list(self.nodes.values())))
        kind = data.draw(st.sampled_from(["difference"] * 9 + ["profile"]))
        for _ in range(data.draw(st.sampled_from([1, 1, 1, 2, RING + 2]))):
            self._publish(node, kind)

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), fate=st.sampled_from(["arrive"] * 8 + ["vanish", "double"]))
    def frame(self, data: st.DataObject, fate: str) -> None:
        index = data.draw(st.integers(0, min(6, len(self.flying) - 1)))
        for _ in range(data.draw(st.integers(1, 12))):
            if not self.flying:
                return
            frame = self.flying[min(index, len(self.flying) - 1)]
            if fate != "double":
                self.flying.remove(frame)
            if fate != "vanish":
                self._deliver(frame)

    def _deliver(self, frame: tuple[bytes, bytes, str, bytes]) -> None:
        source, target, channel, payload = frame
        if self.nodes[target].protocol is not None:
            self._step(self.nodes[target], ev.Message(source, channel, payload, self.now))

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

    @rule(data=st.data(), loss=st.sampled_from(["nothing"] * 3 + ["entries", "copies", "known"]))
    def crash(self, data: st.DataObject, loss: str) -> None:
        node = data.draw(st.sampled_from(list(self.nodes.values())))
        if node.protocol is None:
            return
        node.protocol, node.jobs = None, {}
        for link in list(self.links):
            if node.key in link:
                self._cut(*link)
        if loss == "entries" and node.own:
            del node.own[-data.draw(st.integers(1, len(node.own))) :]
            node.root = node.own[-1].header.root or node.root if node.own else GENESIS_ROOT
            node.rolled_back = True
        elif loss == "copies":
            node.copies = {}
        elif loss == "known":
            node.known = b""

    @rule()
    def restart(self) -> None:
        for node in self.nodes.values():
            if node.protocol is None:
                self._start(node)

    # -- what must hold

    @invariant()
    def copies_are_what_their_authors_signed(self) -> None:
        for node in self.nodes.values():
            for author, signed in node.copies.items():
                assert signed.header.hash in self.signed[author]

    @invariant()
    def nobody_honest_forks_or_is_blamed(self) -> None:
        assert self.forks == 0
        for node in self.nodes.values():
            if node.protocol is not None:
                statistics = node.protocol.statistics()
                assert not statistics["reject"]
                assert statistics["tables"]["headers"] <= (COUNT - 1) * (RING + 40)

    def teardown(self) -> None:
        """Heal: everything arrives, jobs finish; within two minutes all copies are equal.

        Each member publishes once more meanwhile: an author whose disk was lost may stand at the
        very seq of its old life, which only its next entry can tell apart.
        """
        self.restart()
        for count in range(240):
            if count == 40:
                for node in self.nodes.values():
                    self._publish(node, "difference")
            if count > 40 and self._agree():
                return
            while self.flying:
                self._deliver(self.flying.pop(0))
            for node in self.nodes.values():
                for author in list(node.jobs):
                    self._finish(node, author)
            self.tick(0.5)
        raise AssertionError(f"no agreement: {self._shown()}")

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
            (n.n, n.head_seq, n.protocol and n.protocol.mute,
             {self.nodes[a].n: s.header.seq for a, s in n.copies.items()}, list(n.jobs))
            for n in self.nodes.values()
        ]  # fmt: skip


TestMembers = Members.TestCase
TestMembers.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
