"""What the local user may ask over the trainer's own socket, and the answers.

Rule: a bad question is answered by {"error": ...}, and so is a task that fails at one: training
goes on. Nothing here reaches the node.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapestry_p2p.learn.export import export
from tapestry_p2p.learn.judge import ARMS, Judge
from tapestry_p2p.learn.learner import Program
from tapestry_p2p.learn.vector import Params

log = logging.getLogger(__name__)

PROMPT_CHARS_MAX = 65536
GENERATED_BYTES_MAX = 4096
SHARED, SOVEREIGN = "shared", "sovereign"

Question = dict[str, Any]


class RefusedError(Exception):
    """A question that has no answer here; the message says why."""


class Questions:
    """Answers between two inner steps.

    ``shown()``: the parameters to answer with, unless ``sovereign()`` are asked for; ``between()``
    is called at the steps of an arm.
    """

    def __init__(
        self,
        program: Program,
        judge: Judge,
        shown: Callable[[], Params],
        between: Callable[[], None],
        sovereign: Callable[[], Params | None] | None = None,
    ) -> None:
        self._program, self._judge = program, judge
        self._shown, self._between, self._sovereign = shown, between, sovereign
        self._answers: dict[str, Callable[[Question], dict[str, Any]]] = {
            "generate": self._generate,
            "evaluate": self._evaluate,
            "export": self._export,
            "arm": self._arm,
        }

    def answer(self, question: Question) -> dict[str, Any]:
        """The answer to one question, whose key ``do`` names what is wanted."""
        answer = self._answers.get(str(question.get("do")))
        if answer is None:
            return {"error": f"do must be one of {sorted(self._answers)}"}
        try:
            return answer(question)
        except RefusedError as error:
            return {"error": str(error)}
        except Exception as error:  # a user's task may raise anything
            log.exception("question not answered")
            return {"error": f"{type(error).__name__}: {error}"}

    def _generate(self, question: Question) -> dict[str, Any]:
        prompt, seed = question.get("prompt", ""), question.get("seed", 0)
        size, temperature = question.get("bytes", 200), question.get("temperature", 0.8)
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
        return {"text": generate(self._asked(question), prompt, size, float(temperature), seed)}

    def _asked(self, question: Question) -> Params:
        """The parameters that a question is about, by its key ``model``. RefusedError."""
        name = question.get("model", SHARED)
        if name == SHARED:
            return self._shown()
        if name != SOVEREIGN:
            raise RefusedError(f"model must be {SHARED} or {SOVEREIGN}")
        if self._sovereign is None:
            raise RefusedError("no sovereign model is kept here: see [gain] in tapestry.toml")
        params = self._sovereign()
        if params is None:
            raise RefusedError("there is no sovereign model yet; try again after some rounds")
        return params

    def _evaluate(self, question: Question) -> dict[str, Any]:
        return self._judge.report(self._asked(question))

    def _export(self, question: Question) -> dict[str, Any]:
        """Of the model that is shown, or of the float32 numbers in the file ``vector``."""
        path, given = question.get("path"), question.get("vector")
        if not isinstance(path, str) or not Path(path).is_absolute():
            return {"error": "path must be absolute"}
        layout = self._program.layout
        try:
            own = self._asked(question)
            vector = layout.flatten(own) if given is None else _numbers(given)
            if len(vector) != layout.parameters:
                return {"error": f"vector must hold {layout.parameters} numbers"}
            task, judge, local = self._program.task, self._judge.report, bool(question.get("local"))
            return export(Path(path), task, layout, vector, judge, own, local)
        except OSError as error:
            return {"error": f"{path}: {error.strerror}"}

    def _arm(self, question: Question) -> dict[str, Any]:
        name = question.get("name")
        if name not in ARMS:
            return {"error": f"name must be one of {list(ARMS)}"}
        return self._judge.arm(name, self._between)


def _numbers(path: Any) -> NDArray[np.float32]:
    """The float32 numbers in a file, little-endian. OSError."""
    return np.frombuffer(Path(str(path)).read_bytes(), "<f4").astype(np.float32)
