"""`metrics`: what the running member counts, in Prometheus' text format."""

from tapestry_p2p.cli.output import say, show
from tapestry_p2p.daemon.ask import ask
from tapestry_p2p.daemon.paths import find_paths
from tapestry_p2p.errors import OK


def metrics(*, explain: bool = False, json: bool = False) -> int:
    """Show what the running member counts, for Prometheus.

    Over HTTP as well, for this machine alone: [metrics] listen in tapestry.toml.

    Example: tapestry metrics | grep tapestry_rounds_total

    Parameters
    ----------
    explain
        What each metric means, as a table; needs no running member.
    json
        Print JSON: {"text": ...}, or with --explain a list.
    """
    if explain:
        return _explain(json)
    found = ask(find_paths().control_socket, {"do": "metrics"})
    show(found, as_json=json, lines=found["text"].splitlines())
    return OK


def _explain(as_json: bool) -> int:
    from tapestry_p2p.daemon.metrics import explain

    rows = explain()
    if as_json:
        keys = ("name", "kind", "labels", "meaning")
        table = [dict(zip(keys, row, strict=True)) for row in rows]
        show({"metrics": table}, as_json=True)
    else:
        say(*table_lines(rows))
    return OK


def table_lines(rows: list[tuple[str, str, str, str]]) -> list[str]:
    """The table of docs/metrics.md."""
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    return [*lines, *(f"| `{n}` | {kind} | {labels} | {text} |" for n, kind, labels, text in rows)]
