"""Members more than anybody lists: digests of one size, samples, and no way to be pushed there."""

from typing import Any

from gossip_kit import Author, Bench, key, sent

from tapestry_p2p.gossip.events import Disconnected, Publish
from tapestry_p2p.gossip.messages import Digest, Heads, Hello, Members, Row

CROWD = 120


def _crowded(newcomers: bool = False, **changes: Any) -> tuple[Bench, list[Author]]:
    """A member that heard of a crowd from one peer, and has links with none of it yet."""
    authors = [Author(n) for n in range(1, CROWD)]
    known = frozenset() if newcomers else frozenset(author.key for author in authors)
    founders = known | {key(0).public_key}
    bench = Bench(0, founders=founders, probation_rounds=5, **changes)
    bench.connect(authors[0].key)
    for author in authors:
        author.genesis()
        author.profile(address=f"/ip4/127.0.0.{author.identity.public_key[0]}/tcp/1")
        bench.profile(authors[0].key, author)
    bench.tick(1.0)
    return bench, authors


def _tables(bench: Bench) -> tuple[int, bool]:
    return len(bench.protocol.members()), bench.protocol._state.neighbours.wide


def test_a_crowd_is_listed_as_a_sample_that_no_later_name_washes_out() -> None:
    bench, authors = _crowded()
    assert _tables(bench)[1]
    before = set(bench.protocol.members())
    for n in range(CROWD, 250):
        stranger = Author(n)
        stranger.genesis()
        stranger.profile(address="/ip4/127.0.0.1/tcp/1")
        bench.profile(authors[0].key, stranger)
    assert set(bench.protocol.members()) <= before
    assert len(before) <= max(CROWD, bench.settings.view_max)
    assert bench.count("ignore", "members_full") == 250 - CROWD


def test_made_up_names_push_nobody_established_into_a_sample() -> None:
    bench, authors = _crowded(newcomers=True)
    assert len(bench.protocol.members()) == CROWD - 1
    assert _tables(bench)[1] is False
    assert not bench.protocol.is_sparse
    assert authors


def test_a_digest_names_those_we_follow_or_meet_and_its_answer_a_few_strangers() -> None:
    bench, authors = _crowded()
    peer = authors[0].key
    (digest,) = [m for m in sent(bench.ticks(30.0), peer) if isinstance(m, Digest)][:1]
    ties = set(bench.protocol._state.neighbours.ties)
    assert {row.author for row in digest.rows} <= {key(0).public_key, peer, *ties}
    few = [Row(peer, 2, 2, 0)]
    assert len(_shown(bench, peer, few)) == bench.settings.k, "who knows few is shown enough"
    many = [Row(author.key, 2, 2, 0) for author in authors[: bench.settings.k + 1]]
    shown = [_shown(bench, peer, many) for _ in range(6)]
    assert {len(found) for found in shown} == {bench.settings.sample}
    assert len(set().union(*shown)) > 1, "others each time"


def _shown(bench: Bench, peer: bytes, rows: list[Row]) -> set[bytes]:
    """Whose profiles come as the answer to a digest."""
    bench.tick(30.0)
    found = [m for m in sent(bench.digest(peer, *rows), peer) if isinstance(m, Members)]
    return {signed.header.author for m in found for signed, _ in m.profiles}


def _followed(count: int) -> tuple[Bench, list[Author]]:
    """A crowded member that follows so many, each of them some entries on."""
    bench, authors = _crowded()
    for author in authors[:count]:
        author.difference(salt=author.key[0])
        author.difference(salt=author.key[0])
        bench.connect(author.key, *author.log)
        bench.protocol._roster._follow(bench.protocol._state.streams[author.key])
    return bench, authors


def test_a_hello_to_a_crowd_holds_both_ends_heads_and_no_third_ones() -> None:
    """Each of 16 others' would be 250 bytes on every connection; rows name what there is to ask."""
    bench, authors = _followed(8)
    bench.step(Publish("genesis", bench.now, root=bench.settings.genesis_root))
    peer = authors[0].key
    bench.step(Disconnected(peer, bench.now))
    (hello,) = [m for m in sent(bench.connect(peer), peer) if isinstance(m, Hello)]
    assert {signed.header.author for signed in hello.heads} == {key(0).public_key, peer}
    assert {author.key for author in authors[1:8]} <= {row.author for row in hello.rows}
    asked = [Row(author.key, 2, 2, 2) for author in authors[1:8]]
    found = [m for m in sent(bench.digest(peer, *asked), peer) if isinstance(m, Heads)]
    shown = {signed.header.author for heads in found for signed in heads.heads}
    assert {author.key for author in authors[1:8]} <= shown, "and who asks is told"


def test_of_a_stranger_the_newest_head_alone_is_shown() -> None:
    bench, authors = _followed(8)
    peer = authors[100].key
    bench.connect(peer)
    bench.tick(30.0)
    known = [Row(author.key, 2, 9, 0) for author in authors[20:40]]
    for _ in range(40):
        bench.tick(30.0)
        found = [m for m in sent(bench.digest(peer, *known), peer) if isinstance(m, Heads)]
        shown = [signed for heads in found for signed in heads.heads]
        assert len(shown) <= bench.settings.sample
        if shown and shown[0].header.author in {author.key for author in authors[:8]}:
            assert shown[0].header.seq == 3
            return
    raise AssertionError("no followed stranger in 40 samples")
