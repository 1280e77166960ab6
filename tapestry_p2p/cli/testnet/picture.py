"""Draws a report: bits per character of each member, alone against together. Needs matplotlib."""

from pathlib import Path
from typing import Any

from tapestry_p2p.errors import FAILURE, TapestryError

ALONE, TOGETHER, UNTRAINED = "#9aa5b1", "#1f6f8b", "#d9dee3"


def draw(report: dict[str, Any], path: Path) -> None:
    """Write an SVG. TapestryError if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise TapestryError(
            "pictures need matplotlib: pip install 'tapestry-p2p[pictures]'", FAILURE
        ) from error
    rows = [row for row in report["members"] if not row["byzantine"]]
    figure = Figure(figsize=(7.2, 0.62 * len(rows) + 1.9), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(reversed(rows)):
        bits = row["bits_per_char"]
        for offset, arm, colour in ((0.19, "alone", ALONE), (-0.19, "together", TOGETHER)):
            axes.barh(place + offset, bits[arm], height=0.36, color=colour)
            axes.text(bits[arm], place + offset, f" {bits[arm]:.2f}", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [row["name"] for row in reversed(rows)])
    axes.set_xlabel("bits per character on held-out text (lower is better)")
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    handles = [axes.barh(0, 0, color=colour) for colour in (ALONE, TOGETHER)]
    labels = ["each alone", "together"]
    figure.legend(handles=handles, labels=labels, loc="outside lower center", ncols=2)
    hostile = sum(row["byzantine"] for row in report["members"])
    axes.set_title(f"{len(rows)} honest members, {hostile} hostile", loc="left", fontsize=10)
    figure.savefig(path, format="svg", metadata={"Date": None})
