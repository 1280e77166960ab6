"""A pytree of parameters as one float32 vector, and the hash that says which tree it was.

Rule: leaves stand in the order of their paths, so the same names and shapes give the same vector
whatever containers hold them. Leaves whose paths match a pattern of ``local`` stay: they are in no
vector that travels, nor in the hash; this file is the only place that tells the two kinds apart.
Two models of equal length are not the same model: the schema hash covers (path, shape, dtype) of
every travelling leaf. Knows nothing of tasks or training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from tapestry_p2p.bulk import IN_MEMORY

Params = Any  # a pytree of floating-point arrays
Empty = Callable[[int], NDArray[np.float32]]  # makes float32[n]
NAMED_MAX = 20  # parameters in an error message


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

    ``local``: shell patterns over whole paths (``head/*``; a * also stands for slashes); the leaves
    they match stay on this machine. ValueError for a tree with no leaf, with leaves that are not
    floating point, or with two leaves of one path; for a pattern that matches no leaf (a slip of
    the pen would publish what was meant to stay); and if no leaf is left to travel.
    """

    def __init__(self, params: Params, local: Sequence[str] = ()) -> None:
        paths, self._treedef = jax.tree_util.tree_flatten_with_path(params)
        leaves = [Leaf(path_of(path), tuple(leaf.shape), str(leaf.dtype)) for path, leaf in paths]
        _check(leaves, [leaf for _, leaf in paths])
        staying = _matched([leaf.path for leaf in leaves], local)
        order = sorted(range(len(leaves)), key=lambda index: leaves[index].path)
        self._travelling = [index for index in order if leaves[index].path not in staying]
        self._staying = [index for index in order if leaves[index].path in staying]
        if not self._travelling:
            raise ValueError("every parameter is local: nothing is left to share")
        self.leaves = tuple(leaves[index] for index in self._travelling)
        self.local_leaves = tuple(leaves[index] for index in self._staying)
        self.parameters = sum(leaf.size for leaf in self.leaves)

    @property
    def schema(self) -> str:
        """SHA-256 (hex) of one line ``path<TAB>shape<TAB>dtype`` per leaf, shape as ``2x3``."""
        return _hash(self.leaves)

    @property
    def whole_schema(self) -> str:
        """The same of all leaves, for this machine's own files; `schema` where none stays."""
        return _hash((*self.leaves, *self.local_leaves))

    def flatten(self, params: Params, empty: Empty = IN_MEMORY.empty) -> NDArray[np.float32]:
        """The travelling leaves as float32[parameters], in memory that ``empty(parameters)`` is."""
        return _joined(params, self._travelling, empty)

    def whole(self, params: Params, empty: Empty = IN_MEMORY.empty) -> NDArray[np.float32]:
        """All leaves as one float32 vector, the travelling ones first. It must stay here."""
        return _joined(params, self._travelling + self._staying, empty)

    def parts(self, params: Params) -> Iterator[NDArray[np.float32]]:
        """What `flatten` puts together, leaf by leaf; each is gone when the next is asked for."""
        return _flat(params, self._travelling)

    def ravel(self, params: Params) -> jax.Array:
        """`flatten` for compiled functions."""
        leaves = jax.tree_util.tree_leaves(params)
        return jax.numpy.concatenate(
            [leaves[index].astype(np.float32).ravel() for index in self._travelling]
        )

    def local_part(self, params: Params) -> dict[str, Any]:
        """The local leaves of a tree by their paths."""
        leaves = jax.tree_util.tree_leaves(params)
        found = zip(self._staying, self.local_leaves, strict=True)
        return {leaf.path: leaves[index] for index, leaf in found}

    def tree(self, leaves: Mapping[str, Any]) -> Params:
        """The tree whose leaf at each path is ``leaves[path]``, whatever that is."""
        places = zip(self._travelling + self._staying, self.leaves + self.local_leaves, strict=True)
        return self._placed({index: leaves[leaf.path] for index, leaf in places})

    def unflatten(
        self, vector: NDArray[np.float32], own: Params | None = None, copy: bool = True
    ) -> Params:
        """The tree of numpy arrays, each in its own dtype, that `flatten` turns into `vector`.

        Without ``copy`` its leaves are views of ``vector`` where they can be.

        The local leaves are those of the tree ``own``. A vector that `whole` made has them itself.
        ValueError if they are nowhere.
        """
        placed, used = _cut(vector, self._travelling, self.leaves, copy)
        if used < len(vector):
            placed.update(_cut(vector[used:], self._staying, self.local_leaves, copy)[0])
        elif self._staying:
            if own is None:
                raise ValueError("the model has local parameters, and none were given")
            leaves = jax.tree_util.tree_leaves(own)
            placed.update({index: leaves[index] for index in self._staying})
        return self._placed(placed)

    def step(self, vector: NDArray[np.float32]) -> Params:
        """The tree of a change float32[parameters]: nobody else moves local leaves.

        Its leaves are views of ``vector`` where they can be.
        """
        placed, _ = _cut(vector, self._travelling, self.leaves, copy=False)
        for index, leaf in zip(self._staying, self.local_leaves, strict=True):
            placed[index] = np.zeros(leaf.shape, _dtype(leaf.dtype))
        return self._placed(placed)

    def _placed(self, placed: Mapping[int, Any]) -> Params:
        in_order = [placed[index] for index in range(len(placed))]
        return jax.tree_util.tree_unflatten(self._treedef, in_order)


def path_of(path: tuple[Any, ...]) -> str:
    """The name of a leaf's place: ``blocks/0/kernel``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def leaves_of(tree: Params) -> dict[str, Any]:
    """The leaves of a tree by their paths."""
    return {path_of(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether one of the shell patterns matches the whole path."""
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _matched(paths: list[str], patterns: Sequence[str]) -> set[str]:
    for pattern in patterns:
        if not any(matches(path, [pattern]) for path in paths):
            raise ValueError(f"{pattern!r} matches none of {', '.join(paths[:NAMED_MAX])}")
    return {path for path in paths if matches(path, patterns)}


def _hash(leaves: Sequence[Leaf]) -> str:
    lines = (f"{leaf.path}\t{'x'.join(map(str, leaf.shape))}\t{leaf.dtype}\n" for leaf in leaves)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _flat(params: Params, indices: list[int]) -> Iterator[NDArray[np.float32]]:
    leaves = jax.tree_util.tree_leaves(params)
    for index in indices:
        yield np.asarray(leaves[index]).astype(np.float32, copy=False).ravel()


def _joined(params: Params, indices: list[int], empty: Empty) -> NDArray[np.float32]:
    leaves = jax.tree_util.tree_leaves(params)
    size = sum(int(leaves[index].size) for index in indices)
    vector, at = empty(size), 0
    for part in _flat(params, indices):
        vector[at : at + len(part)] = part
        at += len(part)
    return vector


def _cut(
    vector: NDArray[np.float32], indices: list[int], leaves: Sequence[Leaf], copy: bool
) -> tuple[dict[int, Any], int]:
    """Leaves by their place in the tree, each in its own dtype; how many numbers they took."""
    placed, start = {}, 0
    for index, leaf in zip(indices, leaves, strict=True):
        piece = vector[start : start + leaf.size].reshape(leaf.shape)
        placed[index] = piece.astype(_dtype(leaf.dtype), copy=copy)
        start += leaf.size
    return placed, start


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
