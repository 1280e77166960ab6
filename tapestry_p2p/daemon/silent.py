"""Handlers of a transport that only asks: takes nothing in and serves nothing."""


class Silent:
    """See `transport.Handlers`."""

    async def connected(self, peer: bytes, address: str) -> None: ...
    async def disconnected(self, peer: bytes) -> None: ...
    async def message(self, peer: bytes, channel: str, data: bytes) -> None: ...

    async def serve(self, peer: bytes, request: bytes) -> tuple[bytes, bytes]:
        """An empty frame and body."""
        return b"", b""
