"""Where a node's vectors live: in memory, and those of a big model in files without a name.

Joins what mix/ asks of a place for vectors (mix/space.py) to what makes one (tapestry_p2p/bulk.py).
"""

from pathlib import Path

import numpy as np

from tapestry_p2p import bulk
from tapestry_p2p.bulk import Piece
from tapestry_p2p.mix.codec import Vector
from tapestry_p2p.mix.space import Space


class VectorSpace(bulk.Shelf, Space):
    """Files lie in ``folder``, from ``mapped_from`` parameters on."""

    def __init__(self, folder: Path, mapped_from: int = bulk.MAPPED_FROM) -> None:
        bulk.Shelf.__init__(self, folder, mapped_from)


def vector_in(space: Space, data: Piece) -> Vector:
    """float32[n] of its little-endian bytes, in ``space``."""
    found: Vector = bulk.vector(data, space.empty, space.settle)
    return np.asarray(found, np.float32)
