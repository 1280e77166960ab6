"""The trainer's main loop: one thread that trains, and between two steps listens.

Rule: `course` says what is next, `program` does it, this file moves records and vectors between
them and the link. What the node may order is the table `_orders`; what the local user may ask is
in questions.py.
"""

from __future__ import annotations

import logging
import math
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from tapestry_p2p import link
from tapestry_p2p.heap import resident_bytes
from tapestry_p2p.learn import course as course_
from tapestry_p2p.learn.gain import Gain
from tapestry_p2p.learn.good import Good
from tapestry_p2p.learn.judge import Judge
from tapestry_p2p.learn.keep import Keeper
from tapestry_p2p.learn.learner import Program, norm
from tapestry_p2p.learn.questions import Questions
from tapestry_p2p.learn.talk import TextSocket
from tapestry_p2p.learn.task import TaskError
from tapestry_p2p.learn.vector import Params

log = logging.getLogger(__name__)

NONFINITE_MAX = 3  # in a row


class Gone(BaseException):
    """The node closed the link or ordered a stop: save and end.

    No Exception: what catches a user's failing task must not catch this.
    """


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
        gain: Gain | None = None,
    ) -> None:
        self._sock, self._vectors, self._text = sock, vectors, text
        self._program, self._keeper, self._judge = program, keeper, judge
        self._gain = gain
        self._course = course_.Course()
        self._place = keeper.place
        self._good = Good(program, self._place)
        keeper.place = self._good.place
        self._last_own = program.layout.flatten(self._place.params, program.shelf.empty)
        self._nonfinite = 0
        self._weighed = False
        self._tally = Tally()
        self._rest_s = 1 / speed - 1  # seconds of rest for each second of work: tests only
        self._rest_until = 0.0
        self._waiting: deque[bytes] = deque()  # came while an arm was trained
        self._orders: dict[str, Callable[[dict[str, Any]], None]] = {
            "start": self._start,
            "train": self._train,
            "pace": self._pace,
            "correct": self._correct,
            "add": self._add,
            "weigh": self._weigh,
            "stop": self._stop,
        }
        sovereign = gain.sovereign_params if gain else None
        self._questions = Questions(program, judge, self._shown, self._glance, sovereign)

    def run(self) -> None:
        """Until the node is gone or says stop; the state is saved then. TaskError, LinkError."""
        try:
            while True:
                self._turn()
        except (Gone, BrokenPipeError):
            if self._course.started:  # else what lies there may be of another model, and stays
                self._save(at_once=True)

    def close(self) -> None:
        """Close the text socket and the shared memory."""
        if self._text:
            self._text.close()
        self._vectors.close()

    def _turn(self) -> None:
        action = self._course.next(self._program.over(self._place))
        rest_s = self._rest_until - time.monotonic()
        after = action == course_.WAIT and self._is_left()
        self._listen(None if action == course_.WAIT and not after else max(0.0, rest_s))
        if time.monotonic() < self._rest_until:
            return
        action = self._course.next(self._program.over(self._place))
        if action == course_.STEP:
            self._step()
        elif action == course_.HAND_OVER:
            self._hand_over()
        elif self._is_left():
            self._measure_on()

    # Training

    def _step(self) -> None:
        begin = time.monotonic()
        loss = self._program.advance(self._place)
        busy_s = time.monotonic() - begin
        self._rest_until = begin + busy_s * (1 + self._rest_s)
        self._course.stepped()
        self._tally.add(loss, self._program.tokens_per_batch, busy_s)
        if not math.isfinite(loss):
            self._recover()
            return
        if self._gain:
            self._gain.earn(busy_s)
            self._measure(self._gain.work)

    def _hand_over(self) -> None:
        params, shelf = self._place.params, self._program.shelf
        if not all(is_finite(np.asarray(leaf)) for leaf in jax.tree.leaves(params)):
            self._recover()
            return
        self._nonfinite = 0
        self._good.take(self._place)
        self._last_own = vector = self._program.layout.flatten(params, shelf.empty)
        if self._keeper.average:
            self._keeper.average.follow(vector)
        round_, applied = self._course.round, self._course.applied
        seq = self._course.handed_over()
        digest = self._vectors.write(link.OUT, seq, vector)
        record = {"t": "vector", "seq": seq, "round": round_, "applied": applied}
        record["added"] = self._course.added
        record["memory_mb"] = resident_bytes() / 1e6
        link.send(self._sock, {**record, **self._tally.take(), "digest": digest})
        self._save()

    def _recover(self) -> None:
        """Back to the last good vector and moments; the batches that led astray are skipped."""
        self._nonfinite += 1
        log.warning("not finite at step %d, %d in a row", self._place.step, self._nonfinite)
        if self._nonfinite >= NONFINITE_MAX:
            self._save(at_once=True)  # the next life begins after these batches, not before them
            raise TaskError("nonfinite", "the loss or the parameters keep leaving the finite")
        cursor = self._place.cursor
        self._place.params = self._place.moments = None
        self._place = self._good.again()
        self._place.cursor = cursor
        self._course.restart_round()
        self._tally.forget()
        self._tally.skipped += 1

    # What the member gains

    def _is_left(self) -> bool:
        """Whether training is over and its measure is not."""
        finished = self._course.phase == course_.FINISHED and not self._course.unanswered
        return finished and self._gain is not None and self._gain.unfinished(self._place)

    def _measure_on(self) -> None:
        assert self._gain is not None
        self._measure(self._gain.finish)
        if self._gain:
            self._rest_until = time.monotonic() + self._gain.rest_s
            self._save()

    def _measure(self, work: Callable[..., dict[str, Any] | None]) -> None:
        """What is beside the training may fail, the user's `evaluate` above all, and it goes on."""
        try:
            told = work(self._place, self._shown)
        except Exception:
            log.exception("the gain is not measured any more, until the next start")
            self._gain, told = None, {"t": "unmeasured"}
        if told is not None:
            link.send(self._sock, told)

    def _save(self, at_once: bool = False) -> None:
        """What is due: each store says when, so that saving takes a small share of the time."""
        try:
            if at_once or self._keeper.due():
                self._keeper.save(self._good.place, self._place.cursor)
            if self._gain and (at_once or self._gain.due()):
                self._gain.save()
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
                self._text.serve(readable, self._questions.answer)

    def _obey(self, packet: bytes) -> None:
        if not packet:
            raise Gone
        record = link.parse_from_node(packet)
        order = self._orders.get(record["t"])
        if order is None:
            raise link.LinkError(f"{record['t']} after the beginning")
        order(record)

    def _start(self, record: dict[str, Any]) -> None:
        empty = self._program.shelf.empty
        vector = self._vectors.read(link.IN, record["seq"], record["digest"], empty)
        if not near(vector, self._last_own):
            raise TaskError("start_too_far", "the start is too far from the last own vector")
        if self._keeper.average:
            self._keeper.average.restart(vector, self._last_own)
        self._place.params = self._place.moments = None
        self._place = self._keeper.resume(vector, record["step"])
        self._good.take(self._place)
        self._last_own = vector
        self._course.start(record["seq"], record["round"])
        self._tally.forget()
        if self._gain:
            for told in self._gain.begin(self._place.step):
                link.send(self._sock, told)

    def _weigh(self, record: dict[str, Any]) -> None:
        """Say whether a start beats genesis on the data held out here: one bit, once, at first.

        More would let a compromised node question the data, one vector after another.
        """
        if self._weighed or self._course.started or self._course.phase != course_.IDLE:
            raise link.LinkError("weigh: once, before the start")
        self._weighed = True
        vector = self._read_addition(link.IN, record)
        losses = [
            self._judge.held_out(self._program.params(start, self._place.params))
            for start in (vector, self._program.genesis)
        ]
        log.info("held-out loss of a start from the members' copies %.4g, of genesis %.4g", *losses)
        better = losses[0] < losses[1] and near(vector, self._last_own)
        link.send(self._sock, {"t": "weighed", "better": better})

    def _train(self, record: dict[str, Any]) -> None:
        self._course.train(record["round"], record["steps"], record["last_round"])
        self._tally.forget()

    def _pace(self, record: dict[str, Any]) -> None:
        self._course.pace(record["steps"])

    def _correct(self, record: dict[str, Any]) -> None:
        seq = record["seq"]
        correction = self._read_addition(link.IN, record)
        self._course.correct(seq)
        if self._course.phase == course_.FINISHED:
            link.send(self._sock, {"t": "applied", "seq": seq})
        self._move(correction)

    def _add(self, record: dict[str, Any]) -> None:
        """News of neighbours between two rounds."""
        addition = self._read_addition(link.MORE, record)
        self._course.add(record["seq"])
        link.send(self._sock, {"t": "added", "seq": record["seq"]})
        self._move(addition)

    def _read_addition(self, direction: str, record: dict[str, Any]) -> NDArray[np.float32]:
        empty = self._program.shelf.empty
        vector = self._vectors.read(direction, record["seq"], record["digest"], empty)
        if not is_finite(vector):
            raise link.LinkError(f"{record['t']}: not finite")
        return vector

    def _move(self, addition: NDArray[np.float32]) -> None:
        """Add float32[d] to the parameters, and to those that a recovery goes back to."""
        self._program.add(self._place, addition)
        self._good.add(addition)
        finished = self._course.phase == course_.FINISHED
        begin = time.monotonic()
        self._judge.corrected(self._place, finished and self._course.unanswered == 0)
        self._tally.leave_out(time.monotonic() - begin)

    def _stop(self, record: dict[str, Any]) -> None:
        raise Gone

    # While the local user's questions are answered

    def _shown(self) -> Params:
        """The parameters that the local user gets: the newest, or their average without an end."""
        average = self._keeper.average
        here = self._place.params
        return self._program.params(average.vector, here) if average else here

    def _glance(self) -> None:
        """Between two steps of an arm: end if the node is gone, keep its orders for later."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, selectors.EVENT_READ)
            if not selector.select(0):
                return
        packet, _ = link.receive(self._sock)
        if not packet or packet == link.pack_record({"t": "stop"}):
            raise Gone
        self._waiting.append(packet)


class Tally:
    """What is told of one round: steps, tokens, mean loss, seconds in all and busy.

    ``skipped``: how often a loss or parameters that were not finite led to a way back meanwhile.
    """

    def __init__(self) -> None:
        self.skipped = 0
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

    def leave_out(self, seconds: float) -> None:
        """Time that was no part of training: a testnet's judgements."""
        self._begin += seconds

    def take(self) -> dict[str, Any]:
        """The figures of the round that ends now, and begin the next."""
        losses = self._losses or [0.0]
        told = {
            "steps": len(self._losses),
            "skipped": self.skipped,
            "tokens": self._tokens,
            "loss": math.fsum(losses) / len(losses),
            "seconds": time.monotonic() - self._begin,
            "busy_s": self._busy_s,
        }
        self.skipped = 0
        self.forget()
        return told


def near(vector: NDArray[np.float32], own: NDArray[np.float32]) -> bool:
    """Whether a start is believable: finite and within R of the last own vector.

    R = 10·||own|| + sqrt(d): ten times the model, or each parameter moved by 1. Wide enough for
    any honest mixing, narrow enough that a compromised node cannot make us train a chosen point
    far from any model (docs/security.md).
    """
    if not is_finite(vector):
        return False
    return norm(vector, own) <= 10 * norm(own) + math.sqrt(len(own))


def is_finite(array: NDArray[Any]) -> bool:
    """Whether every number is finite."""
    flat = array.reshape(-1)
    step = 1 << 20
    return all(np.isfinite(flat[at : at + step]).all() for at in range(0, len(flat), step))
