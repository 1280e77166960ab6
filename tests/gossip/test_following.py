"""How a copy gets to its author's head: in order, over gaps, by keyframe, after every failure."""

from dataclasses import replace

from gossip_kit import GENESIS_ROOT, Author, Bench, key, only, root_of, sent

from tapestry_p2p.gossip.effects import (
    Advanced,
    Arrived,
    Drop,
    Fetch,
    FetchKeyframe,
    Send,
    Unfollow,
)
from tapestry_p2p.gossip.header import sign
from tapestry_p2p.gossip.messages import Row, Want


def _start(count: int = 3) -> tuple[Bench, Author]:
    """A bench whose copy of an author stands at entry ``count - 1``."""
    bench, author = Bench(), Author(1)
    entries = author.grow(count)
    bench.obey(bench.connect(author.key, entries[0]))
    for entry in entries[1:]:
        bench.obey(bench.heads(author.key, entry))
    assert bench.protocol.position(author.key) == count - 1
    return bench, author


def test_genesis_then_differences_in_order() -> None:
    bench, author = Bench(), Author(1)
    author.grow(2)
    effects = bench.connect(author.key, author.log[0])
    assert [(e.author, e.seq) for e in only(effects, Arrived)] == [(author.key, 0)]
    (fetch,) = only(effects, Fetch)
    assert fetch.signed_header == author.log[0]
    effects = bench.heads(author.key, author.log[1])
    assert only(effects, Arrived)
    assert not only(effects, Fetch), "one job at a time"
    (fetch,) = only(bench.applied(author.key, 0, GENESIS_ROOT), Fetch)
    assert (fetch.signed_header, fetch.sources) == (author.log[1], (author.key,))


def test_headers_may_outrun_the_fetch_and_are_taken_in_order() -> None:
    bench, author = _start()
    news = author.grow(5)
    effects = [effect for entry in news for effect in bench.heads(author.key, entry)]
    assert [e.seq for e in only(effects, Arrived)] == [3, 4, 5, 6, 7]
    (first,) = only(effects, Fetch)
    done = bench.obey([first])
    assert [e.signed_header.header.seq for e in only(done, Fetch)] == [3, 4, 5, 6, 7]


def test_a_gap_is_asked_for_and_filled() -> None:
    bench, author = _start()
    author.grow(4)
    effects = bench.heads(author.key, author.last)
    assert sent(effects) == [Want(author.key, 3, 5)]
    assert [e.seq for e in only(effects, Arrived)] == [6], "arrival counts though it cannot be used"
    assert not only(effects, Fetch)
    done = bench.obey(bench.heads(author.key, *author.log[3:6]))
    assert bench.protocol.position(author.key) == 6
    assert not only(done, FetchKeyframe)


def test_only_the_highest_head_beyond_the_window_is_held() -> None:
    bench, author = _start()
    author.grow(8)
    bench.heads(author.key, author.log[6])
    bench.heads(author.key, author.log[9])
    assert bench.verifies
    before = bench.verifies
    bench.heads(author.key, author.log[7])
    assert bench.verifies == before
    assert bench.count("ignore", "beyond") == 1
    assert bench.protocol.statistics()["tables"]["headers"] == 3


def test_an_unanswered_want_goes_to_every_holder_and_then_to_a_keyframe() -> None:
    bench, author = _start()
    other = key(5).public_key
    author.grow(3)
    bench.connect(other, rows=(Row(author.key, 0, 6, 6),))
    asked = [author.key]
    bench.heads(author.key, author.last)
    frames = [bench.tick(1.0) for _ in range(8)]
    sends = [send for effects in frames for send in only(effects, Send)]
    asked += [send.peer for send in sends if Want(author.key, 3, 4) in sent([send])]
    assert asked == [author.key, other, author.key]
    (whole,) = [e for effects in frames for e in only(effects, FetchKeyframe)]
    assert whole.signed_header == author.last


def test_a_gap_larger_than_the_ring_goes_by_keyframe() -> None:
    bench, author = _start()
    author.grow(bench.settings.ring + 1)
    effects = bench.heads(author.key, author.last)
    (whole,) = only(effects, FetchKeyframe)
    assert whole.signed_header == author.last
    assert not sent(effects)
    bench.obey(effects)
    author.grow(1)
    (fetch,) = only(bench.heads(author.key, author.last), Fetch)
    assert fetch.signed_header == author.last


def test_a_gap_of_the_ring_still_goes_entry_by_entry() -> None:
    bench, author = _start()
    news = author.grow(bench.settings.ring)
    effects = bench.heads(author.key, author.last)
    assert sent(effects) == [Want(author.key, 3, 17)]
    done = bench.obey(bench.heads(author.key, *news))
    assert not only(done, FetchKeyframe)
    assert bench.protocol.position(author.key) == 18


def test_a_late_joiner_takes_a_keyframe_and_goes_on() -> None:
    bench, author = Bench(), Author(1)
    author.grow(100)
    effects = bench.connect(author.key, author.last)
    (whole,) = only(effects, FetchKeyframe)
    more = [e for entry in author.grow(3) for e in bench.heads(author.key, entry)]
    assert not only(more, Fetch)
    done = bench.obey([whole])
    assert [e.signed_header.header.seq for e in only(done, Fetch)] == [100, 101, 102]


def test_a_young_stream_is_followed_from_its_genesis() -> None:
    bench, author = Bench(), Author(1)
    author.grow(17)
    effects = bench.connect(author.key, author.last)
    assert sent(effects)[-1] == Want(author.key, 0, 15)
    done = bench.obey(bench.heads(author.key, *author.log[:16]))
    assert bench.protocol.position(author.key) == 16
    assert not only(done, FetchKeyframe)


def test_a_pile_of_pending_entries_above_the_ring_becomes_a_keyframe() -> None:
    bench, author = _start()
    news = author.grow(bench.settings.ring + 5)
    effects = [e for entry in news for e in bench.heads(author.key, entry)]
    (fetch,) = only(effects, Fetch)
    assert fetch.signed_header == news[0]
    (whole,) = only(bench.applied(author.key, 3, root_of(3)), FetchKeyframe)
    assert whole.signed_header == author.last


def test_headers_missed_during_a_keyframe_are_asked_for_meanwhile() -> None:
    bench, author = Bench(), Author(1)
    author.grow(100)
    (whole,) = only(bench.connect(author.key, author.last), FetchKeyframe)
    news = author.grow(4)
    effects = bench.heads(author.key, news[-1])
    assert sent(effects) == [Want(author.key, 100, 102)]
    bench.heads(author.key, *news[:-1])
    assert not only(bench.obey([whole]), FetchKeyframe)[1:]
    assert bench.protocol.position(author.key) == 103


def test_a_failed_fetch_is_retried_with_growing_pauses() -> None:
    bench, author = _start()
    effects = bench.heads(author.key, *author.grow(1))
    pauses = []
    for _ in range(6):
        (fetch,) = only(effects, Fetch)
        assert fetch.signed_header == author.last
        bench.failed(author.key, 3, "unreachable")
        start = bench.now
        effects = []
        while not only(effects, Fetch):
            effects = bench.tick(0.1)
        pauses.append(bench.now - start)
    assert pauses[-1] > 3 * pauses[0]
    assert sum(pauses) < 40


def test_a_payload_that_nobody_has_makes_a_keyframe_and_then_the_entry_again() -> None:
    bench, author = _start()
    effects = bench.heads(author.key, *author.grow(1))
    kinds = []
    for _ in range(8):
        (job,) = [e for e in effects if isinstance(e, Fetch | FetchKeyframe)]
        kinds.append(type(job))
        bench.failed(author.key, 3, "missing")
        effects = bench.ticks(40.0)
    assert kinds == [Fetch, Fetch, Fetch, FetchKeyframe, Fetch, Fetch, Fetch, FetchKeyframe]


def test_a_wrong_root_is_nobodys_fault_and_is_healed_by_a_keyframe() -> None:
    bench, author = _start()
    bench.heads(author.key, *author.grow(1))
    bench.applied(author.key, 3, root_of(77))
    assert bench.count("ignore", "fetch_root") == 1
    assert bench.protocol.position(author.key) == -1
    (whole,) = only(bench.ticks(2.0), FetchKeyframe)
    bench.obey([whole])
    assert bench.protocol.position(author.key) == 3
    assert not bench.protocol.statistics()["reject"]


def test_a_spoilt_copy_counts_even_from_a_replaced_job() -> None:
    bench, author = _start()
    bench.failed(author.key, 2, "root")
    assert only(bench.ticks(2.0), FetchKeyframe)


def test_hostile_content_puts_its_author_out_each_time_twice_as_long() -> None:
    """Its hash is in a signed header: nobody else can have made it. Each return costs a copy."""
    bench, author = _start()
    wait = bench.settings.shunned_s
    for times in range(1, 5):
        bench.heads(author.key, *author.grow(1))
        seq = author.last.header.seq
        effects = bench.failed(author.key, seq, "content")
        assert [e.reason for e in only(effects, Unfollow)] == ["content"]
        assert bench.count("reject", "content") == times
        assert bench.protocol.weight_zero(author.key)
        calm = bench.ticks(wait - 2.0)
        assert not only(calm, Fetch)
        assert not only(calm, FetchKeyframe)
        bench.heads(author.key, *author.grow(1))
        (whole,) = only(bench.ticks(14.0), FetchKeyframe)  # nobody has the headers
        bench.obey([whole])
        assert not bench.protocol.weight_zero(author.key)
        wait *= 2


def test_who_signs_hostile_content_again_and_again_is_cut_and_the_table_is_capped() -> None:
    bench = Bench(members_max=20, shunned_max_s=60.0)
    for n in range(1, 40):
        author = Author(n)
        author.grow(3)
        bench.obey(bench.connect(author.key, *author.log))
        bench.failed(author.key, 2, "content")
        bench.now += 1.0
    assert bench.protocol.statistics()["tables"]["shunned"] == 20
    bench, author = _start()
    for _ in range(bench.settings.blames_max):
        bench.heads(author.key, *author.grow(1))
        effects = bench.failed(author.key, author.last.header.seq, "content")
        bench.protocol._state.shunned._rows.clear()
        bench.obey(bench.tick(1.0))
    assert [drop.reason for drop in only(effects, Drop)] == ["too_many_rejects"]


def test_another_root_than_expected_is_never_blamed() -> None:
    bench, author = _start()
    for _ in range(20):
        bench.heads(author.key, *author.grow(1))
        bench.failed(author.key, author.last.header.seq, "root")
        bench.obey(bench.ticks(60.0, every=5.0))
    assert not bench.protocol.statistics()["reject"]
    assert bench.protocol.followed() == (author.key,)


def test_a_job_that_the_shell_never_answers_is_given_up() -> None:
    bench, author = _start()
    bench.heads(author.key, *author.grow(1))
    assert not only(bench.ticks(119.0), Fetch)
    assert only(bench.ticks(3.0), Fetch)


def test_a_reconnected_author_is_asked_at_once() -> None:
    bench, author = _start()
    bench.heads(author.key, *author.grow(1))
    for _ in range(6):
        bench.failed(author.key, 3, "unreachable")
        bench.ticks(40.0)
    bench.failed(author.key, 3, "unreachable")
    from tapestry_p2p.gossip.events import Disconnected

    bench.step(Disconnected(author.key, bench.now))
    (fetch,) = only(bench.connect(author.key, author.last), Fetch)
    assert fetch.signed_header == author.last


def test_other_holders_are_sources_and_the_author_comes_first() -> None:
    bench, author = _start()
    holders = [key(n).public_key for n in (5, 6, 7)]
    bench.connect(holders[0], rows=(Row(author.key, 0, 4, 4),))
    bench.connect(holders[1], rows=(Row(author.key, 0, 4, 3),))
    bench.connect(holders[2], rows=(Row(author.key, 0, 4, 4),))
    (fetch,) = only(bench.heads(author.key, *author.grow(1)), Fetch)
    assert fetch.sources[0] == author.key
    assert set(fetch.sources[1:]) == {holders[0], holders[2]}


def test_a_joiner_whose_author_is_gone_takes_the_copy_where_somebody_stands() -> None:
    """The author published entry 50 and died; the holders' copies stand at 49."""
    bench, author = Bench(), Author(1)
    author.grow(51)
    holder = key(5).public_key
    effects = bench.connect(holder, author.last, rows=(Row(author.key, 0, 51, 50),))
    wants = sent(effects, holder)
    jobs = only(effects, FetchKeyframe)
    for _ in range(60):
        for want in wants:
            if isinstance(want, Want):
                found = [s for s in author.log if want.first <= s.header.seq <= want.last]
                jobs += only(bench.heads(holder, *found), FetchKeyframe)
        for job in jobs:
            if job.signed_header.header.seq == 49:
                bench.obey([job])
                assert bench.protocol.position(author.key) == 49
                return
            bench.failed(author.key, job.signed_header.header.seq, "missing")
        bench.digest(holder, Row(author.key, 0, 51, 50))
        effects = bench.tick(0.5)
        wants, jobs = sent(effects, holder), only(effects, FetchKeyframe)
    raise AssertionError("never reached the holder's copy")


def test_profiles_and_leave_move_the_position_without_a_fetch() -> None:
    bench, author = _start()
    bench_effects = bench.heads(author.key, author.profile())
    assert [e.signed_header.header.seq for e in only(bench_effects, Advanced)] == [3]
    assert not only(bench_effects, Fetch)
    (fetch,) = only(bench.heads(author.key, *author.grow(1)), Fetch)
    bench.obey([fetch])
    effects = bench.heads(author.key, author.leave())
    assert only(effects, Unfollow)
    assert bench.protocol.weight_zero(author.key)


def test_a_profile_whose_root_is_not_ours_shows_a_spoilt_copy() -> None:
    bench, author = _start()
    entry = author.profile()
    changed = replace(entry.header, root=root_of(55))
    other = sign(changed, author.identity.sign)
    assert only(bench.heads(author.key, other), FetchKeyframe)


def test_who_left_may_come_back() -> None:
    bench, author = _start()
    bench.heads(author.key, author.leave())
    assert bench.protocol.followed() == ()
    author.grow(1)
    bench.heads(author.key, author.last)
    assert only(bench.tick(), FetchKeyframe) or bench.protocol.followed() == (author.key,)


def test_an_author_restarted_at_an_older_head_is_shown_its_own_newest() -> None:
    bench, author = _start(6)
    effects = bench.connect(author.key, author.log[3], rows=(Row(author.key, 0, 4, 4),))
    shown = [s for frame in sent(effects) if hasattr(frame, "heads") for s in frame.heads]
    assert author.log[4] in shown
    assert author.log[5] in shown


def test_large_models_take_keyframes_only_where_a_root_is_stated() -> None:
    bench, author = Bench(), Author(1)
    author.grow(64)
    author.difference()  # 64 states its root
    for _ in range(5):
        author.difference(root=b"")
    assert not only(bench.connect(author.key, author.last), FetchKeyframe), "69 states none"
    (whole,) = only(bench.heads(author.key, author.difference()), FetchKeyframe)
    assert whole.signed_header == author.last
