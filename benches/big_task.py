"""A model of any size whose training costs next to nothing: what is left is what its size costs.

Every parameter is drawn to a number that the batch names: a gradient as long as the model, AdamW's
two moments, leaves of 2^20 parameters as the matrices of a real model have. Data: any file.
"""

import jax
import jax.numpy as jnp
import numpy as np

from tapestry_p2p.learn.task import Data, Options, known_options

LEAF = 1 << 20
WIDTH = 1024


class Big:
    """``parameters`` of them, in matrices of 2^20 and one vector that holds the rest."""

    name = "big"
    tokens_per_batch = 1

    def __init__(self, parameters: int, work: int) -> None:
        self._work = work
        whole, rest = divmod(parameters, LEAF)
        self._shapes: dict[str, tuple[int, ...]] = {
            f"w{place:05d}": (LEAF // WIDTH, WIDTH) for place in range(whole)
        }
        if rest:
            self._shapes["rest"] = (rest,)

    def init(self, key):  # type: ignore[no-untyped-def]
        """Gaussians."""
        keys = jax.random.split(key, len(self._shapes))
        return {
            name: 0.02 * jax.random.normal(key, shape)
            for key, (name, shape) in zip(keys, self._shapes.items(), strict=True)
        }

    def loss(self, params, batch, key):  # type: ignore[no-untyped-def]
        """Half the mean square of the distance to the batch's number."""

        def once(total, number):  # type: ignore[no-untyped-def]
            squares = [jnp.mean((leaf - number) ** 2) for leaf in jax.tree.leaves(params)]
            return total + sum(squares) / (2 * len(squares)), None

        if self._work == 1:
            return once(0.0, batch[0])[0], {}  # type: ignore[no-untyped-call]
        total, _ = jax.lax.scan(once, 0.0, jnp.broadcast_to(batch[0], (self._work,)))
        return total / self._work, {}

    def batches(self, split: str, seed: int):  # type: ignore[no-untyped-def]
        """One number each."""
        return lambda cursor: np.random.default_rng((seed, cursor)).normal(size=1).astype("f4")


def make_task(options: Options, data: Data) -> Big:
    """``parameters``: how many; ``work``: how many times a step goes over them."""
    told = known_options(options, {"parameters": LEAF, "work": 1})
    return Big(told["parameters"], told["work"])
