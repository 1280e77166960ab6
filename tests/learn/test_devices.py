"""One member, many accelerators, one stream: cut over eight virtual devices it trains the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from trainer_kit import text_file

from tapestry_p2p.learn.devices import Devices

HERE = Path(__file__).parent


def test_training_on_eight_devices_is_the_same_training(tmp_path: Path) -> None:
    text_file(tmp_path).rename(tmp_path / "text.txt")
    path = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    flags = "--xla_force_host_platform_device_count=8 --xla_cpu_multi_thread_eigen=false"
    done = subprocess.run(
        [sys.executable, HERE / "devices_script.py", tmp_path],
        env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, eight, big = json.loads(done.stdout)
    assert (one["devices"], one["parts"], one["held"]) == (1, 1, 1.0)
    for many in (eight, big):
        assert (many["devices"], many["parts"], many["held"]) == (8, 8, 0.125)
        assert np.allclose(many["losses"], one["losses"], rtol=1e-4)
        assert many["norm"] == pytest.approx(one["norm"], rel=1e-4)
    assert one["losses"][-1] < one["losses"][0]


def test_no_more_devices_than_there_are() -> None:
    assert Devices(1).count == 1
    assert Devices(64).count == Devices(0).count >= 1
