"""A member's door under load, in real processes: who gets in, how soon, and what stays behind.

    python benches/door.py [--cases reconnects,idle,offers,stopped] [--quick] [--json]

reconnects: one identity connects and leaves 10,000 times. idle: 5,000 sockets from fifty addresses
in ten network namespaces say nothing, and come again when cut (needs root and `ip netns`, else it
is skipped). All that time an honest member connects and fetches the manifest; the table has its
99th percentile, and how soon sockets and tasks are as before. offers: every other security and
muxer is offered, and a forged identity. stopped: of three members that draw from each other all
the time one gets SIGSTOP for 60 s. Exit code 1 if a bound is missed. Run it on a quiet machine.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import trio

from benches.door_member import manifest, seed_of
from benches.door_offers import answers, forge
from benches.hostile import yield_processor
from tapestry_p2p.daemon.address import Address
from tapestry_p2p.daemon.ask import ask
from tapestry_p2p.daemon.silent import Silent
from tapestry_p2p.daemon.transport import (
    PING_DEADLINE_S,
    PING_EVERY_S,
    Transport,
    TransportError,
)
from tapestry_p2p.errors import TapestryError
from tapestry_p2p.gossip.fetch import ManifestRequest, encode_request
from tapestry_p2p.gossip.identity import public_key_of

PROGRAM = str(Path(__file__).with_name("door_member.py"))
HONEST_P99_S, BACK_S, TALK_MS, GROWTH_MB = 1.0, 1.0, 100.0, 5.0
VISITS_MIN = 10  # under each load
VISIT_EVERY_S = 0.1
LOOK_S = 0.2  # how late we may see what a status says
NAMESPACES, ADDRESSES_EACH = 10, 5
SUBNET = "10.203"
RETURN_S = 30.0  # protocol settings: a dial that failed is tried again after so long at most


@dataclass(frozen=True)
class Size:
    """How much of everything; ``quick`` is for the test of this bench."""

    reconnects: int = 10_000
    idle: int = 5_000
    idle_s: float = 30.0
    stop_s: float = 60.0
    ping: tuple[float, float] = (PING_EVERY_S, PING_DEADLINE_S)
    warm_up: int = 300  # visits before anything is measured: caches, free lists


QUICK = Size(reconnects=40, idle=200, idle_s=2.0, stop_s=3.0, ping=(0.3, 1.0), warm_up=10)


@dataclass
class Row:
    """One figure and its bound: at most, or with ``least`` at least."""

    case: str
    what: str
    figure: float
    bound: float
    least: bool = False
    reached: bool = field(init=False)

    def __post_init__(self) -> None:
        self.reached = self.figure >= self.bound if self.least else self.figure <= self.bound


class SkippedError(Exception):
    """This machine cannot do it; why."""


# ---- processes -----------------------------------------------------------------------------------


@contextmanager
def child(*words: str, namespace: str = "", nice: int = 0) -> Iterator["subprocess.Popen[str]"]:
    """A process of door_member.py; it is gone when the block ends."""
    command = ["nice", "-n", str(nice), sys.executable, PROGRAM, *words]
    if namespace:
        command = ["ip", "netns", "exec", namespace, *command]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    if nice:
        yield_processor(process.pid)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


async def heard(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """The next line that a process says."""
    assert process.stdout is not None
    line = await trio.to_thread.run_sync(process.stdout.readline, abandon_on_cancel=True)
    if not line:
        raise RuntimeError(f"{process.args!r} ended")
    return dict(json.loads(line))


class Door:
    """A running member: where it listens, and what it says of itself."""

    def __init__(
        self, folder: Path, process: "subprocess.Popen[str]", told: dict[str, Any]
    ) -> None:
        self.process, self.id = process, str(told["id"])
        self.key = public_key_of(self.id)
        self.port = int(told["port"])
        self._socket = folder / "control.sock"

    def address(self, host: str = "127.0.0.1") -> Address:
        """Where it listens, with its id."""
        return Address("ip4", host, self.port, self.id)

    async def asks(self, verb: str) -> dict[str, Any]:
        """What it answers over its control socket."""
        return await trio.to_thread.run_sync(ask, self._socket, {"do": verb}, 10.0)

    async def held(self) -> tuple[int, int]:
        """Sockets that others opened to it, and its tasks."""
        status = await self.asks("status")
        return int(status["sockets"]), int(status["tasks"])

    async def holds_at_most(self, before: tuple[int, int]) -> bool:
        """Whether no more sockets and tasks are there than were before."""
        return all(now <= then for now, then in zip(await self.held(), before, strict=True))


@asynccontextmanager
async def door(number: int, *words: str) -> AsyncIterator[Door]:
    """A member's process, once it listens."""
    with (
        tempfile.TemporaryDirectory() as folder,
        child("member", folder, str(number), *words) as process,
    ):
        yield Door(Path(folder), process, await heard(process))


# ---- an honest member ----------------------------------------------------------------------------


class Visitor:
    """Connects and fetches the manifest, again and again; how long each visit took."""

    def __init__(self, at: Door, address: Address) -> None:
        self._door, self._address = at, address
        self._transport = Transport(seed_of(100), Silent())
        self._request = encode_request(ManifestRequest(manifest().network_id))
        self.waits: list[float] = []
        self.failed = 0
        self.pause_s = 0.0

    async def run(self) -> None:
        """Visits until cancelled; a visit that fails goes on until one succeeds."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._transport.serve)
            while True:
                began = trio.current_time()
                while not await self._visit():
                    self.failed += 1
                self.waits.append(trio.current_time() - began)
                await trio.sleep(self.pause_s)

    async def _visit(self) -> bool:
        if not await self._transport.dial(self._door.key, [self._address]):
            return False
        connection = self._transport.connections[self._door.key]
        try:
            head, body = await connection.fetch(self._request, 1 << 16)
        except TransportError:
            return False
        connection.abort("seen")
        await connection.closed.wait()
        return bool(head and body)

    def rows(self, case: str) -> list[Row]:
        """What it saw."""
        waits = sorted(self.waits)
        p99 = waits[min(len(waits) - 1, int(len(waits) * 0.99))]
        return [
            Row(case, "honest visits", len(waits), VISITS_MIN, least=True),
            Row(case, "... of which failed at first", self.failed, len(waits) // 100),
            Row(case, "honest visit, p99, s", p99, HONEST_P99_S),
        ]


async def under(
    case: str, at: Door, address: Address, load: Callable[[], Awaitable[list[Row]]], warm_up: int
) -> list[Row]:
    """A load, with an honest visitor beside it: its figures, and what is left afterwards."""
    before = await at.held()
    visitor = Visitor(at, address)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(visitor.run)
        while len(visitor.waits) < warm_up:
            await trio.sleep(0.05)
        visitor.pause_s = VISIT_EVERY_S
        grown = (await at.asks("status"))["node_rss_mb"]
        visitor.waits.clear()
        rows = await load()
        while len(visitor.waits) < VISITS_MIN:  # a quick machine is through before it is seen
            rows = await load()
        nursery.cancel_scope.cancel()
    began = trio.current_time()
    while not await at.holds_at_most(before) and trio.current_time() - began < 20:
        await trio.sleep(0.05)
    back = trio.current_time() - began
    grown = (await at.asks("status"))["node_rss_mb"] - grown
    return [
        *rows,
        *visitor.rows(case),
        Row(case, "sockets and tasks as before, after s", back, BACK_S),
        Row(case, "grown by MB", grown, GROWTH_MB),
    ]


# ---- the cases -----------------------------------------------------------------------------------


async def reconnects(size: Size) -> list[Row]:
    """One identity comes and goes."""
    async with door(1) as ours:

        async def load() -> list[Row]:
            with child("reconnect", str(ours.address()), str(size.reconnects)) as process:
                told = await heard(process)
            accepted = told.get("connected", 0)
            return [Row("reconnects", "accepted", accepted, size.reconnects, least=True)]

        return await under("reconnects", ours, ours.address(), load, size.warm_up)


async def idle(size: Size) -> list[Row]:
    """Sockets that say nothing, from many addresses."""
    with namespaces() as places:
        async with door(1, "--host", "0.0.0.0") as ours:
            address = ours.address(f"{SUBNET}.0.1")

            async def load() -> list[Row]:
                async with flood(address, size.idle, places) as tallies:
                    most = 0
                    began = trio.current_time()
                    while trio.current_time() - began < size.idle_s:
                        most = max(most, (await ours.held())[0])
                        await trio.sleep(0.2)
                opened = sum(tally.get("opened", 0) for tally in tallies)
                return [
                    Row("idle", "sockets opened", opened, size.idle, least=True),
                    Row("idle", "held at most", most, 40),
                ]

            return await under("idle", ours, address, load, size.warm_up)


@asynccontextmanager
async def flood(
    address: Address, count: int, places: dict[str, list[str]]
) -> AsyncIterator[list[dict[str, int]]]:
    """Idle sockets from every namespace; afterwards what each did."""
    tallies: list[dict[str, int]] = []
    each = str(-(-count // len(places)))
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                child("idle", str(address), each, ",".join(sources), namespace=place, nice=19)
            )
            for place, sources in places.items()
        ]
        for process in processes:
            await heard(process)
        yield tallies
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
            process.stdin = None
            tallies.append(await heard(process))


@contextmanager
def namespaces() -> Iterator[dict[str, list[str]]]:
    """Network namespaces on one bridge, each with some addresses; all are gone afterwards."""
    bridge = f"door{os.getpid() % 100_000}"
    places: dict[str, list[str]] = {}
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("addr", "add", f"{SUBNET}.0.1/16", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for number in range(1, NAMESPACES + 1):
            place, outer, inner = f"{bridge}-{number}", f"{bridge}o{number}", "eth0"
            _ip("netns", "add", place)
            places[place] = [f"{SUBNET}.{number}.{n}" for n in range(1, ADDRESSES_EACH + 1)]
            _ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", place)
            _ip("link", "set", outer, "master", bridge, "up")
            for source in places[place]:
                _ip("-n", place, "addr", "add", f"{source}/16", "dev", inner)
            _ip("-n", place, "link", "set", inner, "up")
        yield places
    finally:
        for place in places:
            subprocess.run(["ip", "netns", "del", place], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", bridge], check=False, capture_output=True)


def _ip(*words: str) -> None:
    try:
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", "") or str(error)
        raise SkippedError(f"network namespaces are refused here: {why.strip()}") from error


async def offers(size: Size) -> list[Row]:
    """Every other security and muxer, and a forged identity."""
    async with door(1) as ours, door(2, "--near", str(ours.address())) as victim:
        while victim.id not in await connected(ours):
            await trio.sleep(0.05)
        victim.process.kill()
        while victim.id in await connected(ours):
            await trio.sleep(0.05)
        refused = await answers("127.0.0.1", ours.port, ours.key)
        rows = [
            Row("offers", f"{offer} answered na", float(answer == "na"), 1, least=True)
            for offer, answer in refused.items()
        ]
        forged = 0
        for way in forge(ours.port, ours.key, victim.key):
            with suppress(Exception), trio.move_on_after(5):  # whatever libp2p says to a liar
                await way()
            forged += victim.id in await connected(ours)
        return [*rows, Row("offers", "forged identity in peers", forged, 0)]


async def connected(at: Door) -> list[str]:
    """Ids of the peers that a member says it is connected to."""
    return [row["id"] for row in (await at.asks("peers"))["peers"] if row["connected"]]


async def stopped(size: Size) -> list[Row]:
    """Three members draw from each other; one is stopped, and goes on."""
    ping = ("--bulk", "--ping", *map(str, size.ping))
    async with (
        door(1, *ping) as ours,
        door(2, *ping, "--near", str(ours.address())) as frozen,
        door(3, *ping, "--near", str(ours.address())) as third,
    ):
        watch = Watch(ours, frozen.id, third.id)
        async with trio.open_nursery() as nursery:
            for other in (frozen, third):
                nursery.start_soon(drain, other.process)
            nursery.start_soon(watch.run)
            await watch.until(lambda: {frozen.id, third.id} <= set(watch.got))
            before = await watch.rate(size.stop_s / 4)
            frozen.process.send_signal(signal.SIGSTOP)
            at = trio.current_time()
            await watch.until(lambda: frozen.id not in watch.peers, size.stop_s)
            noticed = trio.current_time() - at
            during = await watch.rate(max(1.0, size.stop_s - noticed))
            worst, slowest = max(watch.waits), watch.slowest
            frozen.process.send_signal(signal.SIGCONT)
            at = trio.current_time()
            drawn = watch.got[frozen.id]
            await watch.until(lambda: watch.got[frozen.id] > drawn, 2 * RETURN_S)
            returned = trio.current_time() - at
            nursery.cancel_scope.cancel()
    waits = sorted(watch.waits)
    return [
        Row("stopped", "noticed and cut after s", noticed, sum(size.ping) + LOOK_S),
        Row("stopped", "MB/s from the third before", before / 1e6, 0, least=True),
        Row("stopped", "... and while one is stopped", during / before, 0.9, least=True),
        Row("stopped", "small talk, p99, ms", 1000 * waits[int(len(waits) * 0.99)], TALK_MS),
        Row("stopped", "small talk, worst, ms", 1000 * worst, 1000),
        Row("stopped", "control socket, slowest, s", slowest, 1.0),
        Row("stopped", "back by itself after s", returned, RETURN_S),
    ]


async def drain(process: "subprocess.Popen[str]") -> None:
    """Hear what nobody wants to know."""
    while True:
        await heard(process)


class Watch:
    """What one member says of its peers, every second, and how soon its control socket answers."""

    def __init__(self, at: Door, frozen: str, third: str) -> None:
        self._door, self._frozen, self._third = at, frozen, third
        self.peers: list[str] = []
        self.got: dict[str, int] = {}
        self.waits: list[float] = []
        self.slowest = 0.0
        self._told = 0

    async def run(self) -> None:
        """Listens until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask)
            while True:
                told = await heard(self._door.process)
                self.got.update(told["got"])
                self._told += 1
                self.waits += told["waits"].get(self._third, [])

    async def _ask(self) -> None:
        while True:
            began = time.monotonic()
            self.peers = await connected(self._door)
            self.slowest = max(self.slowest, time.monotonic() - began)
            await trio.sleep(LOOK_S / 2)

    async def until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait for it; RuntimeError if it does not come in time."""
        with trio.move_on_after(seconds) as scope:
            while not condition():
                await trio.sleep(0.02)
        if scope.cancelled_caught:
            raise RuntimeError(f"waited {seconds:.0f} s in vain")

    async def rate(self, seconds: float) -> float:
        """Bytes per second from the third, from one report to another, about so far apart."""
        first = await self._report()
        await trio.sleep(seconds)
        last = await self._report()
        return (last[1] - first[1]) / (last[0] - first[0])

    async def _report(self) -> tuple[float, int]:
        """When the next report came, and what the third had given by then."""
        told = self._told
        await self.until(lambda: self._told > told)
        return trio.current_time(), self.got[self._third]


CASES: dict[str, Callable[[Size], Awaitable[list[Row]]]] = {
    "reconnects": reconnects,
    "idle": idle,
    "offers": offers,
    "stopped": stopped,
}


def measure(names: list[str], size: Size) -> dict[str, Any]:
    """All rows; what was skipped and why."""
    rows: list[Row] = []
    skipped: dict[str, str] = {}
    for name in names:
        try:
            rows += trio.run(CASES[name], size)
        except SkippedError as error:
            skipped[name] = str(error)
    return {"rows": [asdict(row) for row in rows], "skipped": skipped}


def show(found: dict[str, Any]) -> None:
    """The table."""
    for row in found["rows"]:
        sign, mark = ("<=", ">=")[row["least"]], ("MISSED", "")[row["reached"]]
        print(
            f"{row['case']:11} {row['what']:42} {row['figure']:10.3f}"
            f" {sign} {row['bound']:g} {mark}"
        )
    for case, why in found["skipped"].items():
        print(f"{case:11} SKIPPED: {why}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default=",".join(CASES), help="names, by commas")
    parser.add_argument("--quick", action="store_true", help="a small run, for the test")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    names = options.cases.split(",")
    unknown = [name for name in names if name not in CASES]
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    try:
        found = measure(names, QUICK if options.quick else Size())
    except TapestryError as error:
        sys.exit(error.message)
    print(json.dumps(found, indent=2)) if options.json else show(found)
    sys.exit(0 if all(row["reached"] for row in found["rows"]) else 1)


if __name__ == "__main__":
    main()
