"""The model card, README.md of an exported folder: what the model is, where from, how good.

Rule: words alone. What others chose (names, languages, licence) is written so that Markdown cannot
take it for markup. The first lines are the metadata that model hubs read.
"""

import re
from json import dumps
from typing import Any

from tapestry_p2p.cli.folder import INT8, MODEL, PUBLISHED
from tapestry_p2p.cli.output import plain

Facts = dict[str, Any]

USE = """\
## Use and check

```
tapestry verify FOLDER                           # what is proven of it, and what is not
tapestry generate --model FOLDER "Once upon"     # no daemon, no network
```
"""


def model_card(status: Facts, told: Facts, found: Facts, about: Facts) -> str:
    """The text, from what node (``status``, ``told``) and trainer (``found``) say."""
    return "\n".join(
        [
            _metadata(status, told),
            f"# {cell(status['network'])}",
            "",
            "Trained together, without a server, by the members of a Tapestry network; this is the",
            f"model of one member. {plain(found['card'])}",
            "",
            *_table(_facts(status, told, found, about)),
            "",
            f"`{MODEL}` (float32) and `{INT8}` (eight bits, a scale for each channel) open",
            f"with the library safetensors alone. {_distance(about['differs'])}",
            "",
            "## Evaluation",
            "",
            "By this member, on its own held-out data. The word of the member, not proven:",
            "",
            *_table(
                [["file", "measure", "value"]]
                + [
                    [name, measure, f"{value:.4f}"]
                    for name, measures in about["scores"].items()
                    for measure, value in measures.items()
                ]
            ),
            "",
            "## Whom it was mixed with",
            "",
            "At the time of the export. Names are what members call themselves.",
            "",
            *_mixed(told["mixed"]),
            "",
            USE,
        ]
    )


def _metadata(status: Facts, told: Facts) -> str:
    spoken = {language for row in told["mixed"] for language in row["languages"]}
    lines = ["---", "library_name: tapestry"]
    if status["licence"]:
        lines.append(f"license: {dumps(status['licence'])}")
    if languages := sorted(spoken.union(told["languages"])):
        lines.append(f"language: {dumps(languages)}")
    return "\n".join([*lines, "---"])


def _facts(status: Facts, told: Facts, found: Facts, about: Facts) -> list[list[str]]:
    return [
        ["", ""],
        ["task", cell(found["task"])],
        ["parameters", str(found["parameters"])],
        *([["not in it", ", ".join(map(cell, found["local"]))]] if found["local"] else []),
        ["schema", found["schema"]],
        ["licence", cell(status["licence"]) or "not stated"],
        ["network id", status["network_id"]],
        ["member", f"{status['id']} {cell(status['name'])}"],
        ["its languages", ", ".join(map(cell, told["languages"])) or "not stated"],
        ["published up to", f"entry {about['entry']}, round {about['round']}"],
        ["rule", f"{status['rule']} against {status['tolerate']} hostile: {status['certificate']}"],
    ]


def _mixed(rows: list[Facts]) -> list[str]:
    if not rows:
        return ["Nobody."]
    found = [
        [cell(row["name"]) or "(no name)", ", ".join(map(cell, row["languages"])), row["id"]]
        for row in rows
    ]
    return _table([["name", "languages", "key"], *found])


def _distance(differs: float) -> str:
    if not differs:
        return "The model is the\nmember's public copy, bit for bit what its peers hold."
    return (
        f"The model is\n{100 * differs:.2f} % away from the member's public copy (`{PUBLISHED}`,"
        " what its\npeers hold), by the norm of the difference."
    )


def _table(rows: list[list[str]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], f"|{'---|' * len(rows[0])}", *lines[1:]]


def cell(text: str) -> str:
    """A text that somebody else chose, on one line, as plain text in Markdown."""
    return re.sub(r"([^\w\s.,'-])", r"\\\1", plain(text))
