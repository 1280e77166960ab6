"""Two signed entries with one seq: weight 0, the author is told, and a citing resume heals it."""

from dataclasses import replace

import pytest
from gossip_kit import GENESIS_ROOT, NETWORK, Author, Bench, key, only, sent

from tapestry_p2p.gossip.canonical import Malformed, pack
from tapestry_p2p.gossip.effects import Fetch, FetchKeyframe, Forked, Persist
from tapestry_p2p.gossip.events import Connected, Message
from tapestry_p2p.gossip.fork import decode_proof, fork_proof
from tapestry_p2p.gossip.header import SignedHeader, sign
from tapestry_p2p.gossip.known import decode_known
from tapestry_p2p.gossip.messages import HELLO, MARK_BYTES, Heads, Hello, Row, encode_hello
from tapestry_p2p.gossip.own import sign_retire

OTHER = key(5).public_key


def _followed(count: int = 4) -> tuple[Bench, Author]:
    bench, author = Bench(), Author(1)
    author.grow(count)
    bench.obey(bench.connect(author.key, *author.log))
    assert bench.protocol.position(author.key) == count - 1
    return bench, author


def _fork(author: Author) -> tuple[SignedHeader, SignedHeader]:
    """Two entries for the author's next seq; the first is also in its log."""
    twin = author.fork()
    return author.difference(), twin.difference(salt=7)


def test_a_fork_is_proved_stored_and_shown_to_its_author() -> None:
    bench, author = _followed()
    one, other = _fork(author)
    bench.heads(author.key, one)
    effects = bench.heads(author.key, other)
    (forked,) = only(effects, Forked)
    assert forked.proof == fork_proof(one, other) == fork_proof(other, one)
    kinds = [type(effect) for effect in effects]
    assert kinds.index(Persist) < kinds.index(Forked)
    assert Heads((forked.proof.first, forked.proof.second)) in sent(effects, author.key)
    assert bench.protocol.weight_zero(author.key)
    assert bench.count("accept", "fork") == 1
    assert not bench.protocol.statistics()["reject"], "who passes a fork on is not to blame"


def test_a_forked_stream_costs_nothing_more() -> None:
    bench, author = _followed()
    one, other = _fork(author)
    bench.heads(author.key, one, other)
    before = bench.verifies
    effects = bench.heads(author.key, *author.grow(3))
    assert bench.verifies == before
    assert not only(effects, Fetch)
    assert bench.count("ignore", "forked") == 3


def test_a_resume_that_cites_the_proof_is_followed_again() -> None:
    bench, author = _followed()
    one, other = _fork(author)
    (forked,) = only(bench.heads(author.key, one, other), Forked)
    bench.heads(author.key, author.fork().resume())
    assert bench.protocol.weight_zero(author.key)
    assert bench.count("ignore", "forked") == 1
    effects = bench.heads(author.key, author.resume(cites=forked.proof.id))
    (whole,) = only(effects, FetchKeyframe)
    assert whole.signed_header == author.last
    bench.obey(effects)
    assert not bench.protocol.weight_zero(author.key)
    (fetch,) = only(bench.heads(author.key, author.difference()), Fetch)
    assert fetch.signed_header == author.last


def test_a_citing_resume_needs_no_link_to_the_branch_we_saw() -> None:
    bench, author = _followed()
    one, other = _fork(author)
    (forked,) = only(bench.heads(author.key, one, other), Forked)
    author.log[-1] = other
    author.grow(5)
    effects = bench.heads(author.key, author.resume(cites=forked.proof.id))
    assert only(effects, FetchKeyframe)
    assert not bench.protocol.weight_zero(author.key)


def test_old_entries_of_a_healed_fork_prove_nothing_new() -> None:
    bench, author = _followed()
    twin = author.fork()
    author.grow(3)
    twin_entries = [twin.difference(salt=7) for _ in range(3)]
    (forked,) = only(bench.heads(author.key, *author.log[4:], twin_entries[0]), Forked)
    bench.obey(bench.heads(author.key, author.resume(cites=forked.proof.id)))
    before = bench.verifies
    assert not only(bench.heads(author.key, *twin_entries[1:]), Forked)
    assert bench.verifies == before


def test_a_successor_that_does_not_link_asks_for_its_twin() -> None:
    bench, author = _followed()
    twin = author.fork()
    bench.heads(author.key, author.difference())
    twin.difference(salt=7)
    effects = bench.heads(author.key, twin.difference(salt=7))
    (want,) = sent(effects)
    assert (want.first, want.last) == (4, 4)  # type: ignore[union-attr]
    assert only(bench.heads(author.key, twin.log[4]), Forked)


def test_a_fork_at_a_milestone_is_proved_long_after() -> None:
    bench, author = _followed()
    author.grow(60)
    twin = author.fork()
    milestone = author.difference()
    assert milestone.header.seq == 64
    bench.obey(bench.heads(author.key, *author.log[4:]))
    for entry in author.grow(40):
        bench.obey(bench.heads(author.key, entry))
    assert only(bench.heads(OTHER, twin.difference(salt=7)), Forked) == []
    bench.connect(OTHER)
    assert only(bench.heads(OTHER, twin.last), Forked)


def test_a_fork_hidden_behind_a_jump_is_looked_for_at_the_last_milestone() -> None:
    """We stood at 70; somebody shows 200 of another branch that left ours before 64."""
    bench, author = _followed()
    author.grow(56)
    twin = author.fork()
    author.grow(10)
    for entry in author.log[4:]:
        bench.obey(bench.heads(author.key, entry))
    for _ in range(140):
        twin.difference(salt=7)
    bench.connect(OTHER)
    effects = bench.heads(OTHER, twin.last)
    assert only(effects, FetchKeyframe)
    (want,) = sent(effects)
    assert (want.first, want.last) == (64, 64)  # type: ignore[union-attr]
    assert only(bench.heads(OTHER, twin.log[64]), Forked)


def test_another_incarnation_at_the_same_seq_is_no_fork() -> None:
    bench, author = _followed()
    twin = author.fork()
    bench.heads(author.key, author.difference())
    effects = bench.heads(author.key, twin.resume())
    assert not only(effects, Forked)
    assert not bench.protocol.weight_zero(author.key)
    assert bench.count("ignore", "rival") == 1


def test_a_stream_that_goes_on_in_another_incarnation_is_taken_by_keyframe() -> None:
    """Its author lost entry 4, resumed at 4 without us, and went on."""
    bench, author = _followed()
    twin = author.fork()
    bench.obey(bench.heads(author.key, author.difference()))
    twin.resume()
    effects = bench.heads(author.key, twin.difference())
    (whole,) = only(effects, FetchKeyframe)
    assert whole.signed_header == twin.last
    bench.obey(effects)
    assert bench.protocol.position(author.key) == 5


def test_a_resume_with_our_very_root_needs_no_keyframe() -> None:
    bench, author = _followed()
    effects = bench.heads(author.key, author.resume(root=author.last.header.root))
    assert not only(effects, FetchKeyframe)
    assert bench.protocol.position(author.key) == 4


def test_a_resume_with_another_root_is_taken_by_keyframe() -> None:
    bench, author = _followed()
    effects = bench.heads(author.key, author.resume())
    assert only(effects, FetchKeyframe)


def test_a_proof_outlives_a_restart() -> None:
    bench, author = _followed()
    (forked,) = only(bench.heads(author.key, *_fork(author)), Forked)
    again = Bench(0, decode_known(bench.protocol.snapshot().encode()))
    assert again.protocol.weight_zero(author.key)
    effects = again.connect(author.key)
    assert Heads((forked.proof.first, forked.proof.second)) in sent(effects, author.key)
    again.heads(author.key, author.resume(cites=forked.proof.id))
    assert not again.protocol.weight_zero(author.key)


def test_no_false_proofs() -> None:
    author = Author(1)
    author.grow(5)
    with pytest.raises(ValueError, match="conflict"):
        fork_proof(author.log[3], author.log[4])
    one, other = _fork(author)
    proof = fork_proof(one, other)
    unsigned = SignedHeader(proof.second.header, bytes(64))
    for pair in (
        [one, one], [author.log[3], author.log[4]], [proof.second, proof.first],
        [proof.first, unsigned], [proof.first],
    ):  # fmt: skip
        with pytest.raises(Malformed):
            decode_proof(pack([signed.encode() for signed in pair]))


@pytest.mark.parametrize("seq", [5, 70], ids=["behind the ring", "at the head"])
@pytest.mark.parametrize("forged_first", [False, True])
def test_half_a_fork_that_the_author_did_not_sign_accuses_nobody(
    seq: int, forged_first: bool
) -> None:
    """A true header beside one of the same seq that somebody else made up."""
    bench, author = _followed()
    for entry in author.grow(66):
        bench.obey(bench.heads(author.key, entry))
    true = author.log[seq] if seq < 70 else author.difference()
    header = replace(true.header, root=bytes([9]) * 32)
    by_another = sign(header, key(7).sign)
    bench.connect(OTHER)
    for forged in (by_another, SignedHeader(header, true.signature)):
        pair = (forged, true) if forged_first else (true, forged)
        before = bench.count("reject", "signature")
        effects = bench.obey(bench.heads(OTHER, *pair))
        assert bench.count("reject", "signature") == before + 1
        assert not only(effects, Forked)
        assert not bench.protocol.weight_zero(author.key)
    assert not bench.protocol.snapshot().proofs
    signed = sign(header, author.identity.sign)
    assert only(bench.heads(OTHER, true, signed), Forked), "had it signed both, it would be one"


def test_retire_ends_a_stream_at_any_seq_for_good() -> None:
    bench, author = _followed()
    retire = sign_retire(NETWORK, author.key, author.identity.sign)
    bench.heads(author.key, SignedHeader(retire.header, bytes(64)))
    assert not bench.protocol.weight_zero(author.key)
    bench.heads(author.key, retire)
    assert bench.protocol.weight_zero(author.key)
    assert bench.protocol.followed() == ()
    before = bench.verifies
    bench.heads(author.key, *author.grow(2), retire)
    assert bench.verifies == before
    assert bench.count("ignore", "retired") == 3
    again = Bench(0, decode_known(bench.protocol.snapshot().encode()))
    assert again.protocol.weight_zero(author.key)
    assert retire in [head for frame in sent(again.connect(OTHER), OTHER) for head in frame.heads]  # type: ignore[union-attr]


def test_forks_of_names_that_are_nobody_cost_no_write_and_no_word() -> None:
    bench = Bench(probation_rounds=64)
    for n in range(20, 30):
        bench.connect(key(n).public_key)
    heads: list[SignedHeader] = []
    for n in range(1000, 1016):
        made, twin = Author(n % 251), Author(n % 251)
        for one in (made, twin):
            one.identity = key(n)
            one.key = one.identity.public_key
        heads += [made.genesis(), twin.add(twin.entry("genesis", root=GENESIS_ROOT, round=5))]
    effects = bench.heads(key(20).public_key, *heads)
    assert bench.count("accept", "fork") == 16
    assert not [e for e in effects if isinstance(e, Persist | Forked)]
    assert not sent(effects)
    assert all(bench.protocol.weight_zero(signed.header.author) for signed in heads)
    author = Author(1)
    bench.connect(author.key, *author.grow(4))
    assert only(bench.heads(key(20).public_key, *_fork(author)), Forked), "who is here is somebody"


@pytest.mark.parametrize("away", [False, True])
def test_who_is_shown_an_old_proof_is_shown_what_ended_it(away: bool) -> None:
    """The resume that cites it is long out of everybody's ring."""
    witness, author = _followed()
    late = Bench(3)
    late.connect(OTHER)
    if away:
        late.obey(late.heads(OTHER, *author.log))
    one, other = _fork(author)
    (forked,) = only(witness.heads(author.key, one, other), Forked)
    witness.obey(witness.heads(author.key, author.resume(cites=forked.proof.id)))
    for signed in author.grow(5 * witness.settings.ring):
        witness.now += 1
        witness.obey(witness.heads(author.key, signed))
    assert witness.protocol.position(author.key) == author.last.header.seq
    late.heads(OTHER, one, other)
    assert late.protocol.weight_zero(author.key)
    witness.connect(late.key)
    row = Row(author.key, 0, one.header.seq + 1, 0, forked.proof.id[:MARK_BYTES])
    answer = [m for m in sent(witness.digest(late.key, row), late.key) if isinstance(m, Heads)]
    for message in answer:
        late.heads(OTHER, *message.heads)
    assert late.protocol.head(author.key) == author.last
    assert late.count("accept", "resume") == 1
    late.heads(OTHER, one, other)
    assert late.protocol.head(author.key) == author.last, "and the proof is worth nothing now"


def test_a_proof_is_passed_on_once_to_everybody() -> None:
    bench, author = _followed()
    for n in (6, 7):
        bench.connect(key(n).public_key)
    one, other = _fork(author)
    effects = bench.heads(author.key, one, other)
    both = Heads((fork_proof(one, other).first, fork_proof(one, other).second))
    for n in (6, 7):
        assert sent(effects, key(n).public_key).count(both) == 1
    again = bench.heads(key(6).public_key, one, other)
    assert not only(again, Forked)
    assert both not in sent(again, key(7).public_key)


def test_who_comes_later_and_holds_the_author_is_shown_the_proof() -> None:
    bench, author = _followed()
    one, other = _fork(author)
    bench.heads(author.key, one, other)
    both = Heads((fork_proof(one, other).first, fork_proof(one, other).second))
    row = Row(author.key, 0, 4, 4)
    holder, stranger = key(8).public_key, key(9).public_key
    for peer, rows in ((holder, (row,)), (stranger, ())):
        bench.step(Connected(peer, bench.now))
        hello = encode_hello(Hello(NETWORK, 1, (), rows, False))
        effects = bench.step(Message(peer, HELLO, hello, bench.now))
        assert (both in sent(effects, peer)) is bool(rows)


def test_an_old_fork_shown_again_after_the_resume_changes_nothing() -> None:
    bench, author = _followed()
    one, other = _fork(author)
    (forked,) = only(bench.heads(author.key, one, other), Forked)
    bench.obey(bench.heads(author.key, author.resume(cites=forked.proof.id)))
    assert not bench.protocol.weight_zero(author.key)
    for heads in ((one, other), (other,), (one,), (other, one)):
        effects = bench.heads(author.key, *heads)
        assert not only(effects, Forked)
        assert not bench.protocol.weight_zero(author.key)
