"""A start from others' copies, as a follower makes it and as a joiner finds it; liars included."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import trio
from daemon_kit import NETWORK, Author, in_mock_time, key, same, vector
from test_fetcher import CHUNK_BYTES, HONEST, NORM_MAX, BrokenError, D, Source, missing

from tapestry_p2p.daemon.copies import Copies, Followed, copy_root, split
from tapestry_p2p.daemon.fetcher import Fetcher, FetchError
from tapestry_p2p.daemon.joiner import LOOK_S, Joiner, Start
from tapestry_p2p.gossip.adoption import Reference, decode_adoption, encode_adoption
from tapestry_p2p.gossip.header import ADOPT
from tapestry_p2p.gossip.settings import Settings
from tapestry_p2p.mix.adoption import coordinate_median
from tapestry_p2p.mix.codec import Vector
from tapestry_p2p.mix.copy import PublicCopy

JOINER = 9
NAMED = (1, 2, 3)


def settings(f: int = 0) -> Settings:
    someone = (key(1).public_key, ("/ip4/127.0.0.1/tcp/1",))
    return Settings(network=NETWORK, codecs={}, f=f, bootstrap=(someone,))


def held_by(numbers: tuple[int, ...], seed: int = 10) -> Copies:
    """Somebody whose copies of these members stand at entry 5."""
    copies = Copies(key(99).public_key, copy_root(PublicCopy(vector(D))), NETWORK, b"")
    for n in numbers:
        copy = PublicCopy(vector(D, seed=seed + n))
        copies.followed[key(n).public_key] = Followed(5, copy, copy_root(copy))
    return copies


def references(copies: Copies) -> list[Reference]:
    return [Reference(author, f.seq, f.root) for author, f in copies.followed.items()]


class Case:
    """A joiner's first entry, and a follower of it."""

    def __init__(self, own: tuple[int, ...] = (), **changes: Any) -> None:
        self.joiner = Author(JOINER, d=D)
        everything = held_by(NAMED)
        self.payload = encode_adoption(references(everything))
        rows = [f.copy.vector for f in everything.followed.values()]
        self.start = coordinate_median(rows)
        self.joiner.copy = PublicCopy(self.start)
        chunks = tuple(name for name, _ in split(self.payload, CHUNK_BYTES))
        fields: dict[str, Any] = {"chunks": chunks, "payload_bytes": len(self.payload)}
        self.joiner.write(ADOPT, **{**fields, **changes})
        self.holder = Source(everything)
        self.copies = held_by(own)
        self.author = Source(held_by(()))
        self.author.copies.chunks.put(b"author", {chunks[0]: self.payload})
        self.fetcher = Fetcher(
            {HONEST: self.holder, key(JOINER).public_key: self.author},
            self.copies,
            D,
            NORM_MAX,
            CHUNK_BYTES,
            BrokenError,
            lambda author: True,
            lambda payload, author: decode_adoption(payload, author, settings()),
        )

    async def follow(self) -> bytes:
        header = self.joiner.signed[0].header
        return await self.fetcher.entry(header.author, header, [header.author, HONEST])

    async def fails(self) -> str:
        with pytest.raises(FetchError) as failed:
            await self.follow()
        assert key(JOINER).public_key not in self.copies.followed
        return failed.value.reason


@in_mock_time
async def test_a_follower_computes_the_same_bits_from_whoever_holds_the_copies() -> None:
    case = Case()
    assert await case.follow() == case.joiner.signed[0].header.root
    made = case.copies.followed[key(JOINER).public_key]
    assert made.seq == 0
    assert same(made.copy.vector, case.start)
    assert not any(isinstance(a, bytes) for a in case.author.asked)
    assert len(case.author.asked) >= 1, "of the joiner itself only the few bytes of its payload"


@in_mock_time
async def test_copies_that_stand_here_still_are_not_fetched() -> None:
    case = Case(own=NAMED)
    await case.follow()
    assert case.holder.asked == []
    assert len(case.author.asked) == 1
    for n in NAMED:
        assert same(case.copies.followed[key(n).public_key].copy.vector, vector(D, seed=10 + n))


@in_mock_time
async def test_a_reference_that_nobody_holds_any_more_is_missing() -> None:
    case = Case(own=(1, 2))
    case.holder.spoil = missing
    assert await case.fails() == "missing"


@in_mock_time
async def test_another_root_than_the_joiners_is_found() -> None:
    case = Case(root=bytes(32))
    assert await case.fails() == "root"


@in_mock_time
@pytest.mark.parametrize("count", [0, 2])
async def test_a_payload_that_breaks_the_rules_is_content(count: int) -> None:
    case = Case()
    broken = encode_adoption(references(held_by(NAMED[:count])))
    name, chunk = split(broken, CHUNK_BYTES)[0]
    case.joiner.signed.clear()
    case.joiner.entries.clear()
    case.joiner.write(ADOPT, chunks=(name,), payload_bytes=len(broken))
    case.author.copies.chunks.put(b"author", {name: chunk})
    assert await case.fails() == "content"


# -- finding one


class Peers:
    """What the protocol would tell a joiner: others' heads, and what may be named of them."""

    def __init__(self, copies: Copies, f: int = 0) -> None:
        self.settings = settings(f)
        self.copies = copies
        self.own_highest: object = None
        self.rounds = 5
        self.all_here = False

    @property
    def is_untrained(self) -> bool:
        return self.all_here and not self.trained()

    def trained(self) -> int:
        return len(self.copies.followed) if self.rounds else 0

    def references(self) -> tuple[Reference, ...]:
        return tuple(references(self.copies))


class Found:
    """A joiner among ``numbers``, whose trainer judges by ``better``."""

    def __init__(self, numbers: tuple[int, ...], f: int = 0) -> None:
        self.copies = held_by(numbers)
        self.sources = {key(n).public_key: Source(self.owner(n)) for n in numbers}
        self.peers = Peers(self.copies, f)
        self.fetcher = Fetcher(
            self.sources, self.copies, D, NORM_MAX, CHUNK_BYTES, BrokenError,
            lambda author: True, lambda payload, author: (),
        )  # fmt: skip
        self.greeted = trio.Event()
        self.greeted.set()
        self.judged: list[Vector] = []

    def owner(self, n: int) -> Copies:
        """Member n itself."""
        copies = Copies(key(n).public_key, copy_root(PublicCopy(vector(D))), NETWORK, b"")
        copies.own = self.copies.followed[key(n).public_key]
        return copies

    async def find(self, better: bool = True) -> Start | None:
        async def weigh(start: Vector) -> bool:
            self.judged.append(start.copy())
            return better

        joiner = Joiner(self.peers, self.copies, self.fetcher, self.greeted)  # type: ignore[arg-type]
        return await joiner.find(weigh)


@in_mock_time
async def test_a_joiner_begins_from_the_middle_if_its_own_data_says_so() -> None:
    found = Found(NAMED, f=1)
    start = await found.find()
    assert start is not None
    rows = [vector(D, seed=10 + n) for n in NAMED]
    assert same(start.copy.vector, np.median(rows, axis=0).astype(np.float32))
    assert len(found.judged) == 1
    named = decode_adoption(start.payload, key(JOINER).public_key, settings(1))
    assert {ref.author for ref in named} == {key(n).public_key for n in NAMED}
    for n in NAMED:  # the authors move on; the joiner and they still serve what was named
        author = key(n).public_key
        root = found.copies.followed[author].root
        found.copies.followed[author] = Followed(6, PublicCopy(vector(D, seed=77)), bytes(32))
        found.sources[author].copies.own = found.copies.followed[author]
        for holder in (found.copies, found.sources[author].copies):
            assert same(holder.named(author, root), vector(D, seed=10 + n))


@in_mock_time
async def test_an_invitation_by_liars_alone_ends_at_the_first_vector() -> None:
    found = Found(NAMED, f=1)
    assert await found.find(better=False) is None
    assert len(found.judged) == 1


@in_mock_time
@pytest.mark.parametrize(
    "reason", ["founder", "nobody answers", "nobody trained", "too few trained", "has a stream"]
)
async def test_nothing_is_adopted(reason: str) -> None:
    found = Found(NAMED, f=1)
    if reason == "founder":
        found.peers.settings = Settings(network=NETWORK, codecs={})
    elif reason == "nobody answers":
        found.greeted = trio.Event()
    elif reason == "nobody trained":
        found.peers.rounds = 0
    elif reason == "too few trained":
        found = Found(NAMED[:2], f=1)
    else:
        found.peers.own_highest = object()
    before = trio.current_time()
    assert await found.find() is None
    assert not found.judged
    assert trio.current_time() - before <= 15


@in_mock_time
@pytest.mark.parametrize(("all_here", "waits_s"), [(True, 0.0), (False, LOOK_S)])
async def test_who_begins_together_waits_for_those_that_are_still_to_come(
    all_here: bool, waits_s: float
) -> None:
    found = Found(NAMED, f=1)
    found.peers.rounds, found.peers.all_here = 0, all_here
    before = trio.current_time()
    assert await found.find() is None
    assert trio.current_time() - before == pytest.approx(waits_s, abs=0.01)


@in_mock_time
async def test_authors_that_cannot_keep_their_copies_hold_nobody_up_for_long() -> None:
    found = Found(NAMED)
    for source in found.sources.values():
        source.spoil = missing
    before = trio.current_time()
    start = await found.find()
    assert start is not None
    assert trio.current_time() - before < 1, "they are here, and their rounds are too short"
    root = found.copies.followed[key(1).public_key].root
    assert found.copies.named(key(1).public_key, root) is not None, "the joiner serves it itself"


@in_mock_time
async def test_authors_that_move_on_are_asked_again_at_once() -> None:
    """What we know of an author with short rounds is mostly old."""
    found = Found(NAMED)
    now = tuple(references(found.copies))
    old = tuple(replace(reference, root=bytes(32)) for reference in now)
    asked = itertools.count(1)
    found.peers.references = lambda: old if next(asked) % 8 else now  # type: ignore[method-assign]
    before = trio.current_time()
    assert await found.find() is not None
    assert trio.current_time() - before < 1
    assert len(found.judged) == 1


@in_mock_time
async def test_authors_that_are_away_are_waited_for_longer_than_those_that_move_on() -> None:
    found = Found(NAMED)
    found.sources.clear()
    before = trio.current_time()
    assert await found.find() is not None
    assert 5 < trio.current_time() - before < 6


@in_mock_time
@pytest.mark.parametrize("slow_s", [0.0, 4.0, 40.0])
async def test_more_copies_than_needed_are_waited_for_as_long_as_those_took(slow_s: float) -> None:
    """One who trained is never read: its copy moves on faster than it comes."""
    found = Found(NAMED)
    began = trio.current_time()
    one = tuple(references(found.copies))[:1]
    came = lambda: one if trio.current_time() >= began + slow_s else ()  # noqa: E731
    found.peers.references = came  # type: ignore[method-assign]
    start = await found.find()
    assert start is not None
    assert len(start.authors) == 1
    assert trio.current_time() - began == pytest.approx(max(1.0, min(3 * slow_s, 40.0)), abs=0.6)


@in_mock_time
async def test_copies_that_never_come_end_at_the_first_vector() -> None:
    found = Found(NAMED)
    found.peers.references = lambda: ()  # type: ignore[method-assign]
    assert await found.find() is None
    assert not found.judged
