"""Where a member's files lie. Knows folders and names; reads and writes no content.

`$TAPESTRY_HOME` puts all in one folder (several members on one machine), `$TAPESTRY_SERVICE` names
a member that the system's service manager runs; else the XDG folders. `$TAPESTRY_NETWORK` names one
of several networks side by side: each has folders of its own, `networks/NAME` below the others.
The trainer's folder is apart from the node's: optimizer moments tell something of the data.
"""

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tapestry_p2p.errors import BAD_CONFIG, FAILURE, USAGE, TapestryError

SOCKET_PATH_BYTES_MAX = 107  # sun_path holds 108 with its closing zero
SERVICE_NAME = re.compile(r"[A-Za-z0-9_-]{1,20}")  # a user name is made of it: 31 at most
_LONGEST_SOCKET = "central.sock~"  # as a testnet's trainer makes it, before it has its name
_NAME = "tapestry"
_TEMPORARY = Path("/tmp")  # noqa: S108 (our folder in it is made 0700, and its owner checked)
NETWORKS = "networks"  # folder of further networks beside the first one, which has no name


@dataclass(frozen=True, slots=True)
class Paths:
    """The folders of one member, absolute. They need not exist: see `make`."""

    config: Path  # network.toml, tapestry.toml, a task's own code
    state: Path  # the key, the store: the node's
    trainer: Path  # optimizer state, data cursor, log: the trainer's
    cache: Path  # compiled XLA code: may be deleted at any time
    runtime: Path  # sockets
    text: Path | None = None  # the trainer's own sockets, if it is started apart from the node
    credentials: Path | None = None  # where the service manager puts the key

    @property
    def manifest(self) -> Path:
        return self.config / "network.toml"

    @property
    def member(self) -> Path:
        return self.config / "tapestry.toml"

    @property
    def key(self) -> Path:
        return (self.credentials or (self.config if self.text else self.state)) / "key.pem"

    @property
    def log(self) -> Path:
        """Where the node writes its log, unless systemd's journal keeps it."""
        return self.state / "log"

    @property
    def control_socket(self) -> Path:
        return self.runtime / "control.sock"

    @property
    def text_socket(self) -> Path:
        return (self.text or self.runtime) / "text.sock"

    @property
    def page(self) -> Path:
        """Where the page keeps its link: beside the sockets, unless it is a unit of its own."""
        return Path("/run/tapestry-page") / self.runtime.name if self.text else self.runtime

    @property
    def trainer_socket(self) -> Path:
        """Where a trainer that is started apart reports for work."""
        return self.runtime / "trainer.sock"

    def make(self) -> None:
        """Make the folders that are missing, for this user alone.

        TapestryError if that fails, or if the socket folder belongs to someone else.
        """
        ours = (self.state, self.runtime)
        for folder in ours if self.text else (self.config, self.trainer, self.cache, *ours):
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise TapestryError(
                    f"{folder} cannot be made: {error.strerror}; set TAPESTRY_HOME to a folder"
                    " that you may write to",
                    FAILURE,
                ) from error
        _need_private(self.runtime)

    def tidy(self) -> None:
        """Leave no empty folder in /tmp behind, where the sockets had to go there."""
        if self.runtime.parent == _TEMPORARY:
            with contextlib.suppress(OSError):  # a page is still served from there
                self.runtime.rmdir()


def find_paths(environ: Mapping[str, str] | None = None) -> Paths:
    """The folders that the environment asks for (`os.environ` unless given)."""
    environ = os.environ if environ is None else environ
    network = environ.get("TAPESTRY_NETWORK", "")
    if network:
        return _of_network(network, environ)
    if home := environ.get("TAPESTRY_HOME"):
        return _in_one(Path(home).expanduser().absolute())
    if name := environ.get("TAPESTRY_SERVICE"):
        return _of_service(name, environ)
    import platformdirs  # 40 ms that $TAPESTRY_HOME saves

    state = platformdirs.user_state_path(_NAME)
    # not $XDG_RUNTIME_DIR: a daemon started by another way than the verbs may have another, or none
    return Paths(
        config=platformdirs.user_config_path(_NAME),
        state=state / "node",
        trainer=state / "trainer",
        cache=platformdirs.user_cache_path(_NAME),
        runtime=_runtime(state / "run"),
    )


def _in_one(folder: Path) -> Paths:
    return Paths(
        config=folder,
        state=folder / "state",
        trainer=folder / "trainer",
        cache=folder / "cache",
        runtime=_runtime(folder / "run"),
    )


def _of_network(name: str, environ: Mapping[str, str]) -> Paths:
    """A further network, all in one folder. TapestryError (exit 2) if it cannot be one's name."""
    if not SERVICE_NAME.fullmatch(name):
        raise TapestryError(
            f"--network {name[:40]!r} is no name: 1 to 20 letters, digits, - and _", USAGE
        )
    return _in_one(networks_folder(environ) / name)


def networks_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Where further networks lie, each a folder by its name."""
    environ = dict(os.environ if environ is None else environ)
    environ.pop("TAPESTRY_NETWORK", None)
    first = find_paths(environ)
    return (first.config if environ.get("TAPESTRY_HOME") else first.state.parent) / NETWORKS


def _of_service(name: str, environ: Mapping[str, str]) -> Paths:
    """As units/tapestry@.service has them. TapestryError (exit 78) if it is no unit's name."""
    if not SERVICE_NAME.fullmatch(name):
        raise TapestryError(
            f"TAPESTRY_SERVICE={name[:40]!r} is no name: letters, digits, - and _", BAD_CONFIG
        )
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    return Paths(
        config=Path("/etc/tapestry") / name,
        state=Path("/var/lib/tapestry") / name,
        trainer=Path("/var/lib/tapestry-trainer") / name,
        cache=Path("/var/cache/tapestry") / name,
        runtime=Path("/run/tapestry") / name,
        text=Path("/run/tapestry-trainer") / name,
        credentials=Path(credentials) if credentials else None,
    )


def _runtime(wanted: Path) -> Path:
    """The wanted folder, or where its sockets' names would be too long a short one of this user's.

    Only the home decides, so daemon and verbs agree whatever else their environments hold.
    """
    if len(os.fsencode(wanted / _LONGEST_SOCKET)) <= SOCKET_PATH_BYTES_MAX:
        return wanted
    digest = hashlib.sha256(os.fsencode(wanted)).hexdigest()[:16]
    return _TEMPORARY / f"{_NAME}-{os.getuid()}-{digest}"


def _need_private(folder: Path) -> None:
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise TapestryError(f"{folder} is not a folder of yours; remove it", FAILURE)
    if status.st_mode & 0o077:
        folder.chmod(0o700)
