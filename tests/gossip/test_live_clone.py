"""Two live processes with one key, behind different peers: one of them must notice and stop."""

from collections import deque

from gossip_kit import GENESIS_ROOT, PAYLOAD, Bench, root_of

from tapestry_p2p.gossip import effects as ef
from tapestry_p2p.gossip.events import Applied, Connected, Message, Publish, Tick, Unmute
from tapestry_p2p.gossip.known import Known


class Wires:
    """Benches joined in a row, so that two may have the same key: clone - peer - peer - clone."""

    def __init__(self, *benches: Bench) -> None:
        self.row = benches
        self.flying: deque[tuple[int, int, ef.Send]] = deque()
        self.clones_seen: list[int] = []
        self.forks = 0
        for left in range(len(benches) - 1):
            for here, there in ((left, left + 1), (left + 1, left)):
                self.step(here, Connected(benches[there].key, benches[here].now))
        self.settle()

    def step(self, here: int, event: object) -> None:
        todo = deque([event])
        while todo:
            for effect in self.row[here].step(todo.popleft()):  # type: ignore[arg-type]
                if isinstance(effect, ef.Send):
                    beside = [n for n in (here - 1, here + 1) if 0 <= n < len(self.row)]
                    there = next(n for n in beside if self.row[n].key == effect.peer)
                    self.flying.append((here, there, effect))
                elif isinstance(effect, ef.Fetch | ef.FetchKeyframe):
                    header = effect.signed_header.header
                    todo.append(Applied(effect.author, header.seq, header.root, self.row[here].now))
                elif isinstance(effect, ef.CloneSeen):
                    self.clones_seen.append(here)
                elif isinstance(effect, ef.Forked):
                    self.forks += 1

    def settle(self) -> None:
        while self.flying:
            here, there, send = self.flying.popleft()
            now = self.row[there].now
            self.step(there, Message(self.row[here].key, send.channel, send.data, now))

    def pass_time(self, seconds: float) -> None:
        for here, bench in enumerate(self.row):
            bench.now += seconds
            self.step(here, Tick(bench.now))
        self.settle()

    def work(self, here: int, salt: int) -> None:
        """One round of an honest shell: resume where it must, else a difference."""
        bench, protocol = self.row[here], self.row[here].protocol
        if protocol.stopped:
            return
        if protocol.mute:
            self.step(here, Unmute(bench.now))
        root = root_of(salt)
        if protocol.must_resume:
            self.step(here, Publish("resume", bench.now, root=root))
            return
        self.step(
            here,
            Publish(
                "difference", bench.now, codec="2bit", chunks=(root,), payload_bytes=PAYLOAD,
                root=root,
            ),
        )  # fmt: skip


def _clones() -> tuple[Bench, Bench]:
    first = Bench(0)
    first.step(Publish("genesis", first.now, root=GENESIS_ROOT))
    known = Known(own=tuple(first.protocol.own_headers().values()))
    return Bench(0, known), Bench(0, known)


def test_two_live_clones_do_not_go_on_for_ever() -> None:
    one, other = _clones()
    wires = Wires(one, Bench(5), Bench(6), other)
    salt = 0
    for _ in range(60):
        for here in (0, 3):
            salt += 1
            wires.work(here, salt)
        wires.settle()
        wires.pass_time(1.0)
        if wires.clones_seen:
            break
    assert wires.forks >= 1, "both signed entry 1, and the peers can prove it"
    assert set(wires.clones_seen) & {0, 3}
    assert "clone" in (one.protocol.stopped, other.protocol.stopped)


def test_the_one_that_goes_on_is_followed_again() -> None:
    one, other = _clones()
    wires = Wires(one, Bench(5), Bench(6), other)
    for salt in range(1, 200):
        wires.work(0 if salt % 2 else 3, salt)
        wires.settle()
        wires.pass_time(1.0)
    for _ in range(10):
        wires.pass_time(1.0)
    left = [bench for bench in (one, other) if not bench.protocol.stopped]
    assert len(left) <= 1
    for bench in left:
        for peer in wires.row[1:3]:
            head = peer.protocol.head(bench.key)
            assert head is not None
            assert bench.protocol.own_highest == head
            assert not peer.protocol.weight_zero(bench.key)


def test_a_single_live_member_never_thinks_itself_a_clone() -> None:
    one, _ = _clones()
    wires = Wires(Bench(5), one, Bench(6))
    for salt in range(1, 100):
        wires.work(1, salt)
        wires.settle()
        wires.pass_time(1.0)
    assert wires.clones_seen == []
    assert wires.forks == 0
