"""Handshakes cost us time: those of strangers are paced, and who misbehaves has fewer."""

import contextlib
import struct

import pytest
import trio
from daemon_kit import in_trio
from transport_kit import Peer, line, peers

from tapestry_p2p.daemon.gate import FAULTS, SHAKES, SHAKES_PER_S
from tapestry_p2p.daemon.transport import FRAME_BYTES_MAX, Connection, TransportError
from tapestry_p2p.daemon.yamux import HEADER, Kind, MuxError

ELSEWHERE = "127.66.0.1"  # no address of ours: the kernel lets anybody here use it


async def tries(us: Peer, who: Peer, times: int) -> int:
    """How many of so many connections, one after the other, are let in."""
    before = len(us.events)
    for _ in range(times):
        await who.transport.dial(us.key, [us.address])
        connection = who.transport.connections.get(us.key)
        if connection is not None:
            with trio.move_on_after(0.3):
                await us.until(lambda: us.lists(who))
            connection.abort("again")
            await connection.closed.wait()
            await us.until(lambda: not us.lists(who))
    return sum(what == "connected" for what, _ in us.events[before:])


@in_trio
async def test_who_comes_again_and_again_from_elsewhere_is_let_in_now_and_then() -> None:
    async with peers(1, 2, 3) as (us, knocker, member):
        knocker.transport._source = ELSEWHERE
        began = trio.current_time()
        let_in = await tries(us, knocker, 40)
        took = trio.current_time() - began
        assert SHAKES <= let_in <= SHAKES + SHAKES_PER_S * took + 1
        assert us.transport.gate.refused["handshakes"] >= 20
        began = trio.current_time()
        await member.dials(us)
        assert trio.current_time() - began < 1 / SHAKES_PER_S, "who comes from here pays nothing"


@in_trio
async def test_a_testnet_on_this_machine_connects_at_once() -> None:
    async with peers(*range(1, 25)) as (us, *others):
        async with trio.open_nursery() as nursery:
            for other in others:
                nursery.start_soon(other.transport.dial, us.key, [us.address])
        await us.until(lambda: len(us.transport.connections) == 23)
        assert not us.transport.gate.refused


@in_trio
async def test_an_established_member_is_let_in_while_strangers_have_to_wait() -> None:
    async with peers(1, 2, 3) as (us, member, stranger):
        member.transport._source, stranger.transport._source = "127.66.1.1", "127.66.2.1"
        us.transport._vouches = lambda peer: peer == member.key
        await member.dials(us)
        member.at(us).abort("it goes away")
        await us.until(lambda: not us.lists(member))
        us.transport.gate._others.take(us.transport.gate._others.level, trio.current_time())
        assert not us.transport.gate._others.has(1.0, trio.current_time())
        assert await tries(us, stranger, 1) == 0
        await member.dials(us)


async def oversize(connection: Connection) -> None:
    stream = await connection.mux.open_stream()
    await stream.write(line("/multistream/1.0.0") + line("/tapestry/1/sync"))
    await stream.write(struct.pack("!I", FRAME_BYTES_MAX + 1) + bytes(9))


async def unknown_frame(connection: Connection) -> None:
    connection.mux.socket.seal(memoryview(HEADER.pack(0, 9, 0, 1, 0)))
    await connection.mux.socket.flush()


async def farewell(connection: Connection) -> None:
    connection.mux.socket.seal(memoryview(HEADER.pack(0, Kind.GO_AWAY, 0, 0, 0)))
    await connection.mux.socket.flush()


async def breaks_off(connection: Connection) -> None:
    await connection.raw.socket_stream.socket.send(b"\x00\xffhalf a message")
    connection.raw.cut()


async def gibberish(connection: Connection) -> None:
    stream = await connection.mux.open_stream()
    await stream.write(bytes(60_000))


@pytest.mark.parametrize("way", [oversize, unknown_frame, gibberish])
@in_trio
async def test_who_breaks_the_protocol_is_barred_and_its_block_waits(way: object) -> None:
    async with peers(1, 2, 3) as (us, culprit, neighbour):
        culprit.transport._source = neighbour.transport._source = ELSEWHERE
        let_in = 0
        for _ in range(10):
            await culprit.transport.dial(us.key, [us.address])
            connection = culprit.transport.connections.get(us.key)
            if connection is None:
                break
            let_in += 1
            with trio.move_on_after(2):
                with contextlib.suppress(MuxError):  # cut already
                    await way(connection)  # type: ignore[operator]
                await connection.closed.wait()
            await us.until(lambda: not len(us.transport.gate))
        assert let_in <= 2, "twelve handshakes, and each fault costs eight"
        assert await tries(us, neighbour, 2) == 0
        us.transport.gate._shakes._rows.clear()
        us.transport.gate._faults.charge(culprit.key, FAULTS - let_in, trio.current_time())
        assert await tries(us, culprit, 1) == 0, "its name is known wherever it comes from"
        assert us.transport.gate.is_barred(culprit.key, trio.current_time())


async def is_forged(connection: Connection) -> None:
    """Somebody on the way writes into the TCP stream; the member has not sealed that."""
    await connection.raw.socket_stream.socket.send(b"\x00\x20" + bytes(32))


@pytest.mark.parametrize("way", [farewell, breaks_off, is_forged])
@in_trio
async def test_a_connection_that_only_ends_is_nobodys_fault(way: object) -> None:
    async with peers(1, 2) as (us, member):
        member.transport._source = ELSEWHERE
        for _ in range(int(SHAKES) - 1):
            await member.dials(us)
            await way(member.at(us))  # type: ignore[operator]
            await us.until(lambda: not us.lists(member) and not len(us.transport.gate))
            await member.until(lambda: not member.lists(us))
        assert await tries(us, member, 1) == 1


@in_trio
async def test_the_nodes_own_verdict_on_a_peer_counts_too() -> None:
    async with peers(1, 2) as (us, culprit):
        for _ in range(int(FAULTS)):
            await culprit.dials(us)
            us.at(culprit).abort("too_many_rejects", fault=True)
            await us.until(lambda: not us.lists(culprit) and not len(us.transport.gate))
            await culprit.until(lambda: not culprit.lists(us))
        with pytest.raises(TransportError):
            await culprit.transport.handshake(us.key, us.address)
        assert not us.lists(culprit)
