"""Build the documentation: write the pages that the program knows best, then check all of them.

    python scripts/make_docs.py            write docs/reference/*.md; check links,
                                           anchors, commands (seconds)
    python scripts/make_docs.py --run      also type the commands of the guides (minutes)
    python scripts/make_docs.py --check    write nothing; fails if a generated page is not current

Its one rule: what is generated comes from the program itself (its help, its configuration's own
comments), so that it cannot fall behind. What is checked stands in tests/docs.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tapestry_p2p.cli.main import make_app
from tapestry_p2p.daemon import tomlfile
from tapestry_p2p.daemon.config import Config
from tapestry_p2p.daemon.manifest import Manifest

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
MADE = "<!-- Made by scripts/make_docs.py from {}; changes here are lost. -->"
HIDDEN = frozenset({"testing"})  # sections for our own tests

STATUSES = """
## Exit status

| status | means | a program should |
|---|---|---|
| 0 | done | go on |
| 1 | failed | show the message |
| 2 | wrong usage | correct the command |
| 3 | no daemon runs here | start it: `tapestry run` |
| 4 | not ready yet, or degraded | look at `tapestry status`; wait |
| 5 | no answer in time | try again |
| 6 | refused: it would overwrite, or a check said no | read why |
| 7 | another version | upgrade the older side |
| 75 | failed for now (network, disk) | try again later |
| 78 | bad configuration | `tapestry config check` |
| 130 | you pressed Ctrl-C | |

What a verb prints on stdout is its result; messages go to stderr. With `--json` the result is JSON;
[docs/schemas](../schemas/README.md) has a schema for each.
"""


def cli_page() -> str:
    """Every verb with its options, from the same help that `--help` and the man pages show."""
    text = make_app(in_full=None).generate_docs()
    program = text.split("```console\n")[1].split(" COMMAND")[0]
    text = text.replace(f"{program} ", "tapestry ").replace("```console", "```text")
    head = "# Command line\n\n" + MADE.format("the help of its verbs")
    text = text.replace("# tapestry\n", head + "\n", 1)
    text = text.replace("## Table of Contents", "## Verbs", 1)
    before, first, rest = text.partition("\n## tapestry ")
    return _tidy(before + STATUSES + first + rest)


def config_page() -> str:
    """Every key of tapestry.toml and of network.toml: default, environment, meaning."""
    lines = [
        "# Configuration",
        "",
        MADE.format("the configuration's own types"),
        "",
        "`tapestry config example` prints tapestry.toml with these texts as comments;"
        " `tapestry config show --origin` says what is set where; `tapestry config check` whether"
        " it holds together. No file needs editing: every key of tapestry.toml can be set by the"
        " environment, and the environment wins. Lists are written as in TOML:"
        " `TAPESTRY_DATA__PATHS='[\"texts\"]'`.",
        "",
        "A key that is not known is an error that names it.",
        "",
        "## tapestry.toml: this member",
        "",
    ]
    lines += _sections(Config, environment=True)
    lines += [
        "## network.toml: the network",
        "",
        "The same for all members; its hash is the network's id, so any change founds another"
        " network. `tapestry init` writes it, `tapestry join` fetches it and checks the hash.",
        "",
    ]
    lines += _sections(Manifest, environment=False)
    return _tidy("\n".join(lines))


def _sections(kind: type[msgspec.Struct], *, environment: bool) -> Iterator[str]:
    for name, section in tomlfile.sections(kind).items():
        if name in HIDDEN:
            continue
        yield from (f"### [{name}]", "", (section.__doc__ or "").splitlines()[0], "")
        head = "| key | default | meaning |" if environment else "| key | meaning |"
        yield from (head, "|" + "---|" * head.count(" | ") + "---|")
        for field in msgspec.structs.fields(section):
            meaning = tomlfile.meaning(section, field.name).replace("|", "\\|")
            cells = [f"`{field.name}`", meaning]
            if environment:
                cells.insert(1, f"`{tomlfile.literal(_default(field))}`")
            yield f"| {' | '.join(cells)} |"
        if environment:
            yield from ("", f"By the environment: `TAPESTRY_{name.upper()}__KEY`.")
        yield ""


def _default(field: msgspec.structs.FieldInfo) -> object:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def _tidy(text: str) -> str:
    """No trailing spaces, no two blank lines in a row, one newline at the end."""
    lines = [line.rstrip() for line in text.strip().splitlines()]
    kept = [line for n, line in enumerate(lines) if line or lines[n - 1]]
    return "\n".join(kept) + "\n"


def main() -> int:
    """Write, or compare; then the checks of tests/docs. 1 if anything is not as it should be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--run", action="store_true", help="type the guides' commands as well")
    parser.add_argument("--only-pages", action="store_true", help="leave the checks out")
    asked = parser.parse_args()
    stale = 0
    for name, text in (("cli.md", cli_page()), ("config.md", config_page())):
        path = REFERENCE / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if asked.check:
            print(
                f"{path.relative_to(ROOT)} is not current: run scripts/make_docs.py",
                file=sys.stderr,
            )
            stale = 1
        else:
            path.write_text(text, encoding="utf-8")
            print(f"{path.relative_to(ROOT)} written")
    if asked.only_pages:
        return stale
    marks = [] if asked.run else ["-m", "not integration"]
    command = [sys.executable, "-m", "pytest", "-q", *marks, str(ROOT / "tests" / "docs")]
    return stale or subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
