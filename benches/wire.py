"""Bytes between two processes: our wire beside bare libp2p, TLS and TCP, in one run.

    python benches/wire.py [--mb 256] [--repeat 5] [--seconds 60] [--json]

Each stack sends so many MB from a child process to this one over the loopback; best of several
runs, because a busy machine only ever slows one down. ``tapestry`` is what members speak: Noise's
handshake, our records and Yamux. ``libp2p`` is the same wire by the library's own records and
Yamux (writes of 65,507 bytes, its best), ``TLS`` is trio's over OpenSSL, TLS 1.3. Then, on our wire
alone: bulk both ways at once with small streams beside it, and 50 connections that nobody uses.
Exit code 1 if a bound is missed. A busy machine tells nothing of speed: then look at the CPU times.
"""

import argparse
import datetime
import json
import os
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import Yamux

from tapestry_p2p.daemon import guard
from tapestry_p2p.daemon.address import Address
from tapestry_p2p.daemon.pipes import TapStream
from tapestry_p2p.daemon.rates import Traffic
from tapestry_p2p.daemon.sealed import SealedSocket
from tapestry_p2p.daemon.silent import Silent
from tapestry_p2p.daemon.transport import (
    FETCH_WINDOW_BYTES,
    NOT_SENT_BYTES,
    Transport,
)
from tapestry_p2p.daemon.yamux import Mux, Stream

LIBRARY_WRITE = 65_507  # with a Yamux header exactly one Noise message
WRITE, READ = 65_536, 1 << 20
SEEDS = bytes([1]) * 32, bytes([2]) * 32
MB = 1_000_000
START_S = 60.0
REPORT = b"what came?"


@dataclass
class Pipe:
    """One direction's end: ``write`` all of it, ``read`` some of it."""

    write: Callable[[bytes], Awaitable[None]]
    read: Callable[[], Awaitable[bytes | bytearray]]


Stack = Callable[[trio.SocketStream, bool], Any]


@asynccontextmanager
async def tcp(stream: trio.SocketStream, dialled: bool) -> AsyncIterator[Pipe]:
    yield Pipe(stream.send_all, lambda: stream.receive_some(READ))


@asynccontextmanager
async def tls(stream: trio.SocketStream, dialled: bool) -> AsyncIterator[Pipe]:
    folder = Path(os.environ["WIRE_CERTIFICATE"])
    if dialled:
        context = ssl.create_default_context(cafile=str(folder / "cert.pem"))
    else:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    secure = trio.SSLStream(stream, context, server_hostname="wire", server_side=not dialled)
    await secure.do_handshake()
    yield Pipe(secure.send_all, lambda: secure.receive_some(READ))


async def _noise(stream: trio.SocketStream, dialled: bool) -> tuple[TapStream, Any]:
    raw = TapStream(stream, Traffic(), None)
    own, other = SEEDS if dialled else SEEDS[::-1]
    noise = NoiseTransport(create_new_key_pair(own), create_noise_key().private_key)
    connection = RawConnection(raw, initiator=dialled)
    if dialled:
        peer = ID.from_pubkey(create_new_key_pair(other).public_key)
        return raw, await noise.secure_outbound(connection, peer)
    return raw, await noise.secure_inbound(connection)


@asynccontextmanager
async def libp2p(stream: trio.SocketStream, dialled: bool) -> AsyncIterator[Pipe]:
    raw, secure = await _noise(stream, dialled)
    muxer = Yamux(secure, secure.get_remote_peer(), is_initiator=dialled)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(muxer.start)
        await muxer.event_started.wait()
        talk: Any = await (muxer.open_stream() if dialled else muxer.accept_stream())

        async def write(data: bytes) -> None:
            for start in range(0, len(data), LIBRARY_WRITE):
                await talk.write(data[start : start + LIBRARY_WRITE])

        yield Pipe(write, lambda: talk.read(READ))
        raw.cut()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def tapestry(stream: trio.SocketStream, dialled: bool) -> AsyncIterator[Pipe]:
    async with muxed(stream, dialled) as mux:  # as a fetch: who receives has opened the stream
        receives = not dialled
        talk = await (mux.open_stream(FETCH_WINDOW_BYTES) if receives else mux.accept_stream())
        yield Pipe(talk.write, talk.read)


@asynccontextmanager
async def muxed(stream: trio.SocketStream, dialled: bool) -> AsyncIterator[Mux]:
    raw, secure = await _noise(stream, dialled)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT_BYTES)
    keys = guard.keys_of(secure)
    mux = Mux(SealedSocket(stream, *keys, raw.note_sent, raw.note_received), dialled)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mux.run)
        yield mux
        nursery.cancel_scope.cancel()


STACKS: dict[str, Stack] = {"TCP": tcp, "TLS": tls, "libp2p": libp2p, "tapestry": tapestry}


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# ---- the child, which dials ----------------------------------------------------------------------


async def send(stack: str, port: int, size: int) -> None:
    """Send ``size`` bytes, wait for one byte, print the CPU seconds that took."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with STACKS[stack](stream, True) as pipe:
        block = os.urandom(WRITE) * 16
        await pipe.write(b"x")
        began = cpu_s()
        for _ in range(size // len(block)):
            await pipe.write(block)
        await pipe.read()
        print(cpu_s() - began, flush=True)


async def pour_and_drain(port: int) -> None:
    """Bulk both ways and an echo of every other stream; says what came, once that is asked for."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with muxed(stream, True) as mux, trio.open_nursery() as nursery:
        count = Count()
        nursery.start_soon(drain, await mux.open_stream(FETCH_WINDOW_BYTES), count)
        nursery.start_soon(pour, await mux.accept_stream())
        while True:
            nursery.start_soon(echo, await mux.accept_stream(), count)


async def echo(stream: Stream, count: "Count") -> None:
    while data := await stream.read():
        await stream.write(count.say() if data == REPORT else data)
    await stream.close()


async def pour(stream: Any) -> None:
    block = os.urandom(1 << 20)
    while True:
        await stream.write(block)


@dataclass
class Count:
    """Bytes that came, and the longest time without any."""

    total: int = 0
    longest_s: float = 0.0

    def __post_init__(self) -> None:
        self._last = trio.current_time()

    def came(self, size: int) -> None:
        now = trio.current_time()
        self.longest_s = max(self.longest_s, now - self._last)
        self.total, self._last = self.total + size, now

    def say(self) -> bytes:
        self.came(0)
        return json.dumps([self.total, self.longest_s]).encode()


async def drain(stream: Any, count: Count) -> None:
    while data := await stream.read():
        count.came(len(data))


async def dial_often(port: int, own: str, count: int) -> None:
    """``count`` identities that connect and say nothing but pings."""
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            transport = Transport(os.urandom(32), Silent())
            await nursery.start(transport.serve)
            address = [Address("ip4", "127.0.0.1", port)]
            assert await transport.dial(bytes.fromhex(own), address)
        print("ready", flush=True)


# ---- this process, which listens -----------------------------------------------------------------


async def one_way(stack: str, size: int) -> dict[str, float]:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    child = spawn("send", stack, str(listener.socket.getsockname()[1]), str(size))
    stream = await accepted(listener)
    async with STACKS[stack](stream, False) as pipe:
        received = len(await pipe.read()) - 1
        began, used = trio.current_time(), cpu_s()
        while received < size:
            received += len(await pipe.read())
        seconds, used = trio.current_time() - began, cpu_s() - used
        await pipe.write(b"x")
        said = await trio.to_thread.run_sync(child.communicate)
    await listener.aclose()
    return {
        "mb_per_s": size / MB / seconds,
        "send_cpu_s_per_gb": float(said[0]) / (size / 1e9),
        "receive_cpu_s_per_gb": used / (size / 1e9),
    }


async def both_ways(seconds: float) -> dict[str, float]:
    """Bulk both ways; how long an answer on a stream beside it takes, an old one and new ones."""
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    child = spawn("both", str(listener.socket.getsockname()[1]))
    waits: dict[str, list[float]] = {"ping": [], "stream": []}
    try:
        async with muxed(await accepted(listener), False) as mux, trio.open_nursery() as nursery:
            count = Count()
            sink, bulk = await mux.open_stream(FETCH_WINDOW_BYTES), await mux.accept_stream()
            nursery.start_soon(pour, bulk)
            nursery.start_soon(drain, sink, count)
            old = await mux.open_stream()
            began = trio.current_time()
            while trio.current_time() - began < seconds:
                waits["ping"].append(await answered(old))
                asked = trio.current_time()
                new = await mux.open_stream()
                await answered(new)
                await new.close()
                await new.read()
                waits["stream"].append(trio.current_time() - asked)
                await trio.sleep(0.01)
            await old.write(REPORT)
            theirs, their_gap = json.loads(await old.read())
            count.came(0)
            nursery.cancel_scope.cancel()
    finally:
        child.kill()
        child.wait()
        await listener.aclose()
    found: dict[str, float] = {
        "received_mb_per_s": count.total / MB / seconds,
        "sent_mb_per_s": theirs / MB / seconds,
        "longest_gap_s": max(count.longest_s, their_gap),
    }
    for kind, times in waits.items():
        times.sort()
        found |= {
            f"{kind}s": len(times),
            f"{kind}_median_ms": 1000 * times[len(times) // 2],
            f"{kind}_p99_ms": 1000 * times[int(len(times) * 0.99)],
            f"{kind}_worst_ms": 1000 * times[-1],
        }
    return found


async def answered(stream: Stream) -> float:
    """How long an answer to four bytes takes."""
    asked = trio.current_time()
    await stream.write(b"ping")
    await stream.read_exactly(4)
    return trio.current_time() - asked


async def idle(seconds: float, count: int) -> dict[str, float]:
    """What ``count`` connections cost that only ping."""
    ours = Transport(SEEDS[0], Silent())
    await ours.listen([Address("ip4", "127.0.0.1", 0)])
    async with trio.open_nursery() as nursery:
        await nursery.start(ours.serve)
        child = spawn("idle", str(ours.addresses[0].port), ours.own.hex(), str(count))
        assert child.stdout is not None
        assert await trio.to_thread.run_sync(child.stdout.readline) == "ready\n"
        began, used = trio.current_time(), cpu_s()
        await trio.sleep(seconds)
        share = (cpu_s() - used) / (trio.current_time() - began)
        connections = len(ours.connections)
        child.kill()
        child.wait()
        nursery.cancel_scope.cancel()
    return {"connections": connections, "core_share": share}


async def accepted(listener: trio.SocketListener) -> trio.SocketStream:
    """The child's connection; TooSlowError if it never comes."""
    with trio.fail_after(START_S):
        return await listener.accept()


def spawn(*words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, __file__, "--child", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def make_certificate(folder: Path) -> None:
    """A certificate of our own, for an hour."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "wire")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("wire")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(pem, form, plain))


def measure(mb: int, repeat: int, seconds: float, connections: int) -> dict[str, Any]:
    """All of it, as the JSON says it."""
    size = mb * MB // (16 * WRITE) * (16 * WRITE)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in STACKS}
    with tempfile.TemporaryDirectory() as folder:
        make_certificate(Path(folder))
        os.environ["WIRE_CERTIFICATE"] = folder
        for _ in range(repeat):
            for name, found in runs.items():
                found.append(trio.run(one_way, name, size))
    best = {name: max(found, key=lambda run: run["mb_per_s"]) for name, found in runs.items()}
    cpu = {name: min(map(cpu_of, found)) for name, found in runs.items()}
    ours = best["tapestry"]["mb_per_s"]
    return {
        "mb": size / MB,
        "one_way": best,
        "times_libp2p": ours / best["libp2p"]["mb_per_s"],
        "share_of_tls": ours / best["TLS"]["mb_per_s"],
        "times_libp2p_cpu": cpu["libp2p"] / cpu["tapestry"],
        "share_of_tls_cpu": cpu["TLS"] / cpu["tapestry"],
        "both_ways": trio.run(both_ways, seconds),
        "idle": trio.run(idle, seconds, connections),
    }


def cpu_of(run: dict[str, float]) -> float:
    """CPU seconds per GB at both ends together."""
    return run["send_cpu_s_per_gb"] + run["receive_cpu_s_per_gb"]


def bounds(found: dict[str, Any]) -> list[tuple[str, float, float, bool]]:
    """What, figure, bound, and whether it is a least one."""
    ways = found["both_ways"]
    return [
        ("one way, times libp2p", found["times_libp2p"], 2.0, True),
        ("one way, share of TLS 1.3", found["share_of_tls"], 0.6, True),
        ("both ways, longest silence, s", ways["longest_gap_s"], 1.0, False),
        ("... an answer beside it, worst, ms", ways["ping_worst_ms"], 100.0, False),
        ("... a stream of its own, p99, ms", ways["stream_p99_ms"], 100.0, False),
        ("idle connections, share of a core", found["idle"]["core_share"], 0.005, False),
    ]


def show(found: dict[str, Any]) -> bool:
    """The tables; whether every bound is reached."""
    print(f"{'stack':10} {'MB/s':>7} {'CPU s/GB send':>14} {'receive':>8}")
    for name, run in found["one_way"].items():
        print(
            f"{name:10} {run['mb_per_s']:7.0f} {run['send_cpu_s_per_gb']:14.2f}"
            f" {run['receive_cpu_s_per_gb']:8.2f}"
        )
    print(
        f"by CPU time alone: {found['times_libp2p_cpu']:.2f} x libp2p,"
        f" {found['share_of_tls_cpu']:.2f} of TLS"
    )
    ways = found["both_ways"]
    print(
        f"both ways at once: {ways['received_mb_per_s']:.0f} and {ways['sent_mb_per_s']:.0f} MB/s;"
        f" {ways['pings']} answers, median {ways['ping_median_ms']:.1f} ms, p99"
        f" {ways['ping_p99_ms']:.1f}; {ways['streams']} streams, median"
        f" {ways['stream_median_ms']:.1f} ms, worst {ways['stream_worst_ms']:.1f}"
    )
    reached = True
    for what, figure, bound, least in bounds(found):
        good = figure >= bound if least else figure <= bound
        reached &= good
        sign, mark = ("<=", ">=")[least], ("MISSED", "")[good]
        print(f"{what:36} {figure:8.3f} {sign} {bound:g} {mark}")
    return reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mb", type=int, default=256, help="how much each stack sends")
    parser.add_argument("--repeat", type=int, default=5, help="runs, of which the best counts")
    parser.add_argument("--seconds", type=float, default=60.0, help="of both ways, and of idling")
    parser.add_argument("--connections", type=int, default=50, help="idle ones")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    match options.child:
        case ["send", stack, port, size]:
            trio.run(send, stack, int(port), int(size))
        case ["both", port]:
            trio.run(pour_and_drain, int(port))
        case ["idle", port, own, count]:
            trio.run(dial_often, int(port), own, int(count))
        case _:
            found = measure(options.mb, options.repeat, options.seconds, options.connections)
            if options.json:
                print(json.dumps(found, indent=2))
            elif not show(found):
                sys.exit(1)


if __name__ == "__main__":
    main()
