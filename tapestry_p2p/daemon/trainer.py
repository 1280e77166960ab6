"""The trainer process as the node sees it: started, fed, restarted, stopped. Knows the link only.

The trainer holds the private data and has no network; the node holds the network and no data.
Whatever comes back is checked by link.py's closed schema. A trainer that dies is started again
from the node's vector, with backoff; the node stays in the network meanwhile. Where another unit
starts trainers (apart.py) the next one that reports is taken.
"""

import contextlib
import functools
import logging
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import trio

from tapestry_p2p import link
from tapestry_p2p.daemon.apart import Door
from tapestry_p2p.daemon.logs import rotate
from tapestry_p2p.daemon.measured import Measured
from tapestry_p2p.daemon.tap import LINK_RECEIVED, LINK_SENT, Tap
from tapestry_p2p.daemon.tempo import LOOK_S, Silence
from tapestry_p2p.errors import BAD_CONFIG, TapestryError
from tapestry_p2p.gossip.profile import Results
from tapestry_p2p.heap import resident_bytes
from tapestry_p2p.mix.codec import Vector
from tapestry_p2p.mix.space import MEMORY, Space

log = logging.getLogger("tapestry.trainer")
T = TypeVar("T")

HELLO_DEADLINE_S = 300.0  # importing JAX and building a model on a busy machine ...
HELLO_S = 3e-6  # ... and so much more for each parameter
BACKOFF_S = (1.0, 2.0, 5.0, 15.0, 60.0)
CALM_S = 300.0  # so long without a failure and the backoff starts over
STOP_S = 2.0
THREAD_ABOVE = 500_000  # parameters; work on shorter vectors is quicker than a thread switch
UNANSWERED_MAX = 2  # vectors that a trainer hands over before it waits for a correction

# code -> (what the user is told, whether a restart could help)
FAILURES = {
    "data_missing": ("a data file is missing: correct [data] paths", False),
    "data_too_small": ("the data is smaller than one batch: add text or lower batch_size", False),
    "data_unreadable": ("a data file cannot be read: check its owner and mode", False),
    "task_not_found": ("the task was not found: check [task] name in network.toml", False),
    "task_error": ("the task raised an error", True),
    "nonfinite": ("the loss was not a number three times in a row", True),
    "start_too_far": ("the vector to start from was too far from the last one", True),
    "base_missing": (
        "the file of base weights is missing or another one: put the one that network.toml names"
        " there, or join anew",
        False,
    ),
    "link": ("node and trainer misunderstood each other", True),
    "killed": ("the trainer was killed by the system: is memory short?", True),
    "hang": ("the trainer said nothing for far longer than its rounds take", True),
    "start": ("the trainer could not be started: is memory or disk space short?", True),
}


@dataclass(slots=True)
class TrainerState:
    """What ``status`` shows of the trainer."""

    running: bool = False
    pid: int = 0
    isolated: bool = False
    isolation: str = "not started"
    restarts: int = 0
    last_failure: str = ""
    steps: int = 0
    tokens: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    busy_s: float = 0.0
    devices: int = 0  # that train together; 0: not told
    memory_mb: float = 0.0  # resident, as it told with its last vector
    bad_batches: int = 0  # left out: with them loss or parameters were not finite

    @property
    def resident_bytes(self) -> float:
        """Its memory; as it last told where /proc hides it, in another unit. 0 if none runs."""
        return (resident_bytes(self.pid) or 1e6 * self.memory_mb) if self.running else 0.0


@dataclass(frozen=True, slots=True)
class TrainedVector:
    """One round's y float32[d] as the trainer handed it over, and its record."""

    vector: Vector
    record: dict[str, Any]
    life: int  # which of the processes it came from


Begin = Callable[["Trainer", Vector], Awaitable[None]]


@dataclass
class Trainer:
    """Owns the process. ``run`` lives in the node's nursery; ``vectors`` yields each round's y.

    ``begin`` is awaited after every hello with the genesis vector float32[d]; it says where to
    start and what to train (``start`` and ``train``), on a restart too.
    """

    configure: dict[str, Any]
    log_path: Path
    begin: Begin
    parameters: int
    schema: str
    tap: Tap | None = None
    door: Door | None = None  # where a trainer reports that is started apart
    space: Space = MEMORY  # where vectors live
    state: TrainerState = field(default_factory=TrainerState)
    measured: Measured = field(default_factory=Measured)

    def __post_init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[TrainedVector](2)
        self._sock: socket.socket | None = None
        self._shared: link.SharedVectors | None = None
        self._stopping = trio.Event()
        self._end_by = math.inf  # once told to stop
        self._serving = trio.CancelScope()
        self.life = 0
        self.begun = False  # this life was told where to start
        self.held = False  # not to train for now
        self._dismissed = False  # this life was told to end, and will
        self._released = trio.Event()
        self.adding = False  # an addition is under way
        self._additions = 0
        self._added = trio.Event()
        self._silence = Silence()
        self._last_round = 0
        self._unanswered = 0
        self._finished = True  # nothing is to be trained
        self.stopped = trio.Event()

    async def vectors(self) -> AsyncIterator[TrainedVector]:
        """Every vector that a trainer hands over, whichever process it came from."""
        async for trained in self._receive:
            yield trained

    @property
    def results(self) -> Results | None:
        """What was measured of our models so far, as other members may be told it."""
        return self.measured.results()

    async def start(self, vector: Vector, round_: int, step: int) -> None:
        """Hand over the vector float32[d] to begin from."""
        await self._put({"t": "start", "seq": 0, "round": round_, "step": step}, vector)

    async def train(self, round_: int, steps: int, last_round: int) -> None:
        """Order rounds ``round_`` .. ``last_round`` (0: for ever) of ``steps`` inner steps."""
        self._last_round, self._finished, self._unanswered = last_round, False, 0
        await self._order({"t": "train", "round": round_, "steps": steps, "last_round": last_round})

    async def pace(self, steps: int, life: int) -> None:
        """Rounds of so many inner steps from now on, in that life."""
        if life == self.life:
            await self._order({"t": "pace", "steps": steps})

    async def correct(self, seq: int, correction: Vector, life: int) -> bool:
        """Answer vector ``seq`` of that life by a correction float32[d] to add.

        False if the trainer is in another life by now: then nothing is sent.
        """
        if life == self.life:
            self._unanswered -= 1
            await self._put({"t": "correct", "seq": seq}, correction)
        return life == self.life

    async def add(self, addition: Vector, life: int) -> int:
        """Add float32[d], made for that life, at the next step boundary, unasked; its number.

        One at a time: waits until the last one was added. 0 if that life is over or has not begun.
        """
        while life == self.life and self.adding and self._shared is not None:
            await self._added.wait()
        if life != self.life or not self.begun or self._shared is None:
            return 0
        self._additions += 1
        number = self._additions
        self.adding = True
        await self._put({"t": "add", "seq": number}, addition, link.MORE)
        return number if life == self.life else 0

    async def weigh(self, vector: Vector) -> bool:
        """Whether float32[d] is better than genesis on the held-out data. In ``begin`` only.

        LinkError if anything but an answer comes back.
        """
        assert self._sock is not None
        await self._put({"t": "weigh", "seq": 0}, vector)
        record = link.parse_from_trainer((await self._receive_record(self._sock))[0])
        if record["t"] != "weighed":
            raise link.LinkError(f"{record['t']} instead of an answer")
        return bool(record["better"])

    async def stop(self) -> None:
        """Ask it to save and end; ``run`` returns within ``STOP_S``, whatever it is doing."""
        self._stopping.set()
        self._released.set()
        self._end_by = self._serving.deadline = trio.current_time() + STOP_S
        await self._order({"t": "stop"})

    async def hold(self) -> None:
        """Ask it to save and end, and start none until ``release``."""
        self.held, self._dismissed, self._released = True, True, trio.Event()
        self._serving.deadline = trio.current_time() + STOP_S
        await self._order({"t": "stop"})

    def renew(self) -> None:
        """End this life; the next begins at once, from what ``begin`` says. What comes is void."""
        self.life += 1
        if self._sock is not None:
            self._dismissed = True
            self._serving.deadline = trio.current_time()

    def release(self) -> None:
        """Train again."""
        self.held = False
        self._released.set()

    async def run(self) -> None:
        """Keep a trainer alive until ``stop``. TapestryError if a restart cannot help."""
        failures = 0
        while not self._stopping.is_set():
            if self.held:
                await self._released.wait()
                continue
            self._dismissed = False
            began = trio.current_time()
            code = await self._one_life()
            if self._stopping.is_set():
                break
            if self._dismissed:
                continue
            text, curable = FAILURES.get(code, ("the trainer ended without a word", True))
            self.state.last_failure = text
            if not curable:
                raise TapestryError(f"{text} (details: {self.log_path})", BAD_CONFIG)
            failures = 1 if trio.current_time() - began > CALM_S else failures + 1
            wait = BACKOFF_S[min(failures, len(BACKOFF_S)) - 1]
            log.warning("trainer ended (%s); starting it again in %.0f s", text, wait)
            self.state.restarts += 1
            with trio.move_on_after(wait):
                await self._stopping.wait()
        self.stopped.set()

    async def _one_life(self) -> str:
        """Start a process, serve it until it ends; its failure code or ''."""
        self.life += 1
        self.begun = False
        self._additions = 0
        self._note_added()
        try:
            ours, pid, process = await self._next_trainer()
        except OSError as error:  # no memory, no descriptors, no room for its log
            log.warning("trainer: %s", error)
            return "start"
        self._sock = ours
        self.state.running, self.state.pid = True, pid
        self.state.memory_mb = 0.0  # the last life's
        code = ""
        try:
            with trio.CancelScope(deadline=self._ends_at()) as self._serving:
                code = await self._serve(ours)
        except (link.LinkError, OSError) as error:
            log.warning("trainer: %s", error)
            code = "link"
        except TapestryError:
            if process is not None:
                process.kill()  # it would save another model's state over that of ours
            raise
        finally:
            self._sock = None
            self.state.running = False
            ours.close()  # end of file: it saves and exits
            patience_s = STOP_S if self._shared is not None else 0.0  # it has nothing to save yet
            if process is not None and await self._end_process(process, patience_s) and not code:
                code = "killed"
            if self._shared is not None:
                self._shared.close()
                self._shared = None
            self._note_added()  # nobody will
        return code

    def _ends_at(self) -> float:
        """When this life has to end, if it has to."""
        return min(self._end_by, trio.current_time() + STOP_S) if self.held else self._end_by

    async def _end_process(self, process: trio.Process, patience_s: float) -> bool:
        """Give it so long to save; whether somebody else has killed it."""
        with trio.CancelScope(shield=True):
            with trio.move_on_at(min(self._end_by, trio.current_time() + patience_s)):
                await process.wait()
            late = process.returncode is None
            if late:
                if patience_s:
                    log.warning("the trainer does not end: killing it")
                process.kill()
                await process.wait()
        return not late and process.returncode == -signal.SIGKILL

    async def _next_trainer(self) -> tuple[socket.socket, int, trio.Process | None]:
        """Our end of a trainer's link, its process id, and the process if it is our child."""
        if self.door is None:
            ours, process = await self._start_process()
            return ours, process.pid, process
        with trio.CancelScope(deadline=self._ends_at()) as self._serving:
            ours, pid = await self.door.trainer()
            return ours, pid, None
        raise OSError("told to stop before a trainer reported")

    async def _start_process(self) -> tuple[socket.socket, trio.Process]:
        """Our end of a new trainer's link, and the process. OSError if the system refuses."""
        self.log_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        rotate(self.log_path)
        with open(self.log_path, "ab", opener=_private) as errors:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs, contextlib.ExitStack() as unless_started:
                unless_started.enter_context(ours)
                ours.setblocking(False)
                command = [sys.executable, "-m", "tapestry_p2p.learn.trainer", "--link-fd"]
                process = await trio.lowlevel.open_process(
                    [*command, str(theirs.fileno())],
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=errors,
                    stderr=errors,
                )
                unless_started.pop_all()
        return ours, process

    async def _serve(self, sock: socket.socket) -> str:
        await self._send_record(sock, {"t": "configure", **self.configure})
        packet = b""
        with trio.move_on_after(HELLO_DEADLINE_S + HELLO_S * self.parameters) as deadline:
            packet, fds = await self._receive_record(sock, fds_max=1)
        if deadline.cancelled_caught:
            return "link"
        if not packet:
            return ""
        try:
            record = link.parse_from_trainer(packet)
            if record["t"] == "failed":
                return str(record["code"])
            self._shared = self._welcome(record, fds)
        finally:
            for fd in fds:  # unless the memory took it over
                os.close(fd)
        await self.begin(self, await self._take(self._shared, 0, record["genesis_digest"]))
        self.begun = True
        return await self._listen(sock, self._shared)

    async def _listen(self, sock: socket.socket, shared: link.SharedVectors) -> str:
        life = self.life
        self._silence.began()
        while True:
            packet: bytes | None = None
            with trio.move_on_after(LOOK_S):
                packet, _ = await self._receive_record(sock)
            if packet is None:
                if self._silence.looked(self._owes):
                    return "hang"
                continue
            if not packet:
                return ""
            record = link.parse_from_trainer(packet)
            self._silence.heard(record["seconds"] if record["t"] == "vector" else 0.0)
            if record["t"] == "failed":
                return str(record["code"])
            if record["t"] == "added":
                self._note_added()
            if record["t"] == "judged":
                self.measured.note(record)
            if record["t"] == "unmeasured":
                self.measured.failed = True
            if record["t"] == "vector":
                vector = await self._take(shared, record["seq"], record["digest"])
                self._note(record)
                await self._send.send(TrainedVector(vector, record, life))

    @property
    def _owes(self) -> bool:
        """Whether the next vector is the trainer's to hand over, and not ours to ask for."""
        return not self._finished and self._unanswered < UNANSWERED_MAX

    def _welcome(self, record: dict[str, Any], fds: list[int]) -> link.SharedVectors:
        if record["t"] != "hello" or len(fds) != 1:
            raise link.LinkError("the first record is not a hello with one descriptor")
        if record["parameters"] != self.parameters or record["schema"] != self.schema:
            raise TapestryError(
                f"the task makes {record['parameters']} parameters with schema "
                f"{record['schema'][:12]}, the network has {self.parameters} with "
                f"{self.schema[:12]}: use the network's task and options",
                BAD_CONFIG,
            )
        self.state.isolated, self.state.isolation = record["isolated"], record["isolation"]
        self.state.devices = record.get("devices", 0)
        self.measured.clear()
        return link.SharedVectors.from_fd(fds.pop(), self.parameters)

    def _note(self, record: dict[str, Any]) -> None:
        self._unanswered += 1
        self._finished = record["round"] == self._last_round
        self.state.bad_batches += record["skipped"]
        self.state.steps += record["steps"]
        self.state.tokens += record["tokens"]
        self.state.loss = record["loss"]
        self.state.memory_mb = record.get("memory_mb", 0.0)
        self.state.seconds += record["seconds"]
        self.state.busy_s += record["busy_s"]

    def _note_added(self) -> None:
        self.adding = False
        self._added.set()
        self._added = trio.Event()

    async def _put(self, record: dict[str, Any], vector: Vector, direction: str = link.IN) -> None:
        shared = self._shared
        if shared is None:
            return
        give = functools.partial(shared.write, direction, record["seq"], vector)
        try:
            digest = await self._in_thread(give)
        except ValueError:  # a closed map: that life has ended
            if shared is self._shared:
                raise
            return
        self.space.settle()
        if shared is self._shared:  # else the next life knows nothing of it
            await self._order({**record, "digest": digest})

    async def _take(self, shared: link.SharedVectors, seq: int, digest: str) -> Vector:
        """The trainer's vector ``seq``, float32[d], where ours live."""
        take = functools.partial(shared.read, link.OUT, seq, digest, self.space.empty)
        vector = await self._in_thread(take)
        self.space.settle()
        return vector

    async def _in_thread(self, job: Callable[[], T]) -> T:
        """Peers must not wait for a long vector's copy and digest."""
        if self.parameters < THREAD_ABOVE:
            return job()
        return await trio.to_thread.run_sync(job)

    async def _order(self, record: dict[str, Any]) -> None:
        """Send a record; a trainer that is gone gets nothing, its next life starts afresh."""
        if self._sock is not None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                await self._send_record(self._sock, record)

    async def _send_record(self, sock: socket.socket, record: dict[str, Any]) -> None:
        if self.tap is not None:
            self.tap(LINK_SENT, link.pack_record(record))
        while True:
            try:
                link.send(sock, record)
                return
            except BlockingIOError:
                await trio.lowlevel.wait_writable(sock)

    async def _receive_record(
        self, sock: socket.socket, fds_max: int = 0
    ) -> tuple[bytes, list[int]]:
        while True:
            try:
                packet, fds = link.receive(sock, fds_max)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(sock)
                continue
            if self.tap is not None:
                self.tap(LINK_RECEIVED, packet)
            return packet, fds


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
