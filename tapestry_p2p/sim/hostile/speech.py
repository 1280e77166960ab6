"""Hostility in well-formed frames: lies about others, replays, floods, many names.

A program attacks one victim until it is cancelled and counts in its stranger's tally.
"""

import os
from collections import Counter
from dataclasses import replace

import trio

from tapestry_p2p.gossip.header import SignedHeader
from tapestry_p2p.gossip.identity import Identity
from tapestry_p2p.gossip.messages import SYNC, Digest, Members, Row, encode_sync
from tapestry_p2p.gossip.profile import Profile, encode_profile
from tapestry_p2p.sim.hostile.stranger import SOURCE, Stranger, Victim

BATCH = 20
SWARM = 30
PACE_S = 0.02


async def bad_signature_flood(victim: Victim, tally: Counter[str]) -> None:
    """Entries in others' names that nobody signed: few are verified, then the peer is barred."""
    async with Stranger(network=victim.network, tally=tally).running() as stranger:
        stranger.begin(victim.manifest)
        while True:
            await stranger.reach(victim)
            stranger.show(victim.key, *(_forged(stranger) for _ in range(BATCH)))
            await trio.sleep(PACE_S)


def _forged(stranger: Stranger) -> SignedHeader:
    header = replace(stranger.log[0].header, author=Identity(os.urandom(32)).public_key)
    return SignedHeader(header, os.urandom(64))


async def replayer(victim: Victim, tally: Counter[str]) -> None:
    """What the victim has long heard, again and again: ignored, no state grows."""
    async with Stranger(network=victim.network, tally=tally).running() as stranger:
        stranger.begin(victim.manifest)
        while True:
            await stranger.reach(victim)
            known = [signed for log in stranger.heard.values() for signed in log.values()]
            for start in range(0, len(known), BATCH):
                stranger.show(victim.key, *known[start : start + BATCH])
            await trio.sleep(PACE_S)


async def stale_sender(victim: Victim, tally: Counter[str]) -> None:
    """Only the oldest entry of everybody, for ever: ignored."""
    async with Stranger(network=victim.network, tally=tally).running() as stranger:
        stranger.begin(victim.manifest)
        while True:
            await stranger.reach(victim)
            oldest = [log[min(log)] for log in stranger.heard.values()]
            stranger.show(victim.key, *oldest[:BATCH], stranger.log[0])
            await trio.sleep(PACE_S)


async def bombs(victim: Victim, tally: Counter[str]) -> None:
    """Frames that unpack into much: nested, wide, full of empty maps."""
    tail = b"\xa1t\xa5heads"
    frames = [
        b"\x82\xa5heads\xdc\xea\x60" + b"\x80" * 60_000 + tail,  # a list of 60,000 empty maps
        b"\x82\xa5heads" + b"\x91" * 60_000 + b"\x00" + tail,  # lists in lists
        b"\x80" * 65_000,
        b"\x91" * 65_000,
        b"\xdc\xff\xff" + b"\x80" * 65_000,
        b"\xdf\xff\xff\xff\xff" + b"\xa1a\x00" * 20_000,
    ]
    async with Stranger(network=victim.network, tally=tally).running() as stranger:
        while True:
            await stranger.reach(victim)
            for frame in frames:
                stranger.say(victim.key, SYNC, frame)
            await trio.sleep(PACE_S)


async def table_poisoner(victim: Victim, tally: Counter[str]) -> None:
    """Hundreds of members that do not exist: the tables stay bounded, the honest stay in."""
    async with Stranger(network=victim.network, tally=tally).running() as stranger:
        stranger.begin(victim.manifest)
        while True:
            await stranger.reach(victim)
            made = Stranger(network=victim.network, greets=False)
            made.begin(victim.manifest, "nobody")
            host = ".".join(str(byte) for byte in os.urandom(3))
            payload = encode_profile(Profile("nobody", (), (f"/ip4/9.{host}/tcp/1",)))
            signed = made.entry("profile", payload)
            stranger.say(victim.key, SYNC, encode_sync(Members(((signed, payload),))))
            rows = tuple(Row(os.urandom(32), 9, 9, 9) for _ in range(BATCH))
            stranger.say(victim.key, SYNC, encode_sync(Digest(rows)))
            await trio.sleep(PACE_S)


async def sybil_swarm(victim: Victim, tally: Counter[str]) -> None:
    """Thirty identities with streams of their own, all at once: their weight stays bounded."""
    async with trio.open_nursery() as nursery:
        for number in range(SWARM):
            nursery.start_soon(_sybil, victim, tally, number)


async def _sybil(victim: Victim, tally: Counter[str], number: int) -> None:
    source = SOURCE.get()
    if source is not None:  # each at an address of its own, as far as there are some beside ours
        SOURCE.set(f"{source.rpartition('.')[0]}.{number + 1}")
    async with Stranger(network=victim.network, tally=tally).running() as stranger:
        stranger.begin(victim.manifest, f"sybil {number}")
        while True:
            await stranger.reach(victim)
            stranger.introduce(victim.key)
            stranger.show(victim.key, *stranger.log)
            await trio.sleep(1.0)


async def grinder(victim: Victim, tally: Counter[str]) -> None:
    """Keys ground to lie next to the victim's: choice by a local secret does not care."""
    best = b""
    for _ in range(2000):
        seed = os.urandom(32)
        key = Identity(seed).public_key
        if not best or _near(key, victim.key) < _near(Identity(best).public_key, victim.key):
            best = seed
    tally["ground"] = 2000
    async with Stranger(seed=best, network=victim.network, tally=tally).running() as stranger:
        stranger.begin(victim.manifest, "neighbour")
        while True:
            await stranger.reach(victim)
            stranger.introduce(victim.key)
            stranger.show(victim.key, *stranger.log)
            await trio.sleep(1.0)


def _near(one: bytes, other: bytes) -> int:
    return int.from_bytes(one) ^ int.from_bytes(other)


async def wrong_network(victim: Victim, tally: Counter[str]) -> None:
    """Greets in the name of another network: a polite refusal."""
    async with Stranger.silent().running() as stranger:
        stranger.tally = tally
        while True:
            connection = await stranger.reach(victim)
            stranger.say_hello(victim.key, os.urandom(32))
            with trio.move_on_after(5):
                await connection.closed.wait()
            tally["ended" if connection.closed.is_set() else "endured"] += 1
            connection.abort("again")
            await trio.sleep(0.2)
