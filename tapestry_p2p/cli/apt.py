"""Debian packages, fetched and unpacked without root.

Knows apt-get and dpkg-deb, nothing of what is in a package. Where the package lists are missing it
keeps lists of its own in a temporary folder.
"""

import shutil
import subprocess
from pathlib import Path

from tapestry_p2p.errors import FAILURE, TEMPORARY, USAGE, TapestryError

APT_S = 900.0


def need_apt(instead: str) -> None:
    """TapestryError (1) on a system without Debian's tools; it names what to take ``instead``."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise TapestryError(
                f"{tool} was not found: this comes from Debian's packages;"
                f" elsewhere, take {instead}",
                FAILURE,
            )


class Apt:
    """Fetches packages into a folder, as whatever user this is.

    ``advice``: what to do if a package is not to be had, the end of a sentence.
    """

    def __init__(self, folder: Path, advice: str) -> None:
        self._folder = folder
        self._advice = advice
        self._options: list[str] = []

    def unpacked(self, package: str) -> Path:
        """A folder with the package's files. TapestryError if it cannot be had."""
        target = self._folder / package
        target.mkdir()
        if not self._download(package, target):
            self._own_lists()
            if not self._download(package, target):
                raise TapestryError(
                    f"the package {package} cannot be had from this machine's package sources;"
                    f" {self._advice}",
                    USAGE,
                )
        for archive in target.glob("*.deb"):
            _run(["dpkg-deb", "-x", str(archive), str(target)], target)
            archive.unlink()
        return target

    def _download(self, package: str, target: Path) -> bool:
        done = _run(["apt-get", *self._options, "download", package], target)
        return done == 0 and any(target.glob("*.deb"))

    def _own_lists(self) -> None:
        """Fetch package lists into a folder of our own: the system's are missing or too old."""
        if self._options:
            return
        state, cache = self._folder / "state", self._folder / "cache"
        for place in (state / "lists" / "partial", cache / "archives" / "partial"):
            place.mkdir(parents=True)
        self._options = [
            *("-o", f"Dir::State={state}"),
            *("-o", f"Dir::State::lists={state / 'lists'}"),
            *("-o", f"Dir::Cache={cache}"),
            *("-o", "Debug::NoLocking=1"),
            *("-o", "APT::Sandbox::User="),
        ]
        if _run(["apt-get", *self._options, "update", "--error-on=any"], self._folder) != 0:
            raise TapestryError(
                "the package lists cannot be fetched; check the network and the package sources,"
                " then try again",
                TEMPORARY,
            )


def _run(command: list[str], folder: Path) -> int:
    """Run a tool silently in a folder; its exit status. TapestryError (75) if it hangs."""
    try:
        return subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=APT_S,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired as error:
        raise TapestryError(f"{command[0]} gave no answer; try again later", TEMPORARY) from error
