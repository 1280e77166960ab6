"""Does the relay (circuit v2) of the installed libp2p do what a member needs? Prints what it did.

    python benches/wide_relay.py [--close]

Three hosts of the library's own, in one process: one may relay, one has a reservation, one dials it
through the relay and opens stream after stream on that connection, as a member does (hello, sync,
fetch, ping); with ``--close`` each stream is closed before the next. Exit code 1 if not every one
was answered. docs/decisions/0013-reach.md draws the conclusion; no member uses this.
"""

import logging
import os
import sys
import time
from importlib.metadata import version
from typing import Any

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.relay.circuit_v2.config import RelayConfig, RelayRole
from libp2p.relay.circuit_v2.protocol import PROTOCOL_ID, CircuitV2Protocol
from libp2p.relay.circuit_v2.resources import RelayLimits
from libp2p.relay.circuit_v2.transport import CircuitV2Transport
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

LIMITS = RelayLimits(duration=3600, data=1 << 30, max_circuit_conns=8, max_reservations=8)
ANYWHERE = Multiaddr("/ip4/127.0.0.1/tcp/0")
ECHO: Any = "/echo"
SIZES = (1_000_000, 1_000, 1_000, 1_000)
DEADLINE_S, WRITE_BYTES = 15.0, 65_507
CLOSES = "--close" in sys.argv[1:]


def host() -> Any:
    """A host with Noise and the library's muxer."""
    pair = create_new_key_pair()
    noise = Noise(pair, noise_privkey=create_noise_key().private_key)
    return new_host(key_pair=pair, sec_opt={NOISE: noise})


async def answer(stream: Any) -> None:
    """Say one byte for the first chunk that ends in a full stop."""
    while data := await stream.read(WRITE_BYTES):
        if data.endswith(b"."):
            await stream.write(b"!")
    await stream.close()


async def ask(source: Any, target: Any, size: int, closes: bool) -> float:
    """Seconds until one stream that carries so many bytes is answered; it is then left open."""
    began = time.monotonic()
    with trio.fail_after(DEADLINE_S):
        stream = await source.new_stream(target.get_id(), [ECHO])
        for start in range(0, size, WRITE_BYTES):
            left = min(WRITE_BYTES, size - start)
            await stream.write(b"x" * (left - 1) + (b"." if start + left == size else b"x"))
        await stream.read(1)
        if closes:
            await stream.close()
    return time.monotonic() - began


async def through(relay: Any, hidden: Any, caller: Any, nursery: trio.Nursery) -> int:
    """Reserve, dial, open streams; how many were answered."""
    circuits, answered = {}, 0
    for one in (relay, hidden, caller):
        own = RelayRole.STOP | RelayRole.CLIENT | (RelayRole.HOP if one is relay else RelayRole(0))
        protocol = CircuitV2Protocol(one, LIMITS, allow_hop=one is relay)
        circuits[one] = CircuitV2Transport(one, protocol, RelayConfig(roles=own, limits=LIMITS))
        await nursery.start(_serve, protocol)
    where = relay.get_addrs()[0]
    for one in (hidden, caller):
        await one.connect(info_from_p2p_addr(where))
    await trio.sleep(0.5)
    stream = await hidden.new_stream(relay.get_id(), [PROTOCOL_ID])
    print("reservation:", await circuits[hidden].reserve(stream, relay.get_id(), nursery))
    hidden.set_stream_handler(ECHO, answer)
    began = time.monotonic()
    await circuits[caller].dial(Multiaddr(f"{where}/p2p-circuit/p2p/{hidden.get_id()}"))
    print(f"dialled through the relay in {time.monotonic() - began:.2f} s")
    for number, size in enumerate(SIZES, 1):
        try:
            took = await ask(caller, hidden, size, CLOSES)
            print(f"stream {number}: {size:,} bytes in {took:.2f} s")
            answered += 1
        except Exception as error:  # whatever the library raises is what we came to see
            cause = error.__cause__ or error
            print(f"stream {number}: {type(error).__name__}: {type(cause).__name__}: {cause}")
    return answered


async def _serve(protocol: CircuitV2Protocol, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
    async with background_trio_service(protocol):
        task_status.started()
        await trio.sleep_forever()


async def measure() -> int:
    """Three hosts; how many streams were answered."""
    relay, hidden, caller = host(), host(), host()
    async with (
        relay.run([ANYWHERE]),
        hidden.run([ANYWHERE]),
        caller.run([ANYWHERE]),
        trio.open_nursery() as nursery,
    ):
        answered = await through(relay, hidden, caller, nursery)
        print(f"libp2p {version('libp2p')}: {answered} of {len(SIZES)} streams answered")
        sys.stdout.flush()
        os._exit(0 if answered == len(SIZES) else 1)  # its services do not end by themselves


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    trio.run(measure)
