"""Bytes between two processes: our wire beside bare libp2p, TLS and TCP, in one run.

    python benches/wire.py [--mb 256] [--repeat 3] [--both-s 10] [--idle-s 10] [--json]

Each stack sends so many MB from a child process to this one over the loopback; best of several
runs, because a busy machine only ever slows one down. ``tapestry`` is what members speak: Noise's
handshake, our records and Yamux. ``libp2p`` is the same wire by the library's own records and
Yamux (writes of 65,507 bytes, its best), ``TLS`` is trio's over OpenSSL, TLS 1.3. Then, on our wire
alone: bulk both ways at once with a ping beside it, and 50 connections that nobody uses.
"""

import argparse
import datetime
import json
import os
import resource
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
from tapestry_p2p.daemon.sealed import SealedSocket
from tapestry_p2p.daemon.transport import TapStream, Traffic, Transport
from tapestry_p2p.daemon.yamux import Mux

LIBRARY_WRITE = 65_507  # with a Yamux header exactly one Noise message
WRITE, READ = 65_536, 1 << 20
SEEDS = bytes([1]) * 32, bytes([2]) * 32
MB = 1_000_000
START_S = 60.0


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
    async with muxed(stream, dialled) as mux:
        talk = await (mux.open_stream() if dialled else mux.accept_stream())
        yield Pipe(talk.write, talk.read)


@asynccontextmanager
async def muxed(stream: trio.SocketStream, dialled: bool) -> AsyncIterator[Mux]:
    raw, secure = await _noise(stream, dialled)
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
    """Bulk both ways and an echo, until the other end goes."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with muxed(stream, True) as mux, trio.open_nursery() as nursery:
        nursery.start_soon(pour, await mux.open_stream())
        nursery.start_soon(drain, await mux.accept_stream(), [0])
        echo = await mux.accept_stream()
        while data := await echo.read():
            await echo.write(data)


async def pour(stream: Any) -> None:
    block = os.urandom(1 << 20)
    while True:
        await stream.write(block)


async def drain(stream: Any, count: list[int]) -> None:
    while data := await stream.read():
        count[0] += len(data)


class Quiet:
    """Handlers of a transport that nobody talks to."""

    async def connected(self, peer: bytes, address: str) -> None: ...
    async def disconnected(self, peer: bytes) -> None: ...
    async def message(self, peer: bytes, channel: str, data: bytes) -> None: ...
    async def serve(self, peer: bytes, request: bytes) -> tuple[bytes, bytes]:
        return b"", b""


async def dial_often(port: int, own: str, count: int) -> None:
    """``count`` identities that connect and say nothing but pings."""
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            transport = Transport(os.urandom(32), Quiet())
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
    """Bulk both ways; how long a ping beside it takes."""
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    child = spawn("both", str(listener.socket.getsockname()[1]))
    waits: list[float] = []
    count = [0]
    try:
        async with muxed(await accepted(listener), False) as mux, trio.open_nursery() as nursery:
            bulk, sink = await mux.open_stream(), await mux.accept_stream()
            nursery.start_soon(pour, bulk)
            nursery.start_soon(drain, sink, count)
            echo = await mux.open_stream()
            began = trio.current_time()
            while trio.current_time() - began < seconds:
                asked = trio.current_time()
                await echo.write(b"ping")
                await echo.read_exactly(4)
                waits.append(trio.current_time() - asked)
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    finally:
        child.kill()
        child.wait()
        await listener.aclose()
    waits.sort()
    return {
        "received_mb_per_s": count[0] / MB / seconds,
        "pings": len(waits),
        "ping_median_ms": 1000 * waits[len(waits) // 2],
        "ping_p99_ms": 1000 * waits[int(len(waits) * 0.99)],
        "ping_worst_ms": 1000 * waits[-1],
    }


async def idle(seconds: float, count: int) -> dict[str, float]:
    """What ``count`` connections cost that only ping."""
    ours = Transport(SEEDS[0], Quiet())
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


def measure(mb: int, repeat: int, both_s: float, idle_s: float, connections: int) -> dict[str, Any]:
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
    ours = best["tapestry"]["mb_per_s"]
    return {
        "mb": size / MB,
        "one_way": best,
        "times_libp2p": ours / best["libp2p"]["mb_per_s"],
        "share_of_tls": ours / best["TLS"]["mb_per_s"],
        "both_ways": trio.run(both_ways, both_s),
        "idle": trio.run(idle, idle_s, connections),
    }


def show(found: dict[str, Any]) -> None:
    """The table."""
    print(f"{'stack':10} {'MB/s':>7} {'CPU s/GB send':>14} {'receive':>8}")
    for name, run in found["one_way"].items():
        print(
            f"{name:10} {run['mb_per_s']:7.0f} {run['send_cpu_s_per_gb']:14.2f}"
            f" {run['receive_cpu_s_per_gb']:8.2f}"
        )
    print(f"tapestry is {found['times_libp2p']:.2f} x libp2p (bound 2)")
    print(f"tapestry is {found['share_of_tls']:.2f} of TLS (bound .60)")
    ways, rest = found["both_ways"], found["idle"]
    print(
        f"both ways at once: {ways['received_mb_per_s']:.0f} MB/s each way; ping"
        f" {ways['ping_median_ms']:.1f} ms, p99 {ways['ping_p99_ms']:.1f},"
        f" worst {ways['ping_worst_ms']:.1f} of {ways['pings']} (bound 100)"
    )
    print(
        f"{rest['connections']} idle connections: {100 * rest['core_share']:.2f} % of a core (.5)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mb", type=int, default=256, help="how much each stack sends")
    parser.add_argument("--repeat", type=int, default=3, help="runs, of which the best counts")
    parser.add_argument("--both-s", type=float, default=10.0, help="seconds of bulk both ways")
    parser.add_argument("--idle-s", type=float, default=10.0, help="seconds of idling")
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
            found = measure(
                options.mb, options.repeat, options.both_s, options.idle_s, options.connections
            )
            print(json.dumps(found, indent=2)) if options.json else show(found)


if __name__ == "__main__":
    main()
