"""Fetches a network's base weights from its members, piece by piece, before there is a daemon.

Knows the transport and two requests. Nothing that comes is trusted: the hashes of the pieces must
have the manifest's root, each piece its hash, and the whole file the manifest's SHA-256 before it
gets its name. What was verified stays on disk when a member fails, and the next one, or the next
try, goes on from there. In memory is never more than one piece and the hashes.
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import trio
from msgspec import UnsetType

from tapestry_p2p.daemon.address import Address
from tapestry_p2p.daemon.base import LEAVES, MODE, base_path, is_held, pieces_of, root_of
from tapestry_p2p.daemon.files import sync_directory, write_file
from tapestry_p2p.daemon.groups import run_unwrapped
from tapestry_p2p.daemon.manifest import Base, Manifest
from tapestry_p2p.daemon.paths import Paths
from tapestry_p2p.daemon.patience import Patience
from tapestry_p2p.daemon.silent import Silent
from tapestry_p2p.daemon.transport import Connection, Transport, TransportError
from tapestry_p2p.errors import FAILURE, REFUSED, TEMPORARY, TapestryError
from tapestry_p2p.gossip.canonical import Malformed
from tapestry_p2p.gossip.fetch import (
    BaseLeavesRequest,
    BaseRequest,
    decode_response,
    encode_request,
)
from tapestry_p2p.gossip.identity import public_key_of
from tapestry_p2p.gossip.merkle import CHUNK_BYTES, HASH_BYTES, leaf_hash
from tapestry_p2p.gossip.messages import HELLO, Hello, encode_hello

log = logging.getLogger("tapestry.base")

WIRE = 1
DIAL_S = 20.0
BUSY_WAIT_S = 0.2
BUSY_TRIES = 50
ROOM = 1.1  # of the file's size must be free

Progress = Callable[[int, int], None]  # pieces held, pieces in all


class _NoPieceError(Exception):
    """This member gives no more; the message says why."""


class Draft:
    """The file while it is being fetched: verified pieces from the first on, and nothing else."""

    def __init__(self, path: Path, base: Base) -> None:
        self.path, self._base = path, base
        self._part = path.with_name(path.name + ".part")
        self._leaves = b""
        self.held = 0

    @property
    def count(self) -> int:
        """How many pieces the file has."""
        return -(-self._base.bytes // CHUNK_BYTES)

    def learn(self, leaves: bytes) -> bool:
        """Take the hashes of all pieces; False if they are not those of the manifest's root.

        Pieces of an earlier try are looked at once, then.
        """
        if len(leaves) != self.count * HASH_BYTES or root_of(leaves) != self._base.root:
            return False
        if not self._leaves:
            self._leaves = leaves
            self._part.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._part, os.O_WRONLY | os.O_CREAT, MODE))
            for piece in pieces_of(self._part):
                if self.held == self.count or leaf_hash(piece) != self._leaf(self.held):
                    break
                self.held += 1
            os.truncate(self._part, min(self.held * CHUNK_BYTES, self._base.bytes))
        return True

    def size(self, index: int) -> int:
        """Bytes of piece ``index``."""
        return min(CHUNK_BYTES, self._base.bytes - index * CHUNK_BYTES)

    def add(self, piece: bytes) -> bool:
        """Keep the next piece; False if it is another one."""
        if leaf_hash(piece) != self._leaf(self.held):
            return False
        with self._part.open("ab") as file:
            file.write(piece)
        self.held += 1
        return True

    def finish(self) -> None:
        """Give the file its name, durably. TapestryError (6) if the whole has another SHA-256."""
        whole = hashlib.sha256()
        for piece in pieces_of(self._part):
            whole.update(piece)
        if whole.hexdigest() != self._base.digest:
            self._part.unlink()
            raise TapestryError(
                "the network's manifest contradicts itself: the base that its root names has"
                f" SHA-256 {whole.hexdigest()}, not {self._base.digest}; ask its founder",
                REFUSED,
            )
        write_file(self.path.with_name(self.path.name + LEAVES), self._leaves, MODE)
        with self._part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(self._part, self.path)
        sync_directory(self.path.parent)

    def _leaf(self, index: int) -> bytes:
        return self._leaves[index * HASH_BYTES : (index + 1) * HASH_BYTES]


def fetch_base(
    base: Base, network: bytes, addresses: Sequence[Address], path: Path, progress: Progress
) -> None:
    """Fetch the file from members by their addresses, under a key made for this once.

    TapestryError: 75 if none of them gives the whole, 1 if the disk refuses, 6 for a manifest that
    contradicts itself.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
        if free < ROOM * base.bytes:
            raise TapestryError(
                f"the base weights take {base.bytes >> 20} MB, {path.parent} has {free >> 20} MB"
                " free; make room, or choose another place with --home",
                FAILURE,
            )
        draft = Draft(path, base)
        why = run_unwrapped(_fetch, draft, base, network, addresses, progress)
        if draft.held < draft.count or why:
            raise TapestryError(
                f"no member gave the base weights: {why or 'no address is known'}; try again later"
                " (what came is kept), or get the file elsewhere and give it with --base",
                TEMPORARY,
            )
        draft.finish()
    except OSError as error:
        raise TapestryError(f"{path} cannot be written: {error.strerror}", FAILURE) from error


def mend_base(manifest: Manifest, paths: Paths, addresses: Sequence[Address]) -> None:
    """Fetch the base if it should be here and is not: lost, or joined without. TapestryError."""
    base = manifest.base
    if isinstance(base, UnsetType) or is_held(base_path(paths, base), base) or not addresses:
        return
    target = base_path(paths, base)
    log.warning("the base weights are missing: fetching %d bytes to %s", base.bytes, target)
    fetch_base(base, manifest.network_id, addresses, target, lambda held, count: None)


async def _fetch(
    draft: Draft, base: Base, network: bytes, addresses: Sequence[Address], progress: Progress
) -> str:
    """Ask one member after the other, again while that brings anything; why it failed, or ''."""
    transport = Transport(os.urandom(32), Silent())
    why = "no address is known"
    async with trio.open_nursery() as nursery:
        await nursery.start(transport.serve)
        before = -1
        while draft.held > before and addresses:
            before = draft.held
            for address in addresses:
                try:
                    await _from(transport, draft, base, network, address, progress)
                    why = ""
                    break
                except _NoPieceError as error:
                    why = f"{address.peer_id} {error}"
                except OSError as error:  # before the nursery makes a group of it
                    words = f"{draft.path} cannot be written: {error.strerror}"
                    raise TapestryError(words, FAILURE) from error
            if not why:
                break
        nursery.cancel_scope.cancel()
    return why


async def _from(
    transport: Transport,
    draft: Draft,
    base: Base,
    network: bytes,
    address: Address,
    progress: Progress,
) -> None:
    """All pieces that are lacking, from one member. _NoPieceError."""
    peer = public_key_of(address.peer_id)
    with trio.move_on_after(DIAL_S):
        await transport.dial(peer, [address])
    connection = transport.connections.get(peer)
    if connection is None:
        raise _NoPieceError("cannot be reached")
    connection.send(HELLO, encode_hello(Hello(network, WIRE, (), (), False)))
    root = bytes.fromhex(base.root)
    patience = Patience()
    leaves = await _ask(
        patience, peer, connection, BaseLeavesRequest(root), draft.count * HASH_BYTES
    )
    if not draft.learn(leaves):
        raise _NoPieceError("sent hashes of another file")
    while draft.held < draft.count:
        length = draft.size(draft.held)
        whole = bytearray()
        while len(whole) < length:
            size = patience.piece(peer, length - len(whole))
            request = BaseRequest(root, draft.held, len(whole), size)
            whole += await _ask(patience, peer, connection, request, size)
        if not draft.add(bytes(whole)):
            raise _NoPieceError("sent a piece that is not the file's")
        progress(draft.held, draft.count)


async def _ask(
    patience: Patience,
    peer: bytes,
    connection: Connection,
    request: BaseLeavesRequest | BaseRequest,
    length: int,
) -> bytes:
    """Exactly ``length`` bytes. _NoPieceError if they do not come in the time that is usual."""
    for _ in range(BUSY_TRIES):
        began = trio.current_time()
        try:
            with trio.fail_after(patience.allowed_s(peer, length)):
                head, body = await connection.fetch(encode_request(request), length)
            response = decode_response(head)
        except trio.TooSlowError as error:
            patience.missed(peer)
            raise _NoPieceError("is too slow") from error
        except (TransportError, Malformed) as error:
            raise _NoPieceError("broke off") from error
        patience.took(peer, len(body), trio.current_time() - began)
        if response.status == "ok" and len(body) == response.length == length:
            return body
        if response.status != "busy":
            raise _NoPieceError("does not have them")
        await trio.sleep(BUSY_WAIT_S)
    raise _NoPieceError("is busy")
