"""Earlier own copies, kept for a rollback: of the newest three stretches, then ever sparser.

One sealed file each, named by the entry after which the copy stood so and by its round. A stretch
is ``every`` entries. Its first copy is kept, and its last: what a rollback began from, where the
log does not lead. From the oldest of the newest three stretches on the log is whole, so every round
since is to be had; of the time before, only what lies here. Each costs as much disk as the model:
seven files, and up to three more after rollbacks.
"""

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from tapestry_p2p import bulk
from tapestry_p2p.daemon.files import DamagedError, unseal_file, write_sealed
from tapestry_p2p.mix.codec import Vector

NEWEST = 3
SPARSE = (8, 64)  # of so many times `every` entries the first copy is kept, two of each
SPARSE_KEPT = 2
FILES_MAX = 2 * NEWEST + SPARSE_KEPT * len(SPARSE)
_NAME = re.compile(r"(\d{1,19})\.(\d{1,19})\.past")


@dataclass(frozen=True, slots=True, order=True)
class Kept:
    """An earlier state: after own entry ``seq``, of that round."""

    seq: int
    round: int

    @property
    def name(self) -> str:
        """Its file."""
        return f"{self.seq}.{self.round}.past"


def worth_keeping(seqs: Iterable[int], every: int) -> set[int]:
    """Which of these are kept: first and last of the newest stretches, first of longer ones."""
    ordered = sorted(seqs)
    kept: set[int] = set()
    for inside in _newest(ordered, every):
        kept |= {inside[0], inside[-1]}
    for times in SPARSE:
        first: dict[int, int] = {}
        for seq in ordered:
            first.setdefault(seq // (every * times), seq)
        kept |= set(list(first.values())[-SPARSE_KEPT:])
    return kept


def _newest(ordered: Iterable[int], every: int) -> list[list[int]]:
    """The newest stretches, rising, and which of these lie in each."""
    inside = [list(group) for _, group in groupby(ordered, lambda seq: seq // every)]
    return inside[-NEWEST:]


class Past:
    """The folder of earlier copies. Blocking. ``every``: own entries between two of them."""

    def __init__(self, folder: Path, every: int) -> None:
        self._folder, self._every = folder, every

    def kept(self) -> list[Kept]:
        """What lies here, oldest first."""
        try:
            found = [_NAME.fullmatch(path.name) for path in self._folder.iterdir()]
        except FileNotFoundError:
            return []
        return sorted(Kept(int(match[1]), int(match[2])) for match in found if match)

    def due(self, seq: int) -> bool:
        """Whether the copy after entry ``seq`` is to be kept."""
        kept = self.kept()
        return not kept or seq // self._every != kept[-1].seq // self._every

    def leads_on_from(self) -> int:
        """The entry after which the log has to be whole; a high number if nothing lies here."""
        newest = _newest((each.seq for each in self.kept()), self._every)
        return newest[0][0] if newest else 1 << 62

    def keep(self, seq: int, round_: int, copy: Vector) -> None:
        """Keep float32[d], and let go what is not worth it any more. OSError."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        body = bulk.pieces({"seq": seq, "round": round_, "copy": copy})
        write_sealed(self._folder / Kept(seq, round_).name, seq, body)
        kept = self.kept()
        worth = worth_keeping((each.seq for each in kept), self._every)
        for each in kept:
            if each.seq not in worth:
                with contextlib.suppress(FileNotFoundError):
                    (self._folder / each.name).unlink()

    def load(self, kept: Kept) -> Vector:
        """The copy float32[d], a view of the file. DamagedError if it is not as it was; OSError."""
        found = bulk.views(unseal_file(self._folder / kept.name)[1])
        if (found["seq"], found["round"]) != (kept.seq, kept.round):
            raise DamagedError("it is of another entry than its name says")
        return np.frombuffer(found["copy"], "<f4")
