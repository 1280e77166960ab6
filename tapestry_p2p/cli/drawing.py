"""What every picture has in common: one size, one look, one way to be saved. Needs matplotlib."""

from pathlib import Path
from typing import Any

from tapestry_p2p.errors import FAILURE, TapestryError

GREY, BLUE, LIGHT, RED = "#9aa5b1", "#1f6f8b", "#d9dee3", "#b4442e"


def new_figure(height: float, columns: int = 1) -> tuple[Any, list[Any]]:
    """A figure and its axes beside one another. TapestryError if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise TapestryError(
            "pictures need matplotlib: pip install 'tapestry-p2p[pictures]'", FAILURE
        ) from error
    figure = Figure(figsize=(7.2 if columns == 1 else 3.8 * columns, height), layout="constrained")
    axes = figure.subplots(ncols=columns, squeeze=False)[0]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
    return figure, list(axes)


def save(figure: Any, path: Path) -> None:
    """Write an SVG: the same picture gives the same bytes."""
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "tapestry"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
