"""Weights in eight bits: symmetric, one scale for each channel, made anew from float32 at any time.

Rule: knows arrays alone. A matrix w is kept as int8 q and float32 s with w ~ q s, where s is
max |w| / 127 over a channel (Jacob et al. 2018, section 2, with zero point 0). Of the axes that may
be the channels the one with the least squared error is taken. Vectors stay float32: they are few.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

LEVELS = 127  # -127..127: -128 is not used, so that signs are treated alike
SCALE = ":scale"  # what is added to a tensor's name to name its scales

Tensors = Mapping[str, NDArray[Any]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Int8:
    """A leaf of a model in eight bits: ``values`` int8[shape], ``scale`` float32, broadcast."""

    values: Any
    scale: Any


def quantise(array: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """The nearest (values int8[shape], scale) of float32[shape], two axes or more.

    The scale has the array's shape with 1 along all axes but the channels'.
    """
    best = None
    for axis in range(array.ndim):
        others = tuple(other for other in range(array.ndim) if other != axis)
        largest = np.max(np.abs(array), axis=others, keepdims=True)
        scale = np.where(largest > 0, largest / np.float32(LEVELS), np.float32(1))
        values = np.clip(np.rint(array / scale), -LEVELS, LEVELS)
        error = float(np.sum(np.square(values * scale - array), dtype=np.float64))
        if best is None or error < best[0]:
            best = error, values.astype(np.int8), scale.astype(np.float32)
    if best is None:
        raise ValueError("a number alone has no channels")
    return best[1:]


def quantised(tensors: Tensors) -> dict[str, NDArray[Any]]:
    """Float32 tensors by name, those of two axes or more as int8 with scales beside them."""
    found: dict[str, NDArray[Any]] = {}
    for name, array in tensors.items():
        if array.ndim < 2:
            found[name] = array
        else:
            found[name], found[name + SCALE] = quantise(array)
    return found


def dequantised(tensors: Tensors) -> dict[str, NDArray[np.float32]]:
    """The float32 tensors that `quantised` ones stand for."""
    return {
        name: array * tensors[name + SCALE] if name + SCALE in tensors else array
        for name, array in tensors.items()
        if not name.endswith(SCALE)
    }


def dense(params: Any) -> Any:
    """A tree of parameters with every `Int8` leaf as float32; other leaves as they are.

    Inside a compiled function the float32 matrices live only while they are used.
    """

    def leaf(found: Any) -> Any:
        if isinstance(found, Int8):
            return found.values.astype(np.float32) * found.scale
        return found

    return jax.tree.map(leaf, params, is_leaf=lambda found: isinstance(found, Int8))
