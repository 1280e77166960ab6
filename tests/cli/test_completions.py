"""Completions and manual pages: a real bash completes, real troff has nothing to say."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tapestry_p2p.cli import main as cli
from tapestry_p2p.cli.completions import pages

VERBS = [name for verbs in cli.VERBS.values() for name, _, _ in verbs]


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    return pages()


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["completions", shell]) == 0
    return capsys.readouterr().out


def completed(source: Path, *words: str) -> list[str]:
    """What bash offers for the last of the words."""
    typed = " ".join(f"'{word}'" for word in ("tapestry", *words))
    code = (
        f"source {source}; COMP_WORDS=({typed}); COMP_CWORD={len(words)}; _tapestry;"
        ' printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_verbs_options_and_verbs_of_verbs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    source = tmp_path / "tapestry"
    source.write_text(script("bash", capsys))
    assert set(completed(source, "")) >= set(VERBS)
    assert completed(source, "exp") == ["export"]
    assert "--tolerate" in completed(source, "init", "--")
    assert "show" in completed(source, "config", "")


@pytest.mark.parametrize(("shell", "mark"), [("zsh", "#compdef tapestry"), ("fish", "complete -c")])
def test_other_shells_get_every_verb(
    shell: str, mark: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = script(shell, capsys)
    assert mark in text
    assert all(verb in text for verb in VERBS)
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=text, text=True, check=True)


def test_another_shell_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completions", "tcsh"]) == 2
    assert "tcsh" in capsys.readouterr().err


def test_every_verb_has_a_page_with_its_options(written: dict[str, str]) -> None:
    assert set(written) == {"tapestry", *(f"tapestry-{verb}" for verb in VERBS)}
    for name, page in written.items():
        assert page.startswith(".TH TAPESTRY")
        assert ".SH EXIT STATUS" in page
        assert name == "tapestry" or "Example: tapestry" in page, name
        assert "m tapestry_p2p" not in page
    assert ".B \\-\\-tolerate" in written["tapestry-init"]
    assert ".SH TAPESTRY CONFIG SHOW" in written["tapestry-config"]


@pytest.mark.skipif(not shutil.which("groff"), reason="no groff here")
def test_troff_has_nothing_to_say(written: dict[str, str]) -> None:
    for name, page in written.items():
        done = subprocess.run(
            ["groff", "-man", "-ww", "-z"], input=page, capture_output=True, text=True, check=True
        )
        assert done.stderr == "", name


def test_pages_are_written_where_one_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["man", "--out", str(tmp_path / "man1")]) == 0
    assert (tmp_path / "man1" / "tapestry-verify.1").read_text().startswith(".TH")
    assert cli.main(["man", "--out", "/proc/nowhere"]) == 1
    assert "cannot be written" in capsys.readouterr().err
