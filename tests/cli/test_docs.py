"""What the documents tell people to type exists, and what they point to is there."""

import re
import shlex
from pathlib import Path

import pytest

from tapestry_p2p.cli import main as cli
from tapestry_p2p.daemon import config, tomlfile

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
SAMPLE_LINK = (
    "tapestry:" + "ab" * 32 + "?a=/ip4/127.0.0.1/tcp/1/p2p/"
    "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
)


def commands() -> list[str]:
    """Every ./tapestry command of the README, whether in a block or in a line."""
    text = (ROOT / "README.md").read_text()
    lines = re.findall(r"^\./tapestry (.*)$|`\./tapestry ([^`]*)`", text, re.MULTILINE)
    return [(block or inline).split("  #")[0].strip() for block, inline in lines]


def test_the_readme_shows_its_two_commands_first() -> None:
    assert [line.split()[0] for line in commands()[:2]] == ["demo", "test"]


@pytest.mark.parametrize("line", [line for line in commands() if line != "test"])
def test_a_command_of_the_readme_is_understood(line: str) -> None:
    words = shlex.split(line.replace("tapestry:...", SAMPLE_LINK))
    app = cli.make_app()
    function, bound, _ = app.parse_args(words, print_error=False, exit_on_error=False)
    assert callable(function)
    assert bound.signature


def typed(page: str) -> list[str]:
    """The tapestry commands in a page's code blocks."""
    text = (ROOT / "docs" / page).read_text()
    blocks = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("tapestry ")]


@pytest.mark.parametrize("line", [*typed("export.md"), *typed("tasks.md")])
def test_a_command_of_a_page_is_understood(line: str) -> None:
    words = shlex.split(line)[1:]
    function, bound, _ = cli.make_app().parse_args(words, print_error=False, exit_on_error=False)
    assert callable(function)
    assert bound.arguments


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    for name in re.findall(
        r"`((?:tapestry_p2p|tests|docs|scripts)/[\w./-]+\.\w+)`", page.read_text()
    ):
        assert (ROOT / name).exists(), name


def test_the_example_configuration_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "example"]) == 0
    shown = tomlfile.parse(capsys.readouterr().out.encode(), "example")
    assert tomlfile.convert(shown, config.Config, "example") == config.Config()
