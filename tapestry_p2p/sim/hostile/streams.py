"""Hostility in streams of one's own: forks, withheld or poisonous payloads, bursts.

A program attacks its victims until it is cancelled and counts in its stranger's tally. Forkers and
selective publishers need several victims: each is told another truth.
"""

import os
import struct
from collections import Counter
from collections.abc import Callable

import trio

from tapestry_p2p.daemon.manifest import Manifest
from tapestry_p2p.mix.codec import payload_bytes
from tapestry_p2p.sim.hostile.stranger import Stranger, Victim

PACE_S = 0.3
BURST = 8


async def forker(victims: list[Victim], tally: Counter[str]) -> None:
    """Two entries with one number, one for each half: a proof reaches everybody, weight 0."""
    async with Stranger(network=victims[0].network, tally=tally).running() as stranger:
        manifest = victims[0].manifest
        stranger.begin(manifest, "forker")
        forks = [stranger.difference(manifest, _noise(manifest)) for _ in range(2)]
        while True:
            for number, victim in enumerate(victims):
                await stranger.reach(victim)
                stranger.introduce(victim.key)
                stranger.show(victim.key, *stranger.log, forks[number % 2])
            await trio.sleep(1.0)


async def selective_publisher(victims: list[Victim], tally: Counter[str]) -> None:
    """Serves every follower another stream under one key: a fork, found as soon as two compare."""
    async with Stranger(network=victims[0].network, tally=tally).running() as stranger:
        manifest = victims[0].manifest
        stranger.begin(manifest, "selective")
        lives = {victim.key: list(stranger.log) for victim in victims}
        while True:
            for victim in victims:
                stranger.log = lives[victim.key]
                stranger.add(stranger.difference(manifest, _noise(manifest)))
                await stranger.reach(victim)
                stranger.introduce(victim.key)
                stranger.show(victim.key, *stranger.log[-4:])
            await trio.sleep(PACE_S)


async def withholder(victims: list[Victim], tally: Counter[str]) -> None:
    """Announces entries and never serves them: nobody waits for it."""
    await _publish(victims, tally, _noise, Stranger(tally=tally, withholds=True))


async def late_publisher(victims: list[Victim], tally: Counter[str]) -> None:
    """Holds entries back and releases them in bursts."""
    await _publish(victims, tally, _noise, Stranger(tally=tally), burst=BURST)


async def nan_sender(victims: list[Victim], tally: Counter[str]) -> None:
    """Payloads of the right size that are not finite: its copy is out, nothing else changes."""
    await _publish(victims, tally, _not_finite, Stranger(tally=tally))


async def wrong_schema(victims: list[Victim], tally: Counter[str]) -> None:
    """Payloads of another model's size: refused from the header."""
    await _publish(victims, tally, lambda manifest: os.urandom(1000), Stranger(tally=tally))


async def _publish(
    victims: list[Victim],
    tally: Counter[str],
    payload: Callable[[Manifest], bytes],
    stranger: Stranger,
    burst: int = 1,
) -> None:
    manifest = victims[0].manifest
    stranger.network = manifest.network_id
    async with stranger.running():
        stranger.begin(manifest, "publisher")
        while True:
            fresh = []
            for _ in range(burst):
                fresh.append(stranger.add(stranger.difference(manifest, payload(manifest))))
                await trio.sleep(PACE_S)
            for victim in victims:
                await stranger.reach(victim)
                stranger.introduce(victim.key)
                stranger.show(victim.key, *stranger.log[:2], *fresh)
            tally["published"] += burst


def _noise(manifest: Manifest) -> bytes:
    """A payload of the right size; whether its root fits is another matter."""
    return bytes(payload_bytes(manifest.streams.codec, manifest.schema.parameters))


def _not_finite(manifest: Manifest) -> bytes:
    """A payload whose first numbers are NaN, whatever the codec takes them for."""
    whole = bytearray(_noise(manifest))
    whole[:64] = struct.pack("<f", float("nan")) * 16
    return bytes(whole[: len(_noise(manifest))])
