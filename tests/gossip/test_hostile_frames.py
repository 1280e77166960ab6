"""Whatever a peer sends: a counted verdict, no exception, bounded tables, honest streams go on."""

from random import Random

from gossip_kit import GENESIS_ROOT, Author, Bench, key
from hypothesis import given, settings
from hypothesis import strategies as st

from tapestry_p2p.gossip.canonical import INTEGER_MAX, pack
from tapestry_p2p.gossip.events import Connected, Message, Publish
from tapestry_p2p.gossip.messages import (
    HELLO,
    SYNC,
    Digest,
    Heads,
    Hello,
    Members,
    Row,
    Want,
    encode_hello,
    encode_sync,
)

ATTACKER = key(66).public_key
CHANNELS = st.sampled_from([HELLO, SYNC])
LOOSE = st.recursive(
    st.integers(0, INTEGER_MAX) | st.binary(max_size=70) | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(
            st.sampled_from(
                ["t", "heads", "digest", "members", "author", "first", "last", "network"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=30,
)


def _bench() -> tuple[Bench, Author]:
    bench, author = Bench(), Author(1)
    bench.step(Publish("genesis", bench.now, root=GENESIS_ROOT))
    bench.obey(bench.connect(author.key, *author.grow(5)))
    bench.connect(ATTACKER)
    return bench, author


def _frames(author: Author) -> list[bytes]:
    """Valid frames of every type, to be spoilt."""
    author.profile()
    return [
        encode_hello(
            Hello(author.network, 1, tuple(author.log), (Row(author.key, 1, 2, 3),), True)
        ),
        encode_sync(Heads(tuple(author.log))),
        encode_sync(Want(author.key, 0, INTEGER_MAX)),
        encode_sync(Digest((Row(author.key, 0, 0, 0), Row(ATTACKER, INTEGER_MAX, 5, INTEGER_MAX)))),
        encode_sync(Members(((author.last, author.payload),))),
    ]


def _assert_bounded(bench: Bench) -> None:
    tables = bench.protocol.statistics()["tables"]
    assert tables["streams"] <= bench.settings.streams_max
    assert tables["members"] <= bench.settings.members_max
    assert tables["links"] <= bench.settings.peers_max
    assert tables["headers"] <= tables["streams"] * 50


def _assert_alive(bench: Bench, author: Author) -> None:
    bench.now += 100.0
    bench.obey(bench.hello(author.key, author.last))
    bench.obey(bench.heads(author.key, *author.log[5:], *author.grow(1)))
    bench.obey(bench.ticks(40.0))
    assert bench.protocol.position(author.key) == author.last.header.seq


@given(st.lists(st.tuples(CHANNELS, st.binary(max_size=400)), max_size=20))
def test_random_bytes(frames: list[tuple[str, bytes]]) -> None:
    bench, author = _bench()
    for channel, data in frames:
        bench.step(Message(ATTACKER, channel, data, bench.now))
    assert sum(map(sum, (t.values() for t in bench.protocol.statistics().values()))) > 0
    _assert_bounded(bench)
    _assert_alive(bench, author)


@given(st.lists(st.tuples(CHANNELS, LOOSE), max_size=20))
def test_canonical_nonsense(frames: list[tuple[str, object]]) -> None:
    bench, author = _bench()
    for channel, value in frames:
        bench.step(Message(ATTACKER, channel, pack(value), bench.now))
    _assert_bounded(bench)
    _assert_alive(bench, author)


@settings(max_examples=60)
@given(st.randoms(use_true_random=False))
def test_mutated_frames(random: Random) -> None:
    bench, author = _bench()
    frames = _frames(author)
    for _ in range(40):
        raw = bytearray(random.choice(frames))
        for _ in range(random.randint(0, 4)):
            raw[random.randrange(len(raw))] = random.randrange(256)
        cut = random.randrange(len(raw)) if random.random() < 0.1 else len(raw)
        bench.now += 1.0
        if ATTACKER not in bench.protocol.greeted():
            bench.step(Connected(ATTACKER, bench.now))
            bench.hello(ATTACKER)
        channel = HELLO if random.random() < 0.2 else SYNC
        bench.step(Message(ATTACKER, channel, bytes(raw[:cut]), bench.now))
    _assert_bounded(bench)
    _assert_alive(bench, author)


@settings(max_examples=40)
@given(st.randoms(use_true_random=False))
def test_a_validly_signing_author_that_says_anything(random: Random) -> None:
    """An author signs contradictory entries; its stream may stand still, nothing else may."""
    bench, author = _bench()
    evil = Author(3)
    lives = [evil, evil.fork(), evil.fork()]
    bench.connect(evil.key)
    for _ in range(60):
        life = random.choice(lives)
        kind = random.choice(["difference", "difference", "profile", "resume", "leave", "genesis"])
        if not life.log:
            entry = life.genesis()
        elif kind == "difference":
            entry = life.difference(salt=random.randrange(3))
        elif kind == "profile":
            entry = life.profile(name=str(random.randrange(3)))
        elif kind == "resume":
            entry = life.resume(cites=random.choice([b"", random.randbytes(32)]))
        elif kind == "leave":
            entry = life.leave()
        else:
            seq = random.choice([0, 1, 2**31, INTEGER_MAX - 1])
            entry = life.entry("leave", seq=seq)
        bench.now += 0.5
        bench.obey(bench.heads(evil.key, entry))
        bench.obey(bench.tick(0.5))
    _assert_bounded(bench)
    _assert_alive(bench, author)


def test_the_largest_numbers_are_only_numbers() -> None:
    bench, author = _bench()
    far = Author(3)
    bench.connect(far.key, far.entry("leave", seq=INTEGER_MAX - 1))
    bench.ticks(5.0)
    bench.digest(ATTACKER, Row(author.key, INTEGER_MAX, INTEGER_MAX, INTEGER_MAX))
    bench.say(ATTACKER, Want(bench.key, 0, INTEGER_MAX))
    bench.say(ATTACKER, Want(bench.key, INTEGER_MAX, INTEGER_MAX))
    bench.ticks(50.0)
    _assert_alive(bench, author)
