"""A pytree of parameters as one float32 vector, and the hash that says which tree it was.

Rule: leaves stand in the order of their paths, so the same names and shapes give the same vector
whatever containers hold them. Two models of equal length are not the same model: the schema hash
covers (path, shape, dtype) of every leaf. Knows nothing of tasks or training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

Params = Any  # a pytree of floating-point arrays


@dataclass(frozen=True)
class Leaf:
    """One array of the tree: path as ``a/b/0``, its shape and dtype name."""

    path: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return int(np.prod(self.shape, dtype=np.int64))


class Layout:
    """Where every leaf of a tree lies in the vector. Made from any tree of that kind.

    ValueError for a tree with no leaf, with leaves that are not floating point, or with two
    leaves of one path.
    """

    def __init__(self, params: Params) -> None:
        paths, self._treedef = jax.tree_util.tree_flatten_with_path(params)
        leaves = [Leaf(_path(path), tuple(leaf.shape), str(leaf.dtype)) for path, leaf in paths]
        _check(leaves, [leaf for _, leaf in paths])
        self._order = sorted(range(len(leaves)), key=lambda index: leaves[index].path)
        self.leaves = tuple(leaves[index] for index in self._order)
        self.parameters = sum(leaf.size for leaf in self.leaves)

    @property
    def schema(self) -> str:
        """SHA-256 (hex) of one line ``path<TAB>shape<TAB>dtype`` per leaf, shape as ``2x3``."""
        lines = (
            f"{leaf.path}\t{'x'.join(map(str, leaf.shape))}\t{leaf.dtype}\n" for leaf in self.leaves
        )
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def flatten(self, params: Params) -> NDArray[np.float32]:
        """The tree as float32[parameters]."""
        leaves = jax.tree_util.tree_leaves(params)
        return np.concatenate(
            [np.asarray(leaves[index]).astype(np.float32).ravel() for index in self._order]
        )

    def ravel(self, params: Params) -> jax.Array:
        """`flatten` for compiled functions."""
        leaves = jax.tree_util.tree_leaves(params)
        return jax.numpy.concatenate(
            [leaves[index].astype(np.float32).ravel() for index in self._order]
        )

    def tree(self, leaves: Mapping[str, Any]) -> Params:
        """The tree whose leaf at each path is ``leaves[path]``, whatever that is."""
        placed: list[Any] = [None] * len(self.leaves)
        for index, leaf in zip(self._order, self.leaves, strict=True):
            placed[index] = leaves[leaf.path]
        return jax.tree_util.tree_unflatten(self._treedef, placed)

    def unflatten(self, vector: NDArray[np.float32]) -> Params:
        """The tree of numpy arrays, each in its own dtype, that `flatten` turns into `vector`."""
        leaves: list[Any] = [None] * len(self.leaves)
        start = 0
        for index, leaf in zip(self._order, self.leaves, strict=True):
            piece = vector[start : start + leaf.size].reshape(leaf.shape)
            leaves[index] = piece.astype(_dtype(leaf.dtype))
            start += leaf.size
        return jax.tree_util.tree_unflatten(self._treedef, leaves)


def _path(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _check(leaves: list[Leaf], arrays: list[Any]) -> None:
    if not leaves:
        raise ValueError("the model has no parameters")
    for leaf, array in zip(leaves, arrays, strict=True):
        if not jax.numpy.issubdtype(array.dtype, jax.numpy.floating):
            raise ValueError(f"parameter {leaf.path} is {leaf.dtype}: only floating point travels")
    if len({leaf.path for leaf in leaves}) < len(leaves):
        raise ValueError("two parameters have the same path")


def _dtype(name: str) -> Any:
    return jax.numpy.dtype(name)  # knows bfloat16 too
