"""Copies of every byte that crosses a wall of the node, for tests of what must never leave.

Knows files and names of walls, nothing of what the bytes mean. Beside the walls it keeps every
entry that the node signed and stored; its log forgets the older ones. Never on in a real member.
"""

from pathlib import Path
from typing import BinaryIO

# the sockets as the network sees them; what Noise encrypts; the link to the trainer
RAW_SENT, RAW_RECEIVED = "raw-sent", "raw-received"
PLAIN_SENT, PLAIN_RECEIVED = "plain-sent", "plain-received"
LINK_SENT, LINK_RECEIVED = "link-sent", "link-received"
SIGNED = "signed.log"
LENGTH_BYTES = 4


class Tap:
    """One file for each wall and direction in ``folder``; appended to, and never buffered."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._files: dict[str, BinaryIO] = {}

    def __call__(self, wall: str, data: bytes) -> None:
        """Note bytes that crossed ``wall``."""
        if wall not in self._files:
            self._files[wall] = open(self._folder / wall, "ab", buffering=0)  # noqa: SIM115
        self._files[wall].write(data)

    def signed(self, entry: bytes) -> None:
        """Note the signed header of an own entry that is stored, and not yet shown to anybody."""
        with (self._folder / SIGNED).open("ab") as file:
            file.write(len(entry).to_bytes(LENGTH_BYTES) + entry)

    def close(self) -> None:
        """Close the files."""
        while self._files:
            self._files.popitem()[1].close()
