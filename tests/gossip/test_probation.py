"""Probation: a new name weighs little until it lasted through our own rounds, and moves nothing."""

from dataclasses import replace
from typing import Any

import pytest
from gossip_kit import GENESIS_ROOT, PAYLOAD, Author, Bench, key, only, root_of

from tapestry_p2p.gossip.canonical import pack, unpack
from tapestry_p2p.gossip.effects import Dial, Drop, Fetch, Forked, Persist, Unfollow
from tapestry_p2p.gossip.events import Connected, Disconnected, Publish
from tapestry_p2p.gossip.header import SignedHeader
from tapestry_p2p.gossip.known import decode_known
from tapestry_p2p.gossip.messages import Members, Row
from tapestry_p2p.gossip.probation import SHARE, TURN_RINGS, Probation

ROUNDS = 5
PEER = key(999).public_key


def _bench(known: Any = None, **changes: Any) -> Bench:
    """A founder of a network that tolerates one hostile neighbour."""
    own = key(0).public_key
    founders = changes.pop("founders", frozenset()) | {own}
    settings = {"f": 1, "probation_rounds": ROUNDS, "founders": founders, **changes}
    bench = Bench(0, known, **settings)
    if known is None:
        bench.step(Publish("genesis", bench.now, root=GENESIS_ROOT))
    return bench


def _round(bench: Bench, *here: Author, number: int = 0) -> None:
    """A round of ours, and an entry of each of those who are here."""
    for author in here:
        bench.obey(bench.heads(author.key, _next(author)))
    number = number or bench.protocol._state.round + 1
    root = root_of(500 + number)
    bench.step(Publish("difference", bench.now, "2bit", (root,), PAYLOAD, root=root, round=number))
    bench.obey(bench.tick(1.0))


def _next(author: Author) -> SignedHeader:
    """An entry of one more round of an author."""
    return author.difference(round=author.last.header.round + 1)


def _met(bench: Bench, *numbers: int) -> list[Author]:
    """Authors that are connected, with a profile, and followed as far as they have a place."""
    authors = [Author(n) for n in numbers]
    for author in authors:
        author.genesis()
        author.profile(address=f"/ip4/127.0.0.{len(numbers) % 250}/tcp/1")
        bench.obey(bench.connect(author.key, *author.log))
        bench.profile(author.key, author)
        bench.obey(bench.heads(author.key, _next(author)))
    bench.obey(bench.tick(1.0))
    return authors


def _shares(bench: Bench, authors: list[Author]) -> list[float]:
    return [bench.protocol.share(author.key) for author in authors]


def test_a_newcomer_is_read_by_us_and_weighs_little_until_our_own_rounds_are_over() -> None:
    bench = _bench()
    (author,) = _met(bench, 1)
    assert bench.protocol.followed() == (author.key,)
    for passed in range(ROUNDS):
        assert bench.protocol.share(author.key) == SHARE
        assert bench.protocol.probation(author.key) == ROUNDS - passed
        assert bench.protocol.neighbours == 0, "a newcomer changes nobody's weight"
        _round(bench, author)
    assert bench.protocol.share(author.key) == 1
    assert bench.protocol.probation(author.key) == 0
    assert bench.protocol.neighbours == 1


def test_what_an_author_claims_and_how_fast_it_publishes_counts_for_nothing() -> None:
    bench = _bench()
    (author,) = _met(bench, 1)
    for n in range(3 * ROUNDS):
        bench.obey(bench.heads(author.key, author.difference(round=10**6 + n, tokens=10**9)))
    bench.ticks(3600.0, every=60.0)
    assert bench.protocol.probation(author.key) == ROUNDS


def test_who_is_silent_or_was_never_met_is_not_here() -> None:
    bench = _bench(ring=2)
    silent, present = _met(bench, 1, 2)
    bench.connect(PEER)
    heard = Author(3)
    heard.genesis()
    heard.profile()
    bench.say(PEER, Members(((heard.last, heard.payload),)))
    for _ in range(ROUNDS + 2):
        bench.heads(PEER, _next(heard))
        _round(bench, present)
    assert bench.protocol.share(present.key) == 1
    assert bench.protocol.probation(silent.key) == ROUNDS - 2, "a ring of rounds, then no more"
    assert bench.protocol.probation(heard.key) == ROUNDS


def test_who_has_not_trained_is_neither_counted_nor_mixed() -> None:
    """It stands at the first vector still, and would only draw us back there."""
    bench = _bench()
    author = Author(1)
    author.genesis()
    bench.obey(bench.connect(author.key, *author.log))
    for _ in range(2 * ROUNDS):
        author.profile()
        bench.obey(bench.profile(author.key, author))
        _round(bench)
    assert bench.protocol.weight_zero(author.key)
    assert bench.protocol.probation(author.key) == ROUNDS
    bench.obey(bench.heads(author.key, _next(author)))
    bench.obey(bench.tick(1.0))
    assert bench.protocol.share(author.key) == SHARE


@pytest.mark.parametrize("vouchers", [1, 2])
def test_whom_we_cannot_reach_is_here_if_more_than_f_established_peers_follow_it(
    vouchers: int,
) -> None:
    friends = [Author(n) for n in (7, 8)]
    bench = _bench(founders=frozenset(friend.key for friend in friends))
    stranger = Author(1)
    stranger.genesis()
    for n, friend in enumerate(friends):
        bench.obey(bench.connect(friend.key, friend.genesis()))
        copy = 1 if n < vouchers else 0
        bench.obey(bench.digest(friend.key, Row(stranger.key, 0, 1, copy)))
    bench.obey(bench.connect(PEER))  # a newcomer's word counts for nothing
    bench.obey(bench.digest(PEER, Row(stranger.key, 0, 1, 1)))
    for _ in range(ROUNDS):
        bench.obey(bench.heads(friends[0].key, *stranger.log, _next(stranger)))
        _round(bench)
    assert (bench.protocol.probation(stranger.key) < ROUNDS) == (vouchers > bench.settings.f)


@pytest.mark.parametrize("who", ["founders", "trusted", "bootstrap"])
def test_genesis_trusted_and_inviting_keys_are_mixed_at_once(who: str) -> None:
    author = key(1).public_key
    known: dict[str, Any] = {
        "founders": frozenset({author}), "trusted": frozenset({author}),
        "bootstrap": ((author, ("/ip4/127.0.0.1/tcp/1",)),),
    }  # fmt: skip
    bench = _bench(f=0, **{who: known[who]})
    authors = _met(bench, 1, 2)
    assert _shares(bench, authors) == [1, 0]
    assert bench.protocol.neighbours == 1


def test_without_a_tolerated_liar_a_newcomer_waits_until_it_is_none() -> None:
    bench = _bench(f=0)
    (author,) = _met(bench, 1)
    assert bench.protocol.followed() == (author.key,), "its copy is at hand for that day"
    for _ in range(ROUNDS):
        assert bench.protocol.weight_zero(author.key)
        _round(bench, author)
    assert bench.protocol.share(author.key) == 1


@pytest.mark.parametrize(("f", "swarm"), [(0, 30), (1, 1), (1, 30), (3, 30)])
def test_all_newcomers_together_stay_within_the_hostile_weight(f: int, swarm: int) -> None:
    """At every moment at most b/4, b = f w: f - 1 established liars fit beside them."""
    friends = frozenset(key(n).public_key for n in range(100, 112))
    bench = _bench(f=f, founders=friends)
    established = _met(bench, *range(100, 112))
    newcomers = _met(bench, *range(1, 1 + swarm))
    turns = set()
    for number in range(1, 4 * TURN_RINGS * 16, 40):
        bench.now += 60.0
        _round(bench, number=number)  # the last one was long ago: nobody is here, none counted
        for author in newcomers:
            bench.heads(author.key, _next(author))
        bench.obey(bench.tick(1.0))
        shares = _shares(bench, newcomers)
        assert sum(shares) <= f / 4
        assert sum(share > 0 for share in shares) == (1 if f else 0)
        assert _shares(bench, established) == [1] * 12
        assert bench.protocol.neighbours == 12
        assert len(bench.protocol.followed()) == 13
        turns.add(bench.protocol._state.turn)
    assert len(turns) >= min(swarm, 3), "the turn goes round"


def test_an_established_author_takes_the_newcomers_place() -> None:
    friend = key(100).public_key
    bench = _bench(all_to_all_max=2, founders=frozenset({friend}))
    (newcomer,) = _met(bench, 1)
    assert bench.protocol.followed() == (newcomer.key,)
    author = Author(100)
    author.genesis()
    effects = bench.connect(author.key, *author.log)
    assert [e.reason for e in only(effects, Unfollow)] == ["place_taken"]
    assert bench.protocol.followed() == (friend,)


def test_probation_outlives_a_restart() -> None:
    bench = _bench()
    (author,) = _met(bench, 1)
    for _ in range(ROUNDS - 2):
        _round(bench, author)
    stored = decode_known(bench.protocol.snapshot().encode())
    again = _bench(stored)
    assert again.protocol.probation(author.key) == 2
    again.obey(again.connect(author.key, author.last))
    for _ in range(2):
        _round(again, author)
    assert again.protocol.share(author.key) == 1
    assert (
        _bench(decode_known(again.protocol.snapshot().encode())).protocol.probation(author.key) == 0
    )


@pytest.mark.parametrize("forked", [False, True])
def test_trusting_a_newcomer_later_spares_it_the_rest_but_no_fork(forked: bool) -> None:
    bench = _bench(trusted=frozenset({Author(1).key}) if forked else frozenset())
    (author,) = _met(bench, 1)
    if forked:
        bench.protocol._state.probation.begin_anew(author.key)
    _round(bench, author)
    stored = decode_known(bench.protocol.snapshot().encode())
    again = _bench(stored, trusted=frozenset({author.key}))
    assert (again.protocol.probation(author.key) > 0) == forked


def test_rows_stored_before_they_told_who_is_exempt_are_still_read() -> None:
    bench = _bench()
    (author,) = _met(bench, 1)
    _round(bench, author)
    row = unpack(bench.protocol.snapshot().encode(), bytes_max=1 << 20)
    row["probation"] = [pair[:2] for pair in row["probation"]]
    ((key_, rounds, exempt),) = decode_known(pack(row)).probation
    assert (key_, rounds, exempt) == (author.key, 1, True)


def test_what_was_stored_before_there_was_probation_is_still_read() -> None:
    bench = _bench()
    _met(bench, 1)
    row = unpack(bench.protocol.snapshot().encode(), bytes_max=1 << 20)
    del row["probation"]
    assert decode_known(pack(row)) == replace(bench.protocol.snapshot(), probation=())


@pytest.mark.parametrize("exempt", [False, True])
def test_after_a_fork_and_the_resume_that_cites_it_everybody_is_new_again(exempt: bool) -> None:
    founders = frozenset({key(1).public_key}) if exempt else frozenset()
    bench = _bench(founders=founders)
    (author,) = _met(bench, 1)
    for _ in range(ROUNDS):
        _round(bench, author)
    assert bench.protocol.share(author.key) == 1
    twin = author.fork()
    effects = bench.heads(author.key, author.difference(salt=1), twin.difference(salt=2))
    (forked,) = only(effects, Forked)
    assert bench.protocol.weight_zero(author.key)
    effects = bench.heads(author.key, author.resume(cites=forked.proof.id, round=ROUNDS))
    assert [effect.record for effect in only(effects, Persist)] == ["resumed"]
    bench.obey(effects)
    bench.obey(bench.tick(1.0))
    stored = decode_known(bench.protocol.snapshot().encode())
    assert _bench(stored, founders=founders).protocol.probation(author.key) == ROUNDS
    for _ in range(ROUNDS):
        assert bench.protocol.share(author.key) == SHARE
        _round(bench, author)
    assert bench.protocol.share(author.key) == 1


def test_strangers_inventions_do_not_change_how_a_small_network_works() -> None:
    """Made-up profiles of everywhere, told by one peer: links stay off, nobody loses a place."""
    friends = frozenset(key(n).public_key for n in range(1, 4))
    bench = _bench(founders=friends)
    members = _met(bench, 1, 2, 3)
    bench.connect(PEER)
    for n in range(10, 60):
        made = Author(n)
        made.genesis()
        made.profile(address=f"/ip4/20.{n}.0.1/tcp/1")
        bench.now += 1.0
        bench.say(PEER, Members(((made.last, made.payload),)))
        bench.heads(PEER, _next(made))
        _round(bench, *members)
    assert len(bench.protocol.members()) > 40
    assert not bench.protocol.is_sparse
    assert bench.protocol.neighbours == 3
    assert _shares(bench, members) == [1, 1, 1]


def test_members_who_lasted_do_change_it() -> None:
    """The way for a network to grow beyond the limit: by members that are no newcomers."""
    bench = _bench(all_to_all_max=4, k=4)
    members = _met(bench, *range(1, 5))
    for _ in range(ROUNDS):
        assert not bench.protocol.is_sparse
        _round(bench, *members)
    bench.tick(1.0)
    assert bench.protocol.is_sparse


def test_who_has_just_come_itself_sees_a_crowd_where_there_is_one() -> None:
    bench = _bench(all_to_all_max=4, k=4, founders=frozenset())
    joiner = Bench(7, None, all_to_all_max=4, k=4, f=1, probation_rounds=ROUNDS)
    for one in (bench, joiner):
        _met(one, *range(11, 16))
    assert not bench.protocol.is_sparse
    assert joiner.protocol.is_sparse


def test_who_is_blocked_after_it_was_followed_is_not_taken_up_again() -> None:
    bench, author = Bench(), Author(1)
    author.grow(4)
    bench.obey(bench.connect(author.key, *author.log))
    assert bench.protocol.share(author.key) == 1.0
    known = decode_known(bench.protocol.snapshot().encode())
    again = Bench(0, known, blocked=frozenset({author.key}))
    again.connect(key(8).public_key)
    effects = again.heads(key(8).public_key, author.difference())
    assert not only([*effects, *again.ticks(3.0)], Fetch)
    assert again.protocol.followed() == ()
    assert again.protocol.share(author.key) == 0.0


def test_a_blocked_key_is_never_followed() -> None:
    blocked = frozenset({key(1).public_key})
    bench = _bench(blocked=blocked, founders=blocked)
    (author,) = _met(bench, 1)
    assert bench.protocol.followed() == ()
    assert bench.protocol.weight_zero(author.key)


def test_the_table_is_capped_and_forgets_who_was_here_least() -> None:
    settings = replace(_bench().settings, members_max=4, founders=frozenset({key(1).public_key}))
    probation = Probation(settings, PEER)
    names = [key(n).public_key for n in range(1, 10)]
    probation.begin_anew(names[0])  # a founder who forked
    for name in names[1:4]:
        for _ in range(ROUNDS - (name == names[3])):
            probation.count(name, _nobody)
    for name in names[4:]:
        probation.count(name, _nobody)
    assert len(probation.rows) == 4
    assert [probation.is_new(name) for name in names[:4]] == [True, False, False, True]
    assert probation.rounds(names[8]) == 1
    for name in names[4:]:
        probation.begin_anew(name)
    assert len(probation.rows) == 4
    assert probation.is_new(names[0]), "a fork is not forgotten for want of room"


def _nobody(author: bytes) -> bool:
    return False


def test_who_passed_and_is_gone_makes_way_for_those_who_come_later() -> None:
    settings = replace(_bench().settings, members_max=4, founders=frozenset({key(1).public_key}))
    probation = Probation(settings, PEER)
    forked, gone, staying, newcomer, late, later = (key(n).public_key for n in range(1, 7))
    for passed in (forked, gone, staying):
        for _ in range(ROUNDS):
            probation.count(passed, _nobody)
    probation.begin_anew(forked)
    for _ in range(ROUNDS):  # a founder who forked may also pass again, and go
        probation.count(forked, _nobody)
    probation.count(newcomer, _nobody)
    probation.count(late, {forked, gone}.__contains__)
    rows = {author: rounds for author, rounds, _ in probation.rows}
    assert rows == {forked: ROUNDS, staying: ROUNDS, newcomer: 1, late: 1}
    probation.count(later, {forked}.__contains__)
    assert {author for author, *_ in probation.rows} == {forked, staying, late, later}


def test_members_who_passed_and_left_do_not_keep_a_later_one_out() -> None:
    """Twenty came, passed and left for good: the twenty-first has its rounds counted too."""
    bench = _bench(members_max=20, all_to_all_max=17, streams_max=40)
    for numbers in (range(1, 11), range(11, 21)):
        authors = _met(bench, *numbers)
        for _ in range(ROUNDS):
            _round(bench, *authors)
        for author in authors:
            bench.obey(bench.heads(author.key, author.leave()))
            bench.step(Disconnected(author.key, bench.now))
    assert len(bench.protocol._state.probation.rows) == 20
    (late,) = _met(bench, 60)
    for _ in range(ROUNDS):
        _round(bench, late)
    assert bench.protocol.share(late.key) == 1


def test_whose_turn_it_is_follows_from_our_secret_alone() -> None:
    settings = _bench().settings
    probation = Probation(settings, PEER)
    names = [key(n).public_key for n in range(1, 9)]
    chosen = {probation.turn(names, 0, bytes([n]) * 16) for n in range(64)}
    assert len(chosen) == 8
    long = TURN_RINGS * settings.ring
    assert len({probation.turn(names, number, bytes(16)) for number in range(long)}) == 1
    assert (
        len({probation.turn(names, number, bytes(16)) for number in range(0, 20 * long, long)}) > 3
    )
    assert probation.turn((), 0, bytes(16)) is None


def test_a_lost_connection_costs_nothing_while_news_are_not_too_old() -> None:
    bench = _bench()
    (author,) = _met(bench, 1)
    _round(bench, author)
    bench.step(Disconnected(author.key, bench.now))
    for _ in range(3):
        _round(bench)
    bench.obey(bench.connect(author.key, author.last))
    assert bench.protocol.probation(author.key) == ROUNDS - 4


def test_tables_full_of_newcomers_make_way_for_who_is_none() -> None:
    """Connections, streams and profiles: a swarm that came first keeps no founder out."""
    friend = Author(200)
    bench = _bench(
        founders=frozenset({friend.key}), peers_max=20, streams_max=20, members_max=20,
    )  # fmt: skip
    swarm = _met(bench, *range(1, 21))
    tables = bench.protocol.statistics()["tables"]
    assert (tables["links"], tables["streams"]) == (20, 20)
    assert tables["members"] == 20, "and our own profile is not among them yet"
    stranger = Author(21)
    stranger.genesis()
    effects = bench.connect(stranger.key, *stranger.log)
    assert [drop.reason for drop in only(effects, Drop)] == ["full"]
    friend.genesis()
    friend.profile(address="/ip4/20.1.0.1/tcp/1")
    effects = bench.obey(bench.connect(friend.key, *friend.log))
    (drop,) = only(effects, Drop)
    assert drop.reason == "place_taken"
    assert drop.peer in {author.key for author in swarm}
    bench.profile(friend.key, friend)
    bench.obey(bench.tick(1.0))
    assert bench.protocol.share(friend.key) == 1
    assert friend.key in bench.protocol.members()
    tables = bench.protocol.statistics()["tables"]
    assert max(tables[name] for name in ("links", "streams", "members")) == 20


def test_a_founder_whom_we_want_is_dialled_though_newcomers_hold_all_connections() -> None:
    friend = key(200).public_key
    bench = _bench(bootstrap=((friend, ("/ip4/20.1.0.1/tcp/1",)),), peers_max=20)
    swarm = _met(bench, *range(1, 21))
    effects = bench.ticks(10.0)
    assert friend in {dial.peer for dial in only(effects, Dial)}
    assert {drop.peer for drop in only(effects, Drop)} <= {author.key for author in swarm}


def test_newcomers_who_come_and_go_do_not_make_us_forget_whom_we_dial() -> None:
    friend = key(200).public_key
    bench = _bench(bootstrap=((friend, ("/ip4/20.1.0.1/tcp/1",)),), peers_max=20)
    _met(bench, *range(1, 20))
    dials = []
    for n in range(20, 80):
        peer = key(n).public_key
        bench.step(Connected(peer, bench.now))
        dials += only(bench.tick(0.25), Dial)
        bench.step(Disconnected(peer, bench.now))
    assert [dial.peer for dial in dials].count(friend) == 1, "not answered yet, not dialled again"
