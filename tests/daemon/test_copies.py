"""A node serves of its copies exactly what was asked for, or nothing, and keeps to its bounds."""

import pytest
from daemon_kit import Author, key, same, vector

from tapestry_p2p.daemon import copies as module
from tapestry_p2p.daemon.copies import ChunkCache, Copies, Followed, copy_root, split
from tapestry_p2p.gossip.fetch import (
    ChunkRequest,
    FrameRequest,
    LeavesRequest,
    ManifestRequest,
    decode_response,
    encode_response,
)
from tapestry_p2p.gossip.merkle import CHUNK_BYTES, HASH_BYTES, chunk_hash, leaf_hash, merkle_root
from tapestry_p2p.mix.copy import FRAME_BYTES, PublicCopy

D = 100_000  # two frames, the second one short
OWN, NETWORK, TEXT = key(1).public_key, bytes(range(32)), b"name = 'net'\n"


def make(d: int = D) -> Copies:
    copies = Copies(OWN, copy_root(PublicCopy(vector(d))), NETWORK, TEXT)
    assert copies.set_genesis(vector(d))
    return copies


def test_another_first_vector_is_not_the_networks() -> None:
    copies = Copies(OWN, copy_root(PublicCopy(vector(D))), NETWORK, TEXT)
    assert not copies.set_genesis(vector(D, seed=1))
    assert copies.genesis is None


def test_vectors_stand_in_the_order_of_their_authors() -> None:
    copies = make(8)
    for n in (3, 1, 2):
        copies.followed[bytes([n]) * 32] = Followed(0, PublicCopy(vector(8, seed=n)), b"")
    found = copies.vectors(without=frozenset({bytes([2]) * 32}))
    assert list(found) == [bytes([1]) * 32, bytes([3]) * 32]
    assert same(found[bytes([3]) * 32], vector(8, seed=3))


# ---- chunks ------------------------------------------------------------------------------------


def test_a_payload_is_cut_in_order() -> None:
    payload = bytes(range(256)) * 40  # the same chunk again and again, as where nothing is learned
    pieces = split(payload, 4096)
    assert b"".join(piece for _, piece in pieces) == payload
    assert [len(piece) for _, piece in pieces] == [4096, 4096, 2048]
    assert all(chunk_hash(piece) == name for name, piece in pieces)


def test_others_chunks_are_bounded_and_the_oldest_go_first() -> None:
    cache = ChunkCache(bytes_max=1000)
    names = []
    for number in range(30):
        chunk = bytes([number]) * 100
        names.append(chunk_hash(chunk))
        cache.put(b"author", {names[-1]: chunk})
        cache.put(b"author", {names[-1]: chunk})  # twice is once
    assert [cache.get(name) is not None for name in names] == [False] * 20 + [True] * 10


def test_of_each_author_as_many_entries_are_kept_as_anybody_is_sent() -> None:
    cache = ChunkCache(entries_max=3)
    for seq in range(6):
        for author in (b"one", b"two"):
            cache.put(author, {b"%s %d" % (author, seq): bytes(9), author: bytes(7)})
    for author in (b"one", b"two"):
        held = [seq for seq in range(6) if cache.get(b"%s %d" % (author, seq))]
        assert held == [3, 4, 5]
        assert cache.get(author), "what a kept entry holds too stays"
    cache.forget(b"one")
    assert cache.get(b"one 5") is None is cache.get(b"one")
    assert cache.get(b"two 5")
    assert cache._bytes == 3 * 9 + 7


def test_a_chunk_larger_than_the_cache_is_not_kept() -> None:
    cache = ChunkCache(bytes_max=10)
    cache.put(b"author", {b"small": b"12345", b"large": bytes(11)})
    assert cache.get(b"large") is None


def test_own_chunks_stay_for_the_ring_whatever_others_send() -> None:
    cache = ChunkCache(bytes_max=100)
    for seq in range(6):
        cache.put_own(seq, {b"own %d" % seq: bytes([seq]) * 200}, ring=4)
        cache.put(b"author", {b"other %d" % seq: bytes(90)})
    held = [seq for seq in range(6) if cache.get(b"own %d" % seq)]
    assert held == [2, 3, 4, 5]


def test_a_chunk_is_answered_by_range() -> None:
    copies = make(8)
    chunk = bytes(range(200))
    copies.chunks.put(b"author", {chunk_hash(chunk): chunk})
    for offset, length, wanted in ((0, 200, chunk), (10, 5, chunk[10:15]), (190, 50, chunk[190:])):
        response, body = copies.answer(ChunkRequest(chunk_hash(chunk), offset, length))
        assert (response.status, response.length, response.total) == ("ok", len(wanted), 200)
        assert body == wanted
    for request in (ChunkRequest(chunk_hash(chunk), 200, 5), ChunkRequest(bytes(32), 0, 5)):
        response, body = copies.answer(request)
        assert (response.status, body) == ("missing", b"")


def test_the_manifest_is_given_to_whoever_names_its_network() -> None:
    copies = make(8)
    assert copies.answer(ManifestRequest(NETWORK))[1] == TEXT
    assert copies.answer(ManifestRequest(bytes(32)))[0].status == "missing"


# ---- whole copies --------------------------------------------------------------------------------


def fetched(copies: Copies, author: bytes, seq: int, root: bytes) -> bytes | None:
    """A whole copy as a peer gets it; None if it is missing."""
    response, leaves = copies.answer(LeavesRequest(author, seq, root))
    if response.status != "ok":
        return None
    assert decode_response(encode_response(response)) == response
    hashes = [leaves[i : i + HASH_BYTES] for i in range(0, len(leaves), HASH_BYTES)]
    assert merkle_root(hashes) == root
    data = b""
    for index, leaf in enumerate(hashes):
        half, frame = FRAME_BYTES // 2, b""
        for offset in (0, half):
            request = FrameRequest(author, seq, root, index, offset, CHUNK_BYTES - offset)
            frame = frame[:offset] + copies.answer(request)[1]
        assert leaf_hash(frame) == leaf
        data += frame
    return data


def held(copies: Copies, author: bytes, seq: int, seed: int, d: int = D) -> bytes:
    """Let the author's copy stand at seq; its root."""
    copy = PublicCopy(vector(d, seed=seed))
    followed = Followed(seq, copy, copy_root(copy))
    if author == OWN:
        copies.own = followed
    else:
        copies.followed[author] = followed
    return followed.root


def test_own_followed_and_first_copies_are_served() -> None:
    copies = make()
    other = key(2).public_key
    for author, seq, seed in ((OWN, 5, 1), (other, 9, 2)):
        root = held(copies, author, seq, seed)
        assert fetched(copies, author, seq, root) == vector(D, seed=seed).tobytes()
    genesis = copy_root(PublicCopy(vector(D)))
    assert fetched(copies, key(99).public_key, 0, genesis) == vector(D).tobytes()


def test_a_copy_that_stands_elsewhere_is_missing() -> None:
    copies = make()
    other = key(2).public_key
    root = held(copies, other, 9, 2)
    assert fetched(copies, other, 9, bytes(32)) is None
    assert fetched(copies, OWN, 9, root) is None
    assert fetched(copies, key(3).public_key, 9, root) is None
    assert fetched(copies, other, 8, root) is not None, "the root says all of what it is"


def test_a_copy_that_moves_on_is_served_as_it_stood() -> None:
    copies = make()
    root = held(copies, OWN, 5, 1)
    copies.answer(LeavesRequest(OWN, 5, root))
    assert copies.own is not None
    copies.own.copy.add(vector(D, seed=8))
    copies.own.seq, copies.own.root = 6, copy_root(copies.own.copy)
    assert fetched(copies, OWN, 5, root) == vector(D, seed=1).tobytes()


def test_frames_without_leaves_cost_nothing() -> None:
    copies = make()
    root = held(copies, OWN, 5, 1)
    assert copies.answer(FrameRequest(OWN, 5, root, 0, 0, 10))[0].status == "missing"


def test_a_frame_beyond_the_end_is_missing() -> None:
    copies = make()
    root = held(copies, OWN, 5, 1)
    copies.answer(LeavesRequest(OWN, 5, root))
    for index, offset in ((2, 0), (2**20 - 1, 0), (1, 4 * D - FRAME_BYTES)):
        request = FrameRequest(OWN, 5, root, index, offset, 10)
        assert copies.answer(request)[0].status == "missing"


def asked(copies: Copies, author: bytes, seqs: range, peer: bytes = b"") -> list[bytes]:
    """The roots of copies that were asked for and moved on: by one peer, or by one each."""
    roots = []
    for seq in seqs:
        roots.append(held(copies, author, seq, seed=seq, d=8))
        copies.answer(LeavesRequest(author, seq, roots[-1]), peer or bytes([seq]))
    return roots


def served(copies: Copies, author: bytes, roots: list[bytes]) -> list[bool]:
    requests = [FrameRequest(author, 0, root, 0, 0, 4) for root in roots]
    return [copies.answer(request)[0].status == "ok" for request in requests]


def test_snapshots_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SNAPSHOTS_MAX", 2)
    copies, other = make(8), key(2).public_key
    roots = asked(copies, other, range(5))
    assert served(copies, other, roots) == [False] * 3 + [True] * 2


def test_who_asks_for_many_copies_ends_its_own_and_nobody_elses() -> None:
    copies, other = make(8), key(2).public_key
    honest = [*asked(copies, other, range(1), b"Ana"), *asked(copies, OWN, range(1, 2), b"Ben")]
    theirs = asked(copies, other, range(2, 30), b"Mallory")
    owned = asked(copies, OWN, range(30, 60), b"Mallory")
    assert served(copies, other, honest) == [True, True]
    assert sum(served(copies, other, theirs + owned)) == module.SNAPSHOTS_PER_PEER + 1
    late = asked(copies, OWN, range(60, 61), b"Cid")
    assert served(copies, OWN, honest + late) == [True, True, True]


def test_one_peer_cannot_take_all_places_for_our_own_copy() -> None:
    """A joiner's start stays, however many ask for other copies afterwards."""
    copies, other = make(8), key(2).public_key
    asked(copies, OWN, range(5), b"Mallory")
    joiners = asked(copies, OWN, range(5, 6), b"Ben")
    asked(copies, other, range(6, 40))
    assert served(copies, OWN, joiners) == [True]


def test_our_own_copy_is_kept_as_it_was_for_a_while_and_twice_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A joiner names it as its start; strangers who ask for more cannot push it out."""
    monkeypatch.setattr(module, "SNAPSHOTS_MAX", 1)
    copies = make(8)
    first = asked(copies, OWN, range(2))
    asked(copies, OWN, range(2, 60))
    assert served(copies, OWN, first) == [True, True]
    later = asked(copies, OWN, range(66, 70))
    assert served(copies, OWN, first) == [False, False]
    assert served(copies, OWN, later) == [True, True, False, True]


def test_what_we_named_as_our_start_is_held_for_those_who_follow_us() -> None:
    copies, other = make(8), key(2).public_key
    root = held(copies, other, 9, 1, d=8)
    assert same(copies.named(other, root), vector(8, seed=1))
    copies.pin(root, copies.followed[other].copy)
    moved = held(copies, other, 10, 2, d=8)
    assert same(copies.named(other, root), vector(8, seed=1))
    assert copies.named(other, bytes(32)) is None
    assert same(copies.named(other, moved), vector(8, seed=2))
    found = copies.named(other, moved)
    assert found is not None
    found += 1.0
    assert same(copies.followed[other].copy.vector, vector(8, seed=2)), "a copy of its own"


def test_what_an_author_published_is_what_followers_hold() -> None:
    author = Author(d=D).genesis().grow(3)
    assert author.signed[-1].header.root == copy_root(author.copy)
