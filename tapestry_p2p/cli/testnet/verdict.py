"""A report in plain words, good or bad. Reads the report alone."""

from typing import Any

FAIR = 0.005  # a difference below half a percent is none


def verdict(report: dict[str, Any]) -> list[str]:
    """What a layman should know of the run, a few sentences."""
    honest = [row for row in report["members"] if not row["byzantine"]]
    hostile = len(report["members"]) - len(honest)
    gains = {row["name"]: _gain(row) for row in honest}
    better = [name for name, gain in gains.items() if gain > FAIR]
    worse = [name for name, gain in gains.items() if gain < -FAIR]
    mean = sum(gains.values()) / len(gains)
    return [
        "",
        _headline(len(better), len(worse), len(honest), mean),
        *(f"  {name}: {_words(gain)}" for name, gain in gains.items()),
        _about_hostile(hostile, report),
        _about_wire(honest, report),
    ]


def _gain(row: dict[str, Any]) -> float:
    """Share by which together is better than alone on the member's own held-out text."""
    bits = row["bits_per_byte"]
    return float(1 - bits["together"] / bits["alone"])


def _headline(better: int, worse: int, honest: int, mean: float) -> str:
    if better == honest:
        return (
            f"VERDICT: all {honest} honest members understand their own language better together"
            f" than alone, by {100 * mean:.1f} % on average."
        )
    if worse == honest:
        return (
            f"VERDICT: nobody gained. All {honest} honest members did better alone, by"
            f" {-100 * mean:.1f} % on average."
        )
    return (
        f"VERDICT: mixed. {better} of {honest} honest members gained, {worse} lost;"
        f" on average {100 * mean:+.1f} %."
    )


def _words(gain: float) -> str:
    if gain > FAIR:
        return f"{100 * gain:.1f} % better together"
    if gain < -FAIR:
        return f"{-100 * gain:.1f} % better alone"
    return "no difference"


def _about_hostile(hostile: int, report: dict[str, Any]) -> str:
    if not hostile:
        return "Nobody was hostile in this run."
    said = f"{hostile} of {len(report['members'])} members lied all the time"
    if report["certificate"] == "CERTIFIED":
        return f"{said}; the rule bounds what {report['tolerate']} such can do (CERTIFIED)."
    return f"{said}; for so many the rule gives no certificate ({report['certificate']})."


def _about_wire(honest: list[dict[str, Any]], report: dict[str, Any]) -> str:
    sent = sum(row["bytes_sent"] for row in honest) / len(honest)
    apart = report["consensus_distance"]
    equal = all(row["copies_equal"] for row in report["members"])
    return (
        f"Each sent {sent / 1e6:.1f} MB, and no text. Their models differ by"
        f" {100 * apart:.1f} %; public copies are {'equal bit for bit' if equal else 'NOT equal'}."
    )
