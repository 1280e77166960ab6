"""The pre-signed end of a key, as a text file to keep offline.

Whoever holds the file can end the key and nothing else; who stole the key cannot undo it. Knows the
file's form; publishes nothing.
"""

import os
from pathlib import Path

from tapestry_p2p.errors import BAD_CONFIG, FAILURE, REFUSED, TapestryError
from tapestry_p2p.gossip.canonical import Malformed
from tapestry_p2p.gossip.header import RETIRE, SEQ_MAX, SignedHeader, decode_signed
from tapestry_p2p.gossip.identity import Identity, peer_id_of
from tapestry_p2p.gossip.own import sign_retire

FILE_BYTES_MAX = 4096
_TEXT = """\
Keep this file OFFLINE, away from the machine that holds the key, and delete it here.
If the key of member {peer}
in network {network}
is ever stolen, this ends it there for good, at every member, and cannot be undone:
    tapestry retire THIS_FILE
Whoever has this file can do so; it can do nothing else.
{entry}
"""


def write_retirement(path: Path, network: bytes, identity: Identity) -> None:
    """Sign the last entry of a key in advance, into a new file of mode 0600."""
    signed = sign_retire(network, identity.public_key, identity.sign)
    text = _TEXT.format(peer=identity.peer_id, network=network.hex(), entry=signed.encode().hex())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise TapestryError(f"{path} cannot be written: {error.strerror}", FAILURE) from error


def read_retirement(path: Path) -> SignedHeader:
    """The entry in such a file; its signature is right. TapestryError (exit 78) otherwise."""
    try:
        with path.open("rb") as file:
            lines = file.read(FILE_BYTES_MAX).split(b"\n")
    except OSError as error:
        raise TapestryError(f"{path} cannot be read: {error.strerror}", BAD_CONFIG) from error
    try:
        return checked(next(line.strip() for line in reversed(lines) if line.strip()).decode())
    except (ValueError, StopIteration) as error:
        raise TapestryError(
            f"{path} holds no signed end of a key, as `tapestry init` writes it", BAD_CONFIG
        ) from error


def checked(text: str) -> SignedHeader:
    """The signed retire entry that a line of hex stands for; ValueError for anything else."""
    try:
        signed = decode_signed(bytes.fromhex(text))
    except Malformed as error:
        raise ValueError("not a signed header") from error
    if signed.header.kind != RETIRE or signed.header.seq != SEQ_MAX or not signed.is_signed():
        raise ValueError("not a signed retire entry")
    return signed


def need_network(signed: SignedHeader, network: bytes) -> None:
    """TapestryError (exit 6) if the entry is for another network."""
    if signed.header.network != network:
        raise TapestryError(
            f"this ends {peer_id_of(signed.header.author)} in network"
            f" {signed.header.network.hex()[:16]}..., not in {network.hex()[:16]}...",
            REFUSED,
        )
