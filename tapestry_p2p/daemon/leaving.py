"""Leaving a network: a mark on disk first, then the signed goodbye, then everybody here is told.

The mark stands before the entry is signed and stays until the member joins again: wherever a crash
comes between, the member does not run on as if nothing had been said, and leaving goes on where it
stood. No second goodbye is signed over a first one. The model and the key stay.
"""

import logging
import os
from dataclasses import replace
from pathlib import Path
from random import Random

import trio

from tapestry_p2p.daemon.departure import Departure, come_back, note
from tapestry_p2p.daemon.groups import run_unwrapped
from tapestry_p2p.daemon.manifest import Manifest
from tapestry_p2p.daemon.node import Node, NodeOptions
from tapestry_p2p.daemon.recovery import recover
from tapestry_p2p.daemon.store import Store
from tapestry_p2p.daemon.voice import ASK_DEADLINE_S, OTHERS_S, SilencedError
from tapestry_p2p.errors import NOT_READY, REFUSED, TEMPORARY, TapestryError
from tapestry_p2p.gossip import events as ev
from tapestry_p2p.gossip.header import LEAVE
from tapestry_p2p.gossip.identity import Identity
from tapestry_p2p.gossip.own import LEFT

log = logging.getLogger("tapestry.node")

TELL_S = 6.0  # for the answers of those who are connected; the caller waits ten
SPEAK_S = ASK_DEADLINE_S + OTHERS_S + 10.0  # a stopped member must ask before it may sign
MEET_S = 5.0  # and then meets whom it knows
POLL_S = 0.1


async def leave(node: Node) -> Departure:
    """Say goodbye once, and wait a little for those who are connected to hold it.

    TapestryError: 4 while we may not sign, 6 if the key was retired or a clone runs, 75 if the disk
    refuses the mark.
    """
    protocol, folder = node.protocol, node.store.directory
    if protocol.stopped not in ("", LEFT):
        raise TapestryError(f"nothing can be said with this key: {protocol.stopped}", REFUSED)
    found = Departure(node.manifest.network_id.hex(), node.manifest.network.name)
    async with node.rounds.speaking:
        if not protocol.stopped and protocol.own_highest is not None:
            await _sign(node, found)
        head = protocol.head(node.key)
        found = replace(found, entry=head.header.seq if head else -1)
        await _note(folder, found)
    with trio.move_on_after(TELL_S if found.entry >= 0 else 0.0):
        while set(protocol.greeted()) - set(protocol.told()):
            await trio.sleep(POLL_S)
    found = replace(found, told=len(protocol.told()) if found.entry >= 0 else 0)
    await _note(folder, found)
    log.info("left %s by entry %d; %d members hold it", found.network, found.entry, found.told)
    return found


async def _sign(node: Node, found: Departure) -> None:
    """The mark, then the entry."""
    own = node.copies.own
    if own is None or node.voice.is_silent(LEAVE):
        raise TapestryError(
            "the member is still asking peers what they know of it; try again in some seconds",
            NOT_READY,
        )
    await _note(node.store.directory, found)
    goodbye = ev.Publish(LEAVE, trio.current_time(), root=own.root, round=node.rounds.round)
    try:
        await node.voice.publish(goodbye)
    except SilencedError as error:
        come_back(node.store.directory)
        raise TapestryError("peers know more of this member; try again soon", NOT_READY) from error


async def _note(folder: Path, found: Departure) -> None:
    try:
        await trio.to_thread.run_sync(note, folder, found)
    except OSError as error:
        raise TapestryError(f"cannot write to {folder}: {error.strerror}", TEMPORARY) from error


def leave_stopped(
    manifest: Manifest, options: NodeOptions, seed: bytes, folder: Path
) -> tuple[Departure, int]:
    """The same for a member that does not run: it starts without a trainer, only to say so.

    Also how many others it knows. TapestryError: 75 if somebody else has the store, or if nothing
    could be signed yet.
    """
    store = Store(folder, manifest.streams.ring)
    try:
        return run_unwrapped(_leave_stopped, manifest, options, seed, store)
    finally:
        store.close()


async def _leave_stopped(
    manifest: Manifest, options: NodeOptions, seed: bytes, store: Store
) -> tuple[Departure, int]:
    recovered = recover(store, manifest.schema.parameters, manifest.limits.norm_max)
    if recovered.seq < 0 and not recovered.rolled_back:  # nobody ever heard of it
        found = Departure(manifest.network_id.hex(), manifest.network.name)
        await _note(store.directory, found)
        return found, 0
    options = replace(options, leaving=True)
    random = Random(os.urandom(16))
    node = Node(manifest, options, Identity(seed), seed, store, recovered, None, random)
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run_and_then, nursery.cancel_scope.cancel)
        with trio.move_on_after(SPEAK_S):
            while node.voice.is_silent(LEAVE) and not node.protocol.stopped:
                await trio.sleep(POLL_S)
        known = {*node.protocol.members(), *dict(node.protocol.settings.bootstrap)} - {node.key}
        with trio.move_on_after(MEET_S):
            while known - set(node.protocol.greeted()):
                await trio.sleep(POLL_S)
        try:
            found = await leave(node)
        finally:
            node.stop()
    return found, len(known)
