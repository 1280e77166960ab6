"""A start from others' copies: what may be named, how a follower gets there, when it cannot."""

from typing import Any

import pytest
from gossip_kit import GENESIS_ROOT, Author, Bench, key, make_settings, only, root_of
from hypothesis import given
from hypothesis import strategies as st

from tapestry_p2p.gossip.adoption import (
    ADOPT_BYTES_MAX,
    Reference,
    choose,
    decode_adoption,
    encode_adoption,
)
from tapestry_p2p.gossip.canonical import Malformed, pack
from tapestry_p2p.gossip.effects import Fetch, FetchKeyframe, Persist
from tapestry_p2p.gossip.events import Publish
from tapestry_p2p.gossip.own import ProtocolError

JOINER = key(9).public_key
ROWS: list[list[Any]] = [[key(n).public_key, 5 + n, root_of(n)] for n in (1, 2, 3)]
REFERENCES = tuple(Reference(*row) for row in ROWS)


def _payload(rows: Any = None, function: Any = "median") -> bytes:
    return pack({"function": function, "references": sorted(ROWS) if rows is None else rows})


def test_what_is_encoded_is_read_again_in_the_order_of_the_keys() -> None:
    payload = encode_adoption(REFERENCES)
    assert payload == encode_adoption(reversed(REFERENCES)) == _payload()
    read = decode_adoption(payload, JOINER, make_settings(f=1))
    assert set(read) == set(REFERENCES)
    assert [ref.author for ref in read] == sorted(ref.author for ref in REFERENCES)


@pytest.mark.parametrize(
    ("payload", "f"),
    [
        (_payload([]), 0),
        (_payload(sorted(ROWS)[:2]), 0),
        (_payload(), 2),
        (_payload(function="mean"), 0),
        (_payload(function=b"median"), 0),
        (_payload([*sorted(ROWS), sorted(ROWS)[0], sorted(ROWS)[1]]), 0),
        (_payload(sorted(ROWS, reverse=True)), 0),
        (_payload([[JOINER, 3, root_of(1)]]), 0),
        (_payload([[ROWS[0][0], 0, root_of(1)]]), 0),
        (_payload([[ROWS[0][0], 2**63 - 1, root_of(1)]]), 0),
        (_payload([[ROWS[0][0][:31], 3, root_of(1)]]), 0),
        (_payload([[ROWS[0][0], 3, b""]]), 0),
        (_payload([[ROWS[0][0], 3]]), 0),
        (_payload([{"author": 1}]), 0),
        (pack({"references": sorted(ROWS)}), 0),
        (pack({"function": "median", "references": sorted(ROWS), "more": 1}), 0),
        (pack([]), 0),
        (b"", 0),
        (b"\xc1", 0),
        (_payload([[bytes([n]) * 32, 1, root_of(n)] for n in range(5)]), 0),
        (_payload([[bytes([n]) * 32, 1, root_of(n)] for n in range(5)]), 1),
    ],
    ids=str,
)
def test_a_broken_rule_is_malformed(payload: bytes, f: int) -> None:
    """None, an even count, too few, a crowd; another function; doubled, unsorted; itself; seq 0."""
    with pytest.raises(Malformed):
        decode_adoption(payload, JOINER, make_settings(f=f))


@given(st.binary(max_size=300))
def test_nonsense_is_malformed_and_nothing_else(payload: bytes) -> None:
    with pytest.raises(Malformed):
        decode_adoption(payload, JOINER, make_settings())


def test_the_largest_one_fits() -> None:
    """f is at most 5 (3f+1 members of an all-to-all network of 17)."""
    rows = [Reference(bytes([n]) * 32, 2**62, root_of(n)) for n in range(11)]
    payload = encode_adoption(rows)
    assert len(payload) <= ADOPT_BYTES_MAX
    assert len(decode_adoption(payload, JOINER, make_settings(f=5))) == 11


# -- a follower


def _started(*changes: Any) -> tuple[Bench, Author, list[Any]]:
    """A bench that heard of a joiner with three references."""
    bench, joiner = Bench(), Author(9)
    effects = bench.connect(joiner.key, joiner.adopt(*REFERENCES))
    return bench, joiner, effects


def test_an_adopt_entry_is_fetched_and_the_stream_goes_on_from_it() -> None:
    bench, joiner, effects = _started()
    (fetch,) = only(effects, Fetch)
    assert (fetch.signed_header, fetch.sources) == (joiner.last, (joiner.key,))
    assert not only(bench.applied(joiner.key, 0, root_of(7000)), FetchKeyframe)
    assert bench.protocol.position(joiner.key) == 0
    done = bench.obey(bench.heads(joiner.key, *joiner.grow(2)))
    assert [e.signed_header.header.seq for e in only(done, Fetch)] == [1, 2]
    assert not bench.protocol.weight_zero(joiner.key)


def test_another_result_than_stated_is_nobodys_fault_and_the_copy_comes_whole() -> None:
    bench, joiner, _ = _started()
    bench.applied(joiner.key, 0, root_of(1))
    assert bench.count("ignore", "fetch_root") == 1
    (whole,) = only(bench.ticks(2.0), FetchKeyframe)
    bench.obey([whole])
    assert bench.protocol.position(joiner.key) == 0
    assert not bench.protocol.statistics()["reject"]


def test_references_that_nobody_has_any_more_end_in_a_whole_copy() -> None:
    bench, joiner, effects = _started()
    kinds = []
    for _ in range(4):
        (job,) = [e for e in effects if isinstance(e, Fetch | FetchKeyframe)]
        kinds.append(type(job))
        bench.failed(joiner.key, 0, "missing")
        effects = bench.ticks(5.0)
    assert kinds == [Fetch, Fetch, Fetch, FetchKeyframe]


def test_a_start_that_breaks_the_rules_is_out_until_the_whole_copy_comes() -> None:
    bench, joiner, _ = _started()
    bench.failed(joiner.key, 0, "content")
    assert not only(bench.ticks(10.0), Fetch), "not a second time"
    assert only(bench.ticks(30.0), FetchKeyframe)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"root": b""}, "root_missing"),
        ({"cites": root_of(2)}, "cites"),
        ({"seq": 3, "prev": root_of(1)}, "position"),
        ({"payload_bytes": ADOPT_BYTES_MAX + 1}, "payload"),
        ({"chunks": (), "payload_bytes": 0}, "payload"),
        ({"chunks": (root_of(1), root_of(2))}, "payload"),
        ({"codec": "2bit"}, "payload"),
    ],
)
def test_its_header_has_one_form(changes: dict[str, Any], reason: str) -> None:
    bench, joiner = Bench(), Author(9)
    bench.connect(joiner.key, joiner.adopt(*REFERENCES, **changes))
    assert bench.count("reject", reason) == 1
    assert bench.verifies == 0


def test_a_stream_begins_once() -> None:
    bench, joiner, _ = _started()
    bench.obey(bench.tick())
    other = joiner.entry("genesis", root=GENESIS_ROOT, seq=0, prev=bytes(32))
    bench.heads(joiner.key, other)
    assert bench.count("accept", "fork") == 1


# -- what the entries named are, as far as we can tell


def _author(bench: Bench, n: int, rounds: int = 3) -> Author:
    """An author followed to its head, with so many rounds behind it."""
    author = Author(n)
    author.genesis()
    for round_ in range(1, rounds + 1):
        author.difference(salt=n, round=round_)
    bench.obey(bench.connect(author.key, *author.log))
    author.profile()
    bench.obey(bench.profile(author.key, author))
    return author


def test_an_entry_that_we_hold_must_be_the_one_that_is_named() -> None:
    bench = Bench()
    authors = [_author(bench, n) for n in (1, 2, 3)]
    true = [Reference(a.key, 3, a.log[3].header.root) for a in authors]
    assert len(bench.protocol.read_adoption(encode_adoption(true), JOINER)) == 3
    older = [Reference(true[0].author, 2, true[0].root), *true[1:]]
    with pytest.raises(Malformed):
        bench.protocol.read_adoption(encode_adoption(older), JOINER)
    unknown = [Reference(true[0].author, 99, root_of(1)), *true[1:]]
    assert len(bench.protocol.read_adoption(encode_adoption(unknown), JOINER)) == 3


def test_a_start_cannot_rest_on_another_start() -> None:
    """Two joiners that name each other's first entries: neither has trained."""
    bench = Bench()
    one, other = Author(1), Author(2)
    bench.obey(bench.connect(one.key, one.adopt(*REFERENCES[1:2])))
    told = one.entry("profile", chunks=(root_of(1),), payload_bytes=10, root=root_of(7000))
    bench.obey(bench.heads(one.key, one.add(told)))
    for seq in (0, 1):
        row = [[one.key, seq, root_of(7000)]]
        with pytest.raises(Malformed):
            bench.protocol.read_adoption(_payload(row), other.key)
    assert bench.protocol.references() == ()


# -- our own start


def test_references_are_entries_of_those_who_trained_that_our_copies_stand_at() -> None:
    bench = Bench(f=1)
    for n in (1, 2):
        _author(bench, n)
    _author(bench, 3, rounds=0)
    assert bench.protocol.trained() == 2
    assert bench.protocol.references() == (), "2f+1 are needed"
    fourth = _author(bench, 4, rounds=5)
    found = bench.protocol.references()
    assert {ref.author for ref in found} == {key(n).public_key for n in (1, 2, 4)}
    assert Reference(fourth.key, 5, fourth.log[5].header.root) in found


def test_a_copy_that_is_behind_is_named_where_it_stands() -> None:
    bench = Bench()
    author = _author(bench, 1)
    bench.heads(author.key, author.difference(salt=1, round=5))
    assert bench.protocol.references() == (Reference(author.key, 3, author.log[3].header.root),)


def test_of_a_large_model_the_newest_stated_root_is_named() -> None:
    bench, author = Bench(), Author(1)
    author.genesis()
    for round_ in range(1, 5):
        author.difference(round=round_, root=root_of(2) if round_ == 2 else b"")
    bench.obey(bench.connect(author.key, *author.log))
    assert bench.protocol.position(author.key) == 4
    assert bench.protocol.references() == (Reference(author.key, 2, author.log[2].header.root),)


def _candidates(blocks: list[str | None]) -> list[tuple[Reference, str | None]]:
    return [(Reference(bytes([n]) * 32, 1, root_of(n)), b) for n, b in enumerate(blocks)]


@pytest.mark.parametrize(
    ("blocks", "f", "count"),
    [
        ([None] * 2, 0, 1),
        ([None] * 3, 0, 3),
        ([None] * 9, 0, 3),
        ([None] * 9, 1, 3),
        ([None] * 9, 2, 5),
        ([None] * 4, 2, 0),
        (["a"] * 9, 1, 0),
        (["a", "a", "b", "c"], 1, 3),
        (["a", "a", "b", None, None], 2, 0),
        (["a", "d", "b", None, None], 2, 5),
        ([], 0, 0),
    ],
)
def test_an_odd_number_with_one_say_for_each_address_block(
    blocks: list[str | None], f: int, count: int
) -> None:
    chosen = choose(_candidates(blocks), make_settings(f=f), lambda author: author)
    assert len(chosen) == count
    said = [blocks[ref.author[0]] for ref in chosen if blocks[ref.author[0]]]
    assert len(said) == len(set(said))


def test_who_is_named_follows_from_our_secret() -> None:
    found = [
        choose(_candidates([None] * 20), make_settings(f=1), lambda a, s=s: bytes([a[0] ^ s]))  # type: ignore[misc]
        for s in (0, 31)
    ]
    assert set(found[0]).isdisjoint(found[1])


def _publish(bench: Bench, payload: bytes, kind: str = "adopt") -> list[Any]:
    return bench.step(Publish(kind, bench.now, root=root_of(7000), payload=payload))


def test_our_stream_may_begin_with_it_and_then_not_again() -> None:
    bench = Bench()
    (persist,) = only(_publish(bench, encode_adoption(REFERENCES)), Persist)
    assert persist.payload == encode_adoption(REFERENCES)
    with pytest.raises(ProtocolError):
        _publish(bench, encode_adoption(REFERENCES))
    with pytest.raises(ProtocolError):
        bench.step(Publish("genesis", bench.now, root=GENESIS_ROOT))


def test_an_adoption_of_ours_that_is_not_valid_is_our_own_bug() -> None:
    bench = Bench()
    with pytest.raises(ProtocolError):
        _publish(bench, encode_adoption(REFERENCES[:2]))
    assert bench.protocol.head(bench.key) is None


def test_one_that_others_know_of_never_adopts() -> None:
    """A restored key: the stream is older than its disk."""
    bench = Bench()
    old = Author(0)
    bench.connect(key(5).public_key, *old.grow(2))
    with pytest.raises(ProtocolError):
        _publish(bench, encode_adoption(REFERENCES))


def test_a_network_begins_while_all_that_are_known_are_here_and_none_has_trained() -> None:
    one, other = Author(1), Author(2)
    known = tuple((author.key, ("/ip4/127.0.0.1/tcp/1",)) for author in (one, other))
    bench = Bench(bootstrap=known)
    bench.connect(one.key, one.genesis())
    assert not bench.protocol.is_untrained, "somebody is still to come"
    bench.connect(other.key, other.genesis())
    assert bench.protocol.is_untrained
    bench.heads(one.key, one.difference(round=1))
    assert not bench.protocol.is_untrained
