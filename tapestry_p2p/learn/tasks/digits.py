"""The built-in task ``digits``: name the handwritten digit in a picture of 8 x 8 points.

Rule: small enough to learn in seconds, so it serves for tests and first tries. Reads the set that
comes with the package, or CSV files of the same form (64 pixels of 0..16, then the digit).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tapestry_p2p import data as shipped
from tapestry_p2p.learn.task import Data, Options, TaskError
from tapestry_p2p.learn.tasks.pictures import CLASSES, DEFAULTS, Pictures, Records

PIXELS = 64
PARTS = {"train": range(3, 10), "validation": range(1), "test": range(1, 3)}  # of ten draws


class Digits(Pictures):
    """Digits of 8 x 8 points: 2,410 parameters with a hidden layer of 32, linear 650."""

    name = "digits"
    pixels = PIXELS
    brightest = 16.0

    def read(self, data: Data) -> dict[str, Records]:
        """The set in the package or files; of each ten records three held out by the seed."""
        records = (
            self.read_files(data.paths)
            if data.paths
            else _parse(shipped.digits_csv(), "the set in the package")
        )
        return _split(records, data)

    def read_files(self, paths: Sequence[Path]) -> Records:
        """Records float32[n, 65] of CSV files."""
        return np.concatenate([_file(path) for path in paths])


def make_task(options: Options, data: Data) -> Digits:
    """The task ``digits``. TaskError for a bad option, or data unreadable or too small."""
    return Digits(options, data, DEFAULTS)


def _file(path: Path) -> NDArray[np.float32]:
    try:
        return _parse(Path(path).read_bytes(), str(path))
    except OSError as error:
        raise TaskError("data_unreadable", f"{path}: {error.strerror}") from error


def _parse(text: bytes, name: str) -> NDArray[np.float32]:
    """float32[n, 65]. TaskError ``data_unreadable`` unless every line holds 65 numbers."""
    try:
        rows = [[float(cell) for cell in line.split(b",")] for line in text.splitlines() if line]
        records = np.array(rows, np.float32).reshape(len(rows), PIXELS + 1)
    except ValueError:
        raise TaskError("data_unreadable", f"{name}: want 65 numbers a line") from None
    digits = records[:, PIXELS]
    if not np.isfinite(records).all() or not np.isin(digits, range(CLASSES)).all():
        raise TaskError("data_unreadable", f"{name}: the last number of a line must be 0..9")
    return records


def _split(records: NDArray[np.float32], data: Data) -> dict[str, Records]:
    """Records of every split: of each ten, one validation, two test, drawn by the seed."""
    if not data.hold_out and data.paths:
        empty = records[:0]
        return {"train": records, "validation": empty, "test": empty}
    drawn = np.random.default_rng([data.seed, len(records)]).permutation(len(records)) % 10
    return {split: records[np.isin(drawn, part)] for split, part in PARTS.items()}
