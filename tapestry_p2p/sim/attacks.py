"""Byzantine behaviours, by name: what an attacker would like its public copy to be.

Pure functions of what any member can see. An attack gets the genesis vector float32[d] and the
honest copies that the attacker follows, float32[k, d] with k >= 1, and returns the vector
float32[d] it steers its copy to. A new attack is a function and a row.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Attack = Callable[[Vector, Vector], Vector]


def mirror(genesis: Vector, honest: Vector) -> Vector:
    """Undo the training threefold: x_0 - 3 (mean - x_0). Ruins a plain mean."""
    mean = honest.mean(axis=0, dtype=np.float64)
    return np.asarray(genesis - 3.0 * (mean - genesis), dtype=np.float32)


ATTACKS: dict[str, Attack] = {"mirror": mirror}
