"""The trainer process: ``python -m tapestry_p2p.learn.trainer``, started by the node or a unit.

With ``--link-fd N`` it has the node's link as a descriptor, with ``--link PATH`` it finds it there.
Rule: an order that must not change. Close what was inherited, leave the network, prove it; only
then read what to train and import anything that could see data. Ends when the node does.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapestry_p2p import crash, link
from tapestry_p2p.heap import lasting
from tapestry_p2p.learn import isolation

if TYPE_CHECKING:
    from tapestry_p2p.learn.loop import Loop

log = logging.getLogger(__name__)

BAD_CONFIG, TEMPORARY, FAILURE = 78, 75, 1
CONFIG_CODES = (
    "data_missing",
    "data_too_small",
    "data_unreadable",
    "task_not_found",
    "base_missing",
)
NICE = 10  # the node answers peers first; training takes what is left
REPORT_S = 20.0  # how long to wait for the node's socket
ORPHAN_S = 10.0  # how long after the node is gone a long computation may hold us up
TERM_S = 2.0  # and after it was told to end: docs/operations.md promises five in all
LOG_BYTES_MAX = 1 << 20
_begun = threading.Event()  # training
HASHED_BYTES = 1 << 20  # of each data file, to tell members' data apart


def main() -> int:
    """Run until the node stops us; the exit status of the process."""
    arguments = argparse.ArgumentParser(description="Started by the node, not by hand.")
    which = arguments.add_mutually_exclusive_group(required=True)
    which.add_argument("--link-fd", type=int)
    which.add_argument("--link", help="path of the node's socket for trainers")
    asked = arguments.parse_args()
    crash.arm("trainer")
    isolation.close_inherited(asked.link_fd or 2)
    isolated = isolation.leave_network()
    if asked.link is None:
        os.nice(NICE)  # a unit says it itself, and may not be allowed to here
        sock = socket.socket(fileno=asked.link_fd)
        sock.set_inheritable(False)
    else:
        found = _reported(asked.link)
        if found is None:
            return TEMPORARY
        sock = found
    told = _obey_signals(sock)
    code = _configured(sock, told, isolated, own_log=asked.link is None)
    if code is None:
        return 0
    try:
        link.send(sock, {"t": "failed", "code": code})
    except OSError:
        log.warning("the node is gone")
    return BAD_CONFIG if code in CONFIG_CODES else FAILURE


def _reported(path: str) -> socket.socket | None:
    """The link to the node that listens at ``path``; None if there is none for ``REPORT_S``."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    until = time.monotonic() + REPORT_S
    while True:
        try:
            sock.connect(path)
            return sock
        except (FileNotFoundError, ConnectionRefusedError, PermissionError) as error:
            if time.monotonic() > until:
                print(f"no node at {path}: {error.strerror}", file=sys.stderr)  # noqa: T201
                return None
            time.sleep(0.1)


def _configured(
    sock: socket.socket, told: socket.socket, isolated: tuple[bool, str], own_log: bool
) -> str | None:
    """Everything after the wall is up. The failure code, None if all went well."""
    try:
        packet, _ = link.receive(sock)
        if not packet:
            return None
        configure = link.parse_from_node(packet)
        if configure["t"] != "configure":
            raise link.LinkError("the first record must be configure")
        if own_log:
            _open_log(Path(configure["state_dir"]))
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        _watch_for_the_end(sock, told, _begun)
        _set_threads(configure["threads"] or os.cpu_count() or 1)
    except (link.LinkError, OSError):
        log.exception("failed")
        return "link"
    return _train(sock, isolated, configure)


def _train(
    sock: socket.socket, isolated: tuple[bool, str], configure: dict[str, Any]
) -> str | None:
    try:
        loop = _make_loop(sock, isolated, configure)
        _begun.set()
        try:
            loop.run()
        finally:
            loop.close()
    except link.LinkError:
        log.exception("failed")
        return "link"
    except Exception as error:  # a user's task may raise anything: it is told, and logged here
        log.exception("failed")
        return str(getattr(error, "code", "task_error"))
    return None


def _make_loop(sock: socket.socket, isolated: tuple[bool, str], configure: dict[str, Any]) -> Loop:
    with lasting():
        from tapestry_p2p.bulk import Shelf
        from tapestry_p2p.learn.base import base_of, on_base
        from tapestry_p2p.learn.cache import CompileLock, use_cache
        from tapestry_p2p.learn.devices import Devices
        from tapestry_p2p.learn.gain import Gain
        from tapestry_p2p.learn.judge import Judge
        from tapestry_p2p.learn.keep import Keeper
        from tapestry_p2p.learn.learner import Program
        from tapestry_p2p.learn.load import load
        from tapestry_p2p.learn.loop import Loop
        from tapestry_p2p.learn.talk import TextSocket
        from tapestry_p2p.learn.task import Data

    use_cache(Path(configure["cache_dir"]))
    what = [configure.get(name) for name in ("task", "options", "threads", "devices", "base")]
    cache = CompileLock(Path(configure["cache_dir"]), *what)
    judged = configure["judge"]
    paths = [Path(path) for path in configure["data"]]
    options = dict(configure["options"])
    if configure["task"] == "language" and judged and not judged["own"]:
        options["draw"] = "evenly"  # the central arm: every member's text equally often
    task = load(configure["task"], options, Data(paths, configure["seed"], judged is None))
    if "base" in configure:
        task = on_base(task, base_of(configure["base"]))
    batch_seed = configure.get("batch_seed", _data_seed(configure["seed"], paths))
    with cache:
        shelf = Shelf(Path(configure["state_dir"]))
        seed, steps = configure["seed"], configure["schedule_steps"]
        devices = Devices(configure.get("devices", 1))
        program = Program(task, seed, batch_seed, steps, shelf, devices)
    vectors = _say_hello(sock, isolated, program)
    with cache:
        program.compile()
        cache.compiled()
        judge = Judge(judged, program)
        keeper = Keeper(Path(configure["state_dir"]), program, judge)
        measured = configure.get("gain")
        gain = None
        if measured and judged is None and not program.big:  # testnets measure at their end
            gain = Gain(measured, program, judge, Path(configure["state_dir"]) / "gain", batch_seed)
    text = TextSocket(Path(configure["text_socket"])) if configure["text_socket"] else None
    return Loop(sock, program, vectors, keeper, judge, text, configure["speed"], gain)


def _say_hello(sock: socket.socket, isolated: tuple[bool, str], program: Any) -> link.SharedVectors:
    vectors = link.SharedVectors.create(program.layout.parameters)
    hello = {
        "t": "hello",
        "version": link.VERSION,
        "pid": os.getpid(),
        "parameters": program.layout.parameters,
        "schema": program.layout.schema,
        "isolated": isolated[0],
        "isolation": isolated[1],
        "devices": program.devices.count,
        "genesis_digest": vectors.write(link.OUT, 0, program.genesis),
    }
    link.send(sock, hello, [vectors.fileno()])
    return vectors


def _obey_signals(sock: socket.socket) -> socket.socket:
    """Ctrl-C in a terminal reaches the whole group: the node decides. TERM is like its leaving.

    What is returned becomes readable at a TERM, also while the main thread computes.
    """
    told, tell = socket.socketpair()
    tell.setblocking(False)
    signal.set_wakeup_fd(tell.detach(), warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sock.shutdown(socket.SHUT_RD))
    return told


def _open_log(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / "trainer.log"
    fresh = path.exists() and path.stat().st_size > LOG_BYTES_MAX
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if fresh else os.O_APPEND)
    descriptor = os.open(path, flags, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _watch_for_the_end(sock: socket.socket, told: socket.socket, begun: threading.Event) -> None:
    """End the process soon after a TERM or the node's end, whatever it is doing.

    At once before it begun: then there is nothing to save. Not PR_SET_PDEATHSIG: that follows the
    thread that started us, and trio starts processes from a thread that ends when idle.
    """

    def watch() -> None:
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLRDHUP)
        poll.register(told.fileno(), select.POLLIN)
        poll.poll()
        asked = bool(select.select([told], [], [], 0)[0])
        if begun.is_set():
            time.sleep(TERM_S if asked else ORPHAN_S)
        os._exit(0 if asked else FAILURE)

    threading.Thread(target=watch, daemon=True, name="end watch").start()


def _set_threads(threads: int) -> None:
    """One budget for every pool; must come before numpy and JAX are imported."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC"):
        os.environ[name] = str(threads)
    many = "true" if threads > 1 else "false"
    given = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = (
        f"{given} --xla_cpu_multi_thread_eigen={many} intra_op_parallelism_threads={threads}"
    )


def _data_seed(seed: int, paths: list[Path]) -> int:
    """A seed of its own for members who hold different data."""
    drawn = hashlib.sha256(f"tapestry batches {seed}".encode())
    files = [sorted(path.rglob("*")) if path.is_dir() else [path] for path in paths]
    for path in [file for found in files for file in found]:
        if path.is_file():
            with path.open("rb") as file:
                drawn.update(file.read(HASHED_BYTES))
            drawn.update(str(path.stat().st_size).encode())
    return int.from_bytes(drawn.digest()[:4], "big")


if __name__ == "__main__":
    sys.exit(main())
