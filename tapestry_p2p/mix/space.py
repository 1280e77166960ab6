"""Where vectors as long as the model live, and how one is made of others: block by block.

Knows float32 and lengths. ``Space`` is plain memory; the daemon hands in one whose long vectors
are mapped files (tapestry_p2p/bulk.py). Whoever works along a vector goes by ``blocks`` or calls
``settle`` now and then, so that a file's pages that were passed need not stay in memory.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]

BLOCK = 1 << 18  # parameters of one step: 1 MB, so that a chain of steps stays in the cache
SETTLE_EVERY = 1 << 23  # parameters: 32 MB of each vector


class Space:
    """Plain memory."""

    def empty(self, d: int) -> Vector:
        """float32[d] with anything in it. MemoryError."""
        return np.empty(d, np.float32)

    def settle(self) -> None:
        """What was touched so far may leave the memory; its bytes are kept."""

    def blocks(self, d: int) -> Iterator[slice]:
        """0..d in steps of ``BLOCK``."""
        for start in range(0, d, BLOCK):
            yield slice(start, min(start + BLOCK, d))
            if (start + BLOCK) % SETTLE_EVERY == 0:
                self.settle()
        self.settle()

    def made(self, step: Callable[..., Any], *vectors: Vector) -> Vector:
        """float32[d] of equal vectors: ``step(block of each, ..., out=)`` for every block."""
        out = self.empty(len(vectors[0]))
        for block in self.blocks(len(out)):
            step(*(vector[block] for vector in vectors), out=out[block])
        return out

    def copy(self, vector: Vector) -> Vector:
        """The same float32[d] in memory of its own."""
        return self.made(lambda a, out: np.copyto(out, a), vector)

    def zeros(self, d: int) -> Vector:
        """float32[d] of 0."""
        out = self.empty(d)
        for block in self.blocks(d):
            out[block] = 0
        return out


MEMORY = Space()
