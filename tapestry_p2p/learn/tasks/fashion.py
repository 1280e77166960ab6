"""The built-in task ``fashion``: name the kind of clothing in a picture of 28 x 28 points.

Rule: reads folders of idx files as `tapestry data fashion` writes them (Fashion-MNIST, Xiao, Rasul,
Vollgraf 2017): ``train-*`` to learn from, a member's share or the whole, and ``t10k-*``, if they
are there, for the test.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tapestry_p2p.data import idx
from tapestry_p2p.learn.task import Data, Options, TaskError
from tapestry_p2p.learn.tasks.pictures import CLASSES, DEFAULTS, SPLITS, Pictures, Records

PIXELS = 784
VALIDATION, TEST = 0, (1, 2)  # of ten draws


class Fashion(Pictures):
    """Ten kinds of clothing: 25,450 parameters with a hidden layer of 32, linear 7,850."""

    name = "fashion"
    pixels = PIXELS
    brightest = 255.0

    def read(self, data: Data) -> dict[str, Records]:
        """All folders' records; of ten to learn from one is held out, two more without t10k."""
        if not data.paths:
            raise TaskError(
                "data_missing", "the fashion task needs a folder: tapestry data fashion --out DIR"
            )
        train = np.concatenate([_pair(path, idx.TRAIN) for path in data.paths])
        tests = [_pair(path, idx.TEST) for path in data.paths if (path / idx.TEST[0]).exists()]
        test = np.concatenate(tests) if tests else train[:0]
        if not data.hold_out:
            return dict(zip(SPLITS, (train, train[:0], test), strict=True))
        drawn = np.random.default_rng([data.seed, len(train)]).permutation(len(train)) % 10
        cut = np.zeros_like(drawn, bool) if tests else np.isin(drawn, TEST)
        held = drawn == VALIDATION
        parts = (train[~held & ~cut], train[held], test if tests else train[cut])
        return dict(zip(SPLITS, parts, strict=True))

    def read_files(self, paths: Sequence[Path]) -> Records:
        """Records uint8[n, 785] of folders: their ``t10k-*`` files, or else their ``train-*``."""
        held = [idx.TEST if (path / idx.TEST[0]).exists() else idx.TRAIN for path in paths]
        return np.concatenate([_pair(path, names) for path, names in zip(paths, held, strict=True)])


def make_task(options: Options, data: Data) -> Fashion:
    """The task ``fashion``. TaskError for a bad option, or data missing, unreadable, too small."""
    return Fashion(options, data, DEFAULTS)


def _pair(folder: Path, names: tuple[str, str]) -> NDArray[np.uint8]:
    """Records uint8[n, 785] of a file of pictures and one of labels."""
    try:
        count, pixels, pictures, labels = idx.read_pair(Path(folder), names)
    except OSError as error:
        raise TaskError("data_unreadable", f"{error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise TaskError("data_unreadable", f"{folder}: {error}") from error
    classes = np.frombuffer(labels, np.uint8)
    if pixels != PIXELS or (classes >= CLASSES).any():
        raise TaskError("data_unreadable", f"{folder}: want 28 x 28 points and classes 0..9")
    points = np.frombuffer(pictures, np.uint8).reshape(count, pixels)
    return np.concatenate([points, classes[:, None]], axis=1)
