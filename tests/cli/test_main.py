"""The frame of the command line: statuses, one line for each failure, and nothing heavy loaded."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tapestry_p2p import __version__
from tapestry_p2p.cli import main as cli
from tapestry_p2p.errors import BAD_CONFIG, OK, USAGE, TapestryError

ALL_VERBS = [name for verbs in cli.VERBS.values() for name, _, _ in verbs]


def test_version_is_told_without_the_parser(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["version"]) == OK
    assert capsys.readouterr().out == f"tapestry {__version__}\n"


@pytest.mark.parametrize("words", list(cli.DIRECT))
def test_a_verb_that_skips_the_parser_is_the_one_that_the_parser_finds(
    words: tuple[str, ...],
) -> None:
    function, _ = cli.DIRECT[words]
    verbs = {name: place for rows in cli.VERBS.values() for name, place, _ in rows}
    assert function == verbs[words[0].removeprefix("--")]


def test_no_words_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == OK
    out = capsys.readouterr().out
    assert all(f" {verb} " in out for verb in ALL_VERBS)


@pytest.mark.parametrize("verb", ALL_VERBS)
def test_every_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    if verb in ("config", "data", "service"):  # their parser remembers the last list that named it
        command = [sys.executable, "-m", "tapestry_p2p", verb, "--help"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    else:
        assert cli.main([verb, "--help"]) == OK
        said = capsys.readouterr().out
    assert "Usage: tapestry" in said
    assert f"Example: tapestry {verb}" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense"], "nonsense"),
        (["id", "--jsn"], "tapestry id --help"),
        (["id", "one"], "one"),
        (["init", "--tolerate", "many"], "many"),
        (["init", "--tolerate", "-1"], "tolerate"),
        (["join"], "link"),
        (["config", "shown"], "shown"),
        (["data", "debian", "--languages", "de"], "out"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    assert cli.main(words) == USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("tapestry: ")
    assert captured.err.count("\n") == 1
    assert said.casefold() in captured.err.casefold()
    assert not home.exists()


def test_a_failure_is_one_line_whatever_it_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise TapestryError("two\nlines \x1b[31mred", 75)

    monkeypatch.setattr("tapestry_p2p.cli.about.version", broken)
    assert cli.main(["version"]) == 75
    assert capsys.readouterr().err == "tapestry: two lines  [31mred\n"


def test_ctrl_c_is_a_status_not_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tapestry_p2p.cli.about.version", interrupted)
    assert cli.main(["version"]) == cli.INTERRUPTED


def test_a_fault_of_our_own_is_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("tapestry_p2p.cli.about.version", wrong)
    with pytest.raises(ZeroDivisionError):
        cli.main(["version"])


def test_a_reader_who_has_read_enough_is_no_failure() -> None:
    command = f"{sys.executable} -m tapestry_p2p.cli.main config example | head -n 1"
    done = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stderr == ""


HEAVY = ("jax", "jaxlib", "flax", "optax", "libp2p", "trio", "numpy", "matplotlib")


@pytest.mark.parametrize("words", [["version"], ["paths"], ["config", "example"], ["data", "list"]])
def test_small_verbs_load_nothing_heavy(words: list[str], home: Path) -> None:
    code = (
        "import sys; from tapestry_p2p.cli.main import main; status = main(sys.argv[1:]);"
        f"print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )
    assert done.stderr == "[]\n"


def test_paths_as_json(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert cli.main(["paths", "--json"]) == OK
    paths = json.loads(capsys.readouterr().out)
    assert paths["key"] == str(home / "state" / "key.pem")


@pytest.mark.parametrize("words", [["id"], ["config", "check"], ["config", "show"]])
def test_without_a_member_the_verbs_say_how_to_become_one(
    words: list[str], capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    assert cli.main(words) == BAD_CONFIG
    assert "tapestry init" in capsys.readouterr().err
    assert not home.exists()
