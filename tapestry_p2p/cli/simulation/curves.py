"""Draws what a simulation measured: every member and their average over the rounds; SVG."""

from pathlib import Path
from typing import Any

from tapestry_p2p.cli.drawing import BLUE, GREY, LIGHT, RED, new_figure, save

ABROAD = 1e3  # a normalised MSE beyond this is drawn at the edge


def draw_curves(report: dict[str, Any], path: Path) -> None:
    """One panel for each measure and one for the consensus distance."""
    curve = report["curve"]
    rounds = [point["round"] for point in curve]
    names = list(curve[0]["mean"])
    figure, axes = new_figure(3.4, len(names) + 1)
    for name, panel in zip(names, axes, strict=False):
        every = zip(*(point["members"][name] for point in curve), strict=True)
        for place, values in enumerate(every):
            label = "each member" if place == 0 else None
            panel.plot(rounds, values, color=GREY, linewidth=0.8, label=label)
        mean = [point["mean"][name] for point in curve]
        panel.plot(rounds, mean, color=BLUE, linewidth=2.0, label="their average")
        panel.set_title(name.replace("_", " "), loc="left", fontsize=10)
    apart = axes[-1]
    apart.plot(rounds, [point["consensus_distance"] for point in curve], color=BLUE)
    apart.set_title("consensus distance", loc="left", fontsize=10)
    for panel in axes:
        panel.set_xlabel("round")
        if report["healed_at"] is not None:
            panel.axvline(report["healed_at"], color=RED, linewidth=0.8, linestyle="--")
    axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle(report["said"], fontsize=9)
    save(figure, path)


def draw_average(report: dict[str, Any], path: Path) -> None:
    """The worst normalised MSE of every attack, one dot a rule; 1: nothing gained."""
    attacks = report["attacks"]
    rules = list(report["worst"])
    figure, (panel,) = new_figure(0.26 * len(attacks) + 1.6)
    for rule, colour in zip(rules, (BLUE, GREY, RED), strict=False):
        values = [min(rows[rule]["worst_mse"], ABROAD) for rows in attacks.values()]
        panel.scatter(values, range(len(attacks)), color=colour, s=22, label=rule)
    panel.axvline(1.0, color=LIGHT)
    panel.set_xscale("log")
    panel.set_yticks(range(len(attacks)), list(attacks))
    panel.invert_yaxis()
    panel.set_xlabel("worst normalised MSE (lower is better; 1: nothing gained)")
    panel.legend(frameon=False, fontsize=8)
    panel.set_title(report["said"], loc="left", fontsize=9)
    save(figure, path)
