"""Noise transport messages over a socket whose handshake is done: sealed, in order, counted.

Knows two keys, a socket and a size; nothing of streams. Why our own: the library seals and sends
each message by itself through three layers of copies; here a batch is sealed into one buffer and
sent at once. The format is Noise's (revision 34, 5.1) and libp2p's: u16 length, big endian, then
ChaCha20-Poly1305 with a counter as nonce.
"""

import struct
from collections.abc import Callable

import trio
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from tapestry_p2p.daemon.tap import PLAIN_RECEIVED, PLAIN_SENT, Tap

MESSAGE_BYTES_MAX = 65_535
TAG_BYTES = 16
PLAIN_BYTES_MAX = MESSAGE_BYTES_MAX - TAG_BYTES
BATCH_MESSAGES = 4  # sealed and sent, or received and opened, at once
BATCH_BYTES = BATCH_MESSAGES * (2 + MESSAGE_BYTES_MAX)
SMALL_BYTES = 4_096  # of a buffer, until somebody has more to say than small talk


class SealError(Exception):
    """What arrived is not what the other end sealed, or half of it: it proves nobody's fault."""


class Sealer:
    """Seals plain messages, one after the other, into a buffer that is used again."""

    def __init__(self, key: bytes) -> None:
        self._cipher = ChaCha20Poly1305(key)
        self._counter = 0
        self.forget()

    def forget(self) -> None:
        """Begin again with a small buffer; what was not sent is gone."""
        self._buffer = bytearray(SMALL_BYTES)
        self._view = memoryview(self._buffer)
        self._used = 0

    @property
    def held(self) -> int:
        """Bytes of its buffer."""
        return len(self._buffer)

    @property
    def messages_left(self) -> int:
        """How many more messages of full size fit into this batch."""
        return (BATCH_BYTES - self._used) // (2 + MESSAGE_BYTES_MAX)

    def add(self, plain: memoryview) -> None:
        """Seal one message of at most ``PLAIN_BYTES_MAX`` bytes into the batch."""
        at, size = self._used, len(plain) + TAG_BYTES
        if at + 2 + size > len(self._buffer):
            self._buffer = _larger(self._view[:at], at + 2 + size)
            self._view = memoryview(self._buffer)
        struct.pack_into("!H", self._buffer, at, size)
        nonce = struct.pack("<IQ", 0, self._counter)
        self._cipher.encrypt_into(nonce, plain, None, self._view[at + 2 : at + 2 + size])
        self._counter += 1
        self._used += 2 + size

    def batch(self) -> memoryview:
        """The sealed batch; valid until the next ``add``, which begins a new one."""
        whole = self._view[: self._used]
        self._used = 0
        return whole


def _larger(begun: memoryview, needed: int) -> bytearray:
    """A buffer for ``needed`` bytes, and then some, that begins with these: talk needs few."""
    buffer = bytearray(min(BATCH_BYTES, 4 * needed))
    buffer[: len(begun)] = begun
    return buffer


class Opener:
    """Opens sealed messages out of a buffer that ``receive`` fills."""

    def __init__(self, key: bytes) -> None:
        self._cipher = ChaCha20Poly1305(key)
        self._counter = 0
        self.forget()

    def forget(self) -> None:
        """Begin again with a small buffer; what was not opened is gone."""
        self._buffer = bytearray(SMALL_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._was_full = False

    @property
    def held(self) -> int:
        """Bytes of its buffer."""
        return len(self._buffer)

    def room(self) -> memoryview:
        """Where the next bytes go; never empty once ``opened`` has taken what is whole."""
        if self._start:
            rest = self._end - self._start
            self._buffer[:rest] = bytes(self._view[self._start : self._end])
            self._start, self._end = 0, rest
        if self._was_full and len(self._buffer) < BATCH_BYTES:
            self._buffer = _larger(self._view, len(self._buffer) + 1)
            self._view = memoryview(self._buffer)
            self._was_full = False
        return self._view[self._end :]

    def filled(self, size: int) -> None:
        """``size`` bytes were put into ``room``."""
        self._end += size
        self._was_full = self._end == len(self._buffer)

    @property
    def inside(self) -> bool:
        """Whether a message has begun that is not whole yet."""
        return self._start < self._end

    def opened(self) -> list[bytes]:
        """Every whole message, opened. SealError if one is not genuine."""
        found = []
        while self._end - self._start >= 2:
            size = self._buffer[self._start] << 8 | self._buffer[self._start + 1]
            end = self._start + 2 + size
            if end > self._end:
                break
            nonce = struct.pack("<IQ", 0, self._counter)
            try:
                plain = self._cipher.decrypt(nonce, self._view[self._start + 2 : end], None)
            except InvalidTag as error:
                raise SealError("a message is not what the other end sealed") from error
            self._counter += 1
            self._start = end
            found.append(plain)
        return found


class SealedSocket:
    """Both directions over one socket. ``sent`` and ``received`` see every sealed byte."""

    def __init__(
        self,
        stream: trio.SocketStream,
        send_key: bytes,
        receive_key: bytes,
        sent: Callable[[memoryview], None],
        received: Callable[[memoryview], None],
        tap: Tap | None = None,
    ) -> None:
        self._stream = stream
        self._sealer, self._opener = Sealer(send_key), Opener(receive_key)
        self._sent, self._received = sent, received
        self._tap = tap

    @property
    def held(self) -> int:
        """Bytes of both buffers."""
        return self._sealer.held + self._opener.held

    def forget(self) -> None:
        """Let the large buffers go; nothing is sealed or received any more."""
        self._sealer.forget()
        self._opener.forget()

    @property
    def messages_left(self) -> int:
        """How many more messages may be sealed before ``flush``."""
        return self._sealer.messages_left

    def seal(self, plain: memoryview) -> None:
        """Seal one message of at most ``PLAIN_BYTES_MAX`` bytes; ``flush`` sends it."""
        if self._tap is not None:
            self._tap(PLAIN_SENT, bytes(plain))
        self._sealer.add(plain)

    async def flush(self) -> None:
        """Send what was sealed. trio's errors if the socket is gone."""
        batch = self._sealer.batch()
        self._sent(batch)
        await self._stream.send_all(batch)

    async def receive(self) -> list[bytes]:
        """At least one message, or none at the end. SealError; OSError if the socket is gone."""
        while not (found := self._opener.opened()):
            room = self._opener.room()
            size = await self._stream.socket.recv_into(room)
            if not size:
                if self._opener.inside:
                    raise SealError("the connection ended inside a message")
                return []
            self._received(room[:size])
            self._opener.filled(size)
        if self._tap is not None:
            for plain in found:
                self._tap(PLAIN_RECEIVED, plain)
        return found
