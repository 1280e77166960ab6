"""Run by test_devices.py with several virtual devices: trains on one of them, and on all."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from trainer_kit import TINY

from tapestry_p2p.bulk import IN_MEMORY, Shelf
from tapestry_p2p.learn.devices import Devices
from tapestry_p2p.learn.good import Good
from tapestry_p2p.learn.learner import Program
from tapestry_p2p.learn.load import load
from tapestry_p2p.learn.task import Data


def lived(wanted: int, text: Path, shelf: Shelf) -> dict[str, object]:
    """Some rounds, with a correction and a way back."""
    task = load("language", {**TINY, "batch_size": 8}, Data([text], 7))
    program = Program(task, 1, 2, 0, shelf, Devices(wanted))
    program.compile()
    place = program.fresh(program.genesis)
    losses = [program.advance(place) for _ in range(4)]
    good = Good(program, place)
    vector = program.layout.flatten(place.params)
    program.add(place, 0.001 * vector)
    good.add(0.001 * vector)
    losses.append(program.advance(place))
    losses.append(program.advance(good.again()))
    leaves = jax.tree.leaves((place.params, place.moments))
    most = max(leaves, key=lambda leaf: leaf.nbytes)
    return {
        "devices": program.devices.count,
        "losses": losses,
        "norm": float(np.linalg.norm(vector)),
        "parts": len({str(shard.index) for shard in most.addressable_shards}),
        "held": most.addressable_shards[0].data.nbytes / most.nbytes,
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    found = [lived(n, folder / "text.txt", IN_MEMORY) for n in (1, 0)]
    found.append(lived(0, folder / "text.txt", Shelf(folder, mapped_from=1)))
    sys.stdout.write(json.dumps(found))
