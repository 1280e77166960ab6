"""The end of a key: at any seq, for good, everywhere, whoever brings it."""

from typing import Any

import pytest
from gossip_kit import GENESIS_ROOT, NETWORK, PAYLOAD, Author, Bench, key, only, root_of, sent

from tapestry_p2p.gossip.effects import Fetch, Persist, Send, Unfollow
from tapestry_p2p.gossip.events import Connected, Disconnected, Message, Publish, Retire
from tapestry_p2p.gossip.fork import fork_proof
from tapestry_p2p.gossip.header import SEQ_MAX, SignedHeader
from tapestry_p2p.gossip.known import Known, decode_known
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


def _fresh(numbers: range) -> list[SignedHeader]:
    return [_retire(Author(n)) for n in numbers]


def test_the_end_of_a_key_nobody_heard_of_is_kept_and_neither_written_nor_told() -> None:
    """One frame of 64 was 64 snapshots and as many frames to every peer."""
    bench, _ = _followed(probation_rounds=5)
    effects = bench.heads(OTHER, *_fresh(range(20, 84)))
    assert not only(effects, Persist)
    assert not sent(effects)
    assert len(bench.protocol.retired()) == 64
    bench.heads(OTHER, Author(20).genesis())
    assert bench.count("ignore", "retired") == 1, "kept: the key cannot come back"


@pytest.mark.parametrize("what", ["stream", "member", "probation", "founder", "operator"])
def test_the_end_of_a_key_that_we_know_is_written_and_told(what: str) -> None:
    author = Author(1)
    founders = frozenset({author.key} if what == "founder" else ())
    bench = Bench(probation_rounds=5, founders=founders)
    for peer in (OTHER, THIRD):
        bench.connect(peer)
    author.genesis()
    if what == "stream":
        bench.heads(OTHER, author.last)
    if what == "member":
        author.profile()
        bench.profile(OTHER, author)
        del bench.protocol._state.streams[author.key]
    if what == "probation":
        bench.protocol._state.probation.restore([(author.key, 3, False)])
    retire = _retire(author)
    by_hand = what == "operator"
    effects = bench.step(Retire(retire, bench.now)) if by_hand else bench.heads(OTHER, retire)
    assert [effect.record for effect in only(effects, Persist)] == ["retired"]
    assert Heads((retire,)) in sent(effects, THIRD)


def test_the_digest_tells_of_a_newcomers_end_only_those_who_know_it() -> None:
    bench, _ = _followed(probation_rounds=5)
    (retire,) = _fresh(range(20, 21))
    bench.heads(OTHER, retire)
    assert Heads((retire,)) not in sent(bench.digest(THIRD), THIRD)
    assert Heads((retire,)) in sent(bench.digest(THIRD, Row(Author(20).key, 0, 1, 0)), THIRD)


def test_two_full_tables_leave_each_other_alone() -> None:
    """Each recycled its table with what the other one held, for ever."""
    one, other = (Bench(n, members_max=17, probation_rounds=5) for n in (50, 51))
    for bench, numbers in ((one, range(1, 18)), (other, range(20, 37))):
        bench.connect(OTHER)
        bench.heads(OTHER, *_fresh(numbers))
        bench.step(Disconnected(OTHER, bench.now))
    said = [(other, one, one.step(Connected(other.key, one.now)))]
    said += [(one, other, other.step(Connected(one.key, other.now)))]
    for _ in range(30):
        while said:
            to, sender, effects = said.pop(0)
            for send in only(effects, Send):
                answer = to.step(Message(sender.key, send.channel, send.data, to.now))
                said.append((sender, to, answer))
        said = [(other, one, one.tick(1.0)), (one, other, other.tick(1.0))]
    assert one.count("accept", "digest") > 3
    for bench in (one, other):
        assert bench.count("accept", "retire") == 17
        assert bench.count("ignore", "retired_full") == 0
    assert not one.protocol.retired() & other.protocol.retired()


def test_what_is_not_signed_frees_no_room_and_takes_none() -> None:
    friend = Author(2)
    bench, _ = _followed(members_max=17, founders=frozenset({friend.key}), probation_rounds=5)
    bench.heads(OTHER, *_fresh(range(20, 37)))
    before = bench.protocol.retired()
    assert len(before) == 17
    bench.heads(OTHER, SignedHeader(_retire(friend).header, bytes(64)))
    assert bench.count("reject", "signature") == 1
    assert bench.protocol.retired() == before


def test_a_full_table_takes_no_newcomers_end_for_anothers() -> None:
    bench, _ = _followed(members_max=17, probation_rounds=5)
    bench.heads(OTHER, *_fresh(range(20, 37)))
    before, verifies = bench.protocol.retired(), bench.verifies
    bench.heads(OTHER, *_fresh(range(40, 50)))
    assert bench.protocol.retired() == before
    assert bench.count("ignore", "retired_full") == 10
    assert bench.verifies == verifies, "refused before a signature is looked at"


def test_a_fork_of_a_retired_key_is_not_shown_again_and_again() -> None:
    bench, author = _followed()
    twin = author.fork()
    bench.heads(author.key, author.difference(salt=1), twin.difference(salt=2))
    bench.heads(OTHER, _retire(author))
    again = Bench(0, decode_known(bench.protocol.snapshot().encode()))
    again.connect(OTHER)
    for one in (bench, again):
        assert one.protocol.weight_zero(author.key)
        assert not sent(one.digest(OTHER, Row(author.key, 0, SEQ_MAX, 0)), OTHER)


def test_a_store_from_before_with_a_fork_and_the_end_of_one_key_is_quiet_too() -> None:
    author = Author(1)
    author.grow(3)
    twin = author.fork()
    proof = fork_proof(author.difference(salt=1), twin.difference(salt=2))
    again = Bench(0, Known(proofs=(proof,), retired=(_retire(author),)))
    again.connect(OTHER)
    assert not sent(again.digest(OTHER, Row(author.key, 0, SEQ_MAX, 0)), OTHER)


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
