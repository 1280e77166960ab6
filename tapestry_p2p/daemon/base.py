"""The file of open weights that a manifest names: measured, put into the member's folder, given.

Knows files, digests and pieces; not what weights are. A file counts only once all its bytes have
the manifest's SHA-256; until then it lies there under another name. Peers are given it piece by
piece, as they are given copies: by a leaf of the Merkle tree whose root the manifest states.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec import UNSET, UnsetType

from tapestry_p2p.daemon.files import write_file
from tapestry_p2p.daemon.manifest import Base, Manifest
from tapestry_p2p.daemon.paths import Paths
from tapestry_p2p.errors import BAD_CONFIG, FAILURE, USAGE, TapestryError
from tapestry_p2p.gossip.fetch import BaseLeavesRequest, BaseRequest, FetchResponse
from tapestry_p2p.gossip.merkle import CHUNK_BYTES, HASH_BYTES, leaf_hash, merkle_root

MODE = 0o644  # open weights; a service's trainer is another user than who installed it
LEAVES = ".leaves"  # beside the file: the hashes of its pieces


def name_base(
    path: Path, rank: int = 0, alpha: float | None = None, adapt: Sequence[str] = ()
) -> Base:
    """The manifest's section for a file. TapestryError: 78 if it cannot be read or named, 2."""
    whole, leaves, size = hashlib.sha256(), [], 0
    for piece in pieces_of(path):
        whole.update(piece)
        leaves.append(leaf_hash(piece))
        size += len(piece)
    if not rank and (alpha is not None or adapt):
        raise TapestryError("--alpha and --adapt go with --rank; give it too", USAGE)
    try:
        if not leaves:
            raise ValueError("it is empty")
        scaled = rank if alpha is None else alpha
        return Base(
            digest=whole.hexdigest(),
            bytes=size,
            root=merkle_root(leaves).hex(),
            rank=rank or UNSET,
            alpha=float(scaled) if rank else UNSET,
            adapt=list(adapt) if rank and adapt else UNSET,
        )
    except ValueError as error:
        raise TapestryError(f"{path} cannot be a network's base: {error}", BAD_CONFIG) from error


def base_path(paths: Paths, base: Base) -> Path:
    """Where the member keeps the file: both its processes must see it, also as services."""
    folder = paths.config if paths.text else paths.state
    return folder / "base" / f"{base.digest}.safetensors"


def take_base(source: Path, base: Base, paths: Paths) -> Path:
    """Put a file that is at hand where the member keeps it. TapestryError (78, 1)."""
    target = base_path(paths, base)
    if not is_held(target, base):
        write_verified(target, base, pieces_of(source), f"{source}")
    return target


def is_held(path: Path, base: Base) -> bool:
    """Whether the file is there in its full size; what has another digest never gets that name."""
    try:
        return path.stat().st_size == base.bytes
    except OSError:
        return False


def write_verified(path: Path, base: Base, pieces: Iterable[bytes], source: str) -> None:
    """Write the file, whole and with the right digest or not at all. TapestryError (78, 1)."""
    whole, leaves = hashlib.sha256(), []

    def checked() -> Iterator[bytes]:
        for piece in pieces:
            whole.update(piece)
            leaves.append(leaf_hash(piece))
            yield piece
        if whole.hexdigest() != base.digest:
            raise TapestryError(
                f"{source} is not the base that the network names (SHA-256"
                f" {whole.hexdigest()[:16]}..., wanted {base.digest[:16]}...); give that file with"
                " --base, or leave it out and the members are asked for it",
                BAD_CONFIG,
            )

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_file(path, checked(), MODE)
        except TapestryError:
            path.with_name(path.name + ".new").unlink(missing_ok=True)
            raise
        write_file(path.with_name(path.name + LEAVES), b"".join(leaves), MODE)
    except OSError as error:
        raise TapestryError(
            f"{path} cannot be written: {error.strerror}; make room for {base.bytes >> 20} MB",
            FAILURE,
        ) from error


def need_base(manifest: Manifest, paths: Paths) -> Path | None:
    """Where the base lies; None if the network has none. TapestryError (78) if it is missing."""
    if isinstance(manifest.base, UnsetType):
        return None
    path = base_path(paths, manifest.base)
    if not is_held(path, manifest.base):
        raise TapestryError(
            f"the network's base weights are missing: put the file with SHA-256"
            f" {manifest.base.digest} at {path}; `tapestry run` fetches it from the members under"
            " [bootstrap] peers, if there are any",
            BAD_CONFIG,
        )
    return path


def base_record(base: Base | UnsetType, path: Path | None) -> dict[str, Any]:
    """What the trainer's ``configure`` says of the base (link.py): nothing without one."""
    if isinstance(base, UnsetType) or path is None:
        return {}
    rank, alpha, adapt = (
        default if isinstance(value, UnsetType) else value
        for value, default in ((base.rank, 0), (base.alpha, 0.0), (base.adapt, []))
    )
    said = {"path": str(path), "digest": base.digest, "rank": rank, "alpha": alpha, "adapt": adapt}
    return {"base": said}


class Held:
    """The member's file, given to peers piece by piece. Nothing of it is kept in memory but hashes.

    A piece that the disk has spoilt is found by who asked for it: it does not fit its leaf.
    """

    def __init__(self, path: Path, base: Base) -> None:
        """TapestryError (78) if the file is not the one that the manifest names."""
        self._path, self._base = path, base
        self._leaves = b""
        with contextlib.suppress(OSError):
            self._leaves = path.with_name(path.name + LEAVES).read_bytes()
        if root_of(self._leaves) != base.root:  # lost, or not ours: by the file itself, once
            self._leaves = b"".join(map(leaf_hash, pieces_of(path)))
        if root_of(self._leaves) != base.root:
            raise TapestryError(
                f"{path} is damaged: it is not the file that the network names. Remove it, and get"
                f" the one with SHA-256 {base.digest}",
                BAD_CONFIG,
            )

    def answer(self, request: BaseLeavesRequest | BaseRequest) -> tuple[FetchResponse, bytes]:
        """What we can give of a request: response and body."""
        if request.root.hex() != self._base.root:
            return FetchResponse("missing"), b""
        if isinstance(request, BaseLeavesRequest):
            return FetchResponse("ok", len(self._leaves), len(self._leaves)), self._leaves
        start = request.index * CHUNK_BYTES
        total = min(CHUNK_BYTES, self._base.bytes - start)
        length = min(request.length, total - request.offset)
        piece = self._read(start + request.offset, length) if length > 0 else b""
        return (FetchResponse("ok", len(piece), total) if piece else _MISSING), piece

    def _read(self, start: int, length: int) -> bytes:
        try:
            with self._path.open("rb") as file:
                return os.pread(file.fileno(), length, start)
        except OSError:
            return b""


_MISSING = FetchResponse("missing")


def root_of(leaves: bytes) -> str:
    """The root, in hex, above joined leaf hashes; empty if they are none."""
    if not leaves or len(leaves) % HASH_BYTES:
        return ""
    cut = [leaves[at : at + HASH_BYTES] for at in range(0, len(leaves), HASH_BYTES)]
    return merkle_root(cut).hex()


def pieces_of(path: Path) -> Iterator[bytes]:
    """The bytes of a file, a piece at a time. TapestryError (78) if it cannot be read."""
    try:
        with path.open("rb") as file:
            while piece := file.read(CHUNK_BYTES):
                yield piece
    except OSError as error:
        raise TapestryError(f"{path} cannot be read: {error.strerror}", BAD_CONFIG) from error
