"""A network on open weights: founded with a file, joined without it, by real processes."""

import hashlib
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from integration_kit import answered, environment, started, tapestry, until

from tapestry_p2p.daemon.base import base_path
from tapestry_p2p.daemon.manifest import Base, load_manifest
from tapestry_p2p.daemon.paths import find_paths
from tapestry_p2p.learn.load import load
from tapestry_p2p.learn.task import Data
from tapestry_p2p.learn.vector import leaves_of


def _says(home: Path, *words: object) -> str:
    done = tapestry(home, *map(str, words))
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.integration
def test_who_joins_is_given_the_base_by_a_member(tmp_path: Path) -> None:
    weights = tmp_path / "open.safetensors"
    params = load("digits", {}, Data([], 7, needed=True)).init(jax.random.key(3))
    padding = {"not a leaf": np.arange(100_000, dtype=np.float32)}  # three pieces in all
    leaves = {path: np.asarray(leaf) for path, leaf in leaves_of(params).items()}
    weights.write_bytes(safetensors.numpy.save({**leaves, **padding}))
    ana, bo = tmp_path / "ana", tmp_path / "bo"
    _says(ana, "init", "--task", "digits", "--base", weights, "--rank", "2")
    manifest = load_manifest(ana / "network.toml")
    assert isinstance(manifest.base, Base)
    assert manifest.base.digest == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert manifest.schema.parameters == 2 * (64 + 32) + 2 * (32 + 10)
    with started(tmp_path / "log", "run", **environment(ana)):
        until(lambda: answered(ana, "status"), "Ana's member")
        link = _says(ana, "invite").strip().splitlines()[-1]
        _says(bo, "join", link, "--yes")
    held = base_path(find_paths({"TAPESTRY_HOME": str(bo)}), manifest.base)
    assert held.read_bytes() == weights.read_bytes()
