"""Two real members: all that they print is valid, and what one exports holds on any machine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from schema_kit import hold
from test_by_hand import Person

pytestmark = pytest.mark.integration

SCRIPT = """
import sys
from safetensors.numpy import load_file
model = load_file(sys.argv[1])
print(sum(tensor.size for tensor in model.values()))
assert not any(name.startswith("tapestry") for name in sys.modules)
"""


LOCAL = ["norm/scale"]  # never leaves: on an exported folder it is used from beside it


@pytest.fixture
def people(tmp_path: Path) -> Iterator[tuple[Person, Person]]:
    with ExitStack() as stack:
        yield Person(tmp_path / "ana", stack), Person(tmp_path / "bo", stack)


def test_a_model_is_taken_away_and_proven(people: tuple[Person, Person], tmp_path: Path) -> None:
    ana, bo = people
    options = ("--task-option", "width=16", "--task-option", f"local={LOCAL[0]}")
    ana.types("init", "--name", "Ana", "--languages", "fr", *options)
    ana.runs()
    ana.sees(lambda status: bool(status["round"] >= 1))
    link = hold("invite", ana.types("invite", "--json"))["link"]
    bo.types("join", link, "--name", "Bo", "--languages", "de", "--yes")
    bo.runs()
    bo.sees(lambda status: bool(status["round"] >= 3 and status["mixed"]["authors"]))

    for person in people:
        status = hold("status", person.types("status", "--json"))
        (row,) = hold("peers", person.types("peers", "--json"))["peers"]
        assert row["id"] != status["id"]
    assert hold("eval", bo.types("eval", "--json"))["bits_per_byte"]
    assert hold("generate", bo.types("generate", "Alle", "--bytes", "9", "--json"))["text"]
    for words, schema in (
        (["metrics"], "metrics"),
        (["audit"], "audit"),
        (["rollback"], "rollback"),
        (["config", "check"], "config-check"),
    ):
        hold(schema, bo.types(*words, "--json"))
    for line in bo.types("log", "--json").splitlines():
        hold("log", line)

    _holds_anywhere(ana, bo, tmp_path)


def _holds_anywhere(ana: Person, bo: Person, tmp_path: Path) -> None:
    """What Bo exports is verified and used in the home of somebody who runs nothing."""
    told = {}
    for name, words in (("shown", ["--local"]), ("copy", ["--copy"])):
        out = bo.types("export", str(tmp_path / name), *words, "--json")
        told[name] = hold("export", out)
    assert told["shown"]["mixed"] == [hold("id", ana.types("id", "--json"))["id"]]
    assert told["shown"]["differs"] > 0
    assert told["copy"]["differs"] == 0
    own_part = Path(told["shown"]["local_path"])
    assert own_part == tmp_path / "shown.local.safetensors"
    assert list(load_file(own_part)) == told["shown"]["local"] == told["copy"]["local"] == LOCAL
    assert (own_part.stat().st_mode & 0o777, told["copy"]["local_path"]) == (0o600, "")
    exact, small = (next(iter(row.values())) for row in told["shown"]["scores"].values())
    assert small <= 1.01 * exact
    sizes = told["shown"]["bytes"]
    assert sizes["model.int8.safetensors"] < 0.5 * sizes["model.safetensors"]
    for person in (ana, bo):
        person.types("stop")
    for name, found in told.items():
        folder = tmp_path / name
        verdict = hold("verify", ana.types("verify", str(folder), "--json"))
        assert verdict["differs"] == pytest.approx(found["differs"])
        assert f"YES: {folder}" in ana.types("verify", str(folder), "--member", found["member"])
        hold("export-lineage", (folder / "lineage.json").read_text())
        hold("export-config", (folder / "config.json").read_text())
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "shown" / "model.safetensors")],
        capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert int(done.stdout) == told["shown"]["parameters"]
    said = ana.types("generate", "Alle ", "--model", str(tmp_path / "shown"), "--int8", "--json")
    assert hold("generate", said)["tokens_per_s"] > 0
    own_part.rename(tmp_path / "elsewhere")
    refused = ana.tries("generate", "Alle ", "--model", str(tmp_path / "shown"))
    assert refused.returncode == 78
    assert "norm/scale never left the member" in refused.stderr
