"""Whom to dial and when: the lower key first, the higher one later, back-off on failure."""

from gossip_kit import Author, Bench, key, only

from tapestry_p2p.gossip.effects import Dial, Drop
from tapestry_p2p.gossip.events import Connected, DialFailed, Disconnected, Message
from tapestry_p2p.gossip.messages import Hello, Members, encode_hello

HIGH, LOW = sorted((key(1), key(2)), key=lambda identity: identity.public_key, reverse=True)
ADDRESS = ("/ip4/127.0.0.1/tcp/5",)


def _pair(own_is_lower: bool) -> Bench:
    own, other = (LOW, HIGH) if own_is_lower else (HIGH, LOW)
    n = 1 if own.public_key == key(1).public_key else 2
    return Bench(n, bootstrap=((other.public_key, ADDRESS), (own.public_key, ADDRESS)))


def _first_dial(bench: Bench) -> float:
    start = bench.now
    while not (dials := only(bench.tick(0.05), Dial)):
        assert bench.now - start < 60.0
    assert dials[0].addresses == ADDRESS
    return bench.now - start


def test_the_lower_key_dials_at_once_and_the_higher_one_waits() -> None:
    assert _first_dial(_pair(own_is_lower=True)) < 0.3
    assert 1.0 < _first_dial(_pair(own_is_lower=False)) < 5.0


def test_nobody_is_dialled_while_connected_or_being_dialled() -> None:
    bench = _pair(own_is_lower=True)
    _first_dial(bench)
    assert not only(bench.ticks(20.0), Dial)
    bench.connect(HIGH.public_key)
    assert not only(bench.ticks(120.0), Dial)


def test_failures_back_off_with_jitter_and_a_ceiling() -> None:
    bench = _pair(own_is_lower=True)
    pauses: list[float] = []
    for _ in range(12):
        pauses.append(_next_dial(bench))
        bench.step(DialFailed(HIGH.public_key, bench.now))
    assert pauses[3] > pauses[1]
    assert all(12.0 < pause < 31.0 for pause in pauses[9:])


def _next_dial(bench: Bench) -> float:
    start = bench.now
    while not only(bench.tick(0.05), Dial):
        assert bench.now - start < 120.0
    return bench.now - start


def test_a_dial_that_the_shell_forgot_is_tried_again() -> None:
    bench = _pair(own_is_lower=True)
    _first_dial(bench)
    assert only(bench.ticks(40.0), Dial)


def test_a_lost_connection_is_dialled_again_soon() -> None:
    bench = _pair(own_is_lower=True)
    bench.connect(HIGH.public_key)
    bench.ticks(20.0)
    bench.step(Disconnected(HIGH.public_key, bench.now))
    assert _first_dial(bench) < 0.3


def test_a_connection_that_ends_at_once_counts_as_a_failure() -> None:
    bench = _pair(own_is_lower=True)
    for _ in range(8):
        bench.step(Connected(HIGH.public_key, bench.now))
        bench.step(Disconnected(HIGH.public_key, bench.now))
    assert _next_dial(bench) > 10.0


def test_members_we_follow_are_dialled_at_their_profiles_addresses() -> None:
    bench, author = Bench(), Author(1)
    author.genesis()
    author.profile(address="/ip4/10.1.2.3/tcp/9")
    teller = key(7).public_key
    bench.connect(teller)
    bench.say(teller, Members(((author.last, author.payload),)))
    dials = only(bench.ticks(10.0), Dial)
    assert [(dial.peer, dial.addresses) for dial in dials] == [
        (author.key, ("/ip4/10.1.2.3/tcp/9",))
    ]


def test_simultaneous_dials_and_a_doubled_connection_are_harmless() -> None:
    bench, author = Bench(), Author(1)
    bench.connect(author.key, *author.grow(2))
    bench.step(Connected(author.key, bench.now))
    assert bench.protocol.greeted() == (author.key,)
    bench.obey(bench.heads(author.key, *author.grow(1)))
    assert bench.protocol.position(author.key) == 0 or bench.protocol.head(author.key)


def test_a_missing_hello_is_asked_for_and_then_given_up() -> None:
    bench = Bench()
    peer = key(1).public_key
    bench.step(Connected(peer, bench.now))
    frames = [frame for frame in bench.ticks(10.0) if hasattr(frame, "channel")]
    assert 3 <= len(frames) <= 5
    (drop,) = only(bench.ticks(60.0), Drop)
    assert drop.reason == "no_hello"


def test_a_hello_that_asks_is_answered_once() -> None:
    bench = Bench()
    peer = key(1).public_key
    bench.connect(peer)
    asking = encode_hello(Hello(bench.settings.network, 1, (), (), True))
    (answer,) = bench.step(Message(peer, "hello", asking, bench.now))
    assert getattr(answer, "channel", "") == "hello"


def test_we_do_not_talk_to_ourselves() -> None:
    bench = Bench()
    (drop,) = only(bench.step(Connected(bench.key, bench.now)), Drop)
    assert drop.reason == "self"


def _away(bench: Bench, peers: list[bytes], seconds: float) -> None:
    """Time passes in which no dial succeeds."""
    until = bench.now + seconds
    while bench.now < until:
        for dial in only(bench.tick(0.25), Dial):
            assert dial.peer in peers
            bench.step(DialFailed(dial.peer, bench.now))


def test_when_one_of_many_is_back_after_long_the_others_are_dialled_at_once() -> None:
    others = sorted(key(n).public_key for n in range(1, 9))
    bench = Bench(0, bootstrap=tuple((peer, ADDRESS) for peer in others))
    _away(bench, others, 600.0)
    bench.connect(others[0])
    soon = {dial.peer for dial in only(bench.ticks(5.0), Dial)}
    assert soon == set(others[1:])


def test_however_many_come_back_one_after_the_other_the_rest_are_not_dialled_all_the_time() -> None:
    keys = sorted(key(n).public_key for n in range(1, 24))
    back, gone = keys[:20], keys[20:]
    bench = Bench(0, bootstrap=tuple((peer, ADDRESS) for peer in keys))
    _away(bench, keys, 600.0)
    dials = 0
    for peer in back:  # a minute
        bench.connect(peer)
        for dial in only(bench.ticks(3.0, 1.0), Dial):
            dials += dial.peer in gone
            bench.step(DialFailed(dial.peer, bench.now))
    assert 3 <= dials <= len(gone) * (60 / 15 + 2)
