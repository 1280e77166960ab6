"""Fashion-MNIST from Debian: 70,000 small pictures of clothing, for the task ``fashion``.

Knows the package (MIT licence, 31 MB) and its four idx files, which are checked before they are
handed on.
"""

import tempfile
from pathlib import Path

from tapestry_p2p.cli.apt import Apt, need_apt
from tapestry_p2p.data import idx
from tapestry_p2p.errors import FAILURE, TapestryError

PACKAGE = "dataset-fashion-mnist"
FOLDER = "usr/share/datasets/fashion-mnist"
FILES = (*idx.TRAIN, *idx.TEST)
SHAPE = (28, 28)


def fashion_files() -> dict[str, bytes]:
    """The four files by name. TapestryError: 1 without apt or for other contents, 2, 75."""
    need_apt("`--data digits`, which comes with the package")
    with tempfile.TemporaryDirectory(prefix="tapestry-debian-") as folder:
        unpacked = Apt(Path(folder), "Debian has it since version 11").unpacked(PACKAGE) / FOLDER
        try:
            for names in (idx.TRAIN, idx.TEST):
                count, pixels, _, _ = idx.read_pair(unpacked, names)
                if count < 1 or pixels != SHAPE[0] * SHAPE[1]:
                    raise ValueError(f"{count} pictures of {pixels} points")
            return {name: (unpacked / name).read_bytes() for name in FILES}
        except (OSError, ValueError) as error:
            raise TapestryError(
                f"the package {PACKAGE} does not hold what it should: {error}", FAILURE
            ) from error
