"""Cheap checks first: what a stale, doubled or foolish message costs in signature checks."""

from dataclasses import replace
from typing import Any

import pytest
from gossip_kit import NETWORK, Author, Bench, key, only, root_of, sent

from tapestry_p2p.gossip.effects import Drop, Send
from tapestry_p2p.gossip.events import Connected, Message
from tapestry_p2p.gossip.header import SignedHeader
from tapestry_p2p.gossip.messages import (
    HELLO,
    Heads,
    Hello,
    Members,
    decode_sync,
    encode_hello,
    encode_sync,
)

OTHER = key(500).public_key


def _followed(count: int = 40) -> tuple[Bench, Author]:
    bench, author = Bench(), Author(1)
    bench.connect(author.key)
    for entry in author.grow(count):
        bench.obey(bench.heads(author.key, entry))
    assert bench.protocol.position(author.key) == count - 1
    return bench, author


def test_every_new_entry_costs_one_check() -> None:
    bench, _ = _followed(40)
    assert bench.verifies == 40


def test_replay_costs_no_signature_check_and_no_memory() -> None:
    bench, author = _followed(40)
    before, size = bench.verifies, bench.protocol.statistics()["tables"]
    for _ in range(3):
        bench.now += 10.0
        for start in range(0, 40, 8):
            bench.heads(author.key, *author.log[start : start + 8])
    assert bench.verifies == before
    assert bench.protocol.statistics()["tables"] == size
    assert bench.count("ignore", "stale") + bench.count("ignore", "duplicate") == 120


def test_a_peer_that_says_nothing_new_for_long_is_dropped_and_an_honest_one_is_not() -> None:
    """Each frame costs little; a hundred a second are a twentieth of a core."""
    bench, author = _followed(40)
    frames = [author.log[start : start + 8] for start in range(0, 40, 8)]
    bench.connect(OTHER)
    in_vain = 0
    while not (drops := only(bench.heads(OTHER, *frames[in_vain % 5]), Drop)):
        in_vain += 1
        bench.now += 0.01
    assert [(drop.reason, drop.fault) for drop in drops] == [("too_many_rejects", True)]
    assert 512 <= in_vain <= 700
    assert bench.protocol.is_barred(OTHER, bench.now)
    for _ in range(1000):  # what two peers say at once comes twice
        new = author.difference()
        bench.now += 0.1
        bench.obey(bench.heads(author.key, new))
        assert not only(bench.heads(author.key, new), Drop)
    assert bench.count("reject", "repeats") == 8


@pytest.mark.parametrize("frame", ["profile", "digest"])
def test_profiles_and_digests_in_vain_are_no_better(frame: str) -> None:
    bench, author = _followed(4)
    bench.connect(OTHER)
    author.profile()
    bench.profile(author.key, author)
    said = 0
    while not bench.protocol.is_barred(OTHER, bench.now) and said < 1200:
        said += 1
        bench.now += 0.02
        bench.profile(OTHER, author) if frame == "profile" else bench.digest(OTHER)
    assert 512 <= said < 1200


def test_what_many_show_is_parsed_once_unless_it_is_long() -> None:
    author = Author(1)
    short = author.grow(1)[0]
    long = author.entry("difference", chunks=tuple(root_of(n) for n in range(32)))
    frame = encode_sync(Heads((short, long)))
    first, again = (decode_sync(frame, len(frame)) for _ in range(2))
    assert first == again
    assert isinstance(first, Heads)
    assert isinstance(again, Heads)
    assert first.heads[0] is again.heads[0]
    assert first.heads[1] is not again.heads[1]


def test_digests_are_answered_as_often_as_honest_peers_send_them() -> None:
    """One of 60 bytes can ask for all that we hold."""
    bench, _ = _followed(4)
    bench.connect(OTHER)
    answers = 0
    for _ in range(600):  # ten a second
        bench.now += 0.1
        answers += bool(only(bench.digest(OTHER), Send))
    assert 4 * 60 / bench.settings.digest_every_s <= answers + 8 <= 80
    assert bench.count("ignore", "digest_too_soon") == 600 - bench.count("accept", "digest")
    for _ in range(60):
        bench.now += bench.settings.digest_every_s / 4
        assert only(bench.digest(OTHER), Send)


def test_a_hello_again_and_again_is_heard_and_not_always_answered() -> None:
    bench, _ = _followed(4)
    bench.step(Connected(OTHER, bench.now))
    answers = 0
    for _ in range(100):
        hello = encode_hello(Hello(NETWORK, 1, (), (), True))
        bench.now += 0.05
        effects = bench.step(Message(OTHER, HELLO, hello, bench.now))
        answers += any(isinstance(frame, Hello) for frame in sent(effects, OTHER))
    assert 8 <= answers <= 14
    assert OTHER in bench.protocol.greeted()


def test_forged_signatures_on_stale_entries_are_not_even_looked_at() -> None:
    bench, author = _followed(40)
    before = bench.verifies
    for signed in author.log:
        bench.heads(author.key, SignedHeader(signed.header, bytes(64)))
    assert bench.verifies == before


@pytest.mark.parametrize(
    "change",
    [
        {"network": bytes(32)},
        {"kind": "genesis"},
        {"codec": "fp32"},
        {"payload_bytes": 5},
        {"chunks": ()},
        {"cites": bytes(32)},
        {"seq": 0},
    ],
)
def test_what_the_manifest_forbids_is_rejected_unverified(change: dict[str, Any]) -> None:
    bench, author = _followed(3)
    before = bench.verifies
    signed = author.difference()
    bench.heads(author.key, SignedHeader(replace(signed.header, **change), signed.signature))
    assert bench.verifies == before
    assert sum(bench.protocol.statistics()["reject"].values()) == 1


def test_nothing_is_parsed_for_a_stranger_or_before_hello() -> None:
    bench, author = Bench(), Author(1)
    author.grow(1)
    frame = encode_sync(Heads((author.last,)))
    bench.step(Message(author.key, "sync", frame, bench.now))
    bench.step(Message(author.key, "sync", b"\xff garbage", bench.now))
    assert bench.count("ignore", "not_connected") == 2
    bench.step(Connected(author.key, bench.now))
    bench.step(Message(author.key, "sync", frame, bench.now))
    assert bench.count("ignore", "before_hello") == 1
    assert bench.verifies == 0


def test_length_comes_before_everything() -> None:
    bench = Bench()
    bench.connect(key(1).public_key)
    bench.step(Message(key(1).public_key, "sync", bytes(65_537), bench.now))
    assert bench.count("reject", "frame_too_long") == 1


def test_the_token_bucket_comes_before_parsing() -> None:
    bench, author = _followed(3)
    for _ in range(600):
        bench.step(Message(author.key, "sync", b"garbage", bench.now))
        if not bench.protocol.greeted():
            break
    assert bench.count("reject", "malformed") == bench.settings.blames_max
    bench, author = _followed(3)
    frame = encode_sync(Heads((author.log[0],)))
    for _ in range(600):
        bench.step(Message(author.key, "sync", frame, bench.now))
    assert bench.count("ignore", "too_fast") > 0
    before = bench.count("ignore", "too_fast")
    bench.now += 10.0
    bench.step(Message(author.key, "sync", frame, bench.now))
    assert bench.count("ignore", "too_fast") == before


def test_a_flood_of_bad_signatures_costs_few_checks_and_the_connection() -> None:
    bench, author = _followed(3)
    before = bench.verifies
    effects = []
    for n in range(50):
        frame = [SignedHeader(author.fork().difference(salt=n + 1).header, bytes(64))] * 8
        effects += bench.heads(author.key, *frame)
    assert bench.verifies - before == bench.settings.blames_max
    (drop,) = only(effects, Drop)
    assert drop.reason == "too_many_rejects"
    (again,) = only(bench.step(Connected(author.key, bench.now)), Drop)
    assert again.reason == "barred"
    bench.now += 100.0
    assert not only(bench.step(Connected(author.key, bench.now)), Drop)


def test_one_rejected_entry_does_not_cost_an_honest_peer_its_place() -> None:
    bench, author = _followed(3)
    effects = bench.say(author.key, Members(((author.last, b"x"),)))
    assert not only(effects, Drop)
    assert bench.count("reject", "not_a_profile") == 1


def test_other_network_is_refused_politely_with_both_names() -> None:
    bench = Bench()
    peer = key(1).public_key
    bench.step(Connected(peer, bench.now))
    other = Hello(root_of(3), 1, (), (), False)
    (drop,) = only(bench.step(Message(peer, "hello", encode_hello(other), bench.now)), Drop)
    assert NETWORK.hex()[:16] in drop.reason
    assert root_of(3).hex()[:16] in drop.reason
    assert bench.count("ignore", "other_network") == 1


def test_an_author_that_signs_faster_than_allowed_is_held_back() -> None:
    bench, author = Bench(entries_per_minute_max=100), Author(1)
    bench.connect(author.key)
    for entry in author.grow(150):
        bench.obey(bench.heads(author.key, entry))
    held_back = bench.count("ignore", "author_too_fast")
    assert held_back > 40
    assert bench.verifies == 150 - held_back
    bench.now += 60.0
    bench.obey(bench.heads(author.key, author.last))
    assert bench.protocol.position(author.key) == 149


def test_asking_is_cheap_but_answering_is_bounded() -> None:
    from tapestry_p2p.gossip.messages import Want

    bench, author = Bench(bytes_per_s=1000.0), Author(1)
    bench.obey(bench.connect(author.key, *author.grow(1)))
    for entry in author.grow(30):
        bench.obey(bench.heads(author.key, entry))
        bench.now += 1.0
    asker = key(7).public_key
    bench.connect(asker)
    answers = [bench.say(asker, Want(author.key, 0, 2**62)) for _ in range(50)]
    answered = sum(
        len(send.data) for effects in answers for send in effects if hasattr(send, "data")
    )
    assert answered <= 8000
    assert bench.count("ignore", "answer_too_much") > 0
