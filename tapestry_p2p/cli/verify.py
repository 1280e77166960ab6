"""`verify`: is an exported folder what it says, and what is proven by that? Needs no network.

Reads the folder and nothing else. Everything in it may be forged: whatever is wrong is told as a
verdict. docs/export.md says what a yes means and what it does not.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tapestry_p2p.cli import folder as f
from tapestry_p2p.cli.output import show
from tapestry_p2p.daemon.copies import copy_root
from tapestry_p2p.daemon.manifest import Manifest, load_manifest
from tapestry_p2p.errors import FAILURE, OK, TapestryError
from tapestry_p2p.gossip.canonical import Malformed
from tapestry_p2p.gossip.header import SignedHeader, decode_signed
from tapestry_p2p.gossip.identity import public_key_of
from tapestry_p2p.gossip.lineage import (
    BrokenLineageError,
    Stretch,
    check_head,
    check_statement,
    check_stretch,
)
from tapestry_p2p.mix.copy import PublicCopy

NEAREST = 0.501  # of the step between two levels: half of it, and float32's own rounding
SHORT = 8


@dataclass
class Verdict:
    """What was found. ``proven`` and ``faults`` in plain words; it holds if there is no fault."""

    proven: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    member: str = ""
    network: str = ""
    entry: int = -1
    differs: float | None = None  # of model from public copy, in norms of the copy


def verify(folder: Path, *, member: str = "", network: str = "", json: bool = False) -> int:
    """Check an exported folder, offline: every byte, every signature, the chain, the root.

    Exit status 0 if it holds, 1 if not. Anybody can make a folder that holds under a key of their
    own: say with --member whose model you expect.

    Example: tapestry verify my-model --member 12D3KooW...

    Parameters
    ----------
    folder
        What `tapestry export` wrote.
    member
        The peer id (12D3KooW...) whose model it must be.
    network
        The network id, or its beginning, that it must be of.
    json
        Print it as JSON.
    """
    found = judge(folder, member, network)
    result = {
        "holds": not found.faults,
        "faults": found.faults,
        "proven": [] if found.faults else found.proven,
        "member": found.member,
        "network_id": found.network,
        "entry": found.entry,
        "differs": found.differs,
    }
    show(result, as_json=json, lines=_lines(folder, found))
    return FAILURE if found.faults else OK


def judge(folder: Path, member: str = "", network: str = "") -> Verdict:
    """All checks in their order; the first that fails ends them."""
    found = Verdict()
    try:
        _check(folder, found, member, network)
    except TapestryError as error:
        found.faults.append(error.message)
    except (BrokenLineageError, Malformed) as error:
        found.faults.append(str(error))
    except OSError as error:
        found.faults.append(f"{error.filename} cannot be read: {error.strerror}")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        found.faults.append(f"a value is not what `tapestry export` writes ({error!r})")
    return found


def _check(folder: Path, found: Verdict, member: str, network: str) -> None:
    lineage = f.read_json(folder / f.LINEAGE)
    if lineage["format"] != f.FORMAT:
        raise TapestryError(f"{f.LINEAGE} is of another version: {str(lineage['format'])[:40]}")
    found.member, found.network = str(lineage["member"]["id"]), str(lineage["network_id"])
    manifest = _manifest(folder, lineage)
    key = public_key_of(found.member)
    _signature(folder, key, manifest.network_id)
    _files(folder, lineage)
    _expected(found, member, network)
    found.proven.append(
        f"every byte of the {len(lineage['files'])} files is as member …{found.member[-SHORT:]}"
        " signed it; no file is missing, none was added"
    )
    stretch = _stream(found, lineage, key, manifest)
    config = f.read_json(folder / f.CONFIG)
    layout = f.layout_of(config)
    _configuration(config, layout, manifest)
    _code(folder, manifest)
    _model(folder, found, layout, stretch)
    found.proven += _mixed(lineage, manifest)


def _manifest(folder: Path, lineage: dict[str, Any]) -> Manifest:
    manifest = load_manifest(folder / f.MANIFEST)
    if manifest.network_id.hex() != lineage["network_id"]:
        raise TapestryError(f"{f.MANIFEST} is of network {manifest.network_id.hex()}, not of this")
    return manifest


def _signature(folder: Path, key: bytes, network: bytes) -> None:
    signature = (folder / f.SIGNATURE).read_bytes()
    digest = hashlib.sha256((folder / f.LINEAGE).read_bytes()).digest()
    check_statement(network, digest, key, signature)


def _files(folder: Path, lineage: dict[str, Any]) -> None:
    named: dict[str, Any] = lineage["files"]
    if lacking := sorted(set(f.NEEDED) - set(named)):
        raise TapestryError(f"the lineage does not name {', '.join(lacking)}")
    there = {path.name for path in f.files_in(folder)}
    for name in sorted(set(named) - there):
        raise TapestryError(f"{name} is missing")
    for name in sorted(there - set(named) - {f.LINEAGE, f.SIGNATURE}):
        raise TapestryError(f"{name} was added: the lineage does not name it")
    for name, row in named.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise TapestryError(f"{name} is no file")
        if path.stat().st_size != row["bytes"] or f.digest_of(path) != row["sha256"]:
            raise TapestryError(f"{name} was changed: its digest is another")


def _expected(found: Verdict, member: str, network: str) -> None:
    if member and member != found.member:
        raise TapestryError(f"it is of member {found.member}, not of {member}")
    if not found.network.startswith(network):
        raise TapestryError(f"it is of network {found.network}, not of {network}")


def _stream(found: Verdict, lineage: dict[str, Any], key: bytes, manifest: Manifest) -> Stretch:
    entries = _headers(lineage["entries"])
    root = bytes.fromhex(manifest.genesis.root)
    stretch = check_stretch(manifest.network_id, key, entries, root)
    found.entry = stretch.head.seq
    if stretch.is_whole:
        began = "from its beginning"
    else:
        began = f"from entry {stretch.first.seq} (older ones were not kept)"
    founder = " a founding member" if found.member in manifest.genesis.members else " a member"
    found.proven.append(
        f"it is{founder} of network {found.network[:16]}..., whose stream it holds {began} to entry"
        f" {stretch.head.seq}: {len(entries)} entries, each signed and linked to the one before"
    )
    return stretch


def _headers(texts: list[str]) -> list[SignedHeader]:
    return [decode_signed(bytes.fromhex(text)) for text in texts]


def _configuration(config: dict[str, Any], layout: list[f.Row], manifest: Manifest) -> None:
    """config.json must say what the manifest says."""
    said = (
        config["task"], config["task_digest"], config["options"], config["seed"],
        config["schema"], config["parameters"],
    )  # fmt: skip
    agreed = (
        manifest.task.name, manifest.task.digest, dict(manifest.task.options),
        manifest.genesis.seed, manifest.schema.hash, manifest.schema.parameters,
    )  # fmt: skip
    if said != agreed or f.schema_of(layout) != manifest.schema.hash:
        raise TapestryError(f"{f.CONFIG} describes another model than {f.MANIFEST}")


def _code(folder: Path, manifest: Manifest) -> None:
    """A task of its own must be the code that the members agreed on."""
    file = manifest.task.file
    if file and f.digest_of(folder / file) != manifest.task.digest:
        raise TapestryError(f"{file} is not the code that {f.MANIFEST} names")


def _model(folder: Path, found: Verdict, layout: list[f.Row], stretch: Stretch) -> None:
    """The public copy has the root that the head states; how far off are model and int8 model."""
    model = f.read_vector(folder / f.MODEL, layout)
    own = (folder / f.PUBLISHED).exists()
    copy = f.read_vector(folder / f.PUBLISHED, layout) if own else model
    name = f.PUBLISHED if own else f.MODEL
    if copy_root(PublicCopy(copy)) != stretch.head.root:
        raise TapestryError(f"{name} is not what entry {stretch.head.seq} states: another root")
    found.proven.append(
        f"{name} is bit for bit the copy that entry {stretch.head.seq} states (round"
        f" {stretch.head.round}): every follower of this member holds the same"
    )
    found.differs = f.apart(model, copy)
    if own:
        found.proven.append(
            f"{f.MODEL} itself was never published; it is {100 * found.differs:.2f} % away from"
            " that copy, by the norm of the difference"
        )
    rounded, step = f.read_rounded(folder / f.INT8, layout)
    if not (np.abs(rounded - model) <= NEAREST * step).all():
        raise TapestryError(f"{f.INT8} is not {f.MODEL} rounded to eight bits")
    found.proven.append(
        f"{f.INT8} is {f.MODEL} with each number at its nearest level:"
        f" {100 * f.apart(rounded, model):.2f} % away"
    )


def _mixed(lineage: dict[str, Any], manifest: Manifest) -> Iterator[str]:
    """The heads of those it was mixed with: each a signed entry of this network."""
    rows = lineage["mixed"]
    for row in rows:
        (signed,) = _headers([row["head"]])
        check_head(manifest.network_id, signed)
        if signed.header.author != public_key_of(row["id"]):
            raise TapestryError(f"the head of {row['id']} is of another member")
    if rows:
        yield (
            f"{len(rows)} other members had published in this network, up to the entries that are"
            " shown; that they were mixed is the member's word"
        )


def _lines(folder: Path, found: Verdict) -> Iterator[str]:
    if found.faults:
        yield f"NO: {folder} does not hold"
        yield from (f"  - {fault}" for fault in found.faults)
        return
    yield f"YES: {folder} holds. Proven, without a network:"
    yield from (f"  - {line}" for line in found.proven)
    yield f"By {found.member}. Whose key that is you must know from elsewhere (--member checks it)."
    yield "Not proven: the numbers in README.md, what it was trained on, and when."
