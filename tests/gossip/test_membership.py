"""Who is there: convergence by anti-entropy, caps, expiry by our own clock, tombstones."""

import pytest
from gossip_kit import Author, Bench, key, make_settings, only, sent
from hypothesis import given
from hypothesis import strategies as st

from tapestry_p2p.gossip.canonical import Malformed, pack
from tapestry_p2p.gossip.effects import Drop, Unfollow
from tapestry_p2p.gossip.events import Connected, Disconnected
from tapestry_p2p.gossip.header import SignedHeader
from tapestry_p2p.gossip.known import decode_known
from tapestry_p2p.gossip.membership import Membership, address_block
from tapestry_p2p.gossip.merkle import chunk_hash
from tapestry_p2p.gossip.messages import Heads, Hello, Members, Row
from tapestry_p2p.gossip.profile import (
    ADDRESSES_MAX,
    NAME_MAX,
    Profile,
    decode_profile,
    encode_profile,
)

PEER = key(999).public_key


def _member(n: int, address: str = "/ip4/10.0.0.1/tcp/1") -> Author:
    author = Author(n)
    author.genesis()
    author.profile(f"member {n}", address)
    return author


def _heard(bench: Bench, author: Author) -> None:
    bench.say(PEER, Members(((author.last, author.payload),)))


def test_a_profile_makes_a_member_and_opens_its_stream() -> None:
    bench, author = Bench(), _member(1)
    bench.connect(PEER)
    _heard(bench, author)
    assert bench.protocol.members()[author.key] == decode_profile(author.payload)
    assert bench.protocol.followed() == (author.key,)
    assert bench.protocol.head(author.key) == author.last


def test_old_and_doubled_profiles_cost_nothing() -> None:
    bench, author = Bench(), _member(1)
    bench.connect(PEER)
    old = (author.last, author.payload)
    author.profile("newer")
    _heard(bench, author)
    before = bench.verifies
    _heard(bench, author)
    bench.say(PEER, Members((old,)))
    assert bench.verifies == before
    assert bench.count("ignore", "profile_known") == 2
    assert bench.protocol.members()[author.key].name == "newer"


def test_a_profile_must_be_its_authors_own_words() -> None:
    bench, author, other = Bench(), _member(1), _member(2)
    bench.connect(PEER)
    bench.say(PEER, Members(((author.last, other.payload),)))
    assert bench.count("reject", "profile_hash") == 1
    bench.say(PEER, Members(((SignedHeader(author.last.header, bytes(64)), author.payload),)))
    assert bench.count("reject", "signature") == 1
    assert not bench.protocol.members()


def test_what_a_peer_lacks_is_sent_after_its_digest() -> None:
    bench, author = Bench(), _member(1)
    bench.connect(PEER)
    _heard(bench, author)
    other = key(998).public_key
    frames = sent(bench.connect(other), other)
    profiles = [pair for frame in frames if isinstance(frame, Members) for pair in frame.profiles]
    assert profiles == [(author.last, author.payload)]
    frames = sent(bench.digest(other, Row(author.key, 2, 2, 0)), other)
    assert not [frame for frame in frames if isinstance(frame, Members | Heads)]


def test_the_digest_is_a_claim_that_changes_nothing_here() -> None:
    bench, author = Bench(), _member(1)
    rows = (Row(author.key, 99, 99, 99), Row(bench.key, 99, 99, 99))
    bench.connect(PEER, rows=rows)
    tables = bench.protocol.statistics()["tables"]
    assert (tables["members"], tables["streams"]) == (0, 0)
    assert not bench.protocol.mute


def test_expiry_is_by_our_clock_since_the_last_higher_profile() -> None:
    bench, author = Bench(), _member(1)
    bench.connect(PEER)
    _heard(bench, author)
    bench.ticks(3000.0, every=100.0)
    author.profile()
    _heard(bench, author)
    bench.ticks(3000.0, every=100.0)
    assert author.key in bench.protocol.members()
    effects = bench.ticks(1000.0, every=100.0)
    assert [e.author for e in only(effects, Unfollow)] == [author.key]
    assert author.key not in bench.protocol.members()


def test_the_forgotten_do_not_rise_by_hearsay() -> None:
    bench, author = Bench(), _member(1)
    bench.connect(PEER)
    _heard(bench, author)
    bench.ticks(4000.0, every=100.0)
    before = bench.verifies
    _heard(bench, author)
    bench.heads(PEER, author.last)
    assert bench.protocol.statistics()["tables"]["streams"] == 0
    assert bench.verifies == before
    author.profile("back again")
    _heard(bench, author)
    assert bench.protocol.members()[author.key].name == "back again"


def test_the_forgotten_are_told_their_last_words() -> None:
    """Who wakes in a backup after everybody forgot it would sign old numbers again, or be ignored
    until it has outnumbered its old life."""
    bench, author = Bench(), _member(1)
    bench.connect(PEER)
    _heard(bench, author)
    bench.heads(PEER, *author.grow(5))
    bench.ticks(4000.0, every=100.0)
    assert bench.protocol.head(author.key) is None
    (hello,) = [m for m in sent(bench.connect(author.key), author.key) if isinstance(m, Hello)]
    assert author.last in hello.heads


def test_what_one_unicode_knows_and_another_does_not_is_nobodys_fault() -> None:
    bench = Bench()
    bench.connect(PEER)
    for n in range(1, 40):
        author = _member(n)
        row = {"addresses": [], "languages": [], "name": "\U0002ffff \u2064"}
        author.payload = pack(row)
        chunks, size = (chunk_hash(author.payload),), len(author.payload)
        author.add(author.entry("profile", chunks=chunks, payload_bytes=size))
        bench.profile(PEER, author)
    assert bench.count("ignore", "profile_text") == 39
    assert not bench.protocol.statistics()["reject"]
    assert bench.protocol.members() == {}


def test_a_connected_member_is_not_forgotten() -> None:
    bench, author = Bench(), _member(1)
    bench.connect(author.key, author.log[0])
    bench.profile(author.key, author)
    bench.ticks(4000.0, every=100.0)
    assert bench.protocol.followed() == (author.key,)


def test_all_tables_are_capped_against_a_crowd() -> None:
    bench = Bench(members_max=20, tombstones_max=10, streams_max=20, all_to_all_max=5)
    bench.connect(PEER)
    for n in range(1, 60):
        bench.now += 1.0
        _heard(bench, _member(n, f"/ip4/20.{n}.0.1/tcp/1"))
    tables = bench.protocol.statistics()["tables"]
    assert tables["members"] == 20
    assert tables["streams"] <= 20
    assert tables["followed"] == 4
    assert bench.count("ignore", "members_full") == 39
    bench.ticks(4000.0, every=100.0)
    tables = bench.protocol.statistics()["tables"]
    assert (tables["members"], tables["tombstones"]) == (0, 10)


def test_one_address_block_cannot_fill_the_table() -> None:
    bench = Bench()
    bench.connect(PEER)
    for n in range(1, 30):
        bench.now += 1.0
        _heard(bench, _member(n, "/ip4/20.1.0.1/tcp/1"))
    assert len(bench.protocol.members()) == bench.settings.members_per_block_max
    _heard(bench, _member(40, "/ip4/127.0.0.1/tcp/1"))
    assert key(40).public_key in bench.protocol.members(), "loopback and private are exempt"


def test_hearsay_never_pushes_out_who_was_connected() -> None:
    bench = Bench(members_max=17)
    worked = _member(1, "/ip4/20.0.0.1/tcp/1")
    bench.connect(worked.key, worked.log[0])
    bench.profile(worked.key, worked)
    bench.connect(PEER)
    for n in range(2, 40):
        bench.now += 1.0
        _heard(bench, _member(n, f"/ip4/20.{n}.0.1/tcp/1"))
    newcomer = _member(50, "/ip4/21.0.0.1/tcp/1")
    bench.connect(newcomer.key, newcomer.log[0])
    bench.profile(newcomer.key, newcomer)
    members = bench.protocol.members()
    assert worked.key in members
    assert newcomer.key in members
    assert len(members) == 17


def test_a_connected_author_takes_the_place_of_one_never_reached() -> None:
    bench = Bench(all_to_all_max=3)
    bench.connect(PEER)
    for n in (1, 2):
        _heard(bench, _member(n))
    assert len(bench.protocol.followed()) == 2
    author = _member(3)
    effects = bench.connect(author.key, author.log[0])
    effects += bench.tick()
    assert [e.reason for e in only(effects, Unfollow)] == ["place_taken"]
    assert author.key in bench.protocol.followed()


def test_connections_are_capped_and_slots_come_back() -> None:
    bench = Bench(peers_max=20)
    refused = [n for n in range(1, 40) if only(bench.connect(key(n).public_key), Drop)]
    assert refused == list(range(21, 40))
    bench.step(Disconnected(key(1).public_key, bench.now))
    assert not only(bench.connect(key(39).public_key), Drop)


def test_ten_thousand_reconnects_leave_no_trace() -> None:
    bench = Bench()
    peer = key(1).public_key
    for _ in range(10_000):
        bench.now += 0.1
        assert not only(bench.step(Connected(peer, bench.now)), Drop)
        bench.step(Disconnected(peer, bench.now))
    assert bench.protocol.statistics()["tables"]["links"] == 1


def test_members_survive_a_restart() -> None:
    bench, author = Bench(), _member(1)
    bench.obey(bench.connect(author.key, *author.log))
    bench.profile(author.key, author)
    bench.obey(bench.tick())
    again = Bench(0, decode_known(bench.protocol.snapshot().encode()))
    assert again.protocol.members() == bench.protocol.members()
    assert again.protocol.position(author.key) == 1
    author.grow(1)
    done = again.obey(again.connect(author.key, author.last))
    assert again.protocol.position(author.key) == 2
    assert done


@pytest.mark.parametrize("comer", [1, 60], ids=["established", "new"])
def test_a_newcomer_whom_we_met_gives_way_before_an_established_one_never_met(comer: int) -> None:
    """To be here is cheap: it makes nobody worth more than one who lasted."""
    established = {key(n).public_key for n in range(1, 20)}
    members = Membership(make_settings(members_max=18), bytes(16), lambda k: k not in established)

    def put(n: int, met: bool) -> bytes:
        author = _member(n)
        members.put(author.last, author.payload, decode_profile(author.payload), 0.0, met)
        return author.key

    old = [put(n, met=False) for n in range(2, 19)]
    new_and_met = put(50, met=True)
    put(comer, met=True)
    assert new_and_met not in members
    assert all(author in members for author in old)


@given(st.text(max_size=80), st.lists(st.text(max_size=40), max_size=9))
def test_profiles_are_plain_text_or_refused(name: str, languages: list[str]) -> None:
    payload = pack({"addresses": [], "languages": languages, "name": name}) if _utf8(name) else b""
    try:
        profile = decode_profile(payload)
    except Malformed:
        return
    assert len(profile.name) <= NAME_MAX
    shown = "".join([profile.name, *profile.languages])
    assert shown.isprintable() or " " in shown or "\u3000" in shown or not shown.isascii()
    assert not any(letter in shown for letter in "\n\r\t\x1b\x00\u2028\u202e\u200b")
    assert encode_profile(profile) == payload


def _utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@pytest.mark.parametrize(
    "profile",
    [
        Profile("x" * (NAME_MAX + 1), (), ()),
        Profile("bell \x07", (), ()),
        Profile("left \u202e right", (), ()),
        Profile("a", ("x" * 33,), ()),
        Profile("a", ("deu",) * 9, ()),
        Profile("a", (), ("no slash",)),
        Profile("a", (), ("/ip4/1.2.3.4/tcp/1",) * (ADDRESSES_MAX + 1)),
        Profile("a", (), ("/ip4/\x1b[31m",)),
    ],
)
def test_out_of_bounds_profiles_are_refused(profile: Profile) -> None:
    with pytest.raises(Malformed):
        encode_profile(profile)
    row = {
        "addresses": list(profile.addresses),
        "languages": list(profile.languages),
        "name": profile.name,
    }
    with pytest.raises(Malformed):
        decode_profile(pack(row))


@pytest.mark.parametrize(
    ("address", "block"),
    [
        ("/ip4/127.0.0.1/tcp/1", None),
        ("/ip4/192.168.1.1/tcp/1", None),
        ("/ip4/172.16.0.1/tcp/1", None),
        ("/ip4/172.32.0.1/tcp/1", "172.32"),
        ("/ip4/9.8.7.6/tcp/1", "9.8"),
        ("/ip6/::1/tcp/1", None),
        ("/ip6/2001:db8::1/tcp/1", "2001:db8"),
        ("/dns4/example.org/tcp/1", "example.org"),
        ("/x", "other"),
    ],
)
def test_address_blocks(address: str, block: str | None) -> None:
    assert address_block(address) == block
