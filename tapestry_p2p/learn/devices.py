"""Several accelerators that train one member's model: which, and where each array lies on them.

Rule: each array is cut along its longest axis that divides evenly, a batch along its first; what
does not divide is on every device. So parameters and moments take 1/n of each device's memory
(Rajbhandari et al. 2020), XLA moves what a step needs, and the vector that leaves is one as ever.
Knows shapes; not what is trained.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "device"


class Devices:
    """The first ``wanted`` devices of this machine's best backend, fewer if it has no more; 0: all.

    With one of them nothing is cut, and arrays are as JAX makes them.
    """

    def __init__(self, wanted: int = 1) -> None:
        found = jax.devices()
        chosen = found[: wanted or len(found)]
        self.count = len(chosen)
        self._mesh = Mesh(np.array(chosen), (AXIS,))

    def cut(self, tree: Any) -> Any:
        """For each leaf with a shape, how it is cut."""
        return jax.tree.map(lambda leaf: self._sharding(leaf.shape), tree)

    def place(self, tree: Any) -> Any:
        """The arrays of a tree, each cut; as they are with one device."""
        return tree if self.count == 1 else jax.device_put(tree, self.cut(tree))

    def batch(self, tree: Any) -> Any:
        """A batch, its examples shared out."""
        if self.count == 1:
            return tree

        def cut(leaf: Any) -> NamedSharding:
            shape = np.shape(leaf)
            even = bool(shape) and shape[0] % self.count == 0
            return NamedSharding(self._mesh, PartitionSpec(AXIS) if even else PartitionSpec())

        return jax.device_put(tree, jax.tree.map(cut, tree))

    def _sharding(self, shape: tuple[int, ...]) -> NamedSharding:
        even = [axis for axis, size in enumerate(shape) if size and size % self.count == 0]
        if not even:
            return NamedSharding(self._mesh, PartitionSpec())
        longest = max(even, key=lambda axis: shape[axis])
        return NamedSharding(self._mesh, PartitionSpec(*[None] * longest, AXIS))
