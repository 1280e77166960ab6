"""The member's private key on disk: made once, readable by its owner alone, never overwritten.

Knows the file (PKCS#8, PEM, Ed25519) and its mode; what is signed with the key is gossip's.
"""

import contextlib
import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tapestry_p2p.errors import BAD_CONFIG, FAILURE, TapestryError

KEY_FILE_BYTES_MAX = 4096


def make_key(path: Path) -> bool:
    """Write a new key, durably, mode 0600. False, and nothing done, if there is a file already."""
    pem = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # unlike a rename it never replaces
        _sync_folder(path.parent)
    except FileExistsError:
        return False
    except OSError as error:
        raise TapestryError(f"{path} cannot be written: {error.strerror}", FAILURE) from error
    finally:
        with contextlib.suppress(OSError):  # it was never made
            draft.unlink()
    return True


def load_key(path: Path, given: bool = False) -> bytes:
    """The 32-byte seed of the key. TapestryError (exit 78) if it is missing, open, or no key.

    ``given``: by the service manager, whose access list shows as a mode that looks open.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            pem = file.read(KEY_FILE_BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise TapestryError(
            f"{path} is missing; make it with `tapestry init`", BAD_CONFIG
        ) from error
    except OSError as error:
        raise TapestryError(
            f"{path} cannot be read: {error.strerror}; it must be a file of yours, mode 0600",
            BAD_CONFIG,
        ) from error
    if not given and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise TapestryError(
            f"{path} is open to other users; close it with: chmod 600 {path}", BAD_CONFIG
        )
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _no_key(path) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(path)
    return key.private_bytes_raw()


def _no_key(path: Path) -> TapestryError:
    return TapestryError(
        f"{path} holds no Ed25519 key; restore it from a backup, or move it away and make a new"
        " one with `tapestry init`",
        BAD_CONFIG,
    )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
