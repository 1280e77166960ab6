"""A member leaves a network of two processes with its model, and comes back as who it was."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from integration_kit import TINY, answered, environment, signed_by, started, tap_of, tapestry, until

from tapestry_p2p.gossip.header import LEAVE, RESUME

pytestmark = pytest.mark.integration

QUICK = {"TAPESTRY_TESTING__INNER_STEPS": "5", "TAPESTRY_BUDGET__THREADS": "1"}


def _peer(home: Path, other: str) -> dict[str, Any]:
    rows = answered(home, "peers").get("peers", [])
    return next((row for row in rows if row["id"] == other), {})


def _found(tmp_path: Path) -> tuple[Path, Path]:
    ana, bo = tmp_path / "ana", tmp_path / "bo"
    options = [word for key, v in TINY.items() for word in ("--task-option", f"{key}={v}")]
    made = tapestry(ana, "init", "--name", "Ana", *options)
    assert made.returncode == 0, made.stderr
    return ana, bo


def test_it_leaves_with_its_model_and_comes_back(tmp_path: Path) -> None:
    ana, bo = _found(tmp_path)
    tapped = QUICK | tap_of(ana)  # the store forgets what is long past
    with started(tmp_path / "ana.log", "run", **environment(ana, **tapped)) as first:
        until(lambda: answered(ana, "status").get("round", 0) > 0, "a round of Ana's")
        link = tapestry(ana, "invite").stdout.strip()
        joined = tapestry(bo, "join", link, "--name", "Bo", "--yes")
        assert joined.returncode == 0, joined.stderr
        with started(tmp_path / "bo.log", "run", **environment(bo, **QUICK)):
            me = json.loads(tapestry(ana, "id", "--json").stdout)["id"]
            until(lambda: _peer(bo, me).get("fresh"), "Bo holds Ana's copy")
            left = tapestry(ana, "leave", "--json")
            assert left.returncode == 0, left.stderr
            found = json.loads(left.stdout)
            assert (found["id"], found["told"], found["known"]) == (me, 1, 1)
            assert first.wait(30) == 0
            until(lambda: not _peer(bo, me), "Bo's list is without Ana")
            status = answered(bo, "status")
            assert status["verdicts"]["accept"]["leave"] == 1
            assert status["following"] == 0
            assert status["verdicts"]["reject"] == {}
            refused = tapestry(ana, "run")
            assert (refused.returncode, refused.stderr.count("\n")) == (6, 1)
            said = tapestry(ana, "generate", "All human ", "--bytes", "8", "--json")
            assert said.returncode == 0, said.stderr
            assert json.loads(said.stdout)["text"]
            taken = tmp_path / "taken"
            assert tapestry(ana, "export", str(taken)).returncode == 0
            assert tapestry(ana, "verify", str(taken)).returncode == 0
            back = tapestry(ana, "join", tapestry(bo, "invite").stdout.strip())
            assert back.returncode == 0, back.stderr
            with started(tmp_path / "ana.log", "run", **environment(ana, **tapped)) as again:
                until(lambda: _peer(bo, me).get("fresh"), "Bo mixes Ana again")
                again.send_signal(signal.SIGTERM)
                assert again.wait(30) == 0
            assert answered(bo, "status")["verdicts"]["reject"] == {}
    kinds = [header.kind for header in signed_by(ana)]
    assert kinds.count(LEAVE) == 1
    assert kinds[kinds.index(LEAVE) + 1] == RESUME
