"""The trainer's main loop: one thread that trains, and between two steps listens.

Rule: `course` says what is next, `program` does it, this file moves records and vectors between
them and the link. What the node may order is the table `_orders`; what the local user may ask is
the table `_answers`.
"""

from __future__ import annotations

import logging
import math
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapestry_p2p import link
from tapestry_p2p.learn import course as course_
from tapestry_p2p.learn.export import export
from tapestry_p2p.learn.judge import ARMS, Judge
from tapestry_p2p.learn.keep import Keeper
from tapestry_p2p.learn.learner import Program
from tapestry_p2p.learn.talk import TextSocket
from tapestry_p2p.learn.task import TaskError

log = logging.getLogger(__name__)

NONFINITE_MAX = 3  # in a row
PROMPT_CHARS_MAX = 65536
GENERATED_BYTES_MAX = 4096


class Gone(Exception):  # noqa: N818
    """The node closed the link or ordered a stop: save and end."""


class Loop:
    """Everything the trainer does between ``hello`` and its end."""

    def __init__(
        self,
        sock: socket.socket,
        program: Program,
        vectors: link.SharedVectors,
        keeper: Keeper,
        judge: Judge,
        text: TextSocket | None,
        speed: float,
    ) -> None:
        self._sock, self._vectors, self._text = sock, vectors, text
        self._program, self._keeper, self._judge = program, keeper, judge
        self._course = course_.Course()
        self._place = keeper.place
        self._good = program.copy(self._place)
        self._last_own = program.layout.flatten(self._place.params)
        self._nonfinite = 0
        self._tally = Tally()
        self._rest_s = 1 / speed - 1  # seconds of rest for each second of work: tests only
        self._rest_until = 0.0
        self._waiting: deque[bytes] = deque()  # came while an arm was trained
        self._orders: dict[str, Callable[[dict[str, Any]], None]] = {
            "start": self._start,
            "train": self._train,
            "correct": self._correct,
            "stop": self._stop,
        }
        self._answers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "generate": self._generate,
            "evaluate": self._evaluate,
            "export": self._export,
            "arm": self._arm,
        }

    def run(self) -> None:
        """Until the node is gone or says stop; the state is saved then. TaskError, LinkError."""
        try:
            while True:
                self._turn()
        except (Gone, BrokenPipeError):
            self._save()

    def close(self) -> None:
        """Close the text socket and the shared memory."""
        if self._text:
            self._text.close()
        self._vectors.close()

    def _turn(self) -> None:
        action = self._course.next(self._program.over(self._place))
        rest_s = self._rest_until - time.monotonic()
        self._listen(None if action == course_.WAIT else max(0.0, rest_s))
        if time.monotonic() < self._rest_until:
            return
        action = self._course.next(self._program.over(self._place))
        if action == course_.STEP:
            self._step()
        elif action == course_.HAND_OVER:
            self._hand_over()

    # Training

    def _step(self) -> None:
        begin = time.monotonic()
        loss = self._program.advance(self._place)
        busy_s = time.monotonic() - begin
        self._rest_until = begin + busy_s * (1 + self._rest_s)
        self._course.stepped()
        self._tally.add(loss, self._program.tokens_per_batch, busy_s)
        if math.isfinite(loss):
            self._judge.watch(self._place)
        else:
            self._recover()

    def _hand_over(self) -> None:
        vector = self._program.layout.flatten(self._place.params)
        if not np.isfinite(vector).all():
            self._recover()
            return
        self._nonfinite = 0
        self._good, self._last_own = self._program.copy(self._place), vector
        round_, applied = self._course.round, self._course.applied
        seq = self._course.handed_over()
        digest = self._vectors.write(link.OUT, seq, vector)
        record = {"t": "vector", "seq": seq, "round": round_, "applied": applied}
        link.send(self._sock, {**record, **self._tally.take(), "digest": digest})
        if self._keeper.due():
            self._save()

    def _recover(self) -> None:
        """Back to the last good vector and moments; the batches that led astray are skipped."""
        self._nonfinite += 1
        log.warning("not finite at step %d, %d in a row", self._place.step, self._nonfinite)
        if self._nonfinite >= NONFINITE_MAX:
            raise TaskError("nonfinite", "the loss or the parameters keep leaving the finite")
        cursor = self._place.cursor
        self._place = self._program.copy(self._good)
        self._place.cursor = cursor
        self._course.restart_round()
        self._tally.forget()

    def _save(self) -> None:
        try:
            self._keeper.save(self._good, self._place.cursor)
        except OSError as error:  # a full disk must not end the training
            log.warning("state not saved: %s", error.strerror)

    # The node's orders

    def _listen(self, timeout_s: float | None) -> None:
        while self._waiting:
            self._obey(self._waiting.popleft())
            timeout_s = 0.0
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, selectors.EVENT_READ)
            for sock in self._text.sockets if self._text else ():
                selector.register(sock, selectors.EVENT_READ)
            ready = [key.fileobj for key, _ in selector.select(timeout_s)]
        for readable in ready:
            if readable is self._sock:
                self._obey(link.receive(self._sock)[0])
            elif self._text is not None and isinstance(readable, socket.socket):
                self._text.serve(readable, self._answer)

    def _obey(self, packet: bytes) -> None:
        if not packet:
            raise Gone
        record = link.parse_from_node(packet)
        order = self._orders.get(record["t"])
        if order is None:
            raise link.LinkError(f"{record['t']} after the beginning")
        order(record)

    def _start(self, record: dict[str, Any]) -> None:
        vector = self._vectors.read(link.IN, record["seq"], record["digest"])
        if not near(vector, self._last_own):
            raise TaskError("start_too_far", "the start is too far from the last own vector")
        self._place = self._keeper.resume(vector, record["step"])
        self._good, self._last_own = self._program.copy(self._place), vector
        self._course.start(record["seq"], record["round"])
        self._tally.forget()

    def _train(self, record: dict[str, Any]) -> None:
        self._course.train(record["round"], record["steps"], record["last_round"])
        self._tally.forget()

    def _correct(self, record: dict[str, Any]) -> None:
        seq = record["seq"]
        correction = self._vectors.read(link.IN, seq, record["digest"])
        if not np.isfinite(correction).all():
            raise link.LinkError("correct: not finite")
        self._course.correct(seq)
        self._program.add(self._place, correction)
        self._program.add(self._good, correction)
        finished = self._course.phase == course_.FINISHED
        if finished:
            link.send(self._sock, {"t": "applied", "seq": seq})
        self._judge.corrected(self._place, finished and self._course.unanswered == 0)

    def _stop(self, record: dict[str, Any]) -> None:
        raise Gone

    # The local user's questions

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        answer = self._answers.get(str(request.get("do")))
        if answer is None:
            return {"error": f"do must be one of {sorted(self._answers)}"}
        try:
            return answer(request)
        except TaskError as error:
            return {"error": str(error)}

    def _generate(self, request: dict[str, Any]) -> dict[str, Any]:
        prompt, seed = request.get("prompt", ""), request.get("seed", 0)
        size, temperature = request.get("bytes", 200), request.get("temperature", 0.8)
        if not isinstance(prompt, str) or len(prompt) > PROMPT_CHARS_MAX:
            return {"error": f"prompt must be a text of at most {PROMPT_CHARS_MAX} characters"}
        if type(size) is not int or not 0 < size <= GENERATED_BYTES_MAX:
            return {"error": f"bytes must be 1..{GENERATED_BYTES_MAX}"}
        if type(seed) is not int or seed < 0:
            return {"error": "seed must be a whole number from 0"}
        if not isinstance(temperature, int | float) or not 0 <= temperature <= 100:
            return {"error": "temperature must be 0..100"}
        generate = getattr(self._program.task, "generate", None)
        if generate is None:
            return {"error": f"the task {self._program.task.name} generates nothing"}
        return {"text": generate(self._place.params, prompt, size, float(temperature), seed)}

    def _evaluate(self, request: dict[str, Any]) -> dict[str, Any]:
        return self._judge.report(self._place.params)

    def _export(self, request: dict[str, Any]) -> dict[str, Any]:
        path = request.get("path")
        if not isinstance(path, str) or not Path(path).is_absolute():
            return {"error": "path must be absolute"}
        vector = self._program.layout.flatten(self._place.params)
        try:
            return export(Path(path), self._program.task, self._program.layout, vector)
        except OSError as error:
            return {"error": f"{path}: {error.strerror}"}

    def _arm(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request.get("name")
        if name not in ARMS:
            return {"error": f"name must be one of {list(ARMS)}"}
        report = self._judge.arm(name, self._glance)
        self._tally.forget()
        return report

    def _glance(self) -> None:
        """While an arm trains: end if the node is gone, keep its orders for later."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, selectors.EVENT_READ)
            if not selector.select(0):
                return
        packet, _ = link.receive(self._sock)
        if not packet or link.parse_from_node(packet)["t"] == "stop":
            raise Gone
        self._waiting.append(packet)


class Tally:
    """What is told of one round: steps, tokens, mean loss, seconds in all and busy."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin a round now."""
        self._losses: list[float] = []
        self._tokens = 0
        self._busy_s = 0.0
        self._begin = time.monotonic()

    def add(self, loss: float, tokens: int, busy_s: float) -> None:
        """One step."""
        self._losses.append(loss)
        self._tokens += tokens
        self._busy_s += busy_s

    def take(self) -> dict[str, Any]:
        """The figures of the round that ends now, and begin the next."""
        losses = self._losses or [0.0]
        told = {
            "steps": len(self._losses),
            "tokens": self._tokens,
            "loss": math.fsum(losses) / len(losses),
            "seconds": time.monotonic() - self._begin,
            "busy_s": self._busy_s,
        }
        self.forget()
        return told


def near(vector: NDArray[np.float32], own: NDArray[np.float32]) -> bool:
    """Whether a start is believable: finite and within R of the last own vector.

    R = 10·||own|| + sqrt(d): ten times the model, or each parameter moved by 1. Wide enough for
    any honest mixing, narrow enough that a compromised node cannot make us train a chosen point
    far from any model (docs/security.md).
    """
    if not np.isfinite(vector).all():
        return False
    radius = 10 * np.linalg.norm(own.astype(np.float64)) + math.sqrt(len(own))
    return bool(np.linalg.norm(vector.astype(np.float64) - own) <= radius)
