"""Other people's programs, to compare with: each in an environment made here, versions pinned.

An environment is made once, beside other caches, and kept. Where one cannot be made (no registry,
another Python) the reason is told, and benches go on without it: its column stays empty.
"""

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
}
# numpy < 2.4: with a newer one hivemind's 8-bit modes silently do nothing
PINS = {
    "hivemind": ("torch==2.13.0", "hivemind==1.1.12", "numpy==2.3.5"),
    "p2pfl": (
        "torch==2.13.0",
        "p2pfl[dp]==0.4.4",
        "numpy==1.26.4",
        "pyarrow==20.0.0",
        "huggingface_hub==0.36.2",
    ),
    "flower": ("flwr[simulation]==1.41.0", "numpy==2.3.5"),
}
INSTALL_S = 1200.0


@dataclass(frozen=True)
class Rival:
    """A program that can be run, or why not."""

    name: str
    python: str  # '' if it is not here
    why: str = ""

    @property
    def note(self) -> str:
        """A line for the bench's table."""
        pins = ", ".join(PINS[self.name])
        return f"{self.name}: {pins}" if self.python else f"{self.name}: not here: {self.why}"


def quiet() -> dict[str, str]:
    """The environment that every process of a bench gets: ours, one thread for each library."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TAPESTRY_")}
    return {**kept, **ONE_THREAD, "PYTHONPATH": str(Path(__file__).parents[1])}


def cache() -> Path:
    """Where environments are kept: outside of the source tree."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tapestry-benches"


def rival(name: str) -> Rival:
    """The environment of that program, made now if need be."""
    pins = hashlib.sha256(" ".join(PINS[name]).encode()).hexdigest()[:8]
    folder = cache() / f"{name}-{pins}"
    python = folder / "bin" / "python"
    done = folder / "done"
    if done.exists():
        return Rival(name, str(python))
    print(f"making an environment for {name}: some minutes, once", file=sys.stderr, flush=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True, text=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *PINS[name]],
            check=True,
            capture_output=True,
            text=True,
            timeout=INSTALL_S,
        )
    except subprocess.CalledProcessError as error:
        lines = [line for line in (error.stderr or "").splitlines() if "ERROR" in line]
        return Rival(name, "", (lines or ["pip failed"])[-1].removeprefix("ERROR: ")[:160])
    except (OSError, subprocess.TimeoutExpired) as error:
        return Rival(name, "", str(error)[:160])
    done.touch()
    return Rival(name, str(python))
