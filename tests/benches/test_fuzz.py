"""Every decoder against its corpus and fresh mutations: a verdict, never anything else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benches.fuzz import fuzz, missed
from benches.fuzz_targets import TARGETS, Target

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "corpus"
FRAMES = int(os.environ.get("FUZZ_FRAMES", "60000"))


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_gets_its_verdicts(name: str) -> None:
    files = sorted((CORPUS / name).glob("*.bin"))
    assert files
    target = TARGETS[name]
    for file in files:
        try:
            target.take(file.read_bytes())
        except target.verdict:
            continue


@pytest.mark.parametrize("name", TARGETS)
def test_what_honest_members_send_is_taken(name: str) -> None:
    for seed in TARGETS[name].seeds:
        if name != "record":  # a sealed record of nobody is never taken
            TARGETS[name].take(seed)


def test_what_a_target_must_not_raise_is_counted() -> None:
    def careless(data: bytes) -> None:
        if len(data) % 2:
            raise ZeroDivisionError
        raise KeyError

    found = fuzz(200, 1, {"careless": Target(careless, KeyError, [b"ab", b"abc"])})
    assert 0 < found["uncaught"] < 200
    assert "uncaught" in missed(found)


# what a stranger may send, and what the local user's socket takes
DECODERS = ("frame", "header", "request", "response", "chunk", "keyframe", "profile", "control")


@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_has_its_entry_point_with_its_invariant_on_the_first_line(name: str) -> None:
    first = (TARGETS[name].take.__doc__ or "").splitlines()[:1]
    assert first
    assert first[0].endswith(".")


def test_fresh_mutations_get_verdicts_too() -> None:
    """Another seed every day; it is printed, and a failure names the frame."""
    seed = os.environ.get("FUZZ_SEED", str(int(Path("/proc/uptime").read_text().split(".")[0])))
    done = subprocess.run(
        [sys.executable, "benches/fuzz.py", "--frames", str(FRAMES), "--seed", seed, "--json"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-2000:]}"
    found = json.loads(done.stdout)
    assert found["uncaught"] == 0
    assert all(row["thrown"] for row in found["targets"].values())
    assert found["grown_mb"] < 10, found  # the short run's noise; benches/fuzz.py states the bound
