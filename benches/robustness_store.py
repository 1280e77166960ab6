"""Results of runs by name, on disk after each of them: a bench that was stopped goes on.

Knows a file; nothing of what the results say.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Store:
    """A JSON file of results."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, Any] = {}
        self._read()

    def _read(self) -> None:
        if self._path.exists():
            self._found |= json.loads(self._path.read_text())

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __getitem__(self, key: str) -> Any:
        return self._found[key]

    def add(self, key: str, result: Any) -> None:
        """Keep a result, whole or not at all; what another run wrote meanwhile stays."""
        self._read()
        self._found[key] = result
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(self._found, indent=0) + "\n")
        draft.replace(self._path)
