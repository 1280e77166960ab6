"""A goodbye: taken at once, from its author alone, once, and for as long as nothing newer comes."""

import pytest
from gossip_kit import GENESIS_ROOT, NETWORK, PAYLOAD, Author, Bench, key, only, root_of, sent

from tapestry_p2p.gossip.effects import Dial, Fetch, FetchKeyframe, Left, Send, Unfollow
from tapestry_p2p.gossip.events import Publish
from tapestry_p2p.gossip.header import SignedHeader, sign
from tapestry_p2p.gossip.known import decode_known
from tapestry_p2p.gossip.messages import Heads, Hello, Row
from tapestry_p2p.gossip.protocol import ProtocolError

OTHER = key(98).public_key


def _met(n: int = 3) -> tuple[Bench, Author]:
    """A member with a profile whose copy is held."""
    bench, author = Bench(), Author(1)
    author.grow(n)
    bench.obey(bench.connect(author.key, *author.log))
    author.profile()
    bench.obey(bench.profile(author.key, author))
    bench.connect(OTHER)
    return bench, author


@pytest.mark.parametrize("way", ["its author", "another member", "with a gap before it"])
def test_it_takes_the_author_out_at_once_counted_and_without_blame(way: str) -> None:
    bench, author = _met()
    assert author.key in bench.protocol.members()
    if way == "with a gap before it":
        author.grow(2)
    goodbye = author.leave()
    effects = bench.heads(OTHER if way == "another member" else author.key, goodbye)
    assert [effect.author for effect in only(effects, Left)] == [author.key]
    assert [effect.author for effect in only(effects, Unfollow)] == [author.key]
    assert author.key not in bench.protocol.members()
    assert bench.protocol.weight_zero(author.key)
    assert bench.count("accept", "leave") == 1
    assert not bench.protocol.statistics()["reject"]
    assert not bench.protocol.snapshot().proofs
    assert not bench.protocol.is_barred(author.key, bench.now)
    later = bench.ticks(20.0)
    assert not only(later, Fetch)
    assert not only(later, FetchKeyframe)


def test_a_second_one_an_old_one_and_an_old_profile_change_nothing() -> None:
    bench, author = _met()
    profile, payload = author.last, author.payload
    goodbye = author.leave()
    bench.heads(author.key, goodbye)
    for signed in (goodbye, author.log[0], profile):
        assert not only(bench.heads(OTHER, signed), Left)
    author.log.append(profile)
    author.payload = payload
    bench.profile(OTHER, author)
    assert author.key not in bench.protocol.members()


def test_an_old_goodbye_shown_after_the_return_does_nothing() -> None:
    bench, author = _met()
    goodbye = author.leave()
    bench.heads(author.key, goodbye)
    back = author.resume()
    bench.obey(bench.heads(author.key, back) + bench.tick(1.0))
    author.profile()
    bench.obey(bench.profile(author.key, author))
    assert author.key in bench.protocol.followed()
    for _ in range(3):
        effects = bench.heads(OTHER, goodbye)
        assert not only(effects, Left)
        assert not only(effects, Unfollow)
    assert author.key in bench.protocol.members()
    assert not bench.protocol.weight_zero(author.key)
    assert not bench.protocol.snapshot().proofs


def test_a_goodbye_that_another_signed_is_the_senders_fault() -> None:
    bench, author = _met()
    header = author.entry("leave").header
    for signed in (sign(header, key(98).sign), SignedHeader(header, bytes(64))):
        assert not only(bench.heads(OTHER, signed), Left)
    assert bench.count("reject", "signature") == 2
    assert author.key in bench.protocol.members()
    assert not bench.protocol.weight_zero(author.key)


def test_who_was_away_is_shown_it_by_any_member() -> None:
    bench, author = _met()
    goodbye = author.leave()
    bench.heads(author.key, goodbye)
    late = key(97).public_key
    bench.connect(late)
    said = sent(bench.digest(late, Row(author.key, 0, 4, 4)), late)
    assert any(isinstance(frame, Heads) and goodbye in frame.heads for frame in said)


def test_a_newcomer_to_whom_an_old_goodbye_is_shown_first_still_dials_its_inviter() -> None:
    """Whoever kept an old goodbye of the inviter must not keep a newcomer from it."""
    author = Author(1)
    author.grow(3)
    goodbye = author.leave()
    address = "/ip4/10.0.0.1/tcp/1"
    bench = Bench(bootstrap=((author.key, (address,)),))
    bench.connect(OTHER, goodbye)
    assert author.key in [effect.peer for effect in only(bench.ticks(20.0), Dial)]
    author.resume()
    author.profile()
    bench.obey(bench.connect(author.key, author.last) + bench.profile(author.key, author))
    bench.obey(bench.ticks(2.0))
    assert author.key in bench.protocol.followed()


# ---- our own ------------------------------------------------------------------------------------


def _speaking() -> Bench:
    bench = Bench()
    bench.connect(OTHER)
    bench.step(Publish("genesis", bench.now, root=GENESIS_ROOT))
    return bench


def test_ours_is_told_until_peers_say_that_they_hold_it_and_nothing_follows_it() -> None:
    bench = _speaking()
    effects = bench.step(Publish("leave", bench.now, root=GENESIS_ROOT))
    (own,) = [s for frame in sent(effects, OTHER) if isinstance(frame, Heads) for s in frame.heads]
    assert bench.protocol.stopped == "left"
    assert bench.protocol.told() == ()
    again = [f for f in sent(bench.ticks(5.0), OTHER) if isinstance(f, Hello)]
    assert again
    assert all(hello.ask and hello.heads[0] == own for hello in again)
    bench.hello(OTHER, own, rows=(Row(bench.key, 0, 2, 0),))
    assert bench.protocol.told() == (OTHER,)
    assert not [f for f in sent(bench.ticks(4.0), OTHER) if isinstance(f, Hello)]
    with pytest.raises(ProtocolError):
        bench.step(Publish("profile", bench.now))
    with pytest.raises(ProtocolError):
        bench.step(Publish("resume", bench.now, root=GENESIS_ROOT))


def test_the_next_life_comes_back_by_a_resume_and_by_nothing_else() -> None:
    bench = _speaking()
    bench.step(Publish("leave", bench.now, root=GENESIS_ROOT))
    again = Bench(0, decode_known(bench.protocol.snapshot().encode()))
    assert again.protocol.must_resume
    chunk = (root_of(1),)
    with pytest.raises(ProtocolError, match="resume"):
        again.step(Publish("difference", again.now, "2bit", chunk, PAYLOAD, root=root_of(2)))
    again.connect(OTHER)
    effects = again.step(Publish("resume", again.now, root=GENESIS_ROOT))
    (told,) = [f.heads[0] for f in sent(effects, OTHER) if isinstance(f, Heads)]
    assert told.header.seq == 2
    assert not again.protocol.must_resume


def test_a_life_that_was_started_only_to_tell_it_signs_no_second_one() -> None:
    """A crash came between signing and telling."""
    bench = _speaking()
    goodbye = bench.step(Publish("leave", bench.now, root=GENESIS_ROOT))
    known = decode_known(bench.protocol.snapshot().encode())
    again = Bench(0, known, mute=True, leaving=True)
    assert again.protocol.stopped == "left"
    hello = [f for f in sent(again.connect(OTHER), OTHER) if isinstance(f, Hello)]
    head = again.protocol.head(again.key)
    assert head is not None
    assert hello[0].heads == (head,)
    assert head.encode() in b"".join(s.data for s in only(goodbye, Send))
    assert head.header.network == NETWORK
