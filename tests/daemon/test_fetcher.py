"""Fetching: nothing unverified is used, what was verified is kept, any honest holder is enough."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing
from daemon_kit import NETWORK, Author, in_mock_time, key, same, vector

from tapestry_p2p.daemon import copies, fetcher
from tapestry_p2p.daemon.copies import Copies, Followed, copy_root, split
from tapestry_p2p.daemon.fetcher import BUSY_TRIES, Fetcher, FetchError
from tapestry_p2p.gossip.adoption import decode_adoption
from tapestry_p2p.gossip.events import REASONS
from tapestry_p2p.gossip.fetch import (
    ChunkRequest,
    FetchRequest,
    FetchResponse,
    FrameRequest,
    LeavesRequest,
    MoreLeavesRequest,
    decode_request,
    encode_response,
)
from tapestry_p2p.gossip.merkle import chunk_hash, leaf_hash
from tapestry_p2p.gossip.settings import Settings
from tapestry_p2p.mix.copy import FRAME_BYTES, PublicCopy

D = 100_000  # two frames; a payload of 25,782 bytes
CHUNK_BYTES = 4096  # so that a payload has seven chunks
NORM_MAX = 1e6
SETTINGS = Settings(network=NETWORK, codecs={})
HONEST, OTHER, LIAR = (key(n).public_key for n in (11, 12, 13))

Answer = tuple[bytes, bytes]


class BrokenError(Exception):
    """What a broken connection raises."""


@dataclass
class Source:
    """A peer that serves copies; ``spoil`` may change an answer, break, or say that it is busy."""

    copies: Copies
    spoil: Callable[[FetchRequest, Answer], Answer] = lambda request, answer: answer
    asked: list[FetchRequest] = field(default_factory=list)

    async def fetch(self, request: bytes, body_bytes_max: int) -> Answer:
        await trio.lowlevel.checkpoint()
        wanted = decode_request(request)
        self.asked.append(wanted)
        response, body = self.copies.answer(wanted)
        answer = self.spoil(wanted, (encode_response(response), body))
        assert len(answer[1]) <= body_bytes_max or answer[1] == b"x" * len(answer[1])
        return answer


def broken(request: FetchRequest, answer: Answer) -> Answer:
    raise BrokenError


def flipped(request: FetchRequest, answer: Answer) -> Answer:
    body = bytearray(answer[1])
    body[len(body) // 2] ^= 1
    return answer[0], bytes(body)


def short(request: FetchRequest, answer: Answer) -> Answer:
    return answer[0], answer[1][:-1]


def shorter_and_says_so(request: FetchRequest, answer: Answer) -> Answer:
    body = answer[1][:-1]
    return encode_response(FetchResponse("ok", len(body), len(body))), body


def junk(request: FetchRequest, answer: Answer) -> Answer:
    return b"\xc1 is never msgpack", b""


def missing(request: FetchRequest, answer: Answer) -> Answer:
    return encode_response(FetchResponse("missing")), b""


def refused(request: FetchRequest, answer: Answer) -> Answer:
    return encode_response(FetchResponse("refused")), b""


def busy(request: FetchRequest, answer: Answer) -> Answer:
    return encode_response(FetchResponse("busy")), b""


def busy_for(times: int) -> Callable[[FetchRequest, Answer], Answer]:
    left = [times]

    def spoil(request: FetchRequest, answer: Answer) -> Answer:
        left[0] -= 1
        return busy(request, answer) if left[0] >= 0 else answer

    return spoil


def breaks_after(count: int) -> Callable[[FetchRequest, Answer], Answer]:
    left = [count]

    def spoil(request: FetchRequest, answer: Answer) -> Answer:
        left[0] -= 1
        return answer if left[0] >= 0 else broken(request, answer)

    return spoil


def holder(author: Author, seq: int | None = None) -> Copies:
    """Somebody who holds the author's copy, and the chunks of its entries."""
    copies = Copies(key(99).public_key, copy_root(PublicCopy(vector(D))), bytes(32), b"")
    copies.set_genesis(vector(D))
    standing = PublicCopy(author.copy.vector)
    at = author.seq if seq is None else seq
    copies.followed[author.key] = Followed(at, standing, copy_root(standing))
    for entry in author.entries:
        copies.chunks.put(author.key, dict(split(entry.payload, CHUNK_BYTES)))
    return copies


class Follower:
    """Our side: follows ``author`` from genesis, by these sources."""

    def __init__(self, author: Author, **sources: Source) -> None:
        self.author = author
        genesis = copy_root(PublicCopy(vector(D)))
        self.copies = Copies(key(98).public_key, genesis, bytes(32), b"")
        self.copies.set_genesis(vector(D))
        names = {"honest": HONEST, "other": OTHER, "liar": LIAR}
        self.sources = {names[name]: source for name, source in sources.items()}
        self.wanted = True
        self.fetcher = Fetcher(
            self.sources,
            self.copies,
            D,
            NORM_MAX,
            CHUNK_BYTES,
            unreachable=BrokenError,
            wanted=lambda author: self.wanted,
            read_adoption=lambda payload, author: decode_adoption(payload, author, SETTINGS),
        )

    async def follow(self, seq: int, *sources: bytes) -> bytes:
        header = self.author.signed[seq].header
        return await self.fetcher.entry(self.author.key, header, sources)

    async def fails(self, seq: int, *sources: bytes) -> str:
        with pytest.raises(FetchError) as failed:
            await self.follow(seq, *sources)
        assert failed.value.reason in REASONS
        return failed.value.reason

    @property
    def copy(self) -> Followed:
        return self.copies.followed[self.author.key]


def published(rounds: int = 1, **changes: Any) -> Author:
    author = Author(d=D, chunk_bytes=CHUNK_BYTES).genesis().grow(rounds - 1)
    return author.difference(**changes)


# ---- entries -------------------------------------------------------------------------------------


@in_mock_time
async def test_a_stream_is_followed_to_the_same_bits() -> None:
    author = published(3)
    us = Follower(author, honest=Source(holder(author)))
    for seq in range(4):
        assert await us.follow(seq, HONEST) == author.signed[seq].header.root
    assert same(us.copy.copy.vector, author.copy.vector)
    assert us.copy.seq == 3


@in_mock_time
async def test_what_was_fetched_can_be_served() -> None:
    author = published()
    first = Follower(author, honest=Source(holder(author)))
    await first.follow(0)
    await first.follow(1, HONEST)
    second = Follower(author, other=Source(first.copies))
    await second.follow(0)
    assert await second.follow(1, OTHER) == author.signed[1].header.root


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (broken, "unreachable"),
        (junk, "unreachable"),
        (flipped, "missing"),
        (short, "missing"),
        (shorter_and_says_so, "missing"),
        (missing, "missing"),
        (refused, "missing"),
        (busy, "busy"),
    ],
)
@in_mock_time
async def test_a_bad_source_is_a_reason_and_the_next_one_is_asked(
    spoil: Callable[[FetchRequest, Answer], Answer], reason: str
) -> None:
    author = published()
    liar, honest = Source(holder(author), spoil), Source(holder(author))
    us = Follower(author, liar=liar, honest=honest)
    await us.follow(0)
    before = us.copy.copy.vector.copy()
    assert await us.fails(1, LIAR) == reason
    assert same(us.copy.copy.vector, before)
    assert us.copy.seq == 0
    assert await us.follow(1, LIAR, HONEST) == author.signed[1].header.root
    assert same(us.copy.copy.vector, author.copy.vector)


@in_mock_time
async def test_a_source_that_is_not_connected() -> None:
    author = published()
    us = Follower(author)
    await us.follow(0)
    assert await us.fails(1, HONEST) == "unreachable"
    assert await us.fails(1) == "unreachable"


@in_mock_time
async def test_a_busy_source_is_asked_again_and_again_but_not_for_ever() -> None:
    author = published()
    patient = Source(holder(author), busy_for(BUSY_TRIES - 1))
    us = Follower(author, honest=patient, liar=Source(holder(author), busy))
    await us.follow(0)
    assert await us.follow(1, HONEST) == author.signed[1].header.root
    author.difference()
    began = trio.current_time()
    assert await us.fails(2, LIAR) == "busy"
    assert 1 < trio.current_time() - began < 10
    assert len(us.sources[LIAR].asked) == BUSY_TRIES


@pytest.mark.parametrize("whole", range(7))
@in_mock_time
async def test_a_broken_fetch_goes_on_where_it_broke(whole: int) -> None:
    """Seven chunks: whatever came whole from one source is never asked of the next."""
    author = published()
    breaking, honest = Source(holder(author), breaks_after(whole)), Source(holder(author))
    us = Follower(author, liar=breaking, honest=honest)
    await us.follow(0)
    assert await us.follow(1, LIAR, HONEST) == author.signed[1].header.root
    names = author.signed[1].header.chunks
    assert len(names) == 7
    requests = [r.hash for r in honest.asked if isinstance(r, ChunkRequest)]
    assert requests == list(names[whole:])


@in_mock_time
async def test_a_fetch_that_failed_is_taken_up_by_the_next_one() -> None:
    """Each attempt has one source, and it breaks; nothing that came is asked for again."""
    author = published()
    sources = [Source(holder(author), breaks_after(whole)) for whole in (2, 3, 99)]
    us = Follower(author, honest=sources[0])
    await us.follow(0)
    for source in sources[:2]:
        us.sources[HONEST] = source
        assert await us.fails(1, HONEST) == "unreachable"
    us.sources[HONEST] = sources[2]
    assert await us.follow(1, HONEST) == author.signed[1].header.root
    came = [r.hash for s in sources for r in s.asked if isinstance(r, ChunkRequest)]
    names = author.signed[1].header.chunks
    broke_at = (2, 5)  # asked for, and never came
    assert came == [*names[:3], *names[2:6], *names[5:]]
    assert [came.count(names[at]) for at in broke_at] == [2, 2]


@in_mock_time
async def test_leaves_that_no_answer_holds_come_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a copy of more than 8,192 frames; here answers are small and the frames two."""
    author = published()
    honest = Source(holder(author))
    us = Follower(author, honest=honest)
    for module in (fetcher, copies):
        monkeypatch.setattr(module, "BODY_BYTES_MAX", 40)
    first = LeavesRequest(author.key, 1, author.signed[1].header.root)
    joined = await us.fetcher._leaves(HONEST, first, 64)
    assert joined == b"".join(author.copy.leaves())
    more = MoreLeavesRequest(author.key, 1, author.signed[1].header.root, 40, 24)
    assert honest.asked == [first, more]


@in_mock_time
async def test_copies_that_were_fetched_share_no_memory() -> None:
    author = published()
    us = Follower(author, honest=Source(holder(author)))
    root = author.signed[1].header.root
    one = await us.fetcher.keyframe(author.key, 1, root, [HONEST])
    other = await us.fetcher.keyframe(author.key, 1, root, [HONEST])
    assert same(one, other)
    assert not np.shares_memory(one, other)


@in_mock_time
async def test_no_more_is_asked_for_than_the_header_says() -> None:
    author = published()
    honest = Source(holder(author))
    us = Follower(author, honest=honest)
    await us.follow(0)
    await us.follow(1, HONEST)
    lengths = [r.length for r in honest.asked if isinstance(r, ChunkRequest)]
    assert sum(lengths) == author.signed[1].header.payload_bytes
    assert max(lengths) == CHUNK_BYTES


@in_mock_time
async def test_a_payload_of_equal_chunks() -> None:
    author = Author(d=D, chunk_bytes=CHUNK_BYTES).genesis()
    author.write("difference", bytes(25_782), round_=1)  # all scales zero: nothing moves
    us = Follower(author, honest=Source(holder(author)))
    await us.follow(0)
    assert await us.follow(1, HONEST) == author.signed[1].header.root
    assert len(us.sources[HONEST].asked) == 2  # the full chunk once, and the short one


@pytest.mark.parametrize("place", [0, 3, -1])
@in_mock_time
async def test_a_chunk_named_where_another_length_belongs(place: int) -> None:
    """Its author signed that: no room is left unfilled, and nothing of ours is given away."""
    names = [name for name, _ in split(b"".join(map(_page, range(6))) + b"end", CHUNK_BYTES)]
    other = b"short" if place != -1 else _page(0)  # a full one where the short one belongs
    names[place] = chunk_hash(other)
    author = published(chunks=tuple(names), payload_bytes=6 * CHUNK_BYTES + 3)
    us = Follower(author, honest=Source(holder(author)))
    us.copies.chunks.put(author.key, {chunk_hash(_page(n)): _page(n) for n in range(6)})
    us.copies.chunks.put_own(0, {names[place]: other, chunk_hash(b"end"): b"end"}, ring=8)
    await us.follow(0)
    before = dict(us.copies.chunks._others)
    assert await us.fails(1, HONEST) == "content"
    assert us.copies.chunks._others == before
    assert us.copy.seq == 0


def _page(number: int) -> bytes:
    return bytes([number]) * CHUNK_BYTES


@in_mock_time
async def test_another_root_drops_the_copy() -> None:
    author = published(root=bytes(32))
    us = Follower(author, honest=Source(holder(author)))
    await us.follow(0)
    assert await us.fails(1, HONEST) == "root"
    assert author.key not in us.copies.followed


@pytest.mark.parametrize("changes", [{"codec": "int8"}, {"codec": "fp32"}])
@in_mock_time
async def test_a_payload_that_cannot_be_decoded_moves_nothing(changes: dict[str, Any]) -> None:
    author = published(**changes)
    us = Follower(author, honest=Source(holder(author)))
    await us.follow(0)
    assert await us.fails(1, HONEST) == "content"
    assert same(us.copy.copy.vector, vector(D))


@in_mock_time
async def test_a_difference_longer_than_the_manifest_allows() -> None:
    author = published()
    us = Follower(author, honest=Source(holder(author)))
    us.fetcher.norm_max = 1e-3
    await us.follow(0)
    assert await us.fails(1, HONEST) == "content"


@in_mock_time
async def test_an_entry_that_does_not_follow_the_copy() -> None:
    author = published(3)
    us = Follower(author, honest=Source(holder(author)))
    assert await us.fails(1, HONEST) == "root"
    await us.follow(0)
    assert await us.fails(2, HONEST) == "root"
    assert us.sources[HONEST].asked == []


@in_mock_time
async def test_an_order_taken_back_leaves_no_copy_without_its_root(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    author = published()
    us = Follower(author, honest=Source(holder(author)))
    await us.follow(0)
    with trio.CancelScope() as order:
        advance = PublicCopy.advance

        def taken_back(copy: PublicCopy, *args: Any) -> None:
            trio.from_thread.run_sync(order.cancel)
            advance(copy, *args)

        monkeypatch.setattr(PublicCopy, "advance", taken_back)
        monkeypatch.setattr(fetcher, "THREAD_ABOVE", 0)
        await us.follow(1, HONEST)
    assert (us.copy.seq, us.copy.root) == (1, author.signed[1].header.root)


@in_mock_time
async def test_a_copy_let_go_while_it_moves_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    author = published(root=bytes(32))
    us = Follower(author, honest=Source(holder(author)))
    await us.follow(0)

    def let_go(copy: PublicCopy) -> bytes:
        us.copies.followed.clear()
        return copy_root(copy)

    monkeypatch.setattr(fetcher, "copy_root", let_go)
    assert await us.fails(1, HONEST) == "missing"


@in_mock_time
async def test_what_came_for_an_author_that_is_gone_is_dropped() -> None:
    author = published()
    us = Follower(author, honest=Source(holder(author), breaks_after(3)))
    await us.follow(0)
    assert await us.fails(1, HONEST) == "unreachable"
    assert us.fetcher.partials._kept
    us.fetcher.partials.forget(OTHER)
    assert us.fetcher.partials._kept
    us.fetcher.partials.forget(author.key)
    assert not us.fetcher.partials._kept


@in_mock_time
async def test_no_copy_begins_before_the_first_vector_is_known() -> None:
    author = published()
    us = Follower(author)
    us.copies.genesis = None
    assert await us.fails(0) == "missing"


@pytest.mark.parametrize("changes", [{}, {"root": bytes(32)}])
@pytest.mark.parametrize("replaced", [False, True])
@in_mock_time
async def test_a_copy_let_go_while_a_round_holds_the_lock(
    changes: dict[str, Any], replaced: bool
) -> None:
    """The author was dropped, or its copy fetched whole, between fetching and applying."""
    author = published(**changes)
    us = Follower(author, honest=Source(holder(author)))
    await us.follow(0)
    newer = Followed(5, PublicCopy(vector(D, seed=5)), b"")
    async with trio.open_nursery() as nursery, us.fetcher.mixing:
        nursery.start_soon(us.fails, 1, HONEST)
        await trio.testing.wait_all_tasks_blocked()
        del us.copies.followed[author.key]
        if replaced:
            us.copies.followed[author.key] = newer
    assert us.copies.followed.get(author.key) is (newer if replaced else None)
    assert same(newer.copy.vector, vector(D, seed=5))


# ---- whole copies --------------------------------------------------------------------------------


async def whole(us: Follower, *sources: bytes) -> bytes:
    header = us.author.signed[-1].header
    return await us.fetcher.whole(us.author.key, header, sources)


@in_mock_time
async def test_a_whole_copy_comes_from_any_holder() -> None:
    author = published(3)
    us = Follower(author, other=Source(holder(author)))
    assert await whole(us, OTHER) == author.signed[-1].header.root
    assert same(us.copy.copy.vector, author.copy.vector)
    assert us.copy.seq == 3
    author.difference()
    us.sources[OTHER].copies = holder(author)
    assert await us.follow(4, OTHER) == author.signed[4].header.root


@pytest.mark.parametrize("unfollowed", [True, False])
@in_mock_time
async def test_a_whole_copy_that_comes_too_late_is_let_go(unfollowed: bool) -> None:
    """The author was dropped, or a newer copy of it came, while the last frames were on the way."""
    author = published(3)
    us = Follower(author, honest=Source(holder(author)))
    newer = Followed(5, PublicCopy(vector(D, seed=5)), b"")
    refused = []

    async def fails() -> None:
        with pytest.raises(FetchError) as failed:
            await whole(us, HONEST)
        refused.append(failed.value.reason)

    async with trio.open_nursery() as nursery, us.fetcher.mixing:
        nursery.start_soon(fails)
        await trio.testing.wait_all_tasks_blocked()
        us.wanted = not unfollowed
        if not unfollowed:
            us.copies.followed[author.key] = newer
    assert refused == ["missing"]
    assert us.copies.followed.get(author.key) is (None if unfollowed else newer)


def wrong_leaves(request: FetchRequest, answer: Answer) -> Answer:
    """Leaves of a vector of its own, and its frames: they only lack the root."""
    data = vector(D, seed=66).tobytes()
    frames = [data[i : i + FRAME_BYTES] for i in range(0, len(data), FRAME_BYTES)]
    if isinstance(request, LeavesRequest):
        body = b"".join(map(leaf_hash, frames))
    else:
        assert isinstance(request, FrameRequest)
        body = frames[request.index]
    return encode_response(FetchResponse("ok", len(body), len(body))), body


def wrong_frames(request: FetchRequest, answer: Answer) -> Answer:
    return flipped(request, answer) if isinstance(request, FrameRequest) else answer


@pytest.mark.parametrize("spoil", [wrong_leaves, wrong_frames, flipped, short, missing, broken])
@in_mock_time
async def test_a_lying_holder_gives_nothing_and_the_next_is_asked(
    spoil: Callable[[FetchRequest, Answer], Answer],
) -> None:
    author = published(2)
    us = Follower(author, liar=Source(holder(author), spoil), honest=Source(holder(author)))
    await us.follow(0)
    with pytest.raises(FetchError):
        await whole(us, LIAR)
    assert same(us.copy.copy.vector, vector(D))
    assert await whole(us, LIAR, HONEST) == author.signed[-1].header.root
    assert same(us.copy.copy.vector, author.copy.vector)


@in_mock_time
async def test_a_broken_whole_copy_goes_on_where_it_broke() -> None:
    author = published()
    breaking, honest = Source(holder(author), breaks_after(2)), Source(holder(author))
    us = Follower(author, liar=breaking, honest=honest)
    assert await whole(us, LIAR, HONEST) == author.signed[-1].header.root
    frames = [r.index for r in honest.asked if isinstance(r, FrameRequest)]
    assert frames == [1]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38])
@in_mock_time
async def test_a_whole_copy_that_is_no_model_is_content(value: float) -> None:
    """Its root is right: the author itself signed it."""
    author = Author(d=D).genesis()
    author.copy.vector[7] = value
    author.resume()
    us = Follower(author, honest=Source(holder(author)))
    await us.follow(0)
    with pytest.raises(FetchError) as failed:
        await whole(us, HONEST)
    assert failed.value.reason == "content"
    assert same(us.copy.copy.vector, vector(D))


@in_mock_time
async def test_whole_copies_are_asked_for_in_frames_of_the_models_size() -> None:
    author = published()
    us = Follower(author, honest=Source(holder(author)))
    await whole(us, HONEST)
    frames = [r for r in us.sources[HONEST].asked if isinstance(r, FrameRequest)]
    assert [(r.index, r.length) for r in frames] == [(0, FRAME_BYTES), (1, 4 * D - FRAME_BYTES)]
