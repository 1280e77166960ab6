"""First parameters from plain IEEE products of uniform numbers: the same bits on every machine.

Rule: numpy alone; a compiled initialiser does not promise that. Each leaf is drawn from the seed
and its own name, so that a leaf more or less changes no other.
"""

from __future__ import annotations

import hashlib
import math

import jax
import numpy as np
from numpy.typing import NDArray


def words_of(key: jax.Array) -> list[int]:
    """The words of a JAX key, as a seed for `uniform`."""
    return [int(word) for word in np.asarray(jax.random.key_data(key)).ravel()]


def uniform(
    seed: list[int], name: str, shape: tuple[int, ...], deviation: float
) -> NDArray[np.float32]:
    """Uniform float32[shape] of that standard deviation around 0, from the seed and the name."""
    own = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    drawn = np.random.default_rng([*seed, own]).random(shape, np.float32)
    return (drawn - np.float32(0.5)) * np.float32(deviation * math.sqrt(12))
