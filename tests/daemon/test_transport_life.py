"""A connection's life: whatever an address or a peer does, it ends in time and nothing is left."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest
import trio
from daemon_kit import in_trio

from tapestry_p2p.daemon import transport as module
from tapestry_p2p.daemon.address import Address
from tapestry_p2p.daemon.transport import Transport, TransportError
from tapestry_p2p.daemon.yamux import Stream


class Noted:
    """Handlers that note what they are told; ``slow`` holds up ``connected``."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.slow = trio.Event()
        self.slow.set()

    async def connected(self, peer: bytes, address: str) -> None:
        await self.slow.wait()
        self.told.append("connected")

    async def disconnected(self, peer: bytes) -> None:
        self.told.append("disconnected")

    async def message(self, peer: bytes, channel: str, data: bytes) -> None: ...

    async def serve(self, peer: bytes, request: bytes) -> tuple[bytes, bytes]:
        return b"", b""


@asynccontextmanager
async def transport(noted: Noted) -> AsyncIterator[Transport]:
    made = Transport(os.urandom(32), noted)
    await made.listen([Address("ip4", "127.0.0.1", 0)])
    async with trio.open_nursery() as nursery:
        await nursery.start(made.serve)
        yield made
        nursery.cancel_scope.cancel()


@in_trio
async def test_a_name_that_is_none_is_an_address_that_does_not_answer() -> None:
    async with transport(Noted()) as ours:
        assert not await ours.dial(bytes(32), [Address("dns4", "a..b", 1)])


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.sleep(0.005)


@in_trio
async def test_a_connection_lives_though_the_dial_ended_before_anybody_heard_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The node is busy for longer than a dial may take."""
    monkeypatch.setattr(module, "DIAL_S", 0.5)
    noted = Noted()
    noted.slow = trio.Event()
    async with transport(noted) as ours, transport(Noted()) as theirs:
        assert await ours.dial(theirs.own, theirs.addresses)
        assert list(ours.connections) == [theirs.own]
        await trio.sleep(0.6)
        noted.slow.set()
        await until(lambda: noted.told == ["connected"])
        ours.connections[theirs.own].abort("the test says so")
        await until(lambda: noted.told == ["connected", "disconnected"])
        assert not ours.connections


@in_trio
async def test_a_newer_connection_replaces_the_old_one_and_both_are_told_of() -> None:
    noted = Noted()
    async with transport(noted) as ours, transport(Noted()) as theirs:
        assert await ours.dial(theirs.own, theirs.addresses)
        first = ours.connections[theirs.own]
        assert await ours.dial(theirs.own, theirs.addresses)
        assert ours.connections[theirs.own] is not first
        await first.closed.wait()
        await until(lambda: noted.told == ["connected", "disconnected", "connected"])


@in_trio
async def test_whoever_takes_an_answer_byte_by_byte_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.05)

    class Trickle:
        async def write(self, data: bytes) -> None:
            for _ in data:
                await trio.sleep(0.01)

    async with transport(Noted()) as ours, transport(Noted()) as theirs:
        assert await ours.dial(theirs.own, theirs.addresses)
        connection = ours.connections[theirs.own]
        with pytest.raises(TransportError, match="progress"):
            await connection._serve(cast(Stream, Trickle()), b"x")


@in_trio
async def test_a_dial_that_succeeds_while_we_end_leaves_nothing() -> None:
    async with transport(Noted()) as theirs:
        async with transport(Noted()) as ours:
            connection = await ours.handshake(theirs.own, theirs.addresses[0])
        ours._take(connection)
        assert connection.closed.is_set()
        assert not ours.connections
