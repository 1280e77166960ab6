"""Draws a report: bits per character of each member, alone against together. Needs matplotlib."""

from pathlib import Path
from typing import Any

from tapestry_p2p.cli.drawing import BLUE, GREY, new_figure, save

ALONE, TOGETHER = GREY, BLUE


def draw(report: dict[str, Any], path: Path) -> None:
    """Write an SVG. TapestryError if matplotlib is not installed."""
    rows = [row for row in report["members"] if not row["byzantine"]]
    figure, (axes,) = new_figure(0.62 * len(rows) + 1.9)
    for place, row in enumerate(reversed(rows)):
        bits = row["bits_per_char"]
        for offset, arm, colour in ((0.19, "alone", ALONE), (-0.19, "together", TOGETHER)):
            axes.barh(place + offset, bits[arm], height=0.36, color=colour)
            axes.text(bits[arm], place + offset, f" {bits[arm]:.2f}", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [row["name"] for row in reversed(rows)])
    axes.set_xlabel("bits per character on held-out text (lower is better)")
    axes.margins(x=0.12)
    handles = [axes.barh(0, 0, color=colour) for colour in (ALONE, TOGETHER)]
    labels = ["each alone", "together"]
    figure.legend(handles=handles, labels=labels, loc="outside lower center", ncols=2)
    hostile = sum(row["byzantine"] for row in report["members"])
    axes.set_title(f"{len(rows)} honest members, {hostile} hostile", loc="left", fontsize=10)
    save(figure, path)
