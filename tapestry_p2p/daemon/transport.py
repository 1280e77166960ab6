"""Connections to peers over libp2p: TCP, Noise and Yamux only. The only file that speaks libp2p.

Knows bytes, public keys and deadlines; nothing of entries. libp2p's Noise shakes hands and its
multistream-select names protocols; records and streams are our own (sealed.py, yamux.py, and why:
docs/decisions/0002). Each connection is one nursery that owns its tasks: the mux, an accept loop,
one sender per channel, and a ping watchdog that cuts a peer that stopped answering.
"""

import contextlib
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import trio

from tapestry_p2p.daemon import lean  # noqa: F401 (first: what it keeps out is most of a second)

# isort: split
from libp2p.abc import ISecureConn
from libp2p.crypto.ed25519 import Ed25519PublicKey, create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key
from libp2p.custom_types import TProtocol
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.protocol_muxer.exceptions import MultiselectError
from libp2p.protocol_muxer.generic_selector import GenericMultistreamSelector
from libp2p.protocol_muxer.multiselect import Multiselect
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.security.security_multistream import SecurityMultistream

from tapestry_p2p.daemon import guard
from tapestry_p2p.daemon.address import Address
from tapestry_p2p.daemon.gate import OWN, Gate, Guest
from tapestry_p2p.daemon.patience import handshake_s
from tapestry_p2p.daemon.pipes import SealedIO, StreamIO, TapStream
from tapestry_p2p.daemon.rates import Paces, Traffic
from tapestry_p2p.daemon.sealed import SealedSocket
from tapestry_p2p.daemon.tap import Tap
from tapestry_p2p.daemon.yamux import WINDOW_BYTES, Mux, MuxError, Stream
from tapestry_p2p.errors import FAILURE, TapestryError
from tapestry_p2p.heap import give_back

T = TypeVar("T")
log = logging.getLogger("tapestry.transport")

WIRE = 1
CHANNELS = ("hello", "sync", "fetch", "ping")
PROTOCOLS = {name: TProtocol(f"/tapestry/{WIRE}/{name}") for name in CHANNELS}
YAMUX = TProtocol("/yamux/1.0.0")
PIECE_BYTES = 65_536  # of an answer
PROGRESS_BYTES = 8_192  # of an answer must come in each ``STALL_S``: sixteen share a slow upload
NOT_SENT_BYTES = 65_536  # in the kernel: what waits there can no longer give way to a ping
FETCH_WINDOW_BYTES = 1 << 20  # of the one stream whose answers we asked for; less stops and goes
FRAME_BYTES_MAX = 65_536  # hello, sync and requests; bulk is no frame
QUEUE_FRAMES_MAX = 256  # frames waiting for one slow peer; beyond that it is disconnected
PING_EVERY_S = 15.0  # fifty idle peers then cost less than 1/200 of a core
PING_DEADLINE_S = 20.0
STALL_S = 20.0  # a fetch, or a piece of an answer, that takes so long ends its connection
DIAL_S = 10.0
TIDY_S = 0.7  # so long after a connection ended memory is given back: some 3 ms of work
DEFER_S = 5  # the kernel keeps a stranger who says nothing that long before it shows it to us


_ED25519_ID = bytes([0x00, 0x24, 0x08, 0x01, 0x12, 0x20])  # identity multihash of the key


class TransportError(Exception):
    """The connection failed; the world's fault. The caller may dial again."""


class FaultError(TransportError):
    """The connection ends because the peer broke the protocol."""


class Handlers(Protocol):
    """What the node does with what a peer sends. None of these may raise on foreign bytes."""

    async def connected(self, peer: bytes, address: str) -> None: ...
    async def disconnected(self, peer: bytes) -> None: ...
    async def message(self, peer: bytes, channel: str, data: bytes) -> None: ...
    async def serve(self, peer: bytes, request: bytes) -> tuple[bytes, bytes]:
        """Answer a fetch: a response frame and a body."""
        ...


async def _read_frame(stream: Stream, bound: int = FRAME_BYTES_MAX) -> bytes:
    """One frame: u32 length, big endian, then the bytes. TransportError if longer than bound."""
    (length,) = struct.unpack("!I", await stream.read_exactly(4))
    if length > bound:
        raise FaultError(f"a frame claims {length} bytes, at most {bound} are allowed")
    return bytes(await stream.read_exactly(length))


def _frame(data: bytes) -> bytes:
    return struct.pack("!I", len(data)) + data


@dataclass(eq=False)
class Connection:
    """One authenticated connection. ``Transport`` runs it; the node sends and fetches over it."""

    own: bytes
    peer: bytes
    dialled: bool
    address: str
    mux: Mux
    raw: TapStream
    handlers: Handlers
    closed: trio.Event = field(default_factory=trio.Event)
    at_fault: bool = False  # the peer, for the end of the connection
    _turn: trio.Lock = field(default_factory=trio.Lock)
    _fetch_stream: Stream | None = None
    _scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def __post_init__(self) -> None:
        self._queues = {
            name: trio.open_memory_channel[bytes](QUEUE_FRAMES_MAX) for name in ("hello", "sync")
        }

    def send(self, channel: str, data: bytes) -> None:
        """Queue a frame; a peer that lets 256 of them pile up is cut."""
        try:
            self._queues[channel][0].send_nowait(data)
        except trio.WouldBlock:
            self.abort("it does not read what we send")
        except trio.BrokenResourceError:
            pass  # closing: whoever waits for an answer sees ``disconnected``

    def abort(self, reason: str, fault: bool = False) -> None:
        """Cut the connection at once, whatever its tasks are blocked in. ``fault``: the peer's."""
        log.debug("connection %s cut: %s", self.address, reason)
        self.at_fault = self.at_fault or fault
        self.raw.cut()
        self._scope.cancel()

    async def fetch(self, request: bytes, body_bytes_max: int) -> tuple[bytes, bytes]:
        """Ask for one piece: (response frame, body). One at a time per connection.

        TransportError if the connection fails or the peer makes no progress for ``STALL_S``.
        """
        async with self._turn:
            try:
                return await self._exchange(request, body_bytes_max)
            except TransportError:
                self.abort("a fetch failed")
                raise
            except trio.Cancelled:  # the answer may still come: never mistake it for another
                if self._fetch_stream is not None:
                    self._fetch_stream.reset()
                    self._fetch_stream = None
                raise

    async def _exchange(self, request: bytes, body_bytes_max: int) -> tuple[bytes, bytes]:
        with _stall_guard(), _wrapped():
            if self._fetch_stream is None:
                self._fetch_stream = await self._open("fetch")
            stream = self._fetch_stream
            await stream.write(_frame(request))
            response = await _read_frame(stream)
            (length,) = struct.unpack("!I", await stream.read_exactly(4))
        if length > body_bytes_max:
            raise TransportError("an answer is longer than what we asked for")
        body = bytearray()
        while len(body) < length:
            enough = min(length, len(body) + PROGRESS_BYTES)
            with _stall_guard(), _wrapped():
                while len(body) < enough:
                    body += await stream.read_some(length - len(body))
        return response, bytes(body)

    async def run(self) -> None:
        """Live until the connection ends; never raises what a peer or the world causes."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._ends_with, self.mux.run)
                    nursery.start_soon(self._ends_with, self._accept, nursery)
                    for name in ("hello", "sync"):
                        nursery.start_soon(self._ends_with, self._sender, name)
                    nursery.start_soon(self._ends_with, self._ping)
        finally:
            self.closed.set()
            self.raw.cut()

    async def _ends_with(self, task: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run a task whose end, for whatever reason, is the connection's end."""
        try:
            await task(*args)
        except Exception as error:  # libp2p raises a dozen kinds; each means the same here
            log.debug("connection %s: %s: %s", self.address, type(error).__name__, error)
        self.abort(self.mux.broken or "a task ended", self.mux.violated)

    async def _open(self, channel: str) -> Stream:
        window = FETCH_WINDOW_BYTES if channel == "fetch" else WINDOW_BYTES
        stream = await self.mux.open_stream(window)
        communicator = MultiselectCommunicator(StreamIO(stream))
        await MultiselectClient().select_one_of((PROTOCOLS[channel],), communicator)
        return stream

    async def _sender(self, channel: str) -> None:
        receive = self._queues[channel][1]
        stream: Stream | None = None
        async for data in receive:
            if stream is None:
                stream = await self._open(channel)
            await stream.write(_frame(data))

    async def _ping(self) -> None:
        stream: Stream | None = None
        count = 0
        while True:
            count += 1
            with trio.move_on_after(PING_DEADLINE_S) as deadline:
                stream = stream or await self._open("ping")
                await stream.write(_frame(struct.pack("!Q", count)))
                answer = await _read_frame(stream, 8)
            if deadline.cancelled_caught or answer != struct.pack("!Q", count):
                self.abort("no answer to a ping")
                return
            await trio.sleep(PING_EVERY_S)

    async def _accept(self, nursery: trio.Nursery) -> None:
        while True:
            nursery.start_soon(self._inbound_stream, await self.mux.accept_stream())

    async def _inbound_stream(self, stream: Stream) -> None:
        try:
            channel = await self._negotiated(stream)
            stream.paced = channel == "fetch"
            while True:
                data = await _read_frame(stream)
                if channel == "fetch":
                    await self._serve(stream, data)
                elif channel == "ping":
                    await stream.write(_frame(data[:8]))
                else:
                    await self._handled(self.handlers.message(self.peer, channel, data))
        except TransportError as error:
            gibberish = isinstance(error.__cause__, MultiselectError)
            whole = not (stream.broken or stream.ended)  # else a break, or a farewell
            self.abort(str(error), isinstance(error, FaultError) or (gibberish and whole))
        except MuxError as error:
            log.debug("a stream of %s ended: %s", self.address, error)
        finally:
            stream.reset("we are done with it")

    async def _negotiated(self, stream: Stream) -> str:
        """The channel that a stream is for. MuxError if it is for none of ours."""
        selector = Multiselect(dict.fromkeys(PROTOCOLS.values()))
        within_s = handshake_s(self.raw.socket_stream.socket, guard.HANDSHAKE_DEADLINE_S)
        with _wrapped(), trio.fail_after(within_s):
            protocol, _ = await selector.negotiate(MultiselectCommunicator(StreamIO(stream)))
        return str(protocol).rsplit("/", 1)[-1]

    async def _handled(self, answer: Awaitable[T]) -> T:
        """What the node makes of it; a mistake of ours is told, and costs this connection."""
        try:
            return await answer
        except Exception as error:
            log.exception("a mistake of ours in a handler")
            raise TransportError("a handler failed") from error

    async def _serve(self, stream: Stream, request: bytes) -> None:
        response, body = await self._handled(self.handlers.serve(self.peer, request))
        answer = _frame(response) + struct.pack("!I", len(body)) + body
        for start in range(0, len(answer), PIECE_BYTES):
            with _stall_guard(self.raw.paces.upload.turns_s(PIECE_BYTES)):  # it may open its window
                await stream.write(answer[start : start + PIECE_BYTES])


@contextlib.contextmanager
def _stall_guard(our_own_s: float = 0.0) -> Iterator[None]:
    """``our_own_s``: how long we ourselves keep it waiting."""
    with trio.move_on_after(STALL_S + our_own_s) as scope:
        yield
    if scope.cancelled_caught:
        raise TransportError(f"no progress for {STALL_S:.0f} s")


@contextlib.contextmanager
def _wrapped() -> Iterator[None]:
    """The dozen kinds of error of libp2p, and those of streams, all as TransportError."""
    try:
        yield
    except TransportError:
        raise
    except Exception as error:
        raise TransportError(f"{type(error).__name__}: {error}"[:200]) from error


class Transport:
    """Listens, dials, and keeps at most one connection per peer. Run ``serve`` in a nursery."""

    def __init__(
        self,
        seed: bytes,
        handlers: Handlers,
        tap: Tap | None = None,
        admits: Callable[[bytes], bool] = lambda peer: True,
        paces: Paces | None = None,
        vouches: Callable[[bytes], bool] = lambda peer: False,
        source: str | None = None,
    ) -> None:
        """``seed``: the 32-byte Ed25519 seed. ``tap`` sees every byte, raw and plain (tests).

        ``admits``: whether a peer that has proven who it is may connect. ``paces``: of all of them.
        ``vouches``: whether it is an established member. ``source``: our address when we dial.
        """
        guard.install()
        key = create_new_key_pair(seed)
        self.own = key.public_key.to_bytes()
        self.traffic = Traffic()
        self.paces = paces or Paces()
        self.gate = Gate()
        self.connections: dict[bytes, Connection] = {}
        self.addresses: list[Address] = []
        self._handlers = handlers
        self._tap = tap
        self._admits, self._vouches, self._source = admits, vouches, source
        noise = NoiseTransport(key, noise_privkey=create_noise_key().private_key)
        self._security = SecurityMultistream({NOISE: noise})
        self._muxers: GenericMultistreamSelector[object] = GenericMultistreamSelector()
        self._muxers.add_handler(YAMUX, Mux)
        self._listeners: list[trio.SocketListener] = []
        self._ended = trio.Event()  # a connection did
        self._telling = trio.Lock()  # connected and disconnected are told in turns
        self._told: dict[bytes, Connection] = {}
        self._nursery: trio.Nursery | None = None

    async def listen(self, addresses: Sequence[Address]) -> None:
        """Bind every address (port 0: any). TapestryError if one is taken or not ours."""
        for address in addresses:
            try:
                found = await trio.open_tcp_listeners(address.port, host=address.host)
            except (OSError, ValueError) as error:  # ValueError: no host's name
                self._close_listeners()
                raise TapestryError(
                    f"cannot listen on {address}: {getattr(error, 'strerror', '') or error}; "
                    "another network of yours may have it: choose another port in [listen]"
                    " addresses of tapestry.toml",
                    FAILURE,
                ) from error
            for listener in found:
                listener.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_S)
            self._listeners += found
            port = found[0].socket.getsockname()[1]
            self.addresses.append(Address(address.kind, address.host, port))

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept and run connections until cancelled; then stop listening and cut them all."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for listener in self._listeners:
                    nursery.start_soon(self._accept_from, listener)
                nursery.start_soon(self._tidy)
                task_status.started()
                try:
                    await trio.sleep_forever()
                finally:
                    for connection in list(self.connections.values()):
                        connection.raw.cut()
        finally:
            self._close_listeners()

    def _close_listeners(self) -> None:
        while self._listeners:
            self._listeners.pop().socket.close()
        self.addresses.clear()

    async def dial(self, peer: bytes, addresses: Sequence[Address]) -> bool:
        """Connect to ``peer`` at the first address that answers; whether one did."""
        for address in addresses:
            connection: Connection | None = None
            try:
                with trio.move_on_after(DIAL_S):
                    connection = await self.handshake(peer, address)
            except (OSError, ValueError, TransportError) as error:  # ValueError: no host's name
                log.debug("dial %s: %s", address, error)
            if connection is not None:
                self._take(connection)
                return True
        return False

    async def handshake(self, peer: bytes, address: Address) -> Connection:
        """A connection to ``peer`` that nobody runs yet. OSError, ValueError, TransportError."""
        stream = await trio.open_tcp_stream(address.host, address.port, local_address=self._source)
        raw = TapStream(stream, self.traffic, self._tap, self.paces)
        return await self._authenticated(raw, peer)

    async def _accept_from(self, listener: trio.SocketListener) -> None:
        assert self._nursery is not None
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:  # out of descriptors, or the stranger was gone again
                log.warning("accept failed: %s", error)
                await trio.sleep(0.1)
                continue
            raw = TapStream(stream, self.traffic, self._tap, self.paces)
            host = OWN[0] if raw.is_local else raw.remote.host
            guest = Guest(host, raw.is_silent, raw.cut, trio.current_time())
            if self.gate.enter(guest):
                self._nursery.start_soon(self._welcome, raw, guest)
            else:
                raw.cut()

    async def _welcome(self, raw: TapStream, guest: Guest) -> None:
        connection: Connection | None = None
        try:
            connection = await self._authenticated(raw, guest)
            if not self.gate.prove(guest):
                connection.abort("its address block has all its places")
                return
            self._take(connection)
            await connection.closed.wait()
        except TransportError as error:
            log.debug("a stranger was refused: %s", error)
        finally:
            self.gate.leave(guest, trio.current_time())
            if connection is not None and connection.at_fault:
                self.gate.blame(guest, trio.current_time(), connection.peer)

    async def _authenticated(self, raw: TapStream, who: bytes | Guest) -> Connection:
        """A connection over that socket, which is cut if none comes of it.

        ``who``: the key that we dialled, or whoever came to us.
        """
        connection: Connection | None = None
        within_s = handshake_s(raw.socket_stream.socket, guard.HANDSHAKE_DEADLINE_S)
        try:
            with _wrapped(), trio.fail_after(within_s):
                connection = await self._upgrade(raw, who)
        finally:
            if connection is None:
                raw.cut()
        return connection

    async def _upgrade(self, raw: TapStream, who: bytes | Guest) -> Connection:
        dialled = isinstance(who, bytes)
        conn = RawConnection(raw, initiator=dialled)
        if isinstance(who, bytes):
            identity = ID.from_pubkey(Ed25519PublicKey.from_bytes(who))
            secure = await self._security.secure_outbound(conn, identity)
        else:
            secure = await self._secure_inbound(conn, who)
        peer = self._peer_of(secure)
        if dialled and peer != who:
            raise TransportError("the peer is not who we dialled")
        if isinstance(who, Guest):
            self._check_admitted(who, peer)
        sealed = self._sealed(raw, secure)
        negotiated = SealedIO(sealed)
        await self._muxers.select(negotiated, dialled)
        return Connection(
            own=self.own,
            peer=peer,
            dialled=dialled,
            address=str(raw.remote),
            mux=Mux(sealed, dialled, negotiated.left, self.paces.upload),
            raw=raw,
            handlers=self._handlers,
        )

    async def _secure_inbound(self, conn: RawConnection, guest: Guest) -> ISecureConn:
        """Noise, if the guest's address block may have one more handshake now."""
        _, noise = await self._security.select_transport_and_protocol(conn, False)
        if not self.gate.shake(guest, trio.current_time()):
            raise TransportError("its address block has had its handshakes")
        return await noise.secure_inbound(conn)

    def _peer_of(self, secure: ISecureConn) -> bytes:
        """The key that the other end has proven to be its own; not ours."""
        remote_id = secure.get_remote_peer()  # get_remote_public_key is Noise's static key
        if not remote_id.to_bytes().startswith(_ED25519_ID) or len(remote_id.to_bytes()) != 38:
            raise TransportError("the peer's key is not Ed25519")
        peer = remote_id.to_bytes()[len(_ED25519_ID) :]
        if peer == self.own:
            raise TransportError("the peer is we ourselves")
        return peer

    def _check_admitted(self, guest: Guest, peer: bytes) -> None:
        now = trio.current_time()
        if self.gate.is_barred(peer, now) or not self._admits(peer):
            self.gate.blame(guest, now)
            raise TransportError("the peer is barred")

    def _sealed(self, raw: TapStream, secure: ISecureConn) -> SealedSocket:
        """Go on with the keys that Noise agreed on."""
        raw.socket_stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT_BYTES)
        send_key, receive_key = guard.keys_of(secure)
        return SealedSocket(
            raw.socket_stream, send_key, receive_key, raw.note_sent, raw.note_received, self._tap
        )

    def _take(self, new: Connection) -> None:
        """Register ``new`` and let it live; of two simultaneous dials both keep the lower key's.

        Waits for nothing: whatever is registered has the task that will end it.
        """
        assert self._nursery is not None
        if self._nursery.cancel_scope.cancel_called:  # a dial may succeed while we end
            new.raw.cut()
            new.closed.set()
            return
        old = self.connections.get(new.peer)
        if old is not None:
            crossed = old.dialled != new.dialled
            if crossed and new.dialled != (self.own < new.peer):
                new.raw.cut()
                new.closed.set()
                return
            old.abort("a newer connection takes its place")
        self.connections[new.peer] = new
        if self._vouches(new.peer):
            self.gate.vouch(new.raw.remote.host)
        self._nursery.start_soon(self._live, new)

    async def _tidy(self) -> None:
        while True:
            await self._ended.wait()
            await trio.sleep(TIDY_S)  # the others that end as well
            self._ended = trio.Event()
            give_back()

    async def _live(self, connection: Connection) -> None:
        try:
            await self._tell_of(connection)
            await connection.run()
            await self._forget(connection)
        finally:  # cancelled before it ran, for one
            connection.raw.cut()
            connection.closed.set()
            self._ended.set()

    async def _tell_of(self, connection: Connection) -> None:
        peer = connection.peer
        async with self._telling:
            if self.connections.get(peer) is connection:  # else a newer one came before its turn
                if peer in self._told:
                    await self._handlers.disconnected(peer)
                self._told[peer] = connection
                await self._handlers.connected(peer, connection.address)

    async def _forget(self, connection: Connection) -> None:
        peer = connection.peer
        async with self._telling:
            if self.connections.get(peer) is connection:
                del self.connections[peer]
            if self._told.get(peer) is connection:
                del self._told[peer]
                await self._handlers.disconnected(peer)
