"""Rates are kept over any time, talk goes first, bulk takes turns, and nothing slow is cut."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from daemon_kit import NETWORK, D, in_mock_time, in_trio
from msgspec.structs import replace
from test_yamux import KEYS, sockets
from transport_kit import peers

from tapestry_p2p.daemon import transport
from tapestry_p2p.daemon.config import Budget, Config, Log, Member
from tapestry_p2p.daemon.copies import Copies
from tapestry_p2p.daemon.fetcher import Fetcher, FetchError
from tapestry_p2p.daemon.patience import FLOOR_S, PIECE_BYTES
from tapestry_p2p.daemon.quantities import format_size, parse_rate, parse_size
from tapestry_p2p.daemon.rates import (
    BURST_S,
    CONTROL_DEBT_S,
    DEBT_S,
    OWED_S,
    SEGMENT_BYTES,
    SEGMENT_HEADER_BYTES,
    Pacer,
    wire_bytes,
)
from tapestry_p2p.daemon.run import changed_later
from tapestry_p2p.daemon.sealed import SealedSocket
from tapestry_p2p.daemon.yamux import HEADER, Flag, Kind, Mux, Stream
from tapestry_p2p.gossip.adoption import Reference
from tapestry_p2p.gossip.canonical import Malformed
from tapestry_p2p.gossip.fetch import (
    ChunkRequest,
    FetchResponse,
    decode_request,
    encode_response,
)

RATE = 40_000.0

# ---- words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("", 0),
        ("200 kB/s", 200_000),
        ("200kB/s", 200_000),
        ("1.5 MB/s", 1_500_000),
        ("1 MiB/s", 1 << 20),
        ("8 Mbit/s", 1_000_000),
        ("20000 B/s", 20_000),
    ],
)
def test_a_rate_in_words(text: str, rate: float) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text", ["200", "200 kB", "-1 kB/s", "1e3 kB/s", "1 kb/s", "fast", "1,5 MB/s", "1 KB/s", "  "]
)
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match="like 200 kB/s"):
        parse_rate(text)


def test_sizes_in_words_and_back() -> None:
    assert parse_size("1.5 GB") == 1.5e9
    assert parse_size("512 MiB") == 512 << 20
    assert parse_size("") == 0
    with pytest.raises(ValueError, match=r"like 1.5 GB"):
        parse_size("2 GB/s")
    sizes = [0, 999, 1000, 1_234_567, 2.5e9, 1e13]
    assert list(map(format_size, sizes)) == [
        "0 B",
        "999 B",
        "1 kB",
        "1.23 MB",
        "2.5 GB",
        "10000 GB",
    ]


# ---- one number ----------------------------------------------------------------------------------


def test_headers_are_charged_for() -> None:
    assert wire_bytes(0) == 0
    assert wire_bytes(1) == 1 + SEGMENT_HEADER_BYTES
    assert wire_bytes(SEGMENT_BYTES) == SEGMENT_BYTES + SEGMENT_HEADER_BYTES
    assert wire_bytes(SEGMENT_BYTES + 1) == SEGMENT_BYTES + 1 + 2 * SEGMENT_HEADER_BYTES


@in_mock_time
async def test_no_limit_keeps_nobody_waiting() -> None:
    pacer = Pacer()
    for _ in range(100):
        pacer.charge(1 << 20)
        assert pacer.talk_wait_s() == pacer.turns_s(1 << 20) == 0
        async with pacer.asking_for(1 << 20):
            assert trio.current_time() == 0


@in_mock_time
async def test_senders_take_turns_and_keep_the_rate() -> None:
    pacer = Pacer(RATE)
    sent = dict.fromkeys("abc", 0)

    async def send(who: str) -> None:
        called = trio.Event()

        def call() -> None:
            called.set()

        while True:
            pacer.line_up(who, call)
            while wait := pacer.bulk_wait_s(who):
                called = trio.Event()
                with trio.move_on_after(wait):
                    await called.wait()
            pacer.take_turn(who)
            pacer.charge(pacer.quantum)
            sent[who] += wire_bytes(pacer.quantum)

    with trio.move_on_after(60):
        async with trio.open_nursery() as nursery:
            for who in sent:
                nursery.start_soon(send, who)
    total = sum(sent.values())
    assert 0.98 * 60 * RATE <= total <= (60 + BURST_S) * RATE + wire_bytes(pacer.quantum)
    assert max(sent.values()) - min(sent.values()) <= wire_bytes(pacer.quantum)
    assert pacer.charged == total


@in_mock_time
async def test_unused_rate_is_saved_only_for_a_moment() -> None:
    pacer = Pacer(RATE)
    await trio.sleep(3600)
    pacer.line_up("a", lambda: None)
    sent = 0
    while not pacer.bulk_wait_s("a"):
        pacer.take_turn("a")
        pacer.charge(1000)
        sent += wire_bytes(1000)
        pacer.line_up("a", lambda: None)
    assert sent <= BURST_S * RATE + wire_bytes(1000)


@in_mock_time
async def test_talk_goes_before_bulk_but_not_without_bound() -> None:
    """However much talk a peer makes us send, half of the rate is for entries and copies."""
    pacer, talked, bulk = Pacer(RATE), 0, 0
    pacer.line_up("bulk", lambda: None)
    while trio.current_time() < 60:
        if not pacer.bulk_wait_s("bulk"):
            pacer.take_turn("bulk")
            pacer.charge(pacer.quantum)
            bulk += wire_bytes(pacer.quantum)
            pacer.line_up("bulk", lambda: None)
        if wait := pacer.talk_wait_s():
            await trio.sleep(min(wait, pacer.bulk_wait_s("bulk")) + 1e-6)
            continue
        pacer.charge(500)
        talked += wire_bytes(500)
    assert 0.45 * 60 * RATE <= bulk <= 0.55 * 60 * RATE
    assert talked >= 0.45 * 60 * RATE
    most = (60 + BURST_S + DEBT_S) * RATE
    assert talked + bulk <= most + 2 * wire_bytes(pacer.quantum)


def test_who_leaves_calls_the_next() -> None:
    pacer, called = Pacer(RATE), []
    for who in "abc":
        pacer.line_up(who, lambda who=who: called.append(who))  # type: ignore[misc]
        pacer.line_up(who, lambda: None)
    pacer.leave("b")
    assert not called
    pacer.leave("a")
    assert called == ["c"]
    pacer.leave("c")
    pacer.leave("c")
    assert pacer.waiting == 0


@in_mock_time
async def test_who_is_stuck_in_a_send_keeps_its_place_and_nobody_waiting() -> None:
    pacer, called = Pacer(RATE), []
    for who in "abc":
        pacer.line_up(who, lambda who=who: called.append(who))  # type: ignore[misc]
    with pacer.sending("a"):
        assert called == ["b"]
        assert pacer.bulk_wait_s("a") == float("inf")
        assert pacer.bulk_wait_s("b") == 0
        with pacer.sending("b"):
            assert called == ["b", "c"]
        pacer.leave("b")
        assert called == ["b", "c", "c"]
    assert pacer.bulk_wait_s("a") == 0, "it is the first again"
    assert pacer.bulk_wait_s("c") == float("inf")


@in_mock_time
async def test_who_sends_us_what_we_did_not_ask_for_leaves_us_half_of_the_rate() -> None:
    """More than the rate for ten minutes; then a minute until all is as before."""
    pacer, got = Pacer(RATE), 0

    async def ask() -> None:
        nonlocal got
        while True:
            async with pacer.asking_for(10_000):
                await trio.sleep(0.05)
                pacer.charge(10_000)
                got += wire_bytes(10_000)

    async def push() -> None:
        while True:
            pacer.charge(2 * int(RATE))
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        with trio.move_on_after(600):
            await push()
        assert 0.45 * 600 * RATE <= got <= 0.55 * 600 * RATE
        await trio.sleep(2.2 * OWED_S)
        before = got
        await trio.sleep(60)
        assert 0.95 * 60 * RATE <= got - before <= (60 + BURST_S) * RATE
        nursery.cancel_scope.cancel()


@in_mock_time
async def test_what_is_asked_for_keeps_the_rate_whatever_the_delay() -> None:
    for delay in (0.0, 0.3):
        pacer = Pacer(RATE)
        got = 0

        async def ask(delay: float, pacer: Pacer) -> None:
            nonlocal got
            while True:
                async with pacer.asking_for(10_000):
                    await trio.sleep(delay)
                    pacer.charge(10_000)
                    got += wire_bytes(10_000)

        with trio.move_on_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(ask, delay, pacer)
        assert 0.95 * 60 * RATE <= got <= (60 + BURST_S) * RATE + 2 * wire_bytes(10_000)


# ---- on connections ------------------------------------------------------------------------------


@asynccontextmanager
async def metered_pair(pacer: Pacer) -> AsyncIterator[tuple[Mux, Mux]]:
    def sealed(stream: trio.SocketStream, dialled: bool) -> SealedSocket:
        send, receive = KEYS if dialled else KEYS[::-1]

        def sent(data: memoryview) -> None:
            if dialled:
                pacer.charge(len(data))

        return SealedSocket(stream, send, receive, sent, lambda data: None)

    with sockets() as (a, b):
        one = Mux(sealed(a, True), True, upload=pacer)
        other = Mux(sealed(b, False), False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.run)
            nursery.start_soon(other.run)
            yield one, other
            nursery.cancel_scope.cancel()


@in_trio
async def test_bulk_of_all_connections_is_paced_and_small_talk_passes_it() -> None:
    pacer = Pacer(RATE)
    got: dict[int, int] = {1: 0, 2: 0}

    async def count(number: int, theirs: Stream) -> None:
        while True:
            got[number] += len(await theirs.read_some(1 << 16))

    async with metered_pair(pacer) as (one, other), metered_pair(pacer) as (two, another):
        async with trio.open_nursery() as nursery:
            for number, (mux, end) in enumerate(((one, other), (two, another)), 1):
                bulk = await mux.open_stream()
                bulk.paced = True
                nursery.start_soon(bulk.write, bytes(200_000))
                nursery.start_soon(count, number, await end.accept_stream())
            talk = await one.open_stream()
            heard = await other.accept_stream()
            await trio.sleep(BURST_S)  # what was saved is spent
            before, began = dict(got), trio.current_time()
            worst = 0.0
            for _ in range(15):
                asked = trio.current_time()
                await talk.write(b"question")
                assert await heard.read_exactly(8) == b"question"
                worst = max(worst, trio.current_time() - asked)
                await trio.sleep(0.1)
            took = trio.current_time() - began
            each = [got[number] - before[number] for number in got]
            nursery.cancel_scope.cancel()
        assert pacer.waiting <= 2
    assert sum(each) <= RATE * (took + BURST_S + 0.2)
    assert sum(each) >= 0.6 * RATE * took
    assert min(each) >= 0.6 * max(each)
    assert worst < 2.0, "all that bulk takes ten seconds"
    assert pacer.waiting == 0


@in_mock_time
async def test_a_peer_that_reads_nothing_keeps_no_other_from_its_turn() -> None:
    """It stands in line for bulk, and the small talk that goes first is never taken from us."""
    pacer, sent = Pacer(RATE), {"stuck": 0, "well": 0}
    stuck = trio.Event()

    class Socket(SealedSocket):
        def __init__(self, name: str) -> None:
            super().__init__(None, *KEYS, lambda _: None, lambda _: None)  # type: ignore[arg-type]
            self._name = name

        async def flush(self) -> None:
            size = len(self._sealer.batch())
            pacer.charge(size)
            sent[self._name] += size
            await trio.lowlevel.checkpoint()
            if self._name == "stuck" and stuck.is_set():
                await trio.sleep_forever()

        async def receive(self) -> list[bytes]:
            await trio.sleep_forever()
            return []

    muxes = [Mux(Socket(name), True, upload=pacer) for name in sent]
    async with trio.open_nursery() as nursery:
        for mux in muxes:
            nursery.start_soon(mux.run)
            bulk = await mux.open_stream()
            bulk.paced, bulk.allowance = True, 1 << 30
            nursery.start_soon(bulk.write, bytes(2_000_000))
        await trio.sleep(2)
        stuck.set()
        talk = await muxes[0].open_stream()
        await talk.write(b"question")
        await trio.sleep(1)
        before = dict(sent)
        await trio.sleep(10)
        assert sent["stuck"] == before["stuck"]
        assert sent["well"] - before["well"] >= 0.9 * 10 * RATE
        nursery.cancel_scope.cancel()
    assert pacer.waiting == 0


@in_trio
async def test_a_flood_of_pings_cannot_make_us_send_more() -> None:
    pacer = Pacer(RATE)
    async with metered_pair(pacer) as (one, other):
        pacer.charge(int(RATE * (BURST_S + CONTROL_DEBT_S + 1.5)))  # as after so many pongs
        ping = HEADER.pack(0, Kind.PING, Flag.SYN, 0, 7)
        before = pacer.charged
        for _ in range(10):
            one.feed(ping)
            await trio.sleep(0.01)
        assert pacer.charged == before
        while pacer.charged == before:  # it waits, and is then answered
            await trio.sleep(0.05)
        assert pacer.control_wait_s() == 0
        assert not other.broken


@in_trio
async def test_a_limit_that_is_lifted_keeps_nobody_waiting() -> None:
    pacer = Pacer(RATE)
    async with (
        metered_pair(pacer) as (one, other),
        metered_pair(pacer) as (two, another),
        trio.open_nursery() as nursery,
    ):
        heard = []
        for mux, end in ((one, other), (two, another)):
            bulk = await mux.open_stream()
            bulk.paced = True
            nursery.start_soon(bulk.write, bytes(4_000_000))
            heard.append(await end.accept_stream())
        await trio.sleep(0.3)
        pacer.rate = 0.0
        for stream in heard:
            await stream.read_exactly(4_000_000)  # a hundred seconds' worth
    assert pacer.waiting == 0


def test_what_changes_at_the_next_start_is_told() -> None:
    old = Config()
    new = replace(old, log=Log(level="debug"), budget=Budget(upload="1 MB/s"))
    assert changed_later(old, new) == []
    new = replace(new, log=Log(format="json"), budget=Budget(threads=2), member=Member(name="x"))
    assert changed_later(old, new) == ["member", "budget", "log"]


@in_trio
async def test_whom_we_ourselves_keep_waiting_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer takes many times the deadline, since the upload is small: nobody is blamed."""
    monkeypatch.setattr(transport, "STALL_S", 1.5)

    async def serve(peer: bytes, request: bytes) -> tuple[bytes, bytes]:
        await trio.lowlevel.checkpoint()
        return b"ok", bytes(90_000)

    async with peers(1, 2) as (slow, asks):
        slow.serve_with = serve
        slow.transport.paces.upload.rate = RATE / 2
        connection = await slow.dials(asks)
        assert connection.raw.paces is slow.transport.paces
        began = trio.current_time()
        _, body = await asks.at(slow).fetch(b"", 1 << 18)
        took = trio.current_time() - began
        assert len(body) == 90_000
        assert took > 2 * transport.STALL_S
        assert slow.lists(asks)


@in_mock_time
async def test_requests_wait_for_the_download_and_no_peer_is_taken_for_slow() -> None:
    """Sixteen at once, of which the last waits half a minute for us: each has its full time."""
    body, pacer = 80_000, Pacer(RATE)
    asked: list[float] = []

    class Quick:
        async def fetch(self, _request: bytes, most: int) -> tuple[bytes, bytes]:
            asked.append(trio.current_time())
            pacer.charge(most)
            await trio.sleep(0.01)
            return encode_response(FetchResponse("ok", most, most)), bytes(most)

    sources = {bytes([number]) * 32: Quick() for number in range(16)}
    copies = Copies(bytes(32), bytes(32), NETWORK, b"")
    fetcher = Fetcher(
        sources, copies, D, 1e9, 1 << 18, OSError, lambda _: True, _no_adoption, download=pacer
    )
    for source in sources:  # on an idle line they were quick
        fetcher.patience.took(source, body, 0.01)
    async with trio.open_nursery() as nursery:
        for source in sources:
            nursery.start_soon(fetcher._ask, source, ChunkRequest(bytes(32), 0, body), body)
    took = trio.current_time()
    total = len(sources) * wire_bytes(body)
    assert (total - 2 * wire_bytes(body)) / RATE - BURST_S <= took <= total / RATE + 1
    assert took > 2 * FLOOR_S
    assert len(asked) == len(sources)
    assert all(fetcher.patience.allowed_s(source, body) == FLOOR_S for source in sources)


@in_mock_time
async def test_a_chunk_of_a_very_slow_peer_is_not_asked_for_for_ever() -> None:
    """Its share of a metered line is 1.25 kB/s: a chunk takes longer than any deadline."""
    rate, asked, body = 1250.0, list[int](), bytes(range(256)) * 1024

    class Slow:
        async def fetch(self, request: bytes, most: int) -> tuple[bytes, bytes]:
            wanted = decode_request(request)
            assert isinstance(wanted, ChunkRequest)
            asked.append(wanted.length)
            await trio.sleep(wanted.length / rate)
            part = body[wanted.offset : wanted.offset + wanted.length]
            return encode_response(FetchResponse("ok", len(part), len(body))), part

    copies = Copies(bytes(32), bytes(32), NETWORK, b"")
    fetcher = Fetcher({KEYS[0]: Slow()}, copies, D, 1e9, 1 << 18, OSError, bool, _no_adoption)
    whole = ChunkRequest(bytes(32), 0, len(body))
    with pytest.raises(FetchError, match="unreachable"):
        await fetcher._pieces(KEYS[0], whole)
    assert await fetcher._pieces(KEYS[0], whole) == body
    assert asked == [len(body), *[PIECE_BYTES] * (len(body) // PIECE_BYTES)]
    fetcher.patience.took(KEYS[0], 1 << 18, 0.01)  # the line is wide again
    for _ in range(20):
        fetcher.patience.took(KEYS[0], 1 << 18, 0.01)
    assert fetcher.patience.piece(KEYS[0], len(body)) == len(body)


def _no_adoption(payload: bytes, author: bytes) -> tuple[Reference, ...]:
    raise Malformed("not asked")


def test_how_long_an_entry_keeps_the_upload_busy() -> None:
    assert Pacer().share_s(1 << 20, 16) == 0
    one = Pacer(RATE).share_s(10_000, 1)
    assert one == pytest.approx(wire_bytes(10_000) / (0.8 * RATE))
    assert Pacer(RATE).share_s(10_000, 16) == pytest.approx(16 * one)
