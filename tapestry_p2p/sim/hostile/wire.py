"""Hostility below the protocol: sockets, handshakes, frames. Each program says what must happen.

A program attacks one victim until it is cancelled and counts in its stranger's tally.
"""

import os
import struct
from collections import Counter

import trio

from tapestry_p2p.daemon.sealed import SealError
from tapestry_p2p.daemon.transport import TransportError
from tapestry_p2p.daemon.yamux import HEADER, Flag, Kind, MuxError
from tapestry_p2p.gossip.fetch import ManifestRequest, encode_request
from tapestry_p2p.sim.hostile.stranger import REDIAL_S, SOURCE, Stranger, Victim

IDLE_SOCKETS = 400
FLOOD_BYTES = 60_000
OTHER_SECURITY = ("/plaintext/2.0.0", "/secio/1.0.0", "/tls/1.0.0", "/mplex/6.7.0")


async def plaintext_impostor(victim: Victim, tally: Counter[str]) -> None:
    """Offers every security but Noise, so as to be whom it likes: each is answered ``na``."""
    while True:
        for offer in OTHER_SECURITY:
            try:
                tally[await _offer(victim, offer)] += 1
            except (OSError, trio.BrokenResourceError, trio.TooSlowError):
                tally["cut"] += 1
        await trio.sleep(0.2)


async def _socket(victim: Victim) -> trio.SocketStream:
    host, port = victim.address.host, victim.address.port
    return await trio.open_tcp_stream(host, port, local_address=SOURCE.get())


async def _offer(victim: Victim, protocol: str) -> str:
    async with await _socket(victim) as stream:
        await stream.send_all(_line("/multistream/1.0.0") + _line(protocol))
        answer = b""
        with trio.fail_after(5):
            while b"na\n" not in answer and protocol.encode() not in answer:
                part = await stream.receive_some(1024)
                if not part:
                    return "cut"
                answer += part
    return "na" if b"na\n" in answer else "accepted"


def _line(text: str) -> bytes:
    data = text.encode() + b"\n"
    return bytes([len(data)]) + data


async def idle_flood(victim: Victim, tally: Counter[str]) -> None:
    """Hundreds of sockets that say nothing: honest members still get in."""

    async def hold() -> None:
        while True:
            try:
                async with await _socket(victim) as stream:
                    tally["opened"] += 1
                    while await stream.receive_some(1024):
                        pass  # its greeting
                tally["cut"] += 1
            except OSError:
                tally["failed"] += 1
            except trio.BrokenResourceError:
                tally["cut"] += 1
            await trio.sleep(0.2)

    async with trio.open_nursery() as nursery:
        for _ in range(IDLE_SOCKETS):
            nursery.start_soon(hold)


async def reconnector(victim: Victim, tally: Counter[str]) -> None:
    """One identity that connects and leaves, again and again: every slot comes back."""
    async with Stranger(network=victim.network, tally=tally).running() as stranger:
        while True:
            (await stranger.reach(victim)).abort("again")
            await trio.sleep(0.01)


async def window_overrun(victim: Victim, tally: Counter[str]) -> None:
    """Far more bytes than the window allows: the connection ends, and nothing is kept."""
    syn = HEADER.pack(0, Kind.WINDOW, Flag.SYN, 1, 0)
    frame = HEADER.pack(0, Kind.DATA, 0, 1, FLOOD_BYTES) + bytes(FLOOD_BYTES)
    while True:
        await _flood(victim, [syn] + [frame] * 100, tally)


async def syn_flood(victim: Victim, tally: Counter[str]) -> None:
    """Twenty thousand streams on one connection: it ends long before."""
    batches = [
        b"".join(HEADER.pack(0, Kind.WINDOW, Flag.SYN, n, 0) for n in range(first, first + 2000, 2))
        for first in range(1, 40_001, 2000)
    ]
    while True:
        await _flood(victim, batches, tally)


async def _flood(victim: Victim, messages: list[bytes], tally: Counter[str]) -> None:
    """A connection without a mux of ours: these messages, until the other end has had enough."""
    transport = Stranger.silent().transport
    try:
        connection = await transport.handshake(victim.key, victim.address)
    except (OSError, TransportError):
        tally["refused"] += 1
        await trio.sleep(REDIAL_S)
        return
    socket = connection.mux.socket
    tally["connected"] += 1
    try:
        with trio.move_on_after(5) as patience:
            for message in messages:
                socket.seal(memoryview(message))
                await socket.flush()
                tally["messages"] += 1
            while await socket.receive():
                pass
        tally["endured" if patience.cancelled_caught else "ended"] += 1
    except (OSError, trio.BrokenResourceError, SealError):
        tally["ended"] += 1
    finally:
        connection.raw.cut()


async def slow_reader(victim: Victim, tally: Counter[str]) -> None:
    """Asks for much and reads nothing: it is cut, and holds one piece of memory until then."""
    async with Stranger(network=victim.network, tally=tally).running() as stranger:
        while True:
            connection = await stranger.reach(victim)
            try:
                stream = await connection.mux.open_stream()
                await stream.write(_line("/multistream/1.0.0") + _line("/tapestry/1/fetch"))
                request = encode_request(ManifestRequest(victim.network))
                for _ in range(2000):
                    await stream.write(struct.pack("!I", len(request)) + request)
                    tally["requests"] += 1
                await connection.closed.wait()
            except (MuxError, TransportError):
                tally["ended"] += 1
            connection.abort("again")


async def garbage_streamer(victim: Victim, tally: Counter[str]) -> None:
    """Frames of noise as fast as they go: blamed, dropped, barred."""
    async with Stranger(network=victim.network, tally=tally).running() as stranger:
        while True:
            await stranger.reach(victim)
            for _ in range(100):
                stranger.say(victim.key, "sync", os.urandom(FLOOD_BYTES))
            await trio.sleep(0.01)


async def oversize(victim: Victim, tally: Counter[str]) -> None:
    """Frames that claim up to 4 GB: refused from their length."""
    async with Stranger(network=victim.network, tally=tally).running() as stranger:
        bits = 16
        while True:
            connection = await stranger.reach(victim)
            try:
                stream = await connection.mux.open_stream()
                await stream.write(_line("/multistream/1.0.0") + _line("/tapestry/1/sync"))
                await stream.write(struct.pack("!I", (1 << bits) + 1) + bytes(FLOOD_BYTES))
                with trio.move_on_after(5):
                    await connection.closed.wait()
                tally["ended" if connection.closed.is_set() else "endured"] += 1
            except MuxError:
                tally["ended"] += 1
            connection.abort("again")
            bits = 16 + (bits - 15) % 16
