"""benches/schedules.py runs; its schedule-free optimizer is optax's, and moves with a mixing."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benches import schedules

ROOT = Path(__file__).parents[2]


def test_the_quick_run_compares_with_a_cosine(tmp_path: Path) -> None:
    words = ["--quick", "--arms", "schedule-free", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "benches/schedules.py", *words],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=True, timeout=300,
    )  # fmt: skip
    assert done.stdout == (tmp_path / "schedules.md").read_text() + "\n"
    rows = json.loads((tmp_path / "schedules.json").read_text())["rows"]
    assert [(row["arm"], row["shown"]) for row in rows] == [
        ("cosine", "newest"),
        ("schedule-free", "its own"),
    ]
    assert all(7 < row["all"] < 10 and 7 < row["own"] < 10 for row in rows)


def _walk(optimizer: optax.GradientTransformation, moves: list[float]) -> tuple[Any, Any]:
    """Twenty steps by gradients that do not depend on where one is; ``moves`` come between."""
    params = jnp.zeros(3)
    state = optimizer.init(params)
    gradients = np.random.default_rng(0).normal(size=(20, 3))
    for gradient, move in zip(gradients, moves, strict=True):
        updates, state = optimizer.update(jnp.asarray(gradient, jnp.float32), state, params)
        params = optax.apply_updates(params, updates) + move
    return params, state


def test_schedule_free_is_optaxs_and_moves_with_a_mixing() -> None:
    rates = optax.schedules.constant_schedule(0.1)
    theirs = optax.contrib.schedule_free(optax.sgd(0.1), rates, b1=schedules.SF_MOMENTUM)
    ours = schedules.schedule_free(optax.sgd(0.1), rates)
    still = [0.0] * 20
    params, state = _walk(theirs, still)
    own, relative = _walk(ours, still)
    assert np.allclose(own, params, atol=1e-6)
    assert np.allclose(own + relative.ahead, state.z, atol=1e-6)
    moved, after = _walk(ours, [0.0] * 10 + [5.0] + [0.0] * 9)
    assert np.allclose(moved, own + 5, atol=1e-5)
    assert np.allclose(after.ahead, relative.ahead, atol=1e-5)


def test_averages_hold_what_their_weights_say() -> None:
    averages = schedules.Averages(np.zeros((1, 1), np.float32))
    for round_ in range(1, 101):
        averages.follow(np.full((1, 1), round_, np.float32))
    found = {name: float(row[0, 0]) for name, row in averages.rows.items()}
    for eta in schedules.ETAS:  # weights (s / t)^eta: the mean age is t / (eta + 2)
        assert found[f"eta {eta}"] == pytest.approx(100 - 100 / (eta + 2), abs=1)
    assert found["ema"] == pytest.approx(100 - schedules.EMA_ROUNDS + 1, abs=1)
