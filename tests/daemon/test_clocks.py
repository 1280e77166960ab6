"""Clocks that jump and machines that sleep: no deadline of ours is taken in by either."""

import ast
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from daemon_kit import Author, in_trio, make_manifest, make_node, vector

from tapestry_p2p.daemon.awake import GAP_S, Awake
from tapestry_p2p.daemon.node import Node
from tapestry_p2p.daemon.store import Store
from tapestry_p2p.gossip import events as ev
from tapestry_p2p.gossip.header import PROFILE, decode_signed
from tapestry_p2p.gossip.messages import HELLO, SYNC, Hello, Members, encode_hello, encode_sync
from tapestry_p2p.gossip.profile import Profile, encode_profile

MANIFEST = make_manifest(vector())
PACKAGE = Path(__file__).parents[2] / "tapestry_p2p"
HOURS_3 = 3 * 3600.0
WALL = ("time.time", "time.localtime", "time.gmtime", "datetime.now", "datetime.utcnow")
# who may look at the wall clock, and what for
MAY = {
    "daemon/node.py": "dates in the audit log",
    "daemon/pauses.py": "[budget] hours",
    "daemon/machine.py": "doctor tells what it says",
}


# ---- the wall clock ------------------------------------------------------------------------------


def wall_clocks(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in WALL:
            yield ast.unparse(node.func)


def test_nothing_that_decides_looks_at_the_wall_clock() -> None:
    rooms = [PACKAGE / room for room in ("daemon", "gossip", "mix", "learn")]
    files = [path for room in rooms for path in room.rglob("*.py")]
    found = {
        str(path.relative_to(PACKAGE)): uses
        for path in files
        if (uses := list(wall_clocks(path.read_text())))
    }
    assert set(MAY) <= set(found)
    told = {place for place in found if place in MAY or "log" in place or "metrics" in place}
    assert set(found) == told, found
    assert found["daemon/node.py"] == ["time.time"] * 2, "for the audit log, and nothing else"


@in_trio
async def test_a_clock_that_jumps_by_a_day_changes_no_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes do the same rounds, one of them under a mad wall clock: the same headers come."""
    made = []
    for name in ("calm", "mad"):
        if name == "mad":
            monkeypatch.setattr(time, "time", mad_clock(itertools.count()))
        store = Store(tmp_path / name, MANIFEST.streams.ring)
        async with trio.open_nursery() as nursery:
            node = make_node(MANIFEST, store)
            await nursery.start(node.run)
            node.copies.set_genesis(vector())
            await node.rounds.settle_stream()
            for round_ in range(1, 4):
                await publish(node, round_)
            node.stop()
        state = store.load_own()
        store.close()
        assert state is not None
        headers = [decode_signed(entry.signed).header for entry in state.entries]
        made.append([(h.kind, h.round, h.root) for h in headers if h.kind != PROFILE])
    assert made[0] == made[1]
    assert len(made[0]) == 4, "genesis and three rounds; when a profile comes the ticks decide"


def mad_clock(looks: Iterator[int]) -> Callable[[], float]:
    """A day forward, then two back, and so on."""
    return lambda: 1.7e9 + 86_400.0 * (-1) ** (n := next(looks)) * n


async def publish(node: Node, round_: int) -> None:
    loom = node.rounds.loom
    assert loom is not None
    async with node.rounds.speaking:
        y = loom.latest + vector(scale=0.01)
        difference = loom.difference(y)
        await node.rounds.publish_difference(difference, round_, 0)
        loom.published(difference, y)


# ---- sleep ---------------------------------------------------------------------------------------


def test_awake_time_leaves_out_what_was_slept_and_never_goes_back() -> None:
    awake = Awake()
    shown = []
    now = 100.0
    for step in (0.25, 0.25, 2.0, HOURS_3, 0.25, 0.25, 60.0, 0.25):
        before = now
        now += step
        assert awake.look(now) == (step > GAP_S)
        shown.append(awake.at(now))
        assert awake.at(before) == shown[-1], "what was sent before the sleep is not in the past"
    assert shown == sorted(shown)
    assert shown[-1] - 100.0 == pytest.approx(0.25 + 0.25 + 2.0 + 0.25 + 0.25 + 0.25)


@in_trio
async def test_three_hours_of_sleep_end_no_membership(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whom a connected peer told us of before is a member after it, not one who fell silent."""
    peer, other = (Author(n, network=MANIFEST.network_id).genesis() for n in (2, 3))
    other.write("profile", encode_profile(Profile("Other", (), ("/ip4/192.0.2.7/tcp/4001",))))
    store = Store(tmp_path, MANIFEST.streams.ring)
    slept = [0.0]
    real = trio.current_time
    monkeypatch.setattr(trio, "current_time", lambda: real() + slept[0])
    async with trio.open_nursery() as nursery:
        node = make_node(MANIFEST, store)
        await nursery.start(node.run)
        await node.act(ev.Connected(peer.key, trio.current_time(), "/ip4/192.0.2.7/tcp/4001"))
        hello = encode_hello(Hello(MANIFEST.network_id, 1, (peer.signed[-1],), (), False))
        await node.act(ev.Message(peer.key, HELLO, hello, trio.current_time()))
        told = encode_sync(Members(((other.signed[-1], bytes(other.entries[-1].payload)),)))
        await node.act(ev.Message(peer.key, SYNC, told, trio.current_time()))
        assert other.key in node.protocol.members()
        slept[0] = HOURS_3
        await node.act(ev.Tick(trio.current_time()))
        assert node.awake.slept_s == pytest.approx(HOURS_3, abs=5)
        assert other.key in node.protocol.members()
        node.awake.slept_s = 0.0  # without it, the same sleep ends the membership
        await node.act(ev.Tick(trio.current_time()))
        assert other.key not in node.protocol.members()
        node.stop()
    store.close()
