"""Two networks in one home, both running: each by its name, no port of one in the other's way."""

import json
from pathlib import Path
from typing import Any

import pytest
from integration_kit import TINY, environment, started, tapestry, until

pytestmark = pytest.mark.integration

QUICK = {"TAPESTRY_BUDGET__THREADS": "1", "TAPESTRY_PAGE__ENABLED": "true"}


def _rows(home: Path) -> dict[str, dict[str, Any]]:
    done = tapestry(home, "networks", "--json")
    assert done.returncode == 0, done.stderr
    return {row["name"]: row for row in json.loads(done.stdout)["networks"]}


def test_both_run_and_are_told_apart(tmp_path: Path) -> None:
    home = tmp_path / "home"
    options = [word for key, v in TINY.items() for word in ("--task-option", f"{key}={v}")]
    for chosen, name in (((), "Ana"), (("--network", "choir"), "Alto")):
        made = tapestry(home, *chosen, "init", "--name", name, *options)
        assert made.returncode == 0, made.stderr
    assert "tapestry --network choir run" in made.stdout
    with (
        started(tmp_path / "one.log", "run", **environment(home, **QUICK)) as one,
        started(tmp_path / "two.log", "run", "--network", "choir", **environment(home, **QUICK)),
    ):
        until(
            lambda: all(r["state"] == "training" and r["page"] for r in _rows(home).values()),
            "both train and have a page",
        )
        rows = _rows(home)
        assert set(rows) == {"default", "choir"}
        assert len({row["id"] for row in rows.values()}) == 2
        assert len({row["network_id"] for row in rows.values()}) == 2
        pages = {row["page"] for row in rows.values()}
        assert len(pages) == 2
        for name, who in (("default", "Ana"), ("choir", "Alto")):
            status = json.loads(tapestry(home, "status", "--json", "--network", name).stdout)
            assert (status["name"], status["id"]) == (who, rows[name]["id"])
        assert tapestry(home, "stop").returncode == 0
        assert one.wait(30) == 0
        rows = _rows(home)
        assert (rows["default"]["state"], rows["choir"]["state"]) == ("stopped", "training")
        assert tapestry(home, "stop", "--network", "choir").returncode == 0
        until(lambda: _rows(home)["choir"]["state"] == "stopped", "the other stopped too")
