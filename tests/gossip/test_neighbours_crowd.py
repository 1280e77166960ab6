"""Links between whole protocols: the words that make them, and what many members make of them."""

from collections.abc import Iterable
from typing import Any

import pytest
from crowd_kit import Crowd
from gossip_kit import Author, Bench, key, only, sent

from tapestry_p2p.gossip import roster
from tapestry_p2p.gossip.canonical import pack
from tapestry_p2p.gossip.effects import Dial, Effect, Unfollow
from tapestry_p2p.gossip.events import Connected, Disconnected, Message, Publish
from tapestry_p2p.gossip.known import decode_known
from tapestry_p2p.gossip.membership import address_block
from tapestry_p2p.gossip.messages import (
    ASK,
    ASK_GUEST,
    SYNC,
    TELL,
    Following,
    Members,
    encode_sync,
)

QUIET = {"digest_every_s": 20.0, "round_s": 30.0}


def _sparse(count: int = 8, **changes: Any) -> tuple[Bench, list[Author]]:
    """A bench with a stream of its own that knows so many others, with links to none."""
    bench = Bench(**{"all_to_all_max": 3, "k": 4, **changes})
    bench.step(Publish("genesis", bench.now, root=bench.settings.genesis_root))
    authors = [Author(n) for n in range(1, count + 1)]
    teller = key(999).public_key
    bench.connect(teller)
    for author in authors:
        author.genesis()
        author.profile(f"m{author.key[0]}")
        bench.say(teller, Members(((author.last, author.payload),)))
    bench.tick(0.5)
    for peer in list(bench.protocol._state.neighbours.ties):
        bench.step(Disconnected(peer, bench.now))
        bench.protocol._state.neighbours.part(peer)
        bench.protocol._roster.let_go(peer, "test")
    assert bench.protocol.is_sparse
    return bench, authors


def _told(effects: Iterable[Effect], peer: bytes) -> list[Following]:
    return [frame for frame in sent(effects, peer) if isinstance(frame, Following)]


def test_whom_we_choose_is_dialled_asked_and_followed_when_it_agrees() -> None:
    bench, authors = _sparse()
    chosen = {dial.peer for dial in only(bench.ticks(5.0), Dial)}
    assert 0 < len(chosen) <= 4
    author = next(author for author in authors if author.key in chosen)
    effects = bench.connect(author.key, author.last) + bench.tick(0.1)
    assert _told(effects, author.key)[-1] == Following(True, ASK_GUEST)
    assert author.key not in bench.protocol.followed()
    effects = bench.say(author.key, Following(True, TELL))
    assert bench.protocol.followed() == (author.key,)
    assert not _told(effects, author.key), "nothing more to say"
    assert bench.protocol.neighbours == 4, "absent neighbours keep their weight: k it stays"


def test_who_asks_is_answered_and_followed_while_there_is_room() -> None:
    bench, authors = _sparse()
    answers = []
    for author in authors:
        bench.connect(author.key, author.last)
        answers += _told(bench.say(author.key, Following(True, ASK)), author.key)[:1]
    yes = [answer for answer in answers if answer.follow]
    assert len(answers) == len(authors)
    assert 2 <= len(yes) <= 4
    assert len(bench.protocol.followed()) == len(yes)


def test_a_word_about_links_looks_at_the_links_and_not_at_every_member(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Such frames cost a sender 20 bytes; with 256 members each led to 256 parsed addresses."""
    bench, authors = _sparse(count=40)
    parsed = []

    def counting(address: str) -> str | None:
        parsed.append(address)
        return address_block(address)

    monkeypatch.setattr(roster, "address_block", counting)
    for author in authors[:10]:
        bench.connect(author.key, author.last)
        before = len(parsed)
        bench.say(author.key, Following(True, ASK))
        assert 1 <= len(parsed) - before <= 5, "its own, and those of at most k = 4 links"
    assert len(bench.protocol.followed()) >= 2


def test_a_link_that_its_other_end_gives_up_is_given_up() -> None:
    bench, authors = _sparse()
    author = authors[0]
    bench.connect(author.key, author.last)
    bench.say(author.key, Following(True, ASK))
    effects = bench.say(author.key, Following(False, TELL))
    assert [e.reason for e in only(effects, Unfollow)] == ["no_link"]
    assert not _told(effects, author.key)
    again = bench.say(author.key, Following(True, ASK))
    assert _told(again, author.key) == [Following(False, TELL)], "who comes and goes has to wait"


def test_no_link_without_a_stream_nor_with_one_that_forked_or_left() -> None:
    bench, authors = _sparse()
    stranger, forked, gone = Author(50), authors[1], authors[2]
    for author, heads in ((stranger, ()), (forked, (forked.last,)), (gone, (gone.leave(),))):
        bench.connect(author.key, *heads)
    bench.heads(forked.key, forked.fork().difference(1), forked.difference(2))
    assert bench.count("accept", "fork") == 1
    for author in (stranger, forked, gone):
        (answer,) = _told(bench.say(author.key, Following(True, ASK)), author.key)
        assert not answer.follow


def test_where_all_follow_all_a_question_is_answered_and_nothing_is_given_up() -> None:
    bench, author = Bench(), Author(1)
    bench.connect(author.key, *author.grow(1))
    assert _told(bench.say(author.key, Following(True, ASK)), author.key) == [Following(True, TELL)]
    assert not bench.say(author.key, Following(False, TELL))
    assert bench.protocol.followed() == (author.key,)


@pytest.mark.parametrize(
    "frame",
    [
        {"t": "link", "ask": 3, "follow": 1},
        {"t": "link", "ask": 0, "follow": 2},
        {"t": "link", "ask": 0},
        {"t": "link", "ask": 0, "follow": 1, "more": 1},
        {"t": "link", "ask": b"", "follow": 1},
    ],
)
def test_other_words_are_refused(frame: dict[str, object]) -> None:
    bench, peer = Bench(), key(1).public_key
    bench.connect(peer)
    bench.step(Message(peer, SYNC, pack(frame), bench.now))
    assert bench.count("reject", "malformed") == 1


def test_the_frame_is_small() -> None:
    assert len(encode_sync(Following(True, ASK_GUEST))) < 24


def test_a_newcomer_reads_before_it_has_a_stream_and_asks_for_links_afterwards() -> None:
    """It needs copies to start from, and nobody links with one that has nothing to follow."""
    bench = Bench(all_to_all_max=2, k=4, f=1)
    teller, authors = key(999).public_key, [Author(n) for n in range(1, 9)]
    bench.connect(teller)
    for author in authors:
        author.genesis()
        author.difference(salt=author.key[0], round=authors.index(author) % 2)
        author.profile(f"m{author.key[0]}")
    rows = [(author.last, author.payload) for author in authors]
    bench.say(teller, Members(tuple(rows)))
    trained = {author.key for author in authors if author.last.header.round}
    dialled = {dial.peer for dial in only(bench.ticks(6.0), Dial)}
    assert len(dialled & trained) >= 3
    effects = []
    for author in authors:
        if author.key in dialled:
            effects += bench.obey(bench.connect(author.key, *author.log))
    effects += bench.obey(bench.ticks(40.0))
    assert not [frame for frame in sent(effects) if isinstance(frame, Following)]
    assert len(bench.protocol.references()) == 3
    read = set(bench.protocol.followed())
    assert len(read & trained) >= 3
    bench.step(Publish("genesis", bench.now, root=bench.settings.genesis_root))
    effects = bench.tick(1.0)
    asked = {peer for peer in read if _told(effects, peer)}
    assert asked == read
    (refuser, *_) = sorted(read)
    effects = bench.say(refuser, Following(False, TELL))
    assert [e.author for e in only(effects, Unfollow)] == [refuser]
    assert set(bench.protocol.followed()) == read - {refuser}


def test_connections_to_no_neighbour_are_few() -> None:
    bench, authors = _sparse(30, strays_max=3)
    for author in authors:
        bench.connect(author.key, author.last)
    bench.ticks(10.0)
    assert len(bench.protocol.greeted()) <= 4 + 3 + bench.settings.link_asks_max


def test_neighbours_and_their_order_survive_a_restart() -> None:
    bench, authors = _sparse()
    for author in authors[:3]:
        bench.connect(author.key, author.last)
        bench.say(author.key, Following(True, ASK))
        bench.obey(bench.heads(author.key, author.log[0]))
    before = bench.protocol.snapshot()
    assert len(before.neighbours) == len(before.copies) > 1
    again = Bench(0, decode_known(before.encode()), all_to_all_max=3, k=4)
    again.ticks(2.0)
    assert set(again.protocol.followed()) == {peer for peer, _ in before.neighbours}
    assert again.protocol.snapshot().secret == before.secret


# -- many


def _crowd(count: int, seed: int = 1, **changes: Any) -> Crowd:
    crowd = Crowd(count, seed, **{**QUIET, "guest_s": 30.0, **changes})
    crowd.start()
    return crowd


def _check(crowd: Crowd, k: int) -> None:
    """Links are mutual, as many as wanted but for a few, connect everybody; nobody was blamed."""
    degrees = crowd.degrees()
    assert crowd.one_sided() == []
    assert max(degrees) <= k
    assert sum(degrees) >= 0.9 * k * len(degrees)
    assert crowd.reached() == len(degrees)
    assert crowd.blamed() == 0


def test_a_crowd_settles_on_a_regular_graph_and_knows_everybody() -> None:
    crowd = _crowd(12, all_to_all_max=5, k=6)
    crowd.run(150.0)
    _check(crowd, 6)
    tables = [one.protocol.statistics()["tables"] for one in crowd.up() if one.protocol]
    assert all(table["members"] == 12 for table in tables)
    assert all(one.protocol.neighbours == 6 for one in crowd.up() if one.protocol)


def test_a_crowd_renews_its_links_and_keeps_most_of_them_at_any_time() -> None:
    crowd = _crowd(10, seed=2, all_to_all_max=4, k=4, renew_every_s=60.0)
    crowd.run(90.0)
    before = [one.links for one in crowd.members]
    for one in crowd.members:
        one.fewest = 4
    crowd.run(240.0)
    _check(crowd, 4)
    kept = sum(len(one.links & links) for one, links in zip(crowd.members, before, strict=True))
    assert kept < 0.75 * sum(map(len, before)), "the graph moves"
    assert min(one.fewest for one in crowd.members) >= 1, "and nobody is ever left alone"


def test_crossing_the_limit_and_back_keeps_the_streams() -> None:
    crowd = _crowd(6, seed=3, all_to_all_max=7, k=4, profile_every_s=60.0, member_expiry_s=180.0)
    crowd.run(60.0)
    assert crowd.degrees() == [5] * 6
    newcomers = [crowd.add(n, f"/ip4/10.0.0.{n}/tcp/1") for n in (7, 8)]
    for one in newcomers:
        one.start()
    crowd.run(120.0)
    _check(crowd, 4)
    assert crowd.fetches["FetchKeyframe"] <= 6, "copies that stay are not fetched again"
    for one in newcomers:
        one.crash()
    crowd.run(300.0)
    assert crowd.degrees() == [5] * 6
    assert all(not one.protocol.is_sparse for one in crowd.up() if one.protocol)


def test_a_member_that_is_cut_off_keeps_its_neighbours_and_agrees_with_them_again() -> None:
    crowd = _crowd(8, seed=4, all_to_all_max=4, k=4, link_absent_s=60.0)
    crowd.run(120.0)
    one = crowd.members[3]
    before = one.links
    crowd.isolate(one)
    crowd.run(300.0)
    assert one.links == before
    others = [other for other in crowd.members if other is not one]
    assert sum(one.key in other.links for other in others) < len(before), "it was replaced there"
    crowd.unite()
    crowd.run(120.0)
    _check(crowd, 4)


def test_sybils_get_their_share_of_the_granted_half() -> None:
    """Ten strangers of one address block ask eight members again and again."""
    crowd = _crowd(8, seed=5, all_to_all_max=4, k=4)
    crowd.run(60.0)
    for n in range(100, 110):
        crowd.add(n, f"/ip4/20.1.0.{n}/tcp/1").start()
    crowd.run(120.0)
    sybils = {one.key for one in crowd.members[8:]}
    assert sum(len(one.links & sybils) for one in crowd.members[:8]) >= 4, "they do get in"
    for one in crowd.members[:8]:
        assert len(one.links & sybils) <= 1, "one address block has a quarter of the links"
        assert len(one.links - sybils) >= 2


def test_where_a_peer_is_seen_counts_and_not_what_it_says_of_itself() -> None:
    bench, authors = _sparse()
    author = authors[0]
    assert bench.protocol._roster.blocks()[author.key] is None, "it claims a private address"
    bench.step(Connected(author.key, bench.now, "/ip4/20.1.2.3/tcp/4001"))
    assert bench.protocol._roster.blocks()[author.key] == "20.1"
    bench.step(Disconnected(author.key, bench.now))
    assert bench.protocol._roster.blocks()[author.key] == "20.1"


def test_newcomers_get_no_more_than_their_share_of_links_from_who_is_established() -> None:
    """The one who has itself just come takes whom it finds."""
    own = key(0).public_key
    for founders, most in ((frozenset({own}), 1), (frozenset[bytes](), 4)):
        bench = Bench(all_to_all_max=3, k=4, f=1, probation_rounds=9, founders=founders)
        bench.step(Publish("genesis", bench.now, root=bench.settings.genesis_root))
        bench.protocol._state.neighbours.sparse = True
        granted = 0
        for n in range(1, 9):
            author = Author(n)
            author.genesis()
            author.profile()
            bench.connect(author.key, *author.log)
            bench.profile(author.key, author)
            (answer, *_) = _told(bench.say(author.key, Following(True, ASK)), author.key)
            granted += answer.follow
        assert 1 <= granted <= most
        assert most == 1 or granted > 1
