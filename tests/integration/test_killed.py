"""A testnet of four whose members are killed at four moments, and all that crossed its walls.

One run is watched for many things: it completes (acceptance 5), it stays small and answers at once
(7), and no record of the members' data is in any byte that left a trainer (8).
"""

import os
import signal
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from integration_kit import (
    CANARY_BYTES,
    LANGUAGES,
    TINY,
    alive,
    answered,
    canaries,
    left_behind,
    members,
    payloads_of,
    signed_by,
    tap_of,
    traces,
    until,
    write_texts,
)

from tapestry_p2p.cli.testnet import run as testnet
from tapestry_p2p.cli.testnet.homes import Prepared, prepare
from tapestry_p2p.cli.testnet.plan import Plan, make_plan
from tapestry_p2p.daemon.tap import SIGNED
from tapestry_p2p.gossip.header import DIFFERENCE, Header

pytestmark = pytest.mark.integration

ROUNDS, INNER_STEPS = 60, 40
RECORDS = canaries(16)
NODE_MB_MAX = 150
STATUS_S = 0.5


@dataclass
class Seen:
    """What was seen of the run from outside."""

    out: Path
    report: dict[str, Any] = field(default_factory=dict)
    killed: dict[str, tuple[str, int]] = field(default_factory=dict)  # name -> what, round
    answers: list[str] = field(default_factory=list)
    status_s: list[float] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)
    nodes_with_jax: int = 0
    trainers_with_jax: int = 0
    looks: int = 0

    @property
    def homes(self) -> list[Path]:
        return sorted((self.out / "run" / "members").iterdir())

    def row(self, number: int) -> dict[str, Any]:
        return members(self.out)[number]

    def look(self) -> None:
        """Once around all members."""
        self.looks += 1
        for row in members(self.out):
            home = Path(row["home"])
            began = time.monotonic()
            status = answered(home, "status")
            if status:
                self.status_s.append(time.monotonic() - began)
                self.rss_mb.append(status["node_rss_mb"])
                trainer = status["trainer"].get("pid", 0)
                self.nodes_with_jax += maps_jax(row["pid"])
                self.trainers_with_jax += maps_jax(trainer)
            others = [answered(home, verb) for verb in ("peers", "copies", "invite")]
            self.answers += map(str, [status, *others])

    @property
    def headers(self) -> dict[str, list[Header]]:
        """What every member has signed."""
        return {row["name"]: signed_by(Path(row["home"])) for row in members(self.out)}

    def kill(self, number: int, what: str) -> None:
        """SIGKILL a member's ``pid`` or ``trainer_pid``."""
        row = self.row(number)
        pid = until(lambda: self.row(number)[what], f"{what} of member {number}")
        os.kill(pid, signal.SIGKILL)
        self.killed[row["name"]] = (what, row["round"])
        until(lambda: not alive(pid), "the killed process to go")


def maps_jax(pid: int) -> bool:
    try:
        return "jaxlib" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


def tapped(plan: Plan, rule: str, folder: Path) -> Prepared:
    """As the testnet prepares its members, and each copies all that crosses its walls."""
    prepared = prepare(plan, rule, folder)
    for home in prepared.homes:
        home.environment.update(tap_of(home.paths.config))
    return prepared


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("killed")
    write_texts(folder / "texts", RECORDS)
    model = folder / "model.json"
    model.write_text(str(TINY).replace("'", '"'))
    plan = make_plan(
        members=4,
        byzantine=0,
        tolerate=None,
        attack="mirror",
        data=str(folder / "texts"),
        languages=",".join(LANGUAGES),
        split=1,
        rounds=ROUNDS,
        inner_steps=INNER_STEPS,
        rule="cs_plus",
        codec="2bit",
        model=str(model),
        seed=5,
        out=folder / "out",
    )
    seen = Seen(plan.out)
    failed: list[BaseException] = []

    def run() -> None:
        try:
            seen.report.update(testnet.run_testnet(plan, quiet=True))
        except BaseException as error:  # told by the test, which runs in another thread
            failed.append(error)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(testnet, "prepare", tapped)
        thread = threading.Thread(target=run)
        thread.start()
        try:
            play(seen, thread)
        finally:
            thread.join()
    assert not failed, failed[0]
    return seen


def play(seen: Seen, thread: threading.Thread) -> None:
    """One node dies while all start, one in the middle, one trainer, one node while all judge."""

    def round_of(number: int) -> int:
        assert thread.is_alive(), "the testnet ended too soon"
        seen.look()
        return int(seen.row(number)["round"])

    until(lambda: not thread.is_alive() or members(seen.out), "the members to be started")
    seen.kill(0, "pid")
    until(lambda: round_of(1) >= 8, "round 8")
    seen.kill(1, "pid")
    until(lambda: round_of(2) >= 20, "round 20")
    seen.kill(2, "trainer_pid")

    def done() -> bool:
        round_of(3)
        states = [answered(Path(row["home"]), "status") for row in members(seen.out)]
        return all(state.get("finished") and state.get("settled") for state in states)

    until(done, "all rounds")
    time.sleep(1.0)  # copies are compared, then the trainers judge
    if thread.is_alive():
        seen.kill(3, "pid")
    while thread.is_alive():
        seen.look()
        time.sleep(0.5)


def test_it_completes_and_says_who_was_started_again(seen: Seen) -> None:
    assert len(seen.killed) == 4, "not everybody was killed"
    restarts = {row["name"]: row["restarts"] for row in seen.report["members"]}
    for name, (what, _) in seen.killed.items():
        assert restarts[name] == (1 if what == "pid" else 0), (name, restarts)
    for row in seen.report["members"]:
        assert row["exit_code"] == 0
        assert row["rounds"] == ROUNDS
        assert row["copies_equal"]
        assert row["verdicts"]["reject"] == 0
        assert 0 < row["bits_per_byte"]["together"] < 9
        assert 0 < row["bits_per_byte"]["sovereign"] < 9


def test_no_number_was_signed_twice(seen: Seen) -> None:
    for name, headers in seen.headers.items():
        by_seq: dict[tuple[bytes, int], set[bytes]] = defaultdict(set)
        for header in headers:
            by_seq[header.incarnation, header.seq].add(header.hash)
        assert all(len(hashes) == 1 for hashes in by_seq.values()), name
        assert len(by_seq) > ROUNDS, (name, len(by_seq))


def test_whoever_was_killed_went_on_as_itself(seen: Seen) -> None:
    """A plain crash needs no resume, except before the first state was ever saved."""
    for name, (_, round_) in seen.killed.items():
        if round_:
            assert len({header.incarnation for header in seen.headers[name]}) == 1, name
        rounds = {header.round for header in seen.headers[name] if header.kind == DIFFERENCE}
        assert rounds == set(range(1, ROUNDS + 1)), name


def test_nothing_is_left_behind(seen: Seen) -> None:
    until(lambda: not left_behind(seen.out), "every process to end", 10.0)


def test_the_node_stays_small_and_answers_at_once(seen: Seen) -> None:
    assert seen.looks > 10
    assert max(seen.rss_mb) <= NODE_MB_MAX
    assert median(seen.status_s) < STATUS_S


def test_the_node_never_loads_jax(seen: Seen) -> None:
    assert seen.trainers_with_jax > 10  # we can tell
    assert seen.nodes_with_jax == 0


# ---- records that must not leave -----------------------------------------------------------------


def test_the_members_really_train_on_the_records(seen: Seen) -> None:
    texts = b"".join(p.read_bytes() for p in (seen.out / "run" / "texts").glob("*.train.txt"))
    assert sum(record in texts for record in RECORDS) == len(RECORDS)
    assert all(len(record) == CANARY_BYTES >= 16 for record in RECORDS)


def test_the_tap_sees_what_crosses(seen: Seen) -> None:
    """Every wall has bytes; entries are in the plain ones and, encrypted, not in the raw ones."""
    for home in seen.homes:
        walls = {p.name: p.read_bytes() for p in (home / "tap").iterdir() if p.name != SIGNED}
        assert len(walls) == 6
        assert all(len(data) > 1000 for data in walls.values())
        sent = [p for p in payloads_of(home, seen.out / "scratch") if p in walls["plain-sent"]]
        assert len(sent) > 10
        assert not any(payload in walls["raw-sent"] for payload in sent)
        assert b"/noise" in walls["raw-sent"]
        assert b"/tapestry/1/sync" in walls["plain-sent"]
        assert b"/tapestry/1/sync" not in walls["raw-sent"]
    payloads = payloads_of(seen.homes[0], seen.out / "scratch")
    received = (seen.homes[2] / "tap" / "plain-received").read_bytes()  # a node that never died
    assert sum(payload in received for payload in payloads) > len(payloads) / 2


def test_no_record_is_in_any_byte_that_crossed(seen: Seen) -> None:
    searched = 0
    for home in seen.homes:
        for path in [*(home / "tap").iterdir(), home / "node.log"]:
            data = path.read_bytes()
            searched += len(data)
            for record in RECORDS:
                assert not any(trace in data for trace in traces(record)), path
    assert searched > 1_000_000


def test_no_record_is_in_an_answer_or_in_what_the_node_stores(seen: Seen) -> None:
    told = "\n".join(seen.answers).encode()
    assert len(seen.answers) > 100
    stored = b"".join(
        path.read_bytes()
        for home in seen.homes
        for path in (home / "state").rglob("*")
        if path.is_file()
    )
    assert len(stored) > 100_000
    for record in RECORDS:
        assert not any(trace in told or trace in stored for trace in traces(record))
