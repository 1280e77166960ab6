"""The curves of benches/loom.py: the mean model's loss over the run, a line a method; SVG.

Knows results, not how they came about. Needs matplotlib.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benches.loom_setup import Setup
from benches.loom_tables import Case, rows
from tapestry_p2p.cli.drawing import BLUE, GREY, LIGHT, RED, new_figure, save

LINES = {  # row of the table -> colour, style
    "central": (GREY, ":"),
    "D-PSGD": (LIGHT, "-"),
    "GASLoC": (GREY, "-"),
    "DiLoCo": (RED, "-"),
    "Loom 2bit": (BLUE, "-"),
    "Loom 2bit, eta 2, mu 0.3": (BLUE, "--"),
}


def draw(cases: Sequence[Case], found: Mapping[str, Any], setup: Setup, path: Path) -> None:
    """The first seed's curve of every row's best setting."""
    figure, (panel,) = new_figure(3.6)
    for row, _, best in rows(cases, found, setup):
        case = next((c for c in cases if best and (c.row, c.method) == (row, best.method)), None)
        if row not in LINES or case is None or case.key not in found:
            continue
        shares, losses = zip(*found[case.key]["curve"], strict=True)
        colour, style = LINES[row]
        steps = [share * setup.steps for share in shares]
        panel.plot(steps, losses, color=colour, linestyle=style, linewidth=1.8, label=row)
    panel.set_ylim(2.5, 7)
    panel.legend(frameon=False, fontsize=8)
    panel.set_xlabel("inner steps of each member")
    panel.set_title("bits per byte of the mean model, 16 languages", loc="left", fontsize=9)
    save(figure, path)
