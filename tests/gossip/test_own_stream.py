"""Our own stream: durable before published, mute while others know more, resume, live clones."""

from dataclasses import replace

import pytest
from gossip_kit import GENESIS_ROOT, NETWORK, PAYLOAD, Author, Bench, key, only, root_of, sent
from hypothesis import given
from hypothesis import strategies as st

from tapestry_p2p.gossip.canonical import pack, unpack
from tapestry_p2p.gossip.effects import CloneSeen, OwnHead, Persist, ProfileDue, Send
from tapestry_p2p.gossip.events import Disconnected, Publish, Unmute
from tapestry_p2p.gossip.fork import decode_proof
from tapestry_p2p.gossip.header import SignedHeader, decode_signed
from tapestry_p2p.gossip.known import Known, decode_known
from tapestry_p2p.gossip.messages import MARK_BYTES, Heads, Members, Row
from tapestry_p2p.gossip.own import TRANSITIONS, Cue, ProtocolError, Voice, sign_retire
from tapestry_p2p.gossip.profile import Profile, encode_profile

PEER = key(9).public_key


def _publish(bench: Bench, kind: str, **fields: object) -> list[object]:
    return list(bench.step(Publish(kind, bench.now, **fields)))  # type: ignore[arg-type]


def _difference(bench: Bench, n: int = 1) -> list[object]:
    return _publish(
        bench, "difference", codec="2bit", chunks=(bytes([n]) * 32,), payload_bytes=PAYLOAD,
        root=root_of(n), round=n,
    )  # fmt: skip


def _life(n: int = 0, count: int = 4) -> Author:
    """The entries of an earlier life of the bench with that number."""
    author = Author(n)
    author.grow(count)
    return author


def _restored(author: Author, count: int, **options: bool) -> Bench:
    """A bench whose store holds only the first ``count`` of the author's entries."""
    return Bench(0, Known(own=tuple(author.log[:count])), **options)


def test_an_entry_is_durable_before_anybody_hears_of_it() -> None:
    bench = Bench()
    bench.connect(PEER)
    for effects in (_publish(bench, "genesis", root=GENESIS_ROOT), _difference(bench)):
        kinds = [type(effect) for effect in effects]
        assert kinds.index(Persist) < kinds.index(Send)
        assert kinds.count(Persist) == 1
        (record,) = only(effects, Persist)
        (frame,) = sent(effects, PEER)
        assert frame == Heads((decode_signed(record.data),))


def test_entries_are_numbered_linked_and_signed() -> None:
    bench = Bench()
    _publish(bench, "genesis", root=GENESIS_ROOT)
    for n in range(1, 20):
        _difference(bench, n)
    kept = bench.protocol.own_headers()
    assert sorted(kept) == [0, *range(3, 20)], "the ring, and the milestone at 0"
    for seq in range(4, 20):
        assert kept[seq].is_signed()
        assert kept[seq].header.prev == kept[seq - 1].header.hash


def test_an_entry_states_all_the_tokens_so_far_also_after_a_restart() -> None:
    author = Author(0)
    author.grow(3)
    author.difference(tokens=500)
    bench = _restored(author, 4)
    for n, tokens in enumerate((70, 0, 7)):
        _publish(
            bench, "difference", codec="2bit", chunks=(bytes([n]) * 32,), payload_bytes=PAYLOAD,
            root=root_of(n), round=n, tokens=tokens,
        )  # fmt: skip
    kept = bench.protocol.own_headers()
    assert [kept[seq].header.tokens for seq in (4, 5, 6)] == [570, 570, 577]


def test_a_profile_carries_its_payload_to_everybody() -> None:
    bench = Bench()
    bench.connect(PEER)
    _publish(bench, "genesis", root=GENESIS_ROOT)
    payload = encode_profile(Profile("Ana", ("por",), ("/ip4/192.0.2.1/tcp/1",)))
    effects = _publish(bench, "profile", payload=payload)
    assert only(effects, Persist)[0].payload == payload
    (members,) = [frame for frame in sent(effects) if isinstance(frame, Members)]
    assert members.profiles[0][1] == payload
    assert bench.protocol.members()[bench.key].name == "Ana"


@pytest.mark.parametrize(
    "event",
    [
        Publish("difference", 0.0, codec="2bit", chunks=(bytes(32),), payload_bytes=PAYLOAD),
        Publish("genesis", 0.0),
        Publish("genesis", 0.0, root=bytes(32)),
        Publish("retire", 0.0),
        Publish("unknown", 0.0),
    ],
)
def test_our_own_mistakes_are_loud(event: Publish) -> None:
    with pytest.raises((ProtocolError, KeyError)):
        Bench().step(event)


def test_a_second_genesis_and_a_bad_profile_are_our_own_mistakes() -> None:
    bench = Bench()
    _publish(bench, "genesis", root=GENESIS_ROOT)
    with pytest.raises(ProtocolError):
        _publish(bench, "genesis", root=GENESIS_ROOT)
    with pytest.raises(ProtocolError):
        _publish(bench, "profile", payload=b"\x80")
    assert bench.protocol.own_highest == bench.protocol.own_headers()[0], "nothing was signed"


def test_a_killed_daemon_goes_on_at_the_next_seq() -> None:
    author = _life(count=5)
    bench = _restored(author, 5)
    _difference(bench, 9)
    signed = bench.protocol.head(bench.key)
    assert signed is not None
    assert signed.header.seq == 5
    assert signed.header.prev == author.last.header.hash
    assert signed.header.incarnation == author.last.header.incarnation


def test_a_restart_asks_first_and_resumes_only_if_it_must() -> None:
    author = _life(count=5)
    bench = _restored(author, 5, mute=True)
    with pytest.raises(ProtocolError):
        _difference(bench)
    bench.connect(PEER, author.last)
    bench.step(Unmute(bench.now))
    assert not bench.protocol.must_resume
    _difference(bench)


def test_a_rolled_back_store_resumes_from_the_highest_signed_head() -> None:
    author = _life(count=9)
    bench = _restored(author, 4, mute=True)
    effects = bench.connect(PEER, author.last)
    (shown,) = only(effects, OwnHead)
    assert shown.signed_header == author.last
    assert only(effects, Persist)[0].record == "seen"
    assert bench.protocol.mute
    bench.step(Unmute(bench.now))
    assert bench.protocol.must_resume
    with pytest.raises(ProtocolError):
        _difference(bench)
    _publish(bench, "resume", root=root_of(3))
    head = bench.protocol.head(bench.key)
    assert head is not None
    assert head.header.seq == 9
    assert head.header.prev == author.last.header.hash
    assert head.header.incarnation != author.last.header.incarnation
    _difference(bench)


def test_a_rollback_noticed_only_later_makes_us_mute() -> None:
    author = _life(count=9)
    bench = _restored(author, 4)
    _difference(bench, 7)
    bench.connect(PEER, author.last)
    assert bench.protocol.mute
    with pytest.raises(ProtocolError):
        _difference(bench, 8)


def test_a_lost_store_with_the_key_kept_resumes_too() -> None:
    author = _life(count=9)
    bench = Bench(0, mute=True)
    bench.connect(PEER, author.last)
    bench.step(Unmute(bench.now))
    with pytest.raises(ProtocolError):
        _publish(bench, "genesis", root=GENESIS_ROOT)
    _publish(bench, "resume", root=GENESIS_ROOT)
    assert bench.protocol.own_highest.header.seq == 9  # type: ignore[union-attr]


def test_a_crash_while_mute_is_remembered() -> None:
    author = _life(count=9)
    bench = _restored(author, 4)
    bench.connect(PEER, author.last)
    again = Bench(0, decode_known(bench.protocol.snapshot().encode()))
    assert again.protocol.mute
    again.step(Unmute(again.now))
    assert again.protocol.must_resume
    assert again.protocol.own_highest == author.last


def test_a_forked_past_is_cited_until_every_proof_is() -> None:
    author = _life(count=6)
    bench = _restored(author, 4)
    for n in (20, 21, 22):
        _difference(bench, n)  # 4, 5, 6 signed twice, though nobody meant to
    effects = bench.connect(PEER, author.log[5])
    assert only(effects, OwnHead)
    effects = bench.heads(PEER, author.log[4])
    assert only(effects, OwnHead)
    bench.step(Unmute(bench.now))
    cited = []
    while bench.protocol.must_resume:
        (record,) = only(_publish(bench, "resume", root=root_of(1)), Persist)
        cited.append(decode_signed(record.data).header.cites)
    assert len(set(cited)) == 2
    again = Bench(0, decode_known(bench.protocol.snapshot().encode()))
    assert not again.protocol.mute
    assert again.count("accept", "own_head") == 0
    again.connect(PEER, author.log[5])
    assert not again.protocol.mute, "a fork that was cited is no news"


def test_a_crash_before_the_citing_resume_is_no_way_around_it() -> None:
    author = _life(count=6)
    bench = _restored(author, 4)
    _difference(bench, 20)
    bench.connect(PEER, author.log[4])
    again = Bench(0, decode_known(bench.protocol.snapshot().encode()), mute=True)
    again.connect(PEER)
    again.step(Unmute(again.now))
    assert again.protocol.must_resume
    (record,) = only(_publish(again, "resume", root=root_of(1)), Persist)
    (proof,) = bench.protocol.snapshot().proofs
    assert decode_signed(record.data).header.cites == proof.id
    assert not again.protocol.must_resume


@pytest.mark.parametrize(("heard", "knew"), [(1, 2), (2, 2), (2, 1), (2, 0)])
def test_who_did_not_hear_from_everybody_resumes(heard: int, knew: int) -> None:
    """The one who is away, or has forgotten us, may alone have held our newest entries: the disk
    may be a backup."""
    author, others = _life(count=5), [Author(7), Author(8)]
    copies = tuple(other.genesis() for other in others)
    bench = Bench(0, Known(own=tuple(author.log), copies=copies), mute=True)
    for n, other in enumerate(others[:heard]):
        rows = (Row(author.key, 0, 5, 5),) if n < knew else ()
        bench.connect(other.key, author.last, rows=rows)
        bench.hello(other.key, author.last, rows=(Row(author.key, 0, 5, 5),))  # as we told it
    bench.step(Unmute(bench.now))
    assert bench.protocol.must_resume is (min(heard, knew) < 2)


def test_who_learned_our_head_from_us_cannot_vouch_for_it_when_it_comes_back() -> None:
    author, other = _life(count=5), Author(7)
    bench = Bench(0, Known(own=tuple(author.log), copies=(other.genesis(),)), mute=True)
    bench.connect(other.key)
    bench.step(Disconnected(other.key, bench.now))
    bench.connect(other.key, author.last, rows=(Row(author.key, 0, 5, 5),))
    bench.step(Unmute(bench.now))
    assert bench.protocol.must_resume


def test_an_old_life_turning_up_in_pieces_is_no_clone() -> None:
    author = _life(count=30)
    bench = _restored(author, 4, mute=True)
    effects = bench.connect(PEER, *author.log[20:25])
    assert len(only(effects, OwnHead)) == 1, "read from the highest down"
    effects += bench.heads(PEER, author.log[26])
    effects += bench.heads(PEER, author.log[28])
    assert not only(effects, CloneSeen)
    assert len(only(effects, OwnHead)) == 3


def test_a_clone_that_builds_on_our_entry_is_certain() -> None:
    bench = Bench()
    _publish(bench, "genesis", root=GENESIS_ROOT)
    clone = Author(0)
    clone.log = [bench.protocol.own_highest]  # type: ignore[list-item]
    clone.incarnation = clone.last.header.incarnation
    _difference(bench, 1)
    bench.connect(PEER)
    effects = bench.heads(PEER, clone.difference(salt=5))
    assert only(effects, CloneSeen)
    assert bench.protocol.stopped == "clone"
    bench.step(Unmute(bench.now))
    with pytest.raises(ProtocolError):
        _publish(bench, "resume", root=root_of(1))


def test_a_clone_that_keeps_growing_is_found_out() -> None:
    author = _life(count=30)
    bench = _restored(author, 10)
    _difference(bench, 50)
    bench.connect(PEER)
    seen = []
    for entry in author.log[12:]:
        bench.now += 5.0
        seen += bench.heads(PEER, entry)
    assert only(seen, CloneSeen)


def test_a_shown_head_must_be_signed_by_our_key() -> None:
    author = _life(count=9)
    bench = _restored(author, 4)
    effects = bench.connect(PEER, SignedHeader(author.last.header, bytes(64)))
    assert not only(effects, OwnHead)
    assert bench.count("reject", "signature") == 1
    stranger = Author(3)
    stranger.grow(9)
    forged = replace(stranger.last.header, author=bench.key)
    bench.heads(PEER, SignedHeader(forged, stranger.last.signature))
    assert not bench.protocol.mute


def test_retired_by_our_own_offline_entry() -> None:
    bench = Bench()
    _publish(bench, "genesis", root=GENESIS_ROOT)
    bench.connect(PEER)
    bench.heads(PEER, sign_retire(NETWORK, bench.key, bench.identity.sign))
    assert bench.protocol.stopped == "retired"
    again = Bench(0, decode_known(bench.protocol.snapshot().encode()))
    assert again.protocol.stopped == "retired"


def test_a_profile_is_due_now_and_then() -> None:
    bench = Bench()
    assert not only(bench.ticks(10.0), ProfileDue), "nothing published yet"
    _publish(bench, "genesis", root=GENESIS_ROOT)
    assert len(only(bench.ticks(10.0), ProfileDue)) == 1
    assert len(only(bench.ticks(bench.settings.profile_every_s), ProfileDue)) == 1


def test_the_proof_of_our_own_fork_is_checkable_by_anybody() -> None:
    author = _life(count=6)
    bench = _restored(author, 4)
    _difference(bench, 20)
    bench.connect(PEER, author.log[4])
    (proof,) = bench.protocol.snapshot().proofs
    assert decode_proof(proof.encode()).id == proof.id


def test_a_fork_that_was_cited_stays_cited() -> None:
    author = _life(count=6)
    bench = Bench(0, Known(own=tuple(author.log[:5])), ring=4)
    _difference(bench, 20)
    bench.connect(PEER, author.log[5])
    bench.step(Unmute(bench.now))
    assert bench.protocol.must_resume
    uncited = decode_known(bench.protocol.snapshot().encode())
    _publish(bench, "resume", root=root_of(21))
    for n in range(3 * bench.settings.ring):
        _difference(bench, 30 + n)
    kinds = [signed.header.kind for signed in bench.protocol.own_headers().values()]
    assert kinds.count("resume") == 1, "for those who are shown the old proof"
    known = decode_known(bench.protocol.snapshot().encode())
    assert len(known.proofs) == 1, "once, and it stays: others may still ask"
    lost = tuple(signed for signed in known.own if signed.header.kind != "resume")
    assert not Bench(0, replace(known, own=lost), ring=4).protocol.mute, "it is written down too"
    again = Bench(0, known, ring=4)
    assert not again.protocol.mute
    assert again.protocol.snapshot() == bench.protocol.snapshot(), "and so after every restart"
    assert Bench(0, uncited, ring=4).protocol.mute, "the fork itself does silence a restart"


def test_who_forked_and_resumed_does_not_show_its_own_fork_with_every_digest() -> None:
    author = _life(count=6)
    bench = _restored(author, 5)
    _difference(bench, 20)
    bench.connect(PEER, author.log[5])
    bench.step(Unmute(bench.now))
    _publish(bench, "resume", root=root_of(21))
    again = Bench(0, decode_known(bench.protocol.snapshot().encode()))
    again.connect(PEER)
    head = again.protocol.own_highest
    assert head is not None
    seq = head.header.seq + 1
    assert not sent(again.digest(PEER, Row(bench.key, 0, seq, seq, head.header.hash[:MARK_BYTES])))


def test_what_was_stored_before_citations_were_is_still_read() -> None:
    bench = Bench()
    _publish(bench, "genesis", root=GENESIS_ROOT)
    row = unpack(bench.protocol.snapshot().encode(), bytes_max=1 << 20)
    del row["cited"]
    assert decode_known(pack(row)) == bench.protocol.snapshot()


@given(st.lists(st.sampled_from(Cue), max_size=12), st.sampled_from(Voice))
def test_stopped_is_for_ever_and_shown_always_silences(cues: list[Cue], voice: Voice) -> None:
    for cue in cues:
        if (voice, cue) not in TRANSITIONS:
            return
        before, voice = voice, TRANSITIONS[voice, cue]
        assert before is not Voice.STOPPED or voice is Voice.STOPPED
        assert cue is not Cue.SHOWN or voice in (Voice.MUTE, Voice.STOPPED)
        assert cue is not Cue.REFUTED or voice is Voice.STOPPED
        assert voice is not Voice.SPEAKING or before is not Voice.MUTE
