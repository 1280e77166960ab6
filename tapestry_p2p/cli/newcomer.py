"""What `init` and `join` have in common: data, a key, and the two files of a new member.

Knows what may be written and in which order; asks no trainer and no peer. Nothing that exists is
ever overwritten, and a member's files appear only when all that can fail has not.
"""

import os
import secrets
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

from tapestry_p2p.cli.instances import ports_of_others
from tapestry_p2p.cli.output import note
from tapestry_p2p.daemon.config import Config, Data, Listen, dump_config
from tapestry_p2p.daemon.keyfile import load_key, make_key
from tapestry_p2p.daemon.manifest import Manifest, dump_manifest
from tapestry_p2p.daemon.paths import Paths, find_paths
from tapestry_p2p.daemon.retirement import write_retirement
from tapestry_p2p.data import UDHR_LANGUAGES, udhr, udhr_code
from tapestry_p2p.errors import BAD_CONFIG, FAILURE, REFUSED, TapestryError
from tapestry_p2p.gossip.identity import Identity

PORTS = range(10_000, 30_000)  # below those that the system gives to outgoing connections
PORT_TRIES = 100
SHORT_ID = 8  # last characters of a peer id


def paths_of(home: Path | None) -> Paths:
    """Where a member's files lie, in a folder that was named or not."""
    environ = dict(os.environ)
    if home is not None:
        environ["TAPESTRY_HOME"] = str(home)
    return find_paths(environ)


def new_paths(home: Path | None) -> Paths:
    """Where a new member's files will lie. TapestryError (exit 6) if there is one already."""
    paths = paths_of(home)
    for path in (paths.manifest, paths.member):
        if path.exists():
            raise TapestryError(
                f"{path} exists already and stays as it is; choose another folder with --home",
                REFUSED,
            )
    return paths


def data_or_sample(
    given: Sequence[Path], languages: Sequence[str], task: str, paths: Paths
) -> list[Path]:
    """The data to train on, absolute; without any, a shipped text for a first look.

    TapestryError (exit 78) if a path does not exist.
    """
    if given or task == "digits":
        for path in given:
            if not path.exists():
                raise TapestryError(f"--data {path} does not exist; correct it", BAD_CONFIG)
        return [path.absolute() for path in given]
    if task != "language":
        return []
    code = next((code for code in map(udhr_code, languages) if code), "eng")
    sample = paths.config / "sample" / f"{code}.txt"
    sample.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    sample.write_bytes(udhr(code))
    note(
        f"no --data given: training on a sample, the Declaration of Human Rights in"
        f" {UDHR_LANGUAGES[code]} ({sample}); put your own under [data] in {paths.member}"
    )
    return [sample]


def copy_code(source: Path, paths: Paths, name: str) -> None:
    """Put a task's file beside network.toml. TapestryError (exit 6) if another is there."""
    target = paths.config / name
    if target.exists() and target.read_bytes() != source.read_bytes():
        raise TapestryError(f"{target} exists already and is another file; move it away", REFUSED)
    if not target.exists():
        shutil.copyfile(source, target)


def own_key(paths: Paths) -> tuple[Identity, bool]:
    """This member's key, made if there is none; and whether it was made."""
    made = make_key(paths.key)
    return Identity(load_key(paths.key)), made


def with_free_port(data: Sequence[Path]) -> tuple[Data, Listen]:
    """The data section, and a listening address that stays the same over restarts."""
    address = f"/ip4/0.0.0.0/tcp/{_free_port()}"
    return Data(paths=[str(path) for path in data]), Listen(addresses=[address])


def retirement(paths: Paths, manifest: Manifest, identity: Identity) -> Path:
    """Where the signed end of a key in a network is written first; it belongs elsewhere."""
    network = manifest.network_id.hex()[:SHORT_ID]
    return paths.config / f"retire-{identity.peer_id[-SHORT_ID:]}-{network}.txt"


def write(paths: Paths, manifest: Manifest, config: Config, identity: Identity) -> None:
    """Write all files, each new. The manifest comes last: with it the member is complete."""
    _write_new(paths.member, dump_config(config))
    write_retirement(retirement(paths, manifest, identity), manifest.network_id, identity)
    _write_new(paths.manifest, dump_manifest(manifest))


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise TapestryError(f"{path} cannot be written: {error.strerror}", FAILURE) from error


def command(verb: str, home: Path | None) -> str:
    """How to type a verb for this member."""
    network = os.environ.get("TAPESTRY_NETWORK", "")
    chosen = f" --network {network}" if network else ""
    typed = f"tapestry{chosen} {verb}"
    return f"TAPESTRY_HOME={home.absolute()} {typed}" if home else typed


def _free_port() -> int:
    taken = ports_of_others()
    for _ in range(PORT_TRIES):
        port = PORTS.start + secrets.randbelow(len(PORTS))
        if port in taken:
            continue
        with socket.socket() as sock:
            try:
                sock.bind(("", port))
            except OSError:
                continue
            return port
    raise TapestryError("no free port was found; name one under [listen] in tapestry.toml", FAILURE)
