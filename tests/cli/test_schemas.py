"""Every reading verb has a schema, and what it prints without a daemon is valid against it."""

import json
import re
from pathlib import Path

import pytest
from export_kit import World
from jsonschema import Draft202012Validator
from schema_kit import SCHEMAS, hold, stopped_member

from tapestry_p2p.cli.main import main, make_app


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture
def member(home: Path) -> Path:
    """A stopped member that has lived a little."""
    stopped_member('[member]\nname = "Ana"\n')
    return home


def test_every_schema_is_one_and_says_what_it_is_of() -> None:
    found = sorted(SCHEMAS.glob("*.json"))
    assert len(found) > 20
    for path in found:
        schema = json.loads(path.read_bytes())
        Draft202012Validator.check_schema(schema)
        assert schema["title"]
        assert schema["description"]


def test_every_verb_with_json_has_a_schema(capsys: pytest.CaptureFixture[str]) -> None:
    reference = make_app(in_full=None).generate_docs()
    parts = re.split(r"^###? tapestry (.+)$", reference, flags=re.MULTILINE)[1:]
    json_ = {name for name, text in zip(parts[::2], parts[1::2], strict=True) if "--json" in text}
    assert {"status", "export", "config show", "testnet", "demo", "simulate"} <= json_
    missing = {n for n in json_ if not (SCHEMAS / f"{n.replace(' ', '-')}.json").exists()}
    assert missing == set()


@pytest.mark.parametrize(
    ("words", "schema", "status"),
    [
        ("id", "id", 0),
        ("paths", "paths", 0),
        ("config check", "config-check", 0),
        ("config show", "config-show", 0),
        ("config show --origin", "config-show-origin", 0),
        ("data list", "data-list", 0),
        ("metrics --explain", "metrics-explain", 0),
        ("audit", "audit", 0),
        ("audit --verify", "audit", 0),
        ("rollback", "rollback", 0),
        ("doctor", "doctor", None),
        ("verify nowhere", "verify", 1),
    ],
)
def test_what_a_stopped_member_prints_is_valid(
    words: str,
    schema: str,
    status: int | None,
    member: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TAPESTRY_BUDGET__THREADS", "1")
    code = main([*words.split(), "--json"])
    found = hold(schema, capsys.readouterr().out)
    assert code in ((0, 4) if status is None else (status,)), found
    assert found


def test_a_folder_taken_away_is_valid(
    world: World, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = world.export(tmp_path / "roses")
    hold("export-lineage", (folder / "lineage.json").read_text())
    hold("export-config", (folder / "config.json").read_text())
    assert main(["verify", str(folder), "--json"]) == 0
    assert hold("verify", capsys.readouterr().out)["holds"]
    assert main(["import", str(folder), "--json"]) == 0
    hold("import", capsys.readouterr().out)
