"""Every page: links and anchors lead somewhere; commands exist, and are run or say why not."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from docs_kit import PAGES, ROOT, Block, anchors, blocks, links, prose
from guides import GUIDES, SAMPLE_LINK

from tapestry_p2p.cli import main as cli
from tapestry_p2p.daemon import config, tomlfile

BLOCKS = [block for page in PAGES for block in blocks(page)]
COMMANDS = [(block, command) for block in BLOCKS for command in block.commands]
BENCH_TESTS = "\n".join(path.read_text() for path in (ROOT / "tests/benches").glob("*.py"))
PLACES = {"N": "3", "DIR": "d", "FILE": "f", "NAME": "n", "LINK": SAMPLE_LINK, "...": ""}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_anchors_lead_somewhere(page: Path) -> None:
    for link in links(page):
        target, _, anchor = link.partition("#")
        if "://" in target:
            continue
        path = page.parent / target if target else page
        assert path.exists(), link
        if anchor:
            assert anchor in anchors(path), link


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_pictures_say_which_command_made_them(page: Path) -> None:
    text = prose(page)
    for found in re.finditer(r"!\[([^\]]*)\]\(([^)]*)\)", text):
        assert len(found[1]) > 15, f"{found[2]} has no words for who cannot see it"
        after = text[found.end() : found.end() + 300]
        made_by = r"(Made by|run of|member;)\s`(\./)?(tapestry|python) [^`]+`"
        assert re.search(made_by, after), found[2]


def test_every_picture_is_shown_somewhere() -> None:
    shown = {
        (page.parent / link).resolve()
        for page in PAGES
        for link in links(page)
        if "://" not in link and Path(link).suffix in (".svg", ".png")
    }
    assert {path.resolve() for path in (ROOT / "docs/pictures").iterdir()} == shown


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.commands], ids=str)
def test_a_block_is_run_or_says_why_not(block: Block) -> None:
    others = [c for c in block.commands if not _is_bench(c)]
    if not others or block.not_run:
        return
    assert block.is_shell, "commands stand in a block of sh, or say `<!-- not run: WHY -->`"
    assert block.page in GUIDES, "nobody runs this page: `<!-- not run: WHY -->`, or a guide"


def _is_bench(command: str) -> bool:
    """Whether it is a bench that has its own test."""
    found = re.search(r"python benches/(\w+)\.py", command)
    return found is not None and re.search(rf"\b{found[1]}\b", BENCH_TESTS) is not None


def _ours() -> list[tuple[str, str]]:
    """(where, words after `tapestry`) of every command of ours in a block."""
    found = []
    for block, command in COMMANDS:
        ours = re.search(r"(?:^|\s|/)tapestry(?= )(.*)", command)
        if ours is not None and not re.match(r"\s*(test|--)", ours[1]):
            found.append((str(block), re.split(r" [|<>&]", ours[1])[0].strip()))
    return found


@pytest.mark.parametrize(("where", "words"), _ours())
def test_a_command_is_understood_by_the_program(where: str, words: str) -> None:
    line = words.replace("tapestry:...", SAMPLE_LINK)
    line = re.sub(r"\[[^\]]*\]", "", line)
    parts = [PLACES.get(word, word) for word in shlex.split(line)]
    app = cli.make_app()
    function, bound, _ = app.parse_args(
        [part for part in parts if part], print_error=False, exit_on_error=False
    )
    assert callable(function)
    assert bound.signature


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_verbs_in_sentences_exist(page: Path) -> None:
    known = {verb for verbs in cli.VERBS.values() for verb, _, _ in verbs}
    for verb in re.findall(r"`(?:\./)?tapestry ([a-z]\w*)", prose(page)):
        assert verb in known | {"test", "trainer"}, verb


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=name)
def test_files_that_are_named_exist(page: Path) -> None:
    for path in re.findall(
        r"`((?:tapestry_p2p|tests|docs|scripts)/[\w./-]+\.\w+)(?:::\w+)?`", page.read_text()
    ):
        assert (ROOT / path).exists(), path


def test_the_readme_shows_its_two_commands_first() -> None:
    first = [command for block in blocks(ROOT / "README.md") for command in block.commands][:2]
    assert first == ["./tapestry demo", "./tapestry test"]


def test_the_example_configuration_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "example"]) == 0
    shown = tomlfile.parse(capsys.readouterr().out.encode(), "example")
    assert tomlfile.convert(shown, config.Config, "example") == config.Config()


def test_the_generated_pages_are_current() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/make_docs.py", "--check", "--only-pages"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
