"""Yamux: many streams over one sealed connection, for a peer whom nobody vouches for.

Knows frames, windows and turns; not who the peer is or what a stream carries. Rules:

* One task writes, one reads, and the reader never writes: what has to be answered is noted (one
  pong, one credit per stream, a few resets) and the writer sends it. Nothing waits in a circle.
* A peer cannot make us hold more than the windows we gave: an overrun ends the connection. Streams,
  refusals and frames without data are capped as well.
* Nothing that a caller cancels can break the connection: ``write`` queues whole pieces, and only
  the writer touches the socket.
* Streams take turns, small talk before bulk, so that a header never waits behind a long answer.
* Where the upload has a limit, ``paced`` streams wait for their connection's turn (rates.py).

Wire format: github.com/hashicorp/yamux, spec.md, as libp2p uses it (/yamux/1.0.0).
"""

import math
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from enum import IntEnum, IntFlag

import trio

from tapestry_p2p.daemon.rates import Pacer
from tapestry_p2p.daemon.sealed import (
    PLAIN_BYTES_MAX,
    SMALL_BYTES,
    SealedSocket,
    SealError,
)

HEADER = struct.Struct("!BBHII")  # version, type, flags, stream, length
WINDOW_BYTES = 262_144  # that every stream begins with
SEND_WINDOW_MAX = 1 << 31
INBOUND_STREAMS_MAX = 16  # an honest peer keeps four
REFUSALS_MAX = 64  # streams beyond that, in a connection's life
OUTBOX_BYTES = 65_536  # of one stream; ``write`` waits while more than that is unsent
IDLE_FRAMES_MAX = 1024  # frames without data that may come at once ...
IDLE_FRAMES_PER_S = 64.0  # ... and per second; each data byte earns 1/64 of one more
DATA_PER_IDLE_FRAME = 64
BULK_BYTES = 32_768  # a stream with more than that to say lets the others go first
SLOW_S, FAST_S = 0.02, 0.004  # a batch that takes longer is halved, a quicker one doubled
BATCH_BYTES_MIN = 8_192
BATCH_BYTES_MAX = 4 * PLAIN_BYTES_MAX


class Kind(IntEnum):
    """Frame types."""

    DATA = 0
    WINDOW = 1
    PING = 2
    GO_AWAY = 3


class Flag(IntFlag):
    """Frame flags."""

    SYN = 1
    ACK = 2
    FIN = 4
    RST = 8


class MuxError(Exception):
    """The connection or the stream is gone."""


class ViolationError(MuxError):
    """The peer broke the protocol, or took more than it was given."""


class GoneError(ViolationError):
    """The connection ends, and the peer is not to blame."""


class Stream:
    """One stream. Both sides may close their direction; ``reset`` ends both at once."""

    def __init__(self, mux: "Mux", number: int, flags: int, window: int = WINDOW_BYTES) -> None:
        self._mux, self.number = mux, number
        self._window = window
        self.flags = flags  # SYN or ACK that our next frame carries
        self.credit = WINDOW_BYTES  # what the peer may still send
        self.consumed = window - WINDOW_BYTES  # what the peer may learn that it may send as well
        self.allowance = WINDOW_BYTES  # what we may still send
        self.outbox: deque[memoryview] = deque()
        self.unsent = 0
        self.finished = False  # we have no more to say
        self.fin_sent = False
        self.ended = False  # the peer has no more to say
        self.broken = ""  # why nothing works any more
        self.paced = False  # what it says is bulk that may be kept waiting
        self._inbox: deque[memoryview | bytearray] = deque()
        self._readable = trio.lowlevel.ParkingLot()
        self._writable = trio.lowlevel.ParkingLot()

    # -- for the callers

    async def read(self, size: int | None = None) -> bytes:
        """At least one byte and at most ``size``; b"" once the peer has closed its side."""
        await self._until_readable()
        if not self._inbox:
            return b""
        piece = self._inbox.popleft()
        if size is not None and len(piece) > size:
            view = memoryview(piece)
            self._inbox.appendleft(view[size:])
            piece = view[:size]
        self._consume(len(piece))
        return bytes(piece)

    async def read_some(self, size: int) -> bytes:
        """At least one byte and at most ``size``. MuxError if the stream ended."""
        piece = await self.read(size)
        if not piece:
            raise MuxError("the stream ended inside a frame")
        return piece

    async def read_exactly(self, size: int) -> bytearray:
        """Exactly ``size`` bytes. MuxError if the stream ends before."""
        whole, at = bytearray(size), 0
        while at < size:
            await self._until_readable()
            if not self._inbox:
                raise MuxError("the stream ended inside a frame")
            piece = self._inbox.popleft()
            taken = min(len(piece), size - at)
            whole[at : at + taken] = piece[:taken]
            if taken < len(piece):
                self._inbox.appendleft(memoryview(piece)[taken:])
            self._consume(taken)
            at += taken
        return whole

    async def write(self, data: bytes) -> None:
        """Queue all of ``data``; returns when nearly all of it was sent.

        Cancelled, it stops waiting; what was queued is still sent, whole. MuxError if the stream
        is closed or gone.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while self.unsent > OUTBOX_BYTES:
            self._need_open()
            await self._writable.park()
        self._need_open()
        if data:
            self.outbox.append(memoryview(data))
            self.unsent += len(data)
            self._mux.wake(self)
        while self.unsent > OUTBOX_BYTES:
            await self._writable.park()
            self._need_open()

    async def close(self) -> None:
        """Say that we have no more to say; what was written before is sent first."""
        await trio.lowlevel.checkpoint()
        if not self.broken and not self.finished:
            self.finished = True
            self._mux.wake(self)

    def reset(self, reason: str = "reset here") -> None:
        """End both directions at once."""
        self._mux.drop(self, reason)

    # -- for the mux

    def deliver(self, piece: memoryview, message_bytes: int) -> None:
        """Bytes of the peer. Small ones are copied: a view would hold its whole message."""
        self.credit -= len(piece)
        if 2 * len(piece) >= message_bytes:
            self._inbox.append(piece)
        elif self._inbox and isinstance(last := self._inbox[-1], bytearray) and len(last) < 65_536:
            last += piece
        else:
            self._inbox.append(bytearray(piece))
        self._readable.unpark_all()

    def end(self) -> None:
        """The peer has closed its side."""
        self.ended = True
        self._readable.unpark_all()

    def break_off(self, reason: str) -> None:
        """Nothing works any more."""
        self.broken = self.broken or reason
        self.outbox.clear()
        self._inbox.clear()
        self.unsent = 0
        self._readable.unpark_all()
        self._writable.unpark_all()

    def take(self, room: int) -> memoryview:
        """The next piece to send, at most ``room`` bytes and what the peer allows."""
        if not self.outbox:
            return memoryview(b"")
        head = self.outbox[0]
        piece = head[: max(0, min(room, self.allowance))]
        if len(piece) == len(head):
            self.outbox.popleft()
        else:
            self.outbox[0] = head[len(piece) :]
        self.allowance -= len(piece)
        self.unsent -= len(piece)
        if self.unsent <= OUTBOX_BYTES:
            self._writable.unpark_all()
        return piece

    @property
    def wants_to_say(self) -> bool:
        """Whether the writer could send something of ours right now."""
        if self.outbox:
            return self.allowance > 0
        return self.finished and not self.fin_sent

    async def _until_readable(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._inbox and not self.ended:
            if self.broken:
                raise MuxError(self.broken)
            await self._readable.park()

    def _consume(self, size: int) -> None:
        self.consumed += size
        if self.consumed >= self._window // 2 and not self.ended:
            self._mux.owe(self)

    def _need_open(self) -> None:
        if self.broken or self.finished:
            raise MuxError(self.broken or "the stream is closed")


class Mux:
    """All streams of one connection. ``run`` lives in the connection's nursery."""

    def __init__(
        self,
        socket: SealedSocket,
        dialled: bool,
        begun: bytes = b"",
        upload: Pacer | None = None,
    ) -> None:
        """``begun``: bytes that came with the last message of the negotiation.

        ``upload``: the pacer of all connections; no limit unless given.
        """
        self.socket = socket
        self._upload = upload or Pacer()
        self._next = 1 if dialled else 2
        self._theirs = 0 if dialled else 1  # parity of the peer's stream numbers
        self.streams: dict[int, Stream] = {}
        self._backlog: deque[Stream] = deque()
        self._coming = trio.lowlevel.ParkingLot()
        self._work = trio.Event()
        self._urgent: deque[Stream] = deque()
        self._bulk: deque[Stream] = deque()
        self._paced: deque[Stream] = deque()
        self._owing: dict[int, Stream] = {}
        self._resets: deque[int] = deque()
        self._pong: int | None = None
        self._refused = 0
        self._late = 0  # bytes that may still come on streams that we gave up
        self._idle_frames = float(IDLE_FRAMES_MAX)
        self._refilled_at = 0.0
        self._part = bytearray()  # of a header
        self._left = 0  # of the data frame that is arriving
        self._into: Stream | None = None
        self._last_flags = 0
        self._begun = begun
        self._batch_bytes = BATCH_BYTES_MAX
        self._scratch = bytearray(SMALL_BYTES)
        self.broken = ""
        self.violated = False  # by the peer

    # -- for the connection

    async def run(self) -> None:
        """Read and write until the connection ends; ``broken`` then says why."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._ends_with, nursery.cancel_scope, self._write_loop)
                await self._ends_with(nursery.cancel_scope, self._read_loop)
        finally:
            self.broken = self.broken or "the connection is gone"
            self._upload.leave(self)
            for stream in self.streams.values():
                stream.break_off(self.broken)
            self.streams.clear()
            self._coming.unpark_all()
            self.socket.forget()

    async def _ends_with(
        self, scope: trio.CancelScope, loop: Callable[[], Awaitable[None]]
    ) -> None:
        """Run a loop whose end, for whatever reason, is the end of both."""
        try:
            await loop()
        except ViolationError as error:
            self.broken, self.violated = str(error), not isinstance(error, GoneError)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.broken = f"the connection is gone: {error}"
        scope.cancel()

    async def open_stream(self, window: int = WINDOW_BYTES) -> Stream:
        """A new stream. ``window``: bytes that the peer may send before we read, >= 256 KiB."""
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise MuxError(self.broken)
        stream = Stream(self, self._next, Flag.SYN, window)
        self._next += 2
        self.streams[stream.number] = stream
        self.owe(stream)
        return stream

    async def accept_stream(self) -> Stream:
        """The next stream that the peer opens."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._backlog:
            if self.broken:
                raise MuxError(self.broken)
            await self._coming.park()
        return self._backlog.popleft()

    # -- for the streams

    def wake(self, stream: Stream) -> None:
        """The stream has something to send: it waits for its turn."""
        waits = (self._urgent, self._bulk, self._paced)
        if stream.wants_to_say and not any(stream in turns for turns in waits):
            if stream.paced and self._upload.rate:
                self._paced.append(stream)
            else:
                (self._bulk if stream.unsent > BULK_BYTES else self._urgent).append(stream)
        self._nudge()

    def _nudge(self) -> None:
        self._work.set()

    def owe(self, stream: Stream) -> None:
        """The stream has credit or a flag to send."""
        self._owing[stream.number] = stream
        self._work.set()

    def drop(self, stream: Stream, reason: str) -> None:
        """Reset a stream; what is still under way to it is let pass."""
        if self.streams.pop(stream.number, None) is not None:
            self._late += 0 if stream.ended else stream.credit
            self._owing.pop(stream.number, None)
            self._resets.append(stream.number)
            self._work.set()
        stream.break_off(reason)

    # -- writing

    async def _write_loop(self) -> None:
        while True:
            began = trio.current_time()
            size = self._fill_batch()
            if size:
                with self._upload.sending(self):
                    await self.socket.flush()
                took = trio.current_time() - began
                if took > SLOW_S:
                    self._batch_bytes = max(BATCH_BYTES_MIN, self._batch_bytes // 2)
                elif took < FAST_S:
                    self._batch_bytes = min(BATCH_BYTES_MAX, self._batch_bytes * 2)
            else:
                self._work = trio.Event()
                with trio.move_on_after(self._wait_s()):
                    await self._work.wait()

    def _wait_s(self) -> float:
        """Until when nothing can be sent, though there may be something to say."""
        wait = math.inf
        if self._paced:
            wait = self._upload.bulk_wait_s(self)
        if self._urgent or self._bulk:
            wait = min(wait, self._upload.talk_wait_s())
        if self._owing or self._resets or self._pong is not None:
            wait = min(wait, self._upload.control_wait_s())
        return wait

    def _allowed(self) -> tuple[int, tuple[deque[Stream], ...]]:
        """How many bytes may be sent now, and from which queues, after frames of control."""
        upload, talk = self._upload, (self._urgent, self._bulk)
        if not upload.rate:
            upload.leave(self)  # the limit may have been lifted while somebody waited
            return self._batch_bytes, (*talk, self._paced)
        most = min(self._batch_bytes, upload.quantum)
        if self._paced:
            upload.line_up(self, self._nudge)
            if not upload.bulk_wait_s(self):
                upload.take_turn(self)
                return most, (*talk, self._paced)
        if upload.control_wait_s():
            return 0, ()
        return most, () if upload.talk_wait_s() else talk

    def _fill_batch(self) -> int:
        """Seal the next messages; their plain bytes."""
        total = 0
        most, queues = self._allowed()
        while total < most and self.socket.messages_left:
            room = min(len(self._scratch), max(1024, most - total))
            size = self._fill_message(room, queues)
            if not size:
                break
            self.socket.seal(memoryview(self._scratch)[:size])
            if 2 * size > len(self._scratch) < PLAIN_BYTES_MAX:  # idle connections stay small
                self._scratch = bytearray(PLAIN_BYTES_MAX)
            total += size
        return total

    def _fill_message(self, room: int, queues: tuple[deque[Stream], ...]) -> int:
        """Put frames into the scratch buffer, most urgent first; bytes used."""
        used = self._put_control(room)
        for turns in queues:
            for _ in range(len(turns)):
                if used + 2 * HEADER.size > room:
                    return used
                stream = turns.popleft()
                used = self._put_data(used, room, stream)
                if stream.number in self.streams and stream.wants_to_say:
                    turns.append(stream)
        return used

    def _put_control(self, room: int) -> int:
        used = 0
        if self._pong is not None:
            used = self._put(used, Kind.PING, Flag.ACK, 0, self._pong)
            self._pong = None
        while self._resets and used + HEADER.size <= room:
            used = self._put(used, Kind.WINDOW, Flag.RST, self._resets.popleft(), 0)
        while self._owing and used + HEADER.size <= room:
            number = next(iter(self._owing))  # the oldest: streams are announced in order
            stream = self._owing.pop(number)
            used = self._put(used, Kind.WINDOW, stream.flags, number, stream.consumed)
            stream.credit += stream.consumed
            stream.flags = stream.consumed = 0
        return used

    def _put_data(self, used: int, room: int, stream: Stream) -> int:
        if stream.broken:
            return used
        piece = stream.take(room - used - HEADER.size)
        last = stream.finished and not stream.outbox
        if not piece and not last:
            return used
        flags = stream.flags | (Flag.FIN if last else 0)
        stream.flags = 0
        used = self._put(used, Kind.DATA, flags, stream.number, len(piece))
        self._scratch[used : used + len(piece)] = piece
        if last:
            stream.fin_sent = True
            self._forget_if_done(stream)
        return used + len(piece)

    def _put(self, used: int, kind: Kind, flags: int, number: int, length: int) -> int:
        HEADER.pack_into(self._scratch, used, 0, kind, flags, number, length)
        return used + HEADER.size

    # -- reading

    async def _read_loop(self) -> None:
        if self._begun:
            self.feed(self._begun)
            self._begun = b""
        while messages := await self._receive():
            now = trio.current_time()
            earned = IDLE_FRAMES_PER_S * (now - self._refilled_at)
            self._idle_frames = min(IDLE_FRAMES_MAX, self._idle_frames + earned)
            self._refilled_at = now
            for message in messages:
                self.feed(message)
        self.broken = "the peer has closed the connection"

    async def _receive(self) -> list[bytes]:
        try:
            return await self.socket.receive()
        except SealError as error:  # whoever can write into the TCP stream may have sent that
            raise GoneError(str(error)) from error

    def feed(self, message: bytes) -> None:
        """Take one opened message. ViolationError for whatever no honest peer sends."""
        view, at, size = memoryview(message), 0, len(message)
        while at < size:
            if self._left:
                taken = min(self._left, size - at)
                if self._into is not None and not self._into.broken:
                    self._into.deliver(view[at : at + taken], size)
                at += taken
                self._left -= taken
                if not self._left:
                    self._flagged(self._into, self._last_flags)
                continue
            needed = HEADER.size - len(self._part)
            if needed == HEADER.size and size - at >= needed:
                header = HEADER.unpack_from(view, at)
            else:
                self._part += view[at : at + needed]
                if len(self._part) < HEADER.size:
                    return
                header = HEADER.unpack(self._part)
                self._part.clear()
            at += needed
            self._frame(*header)

    def _frame(self, version: int, kind: int, flags: int, number: int, length: int) -> None:
        if version or kind > Kind.GO_AWAY or flags > 15:
            raise ViolationError("a frame of an unknown kind")
        if kind == Kind.DATA and length:
            self._idle_frames = min(
                IDLE_FRAMES_MAX, self._idle_frames + length / DATA_PER_IDLE_FRAME
            )
        self._idle_frames -= 1
        if self._idle_frames < 0:
            raise ViolationError("too many frames that carry next to nothing")
        if kind == Kind.PING:
            if flags & Flag.SYN:
                self._pong = length
                self._work.set()
        elif kind == Kind.GO_AWAY:
            raise GoneError("the peer goes away")
        else:
            self._stream_frame(kind, flags, number, length)

    def _stream_frame(self, kind: int, flags: int, number: int, length: int) -> None:
        if flags & Flag.SYN:
            self._opened(number)
        stream = self.streams.get(number)
        if kind == Kind.WINDOW:
            if stream is not None and length:
                stream.allowance = min(SEND_WINDOW_MAX, stream.allowance + length)
                self.wake(stream)
            self._flagged(stream, flags)
            return
        if stream is None or stream.broken or stream.ended:
            self._late -= length
            if self._late < 0:
                raise ViolationError("data on a stream that is not open")
        elif length > stream.credit:
            raise ViolationError("a stream's window was overrun")
        self._left, self._into, self._last_flags = length, stream, flags
        if not length:
            self._flagged(stream, flags)

    def _opened(self, number: int) -> None:
        if not number or number % 2 != self._theirs or number in self.streams:
            raise ViolationError("a stream was opened under a number that is not free")
        inbound = sum(n % 2 == self._theirs for n in self.streams)
        if inbound >= INBOUND_STREAMS_MAX:
            self._refused += 1
            if self._refused > REFUSALS_MAX:
                raise ViolationError("too many streams were opened")
            self._resets.append(number)
            self._late += WINDOW_BYTES
            self._work.set()
            return
        stream = Stream(self, number, Flag.ACK)
        self.streams[number] = stream
        self._backlog.append(stream)
        self.owe(stream)
        self._coming.unpark_all()

    def _flagged(self, stream: Stream | None, flags: int) -> None:
        """FIN and RST count after the frame's data."""
        if stream is None:
            return
        if flags & Flag.RST:
            self.streams.pop(stream.number, None)
            self._owing.pop(stream.number, None)
            stream.break_off("the peer reset the stream")
        elif flags & Flag.FIN:
            stream.end()
            self._forget_if_done(stream)

    def _forget_if_done(self, stream: Stream) -> None:
        if stream.ended and stream.fin_sent:
            self.streams.pop(stream.number, None)
            self._owing.pop(stream.number, None)
