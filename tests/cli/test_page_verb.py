"""`page`: what it prints beside the link, for programs and for whoever sits at another machine."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tapestry_p2p.cli import main as cli
from tapestry_p2p.daemon.paths import Paths
from tapestry_p2p.errors import FAILURE, OK, USAGE, TapestryError
from tapestry_p2p.page import serve
from tapestry_p2p.page.link import link_of

LINK = "http://127.0.0.1:8421/#key=abc"


@pytest.fixture
def asked(home: Path, monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The ports that were asked for; the page itself is played."""
    ports: list[int | None] = []

    def run(
        paths: Paths, port: int | None, tell: Callable[[str, bool], None], tether: bool
    ) -> None:
        ports.append(port)
        paths.make()
        tell(LINK, True)

    monkeypatch.setattr(serve, "run", run)
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    return ports


def test_at_the_machine_itself_it_is_the_link_alone(
    asked: list[int | None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["page"]) == OK
    captured = capsys.readouterr()
    assert captured.out == f"{LINK}\n"
    assert "ssh" not in captured.err
    assert asked == [None], "the usual port, or the next that is free"
    assert cli.main(["page", "--port", "9000"]) == OK
    assert cli.main(["page", "--port", "80"]) == USAGE
    assert asked == [None, 9000]


@pytest.mark.parametrize("way", ["over ssh", "as a service"])
def test_on_a_server_it_says_how_to_look_from_elsewhere(
    way: str,
    asked: list[int | None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if way == "over ssh":
        monkeypatch.setenv("SSH_CONNECTION", "192.0.2.1 50000 192.0.2.7 22")
    else:
        monkeypatch.setenv("TAPESTRY_SERVICE", "ana")
    monkeypatch.setenv("SUDO_USER", "kim")
    assert cli.main(["page"]) == OK
    said = capsys.readouterr().err
    assert "ssh -N -L 8421:127.0.0.1:8421 kim@" in said
    assert way == "as a service" or "kim@192.0.2.7" in said


def test_for_programs_it_prints_a_place_and_a_token_that_stays(
    asked: list[int | None], capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    said = []
    for _ in range(2):
        assert cli.main(["page", "--api"]) == OK
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    _, place, token = said[0].splitlines()
    assert place == "OPENAI_BASE_URL=http://127.0.0.1:8421/v1"
    assert len(token.removeprefix("OPENAI_API_KEY=")) > 32
    file = home / "run" / serve.TOKEN_FILE
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_bytes(b"\xff")
    assert cli.main(["page", "--api"]) == OK
    assert capsys.readouterr().out != said[0], "a spoilt one is made anew"


def test_a_link_is_told_while_its_process_lives(home: Path) -> None:
    from tapestry_p2p.daemon.paths import find_paths

    paths = find_paths()
    assert link_of(paths) == ""
    serve.note(paths, LINK)
    assert link_of(paths) == LINK
    (home / "run" / "page.json").write_text('{"link": "x", "pid": 4194305}')
    assert link_of(paths) == ""
    (home / "run" / "page.json").write_text("nonsense")
    assert link_of(paths) == ""


def test_the_folder_of_a_unit_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch()
    paths = Paths(tmp_path, tmp_path, tmp_path, tmp_path, tmp_path, tmp_path)
    monkeypatch.setattr(Paths, "page", file / "page")
    with pytest.raises(TapestryError, match="systemctl start") as caught:
        serve.make_folder(paths)
    assert caught.value.exit_code == FAILURE
