"""Rate limits of [budget], measured on the sockets of real processes.

    python benches/rates.py [--cases sockets,member] [--seconds 60] [--quick] [--json]

sockets: a node with upload = 200 kB/s and download = 300 kB/s, from which three others draw whole
copies as fast as they can, and which draws from them. All they say goes through a proxy of our own
that counts bytes, and asks the kernel for segments, so that "on the wire" holds the headers of
IPv4 and TCP (MSS as over Ethernet). The figures are the fullest and the emptiest window of so many
seconds, as a share of the limit; beside them how long small talk took, and what was cut.
member: a testnet of three real members, one of them metered: do the others mix it, are all copies
equal at the end? Exit code 1 if a bound is missed.
"""

import argparse
import json
import os
import socket
import struct
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import trio

from benches.door import Door, Row, child, heard
from tapestry_p2p.cli.testnet.cluster import Cluster
from tapestry_p2p.cli.testnet.homes import prepare
from tapestry_p2p.cli.testnet.plan import make_plan
from tapestry_p2p.daemon.quantities import parse_rate
from tapestry_p2p.gossip.merkle import CHUNK_BYTES

UPLOAD, DOWNLOAD = 200_000.0, 300_000.0
WITHIN = 0.05  # of the limit, in a window of a minute; 1 chunk more or less in a shorter one
TALK_MS = 1000.0
DRAWERS = 3
MTU, HEADER_BYTES = 1500, 52  # Ethernet's; of IPv4 and TCP with time stamps
TALK_EVERY_S = 0.5
WARM_UP_S = 5.0  # connections come up; what was saved is spent
MORE_WINDOWS_S = 15.0
GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
TCP_INFO_COUNTS = struct.Struct("=120xQQII")  # bytes acked and received, segments out and in
NOBODY = "/ip4/127.0.0.1/tcp/1"  # announced by who is not to be dialled
MEMBER_UPLOAD = "60 kB/s"


@dataclass
class Proxy:
    """Passes on what peers and one node say; counts at the node's side.

    ``sent`` and ``received``: bytes that the node has given to its sockets, and was given.
    """

    target: int
    lost: int = 0
    _sent: int = 0  # by connections that are gone
    _received: int = 0
    _segments: int = 0
    _open: list[trio.SocketStream] = field(default_factory=list)

    async def serve(self, listener: trio.SocketListener) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self._pass, await listener.accept())

    def counts(self) -> tuple[int, int, int]:
        """(sent, segments sent, received) so far."""
        sent, received, segments = self._sent, self._received, self._segments
        for stream in self._open:
            more = _counts(stream)
            sent, segments, received = sent + more[0], segments + more[1], received + more[2]
        return sent, segments, received

    async def _pass(self, outer: trio.SocketStream) -> None:
        sock = trio.socket.socket()
        with suppress(*GONE), sock, outer.socket:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, MTU - 40)
            await sock.connect(("127.0.0.1", self.target))
            inner = trio.SocketStream(sock)
            self._open.append(inner)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_pump, inner, outer, nursery.cancel_scope)
                    nursery.start_soon(_pump, outer, inner, nursery.cancel_scope)
            finally:
                self._open.remove(inner)
                self.lost += 1
                sent, segments, received = _counts(inner)
                self._sent += sent
                self._segments += segments
                self._received += received


def _counts(inner: trio.SocketStream) -> tuple[int, int, int]:
    """(bytes, segments, bytes) that the node sent, sent, and received, says the kernel."""
    info = inner.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_COUNTS.size)
    acked, got, _, segments = TCP_INFO_COUNTS.unpack(info)
    return got, segments, acked


async def _pump(
    source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
) -> None:
    with suppress(*GONE):
        while data := await source.receive_some(1 << 16):
            await sink.send_all(data)
    scope.cancel()


# ---- the limits on the sockets -------------------------------------------------------------------


@asynccontextmanager
async def metered(upload: float, download: float) -> AsyncIterator[tuple[Door, Proxy, list[Any]]]:
    """A node with limits, its proxy, and what those who draw from it say each second."""
    said: list[Any] = []
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        limits = ("--upload", str(upload), "--download", str(download))
        hidden = ("--host", "0.0.0.0", "--bulk", "--talk", str(TALK_EVERY_S), "--announce")
        ours = ("member", f"{folder}/1", "1", *hidden, f"/ip4/127.0.0.1/tcp/{port}", *limits)
        async with trio.open_nursery() as nursery:
            with child(*ours) as process:
                door = Door(folder / "1", process, await heard(process))
                proxy = Proxy(door.port)
                nursery.start_soon(proxy.serve, listener)
                near = ("--near", f"/ip4/127.0.0.1/tcp/{port}/p2p/{door.id}")
                nursery.start_soon(_hear, process, [])
                for number in range(2, 2 + DRAWERS):
                    words = ("member", f"{folder}/{number}", str(number), *hidden, NOBODY, *near)
                    nursery.start_soon(_draw, words, said, door.id)
                yield door, proxy, said
                nursery.cancel_scope.cancel()


async def _draw(words: tuple[str, ...], said: list[Any], peer: str) -> None:
    with child(*words) as process:
        await heard(process)
        lines: list[dict[str, Any]] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_hear, process, lines)
            while True:
                await trio.sleep(0.2)
                while lines:
                    line = lines.pop(0)
                    said.append((peer in line["peers"], line["waits"].get(peer, [])))


async def _hear(process: Any, lines: list[dict[str, Any]]) -> None:
    while True:
        lines.append(await heard(process))


async def sockets(seconds: float) -> list[Row]:
    """The fullest and the emptiest window, of what was sent and received."""
    async with metered(UPLOAD, DOWNLOAD) as (_, proxy, said):
        with trio.fail_after(60):
            while len(proxy._open) < DRAWERS or proxy.counts()[0] < UPLOAD:
                await trio.sleep(0.1)
        await trio.sleep(WARM_UP_S)
        said.clear()
        lost = proxy.lost
        samples = []
        began = trio.current_time()
        end = began + seconds + min(seconds, MORE_WINDOWS_S)
        while trio.current_time() < end:
            samples.append((trio.current_time(), *proxy.counts()))
            await trio.sleep(0.25)
        waits = sorted(wait for _, each in said for wait in each)
        lost = proxy.lost - lost
    wire = [(at, sent + HEADER_BYTES * segments) for at, sent, segments, _ in samples]
    rows = []
    within = WITHIN + CHUNK_BYTES / DOWNLOAD * max(0.0, 1 / seconds - 1 / 60)
    for what, counted, limit in (
        ("sent, bytes of the sockets", [(at, sent) for at, sent, _, _ in samples], UPLOAD),
        ("sent, on the wire", wire, UPLOAD),
        ("received, bytes of the sockets", [(at, got) for at, _, _, got in samples], DOWNLOAD),
    ):
        shares = [rate / limit for rate in windows(counted, seconds)]
        rows += [
            Row("sockets", f"{what}: fullest window / limit", max(shares), 1 + within),
            Row("sockets", f"{what}: emptiest window / limit", min(shares), 1 - within, least=True),
        ]
    p99 = 1000 * waits[int(len(waits) * 0.99)] if waits else float("inf")
    return [
        *rows,
        Row("sockets", "small talk under the limit, p99, ms", p99, TALK_MS),
        Row("sockets", "connections lost", lost, 0),
    ]


def windows(counted: list[tuple[float, int]], seconds: float) -> list[float]:
    """Bytes per second of every window of so many seconds."""
    rates = []
    for start, before in counted:
        after = next(((at, n) for at, n in counted if at - start >= seconds), None)
        if after is not None:
            rates.append((after[1] - before) / (after[0] - start))
    return rates


# ---- a metered member takes part -----------------------------------------------------------------


def member(rounds: int, upload: str) -> list[Row]:
    """Three real members; the last one may send little."""
    with tempfile.TemporaryDirectory() as text:
        plan = make_plan(
            members=3,
            byzantine=0,
            tolerate=0,
            attack="mirror",
            data="udhr",
            languages="",
            split=1,
            rounds=rounds,
            inner_steps=10,
            rule="cs_plus",
            codec="2bit",
            model="tiny",
            seed=0,
            out=Path(text),
        )
        homes = prepare(plan, plan.rule, plan.out / "run").homes
        homes[-1].environment["TAPESTRY_BUDGET__UPLOAD"] = upload
        with Cluster(homes, plan.out / "members.json", lambda members: None) as cluster:
            cluster.wait_until_ready()
            cluster.wait_until_finished(1800.0)
            equal = cluster.wait_until_equal()
            for each in cluster.members:
                each.look()
            others = [each.status["mixed"]["authors"] for each in cluster.members[:-1]]
            slow = cluster.members[-1]
            mixing = sum(any(row["id"] == slow.home.peer_id for row in rows) for rows in others)
            sent = slow.status["bytes_sent"] / slow.status["uptime_s"]
            restarts = sum(each.restarts for each in cluster.members)
    what = f"upload = {upload}"
    return [
        Row("member", f"{what}: others that mix it", mixing, len(homes) - 1, least=True),
        Row("member", "copies equal at the end", sum(equal.values()), len(homes), least=True),
        Row("member", "its rounds", slow.status["round"], rounds, least=True),
        Row(
            "member",
            "it sent, kB/s over its life",
            sent / 1000,
            (1 + WITHIN) * parse_rate(upload) / 1000,
        ),
        Row("member", "nodes started again", restarts, 0),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", default="sockets,member")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--quick", action="store_true", help="seconds, for its test")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows: list[Row] = []
    for case in options.cases.split(","):
        if case == "sockets":
            rows += trio.run(sockets, 5.0 if options.quick else options.seconds)
        elif case == "member":
            rows += member(6 if options.quick else 40, MEMBER_UPLOAD)
        else:
            parser.error(f"--cases: sockets, member, not {case}")
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        for row in rows:
            sign = ">=" if row.least else "<="
            verdict = "" if row.reached else "   MISSED"
            print(f"{row.case:8} {row.what:58} {row.figure:10.3f} {sign} {row.bound:8.3f}{verdict}")
    return 0 if all(row.reached for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
