"""Sockets and streams in the shape that libp2p's negotiation wants, counted and cut at will.

Knows bytes; nothing of peers or of what is said. transport.py is the user.
"""

from dataclasses import dataclass, field

import trio
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.trio import TrioTCPStream

from tapestry_p2p.daemon.address import Address
from tapestry_p2p.daemon.rates import Paces, Traffic
from tapestry_p2p.daemon.sealed import SealedSocket
from tapestry_p2p.daemon.tap import RAW_RECEIVED, RAW_SENT, Tap
from tapestry_p2p.daemon.yamux import Stream


@dataclass
class TapStream(TrioTCPStream):
    """A TCP stream that counts its bytes and can be cut without waiting for anybody."""

    socket_stream: trio.SocketStream
    traffic: Traffic
    tap: Tap | None
    paces: Paces = field(default_factory=Paces)
    received: int = 0

    def __post_init__(self) -> None:
        super().__init__(self.socket_stream)

    async def write(self, data: bytes) -> None:
        self.note_sent(data)
        await super().write(data)

    async def read(self, n: int | None = None) -> bytes:
        data = await super().read(n)
        self.note_received(data)
        return data

    def note_sent(self, data: bytes | memoryview) -> None:
        """Bytes that go out on the socket, whoever sends them."""
        self.traffic.sent += len(data)
        self.paces.upload.charge(len(data))
        if self.tap is not None:
            self.tap(RAW_SENT, bytes(data))

    def note_received(self, data: bytes | memoryview) -> None:
        """Bytes that came in."""
        self.received += len(data)
        self.traffic.received += len(data)
        self.paces.download.charge(len(data))
        if self.tap is not None:
            self.tap(RAW_RECEIVED, bytes(data))

    @property
    def remote(self) -> Address:
        """Where the other end is; unlike libp2p's own answer for IPv6 too."""
        try:
            host, port = self.socket_stream.socket.getpeername()[:2]
        except OSError:  # it is gone again
            host, port = "", 0
        return Address("ip6" if ":" in host else "ip4", host, port)

    @property
    def is_local(self) -> bool:
        """Whether the other end is this machine, by the very address that it came to."""
        try:
            return bool(self.remote.host == self.socket_stream.socket.getsockname()[0])
        except OSError:  # it is gone again
            return False

    def is_silent(self) -> bool:
        """Whether nothing came in yet."""
        return not self.received

    def cut(self) -> None:
        """Close the socket now; readers and writers of it wake with an error."""
        self.socket_stream.socket.close()


class SealedIO(ReadWriteCloser):
    """A sealed socket as multistream-select wants it, until Yamux takes it over."""

    def __init__(self, sealed: SealedSocket) -> None:
        self._sealed = sealed
        self.left = b""

    async def read(self, n: int | None = None) -> bytes:
        if not self.left:
            self.left = b"".join(await self._sealed.receive())
        found, self.left = self.left[:n], b"" if n is None else self.left[n:]
        return found

    async def write(self, data: bytes) -> None:
        self._sealed.seal(memoryview(data))
        await self._sealed.flush()

    async def close(self) -> None:
        """The connection's owner cuts the socket."""

    def get_remote_address(self) -> tuple[str, int] | None:
        return None


class StreamIO(ReadWriteCloser):
    """A muxed stream as multistream-select wants it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def read(self, n: int | None = None) -> bytes:
        return await self._stream.read(n)

    async def write(self, data: bytes) -> None:
        await self._stream.write(data)

    async def close(self) -> None:
        await self._stream.close()

    def get_remote_address(self) -> tuple[str, int] | None:
        return None
