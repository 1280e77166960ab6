"""The end of a key: at any seq, for good, everywhere, whoever brings it."""

from typing import Any

import pytest
from gossip_kit import GENESIS_ROOT, NETWORK, PAYLOAD, Author, Bench, key, only, root_of, sent

from tapestry_p2p.gossip.effects import Fetch, Persist, Unfollow
from tapestry_p2p.gossip.events import Publish, Retire
from tapestry_p2p.gossip.header import SEQ_MAX, SignedHeader
from tapestry_p2p.gossip.known import decode_known
from tapestry_p2p.gossip.messages import Digest, Heads, Row, Want
from tapestry_p2p.gossip.own import sign_retire
from tapestry_p2p.gossip.protocol import ProtocolError

OTHER, THIRD = key(98).public_key, key(99).public_key


def _retire(author: Author) -> SignedHeader:
    return sign_retire(NETWORK, author.key, author.identity.sign)


def _followed(**changes: Any) -> tuple[Bench, Author]:
    bench, author = Bench(**changes), Author(1)
    author.grow(3)
    bench.obey(bench.connect(author.key, *author.log))
    bench.connect(OTHER)
    bench.connect(THIRD)
    return bench, author


@pytest.mark.parametrize("way", ["shown by a peer", "handed in by the operator"])
def test_it_is_stored_and_told_to_everybody_once(way: str) -> None:
    bench, author = _followed()
    retire = _retire(author)
    if way == "shown by a peer":
        effects = bench.heads(OTHER, retire)
    else:
        effects = bench.step(Retire(retire, bench.now))
    assert [effect.record for effect in only(effects, Persist)] == ["retired"]
    assert [effect.author for effect in only(effects, Unfollow)] == [author.key]
    assert Heads((retire,)) in sent(effects, THIRD)
    assert bench.protocol.weight_zero(author.key)
    assert bench.protocol.retired() == {author.key}
    assert not bench.heads(OTHER, retire)
    assert not bench.step(Retire(retire, bench.now))


def test_nothing_brings_the_key_back() -> None:
    bench, author = _followed()
    bench.heads(OTHER, _retire(author))
    again = Bench(0, decode_known(bench.protocol.snapshot().encode()))
    for one in (bench, again):
        effects = one.connect(author.key)
        effects += one.heads(author.key, author.difference(), author.resume())
        author.profile()
        effects += one.profile(author.key, author) + one.ticks(10.0)
        assert not only(effects, Fetch)
        assert one.protocol.weight_zero(author.key)
        assert author.key not in one.protocol.members()


def test_who_was_away_is_told_by_the_digest_and_whoever_asks_is_answered() -> None:
    bench, author = _followed()
    retire = _retire(author)
    bench.heads(OTHER, retire)
    late = key(97).public_key
    bench.connect(late)
    behind = sent(bench.digest(late, Row(author.key, 0, 4, 4)), late)
    assert Heads((retire,)) in behind
    knows = sent(bench.digest(late, Row(author.key, 0, SEQ_MAX, 0)), late)
    assert Heads((retire,)) not in knows
    assert sent(bench.say(late, Want(author.key, SEQ_MAX, SEQ_MAX)), late) == [Heads((retire,))]


def test_our_own_end_is_told_too_and_silences_us_for_good() -> None:
    bench, author = _followed()
    bench.step(Publish("genesis", bench.now, root=GENESIS_ROOT))
    own = sign_retire(NETWORK, bench.key, bench.identity.sign)
    effects = bench.step(Retire(own, bench.now))
    assert Heads((own,)) in sent(effects, author.key)
    assert bench.protocol.stopped == "retired"
    chunk = (root_of(1),)
    with pytest.raises(ProtocolError):
        bench.step(Publish("difference", bench.now, "2bit", chunk, PAYLOAD, root=root_of(2)))
    again = Bench(0, decode_known(bench.protocol.snapshot().encode()))
    assert again.protocol.stopped == "retired"
    again.connect(OTHER)
    assert Heads((own,)) in sent(again.digest(OTHER, Row(bench.key, 0, 1, 1)), OTHER)
    rows = [frame.rows for frame in sent(again.ticks(20.0), OTHER) if isinstance(frame, Digest)]
    assert rows, "each author once, or nobody could read it"


def test_what_is_no_end_of_a_key_of_this_network_is_our_own_bug() -> None:
    bench, author = _followed()
    foreign = sign_retire(bytes(32), author.key, author.identity.sign)
    unsigned = SignedHeader(_retire(author).header, bytes(64))
    for signed in (foreign, unsigned, author.difference()):
        with pytest.raises(ProtocolError, match="no retire entry"):
            bench.step(Retire(signed, bench.now))
    assert not bench.protocol.weight_zero(author.key)


def test_names_made_to_be_retired_do_not_use_up_the_room() -> None:
    friend = key(1).public_key
    founders = frozenset({friend, key(2).public_key})
    bench, author = _followed(members_max=17, founders=founders, probation_rounds=5)
    assert author.key == friend
    bench.heads(OTHER, _retire(author))
    for n in range(20, 60):
        bench.now += 1.0
        bench.heads(OTHER, _retire(Author(n)))
    assert len(bench.protocol.retired()) == 17
    bench.heads(OTHER, _retire(Author(2)))
    assert bench.protocol.retired() >= founders
