"""A connection's life: whatever an address or a peer does, it ends in time and nothing is left."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from daemon_kit import in_trio

from tapestry_p2p.daemon.address import Address
from tapestry_p2p.daemon.transport import Transport


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

    async def serve(self, peer: bytes, request: bytes, busy: bool) -> tuple[bytes, bytes]:
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
