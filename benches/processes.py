"""What processes take, read from /proc: CPU seconds, proportional memory, children. Judges nothing.

A process that is gone takes nothing.
"""

import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """User and system seconds of a process, all threads, those that ended too."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def pss_mb(pid: int) -> float:
    """Proportional set size, MB: shared pages are divided among those who share them."""
    return _rollup(pid, "Pss")


def anonymous_mb(pid: int) -> float:
    """Anonymous memory, MB: what no file backs."""
    return _rollup(pid, "Anonymous")


def rss_mb(pid: int) -> float:
    """Resident set size, MB."""
    return _rollup(pid, "Rss")


def _rollup(pid: int, name: str) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith(f"{name}:")]
    return sum(kilobytes) * 1024 / 1e6


def descendants(pid: int) -> list[int]:
    """Process ids of children, their children, and so on."""
    found = []
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [
            int(child) for task in tasks for child in (task / "children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return []
    for child in children:
        found += [child, *descendants(child)]
    return found
