"""`/v1/completions` and `/v1/models` for programs of this machine, in OpenAI's form.

A token is a byte of UTF-8, for so the models count. Text comes from the trainer's own socket, in
pieces, as in the try-it box. What is asked for and cannot be done is refused by name, never passed
over. Who may ask is guard.py's affair; the token opens these paths and no others.
"""

import json
import secrets
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tapestry_p2p.errors import NO_DAEMON, NOT_READY, TIMEOUT, TapestryError
from tapestry_p2p.page.daemon import Member
from tapestry_p2p.page.names import clean
from tapestry_p2p.page.stream import Stream, Write, cancel_when_gone

MODELS = ("shared", "sovereign")
PIECE_BYTES = 24
MAX_TOKENS, MAX_TOKENS_GIVEN = 4096, 16  # the second: where none is given, as OpenAI has it
PROMPTS_MAX, STOPS_MAX, STOP_CHARS_MAX, WAITING_MAX = 8, 4, 64, 8
SEED_STEP = 1_000_003  # between the seeds of two pieces, so that one seed gives one text
BROKEN = "\ufffd"  # bytes of a character that is not whole yet
GONE = 499  # never sent: whoever asked has hung up
STATUS = {NO_DAEMON: 503, NOT_READY: 503, TIMEOUT: 504}
# what OpenAI knows and these models do not, and the values that change nothing
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (None, 1), "echo": (None, False), "frequency_penalty": (None, 0),
    "logit_bias": (None, {}), "logprobs": (None,), "n": (None, 1), "presence_penalty": (None, 0),
    "suffix": (None, ""), "top_p": (None, 1),
}  # fmt: skip
KNOWN = {
    "model", "prompt", "max_tokens", "temperature", "seed", "stop", "stream", "stream_options",
    "user", *NEUTRAL,
}  # fmt: skip


class BadRequestError(Exception):
    """A request that is refused, with the parameter at fault."""

    def __init__(self, message: str, param: str = "", status: int = 400, code: str = "") -> None:
        super().__init__(message)
        self.message, self.param, self.status, self.code = message, param, status, code


@dataclass(frozen=True, slots=True)
class Wish:
    """A checked request. ``include_usage``: a last event that counts the tokens."""

    model: str
    prompts: tuple[str, ...]
    max_tokens: int
    temperature: float
    seed: int
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool


@dataclass(slots=True)
class Count:
    """Tokens, which are bytes, read and written."""

    prompt: int = 0
    completion: int = 0

    def usage(self) -> dict[str, int]:
        """As OpenAI reports it."""
        total = self.prompt + self.completion
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": total,
        }


def parse(body: bytes) -> Wish:
    """The wish in a body. BadRequestError says which parameter is wrong, and what is possible."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequestError("the body is no JSON") from error
    if not isinstance(given, dict):
        raise BadRequestError("the body must be a JSON object")
    for name, value in given.items():
        if name not in KNOWN:
            raise BadRequestError(f"unknown parameter {clean(name)!r}", clean(name))
        if name in NEUTRAL and value not in NEUTRAL[name]:
            raise BadRequestError(f"{name} is not possible here; leave it out", name)
    options = given.get("stream_options") or {}
    if not isinstance(options, dict):
        raise BadRequestError("stream_options must be an object", "stream_options")
    return Wish(
        model=_model(given.get("model")),
        prompts=_prompts(given.get("prompt")),
        max_tokens=int(_number(given, "max_tokens", MAX_TOKENS_GIVEN, 1, MAX_TOKENS, whole=True)),
        temperature=_number(given, "temperature", 1.0, 0, 2),
        seed=int(_number(given, "seed", secrets.randbelow(1 << 31), 0, 2**63 - 1, whole=True)),
        stop=_stops(given.get("stop")),
        stream=_flag(given, "stream"),
        include_usage=_flag(options, "include_usage"),
    )


def _model(name: object) -> str:
    if name is None:
        return MODELS[0]
    if name not in MODELS:
        words = f"no model {clean(name)!r}; there are {' and '.join(MODELS)}"
        raise BadRequestError(words, "model", 404, "model_not_found")
    return str(name)


def _prompts(given: object) -> tuple[str, ...]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not 0 < len(texts) <= PROMPTS_MAX:
        raise BadRequestError(f"prompt must be a text, or 1 to {PROMPTS_MAX} texts", "prompt")
    for text in texts:
        if not isinstance(text, str) or any("\ud800" <= c <= "\udfff" for c in text):
            raise BadRequestError("a prompt must be a text; tokens are no numbers here", "prompt")
    return tuple(texts)


def _number(
    given: Mapping[str, Any],
    name: str,
    usual: float,
    least: float,
    most: float,
    whole: bool = False,
) -> float:
    value = given.get(name)
    if value is None:
        return usual
    right = type(value) is int or (type(value) is float and not whole)
    if not right or not least <= value <= most:
        kind = "a whole number" if whole else "a number"
        raise BadRequestError(f"{name} must be {kind} from {least} to {most}", name)
    return value  # type: ignore[no-any-return]


def _stops(given: object) -> tuple[str, ...]:
    texts = [] if given is None else [given] if isinstance(given, str) else given
    if isinstance(texts, list) and len(texts) <= STOPS_MAX and all(map(_is_stop, texts)):
        return tuple(texts)
    words = f"stop must be at most {STOPS_MAX} texts of 1 to {STOP_CHARS_MAX} characters"
    raise BadRequestError(words, "stop")


def _is_stop(text: object) -> bool:
    return isinstance(text, str) and 0 < len(text) <= STOP_CHARS_MAX


def _flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name)
    if value not in (None, False, True) or type(value) is int:
        raise BadRequestError(f"{name} must be true or false", name)
    return bool(value)


class Completions:
    """Answers programs. ``writing``: the lock of the one trainer, shared with the try-it box."""

    def __init__(self, member: Member, writing: trio.Lock) -> None:
        self._member, self._writing = member, writing
        self._began = int(time.time())

    async def models(self, request: Request) -> Response:
        """The models that there are, or the one in the path."""
        try:
            gain = (await self._member.ask("status")).get("gain")
        except TapestryError as failure:
            return _failed(failure)
        kept = isinstance(gain, dict) and gain.get(MODELS[1]) is not None
        rows = [self._row(name) for name in MODELS[: 1 + kept]]
        name = request.path_params.get("name")
        if name is None:
            return JSONResponse({"object": "list", "data": rows})
        found = next((row for row in rows if row["id"] == name), None)
        if found is None:
            return error(404, f"no model {clean(name)!r}", "model", "model_not_found")
        return JSONResponse(found)

    def _row(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._began, "owned_by": "this-member"}

    async def complete(self, request: Request) -> Any:
        """Go on with a text, in one answer or as server-sent events."""
        try:
            wish = parse(await request.body())
        except BadRequestError as bad:
            return error(bad.status, bad.message, bad.param, bad.code)
        if self._writing.statistics().tasks_waiting >= WAITING_MAX:
            return error(429, "too many programs wait already; ask later", code="busy")
        if wish.stream:
            return Stream("text/event-stream", lambda write: self._events(wish, write))
        answer = Response(status_code=GONE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when_gone, request.receive, nursery.cancel_scope)
            answer = await self._whole(wish)
            nursery.cancel_scope.cancel()
        return answer

    async def _whole(self, wish: Wish) -> Response:
        about, count, choices = _about(wish), Count(), []
        try:
            for index, prompt in enumerate(wish.prompts):
                async with aclosing(self._pieces(wish, prompt, count)) as pieces:
                    told = [piece async for piece in pieces]
                text = "".join(text for text, _ in told)
                choices.append(_choice(index, text, told[-1][1]))
        except TapestryError as failure:
            return _failed(failure)
        return JSONResponse({**about, "choices": choices, "usage": count.usage()})

    async def _events(self, wish: Wish, write: Write) -> None:
        about, count = _about(wish), Count()

        async def tell(event: Mapping[str, Any]) -> None:
            await write(f"data: {json.dumps(event)}\n\n")

        try:
            for index, prompt in enumerate(wish.prompts):
                async with aclosing(self._pieces(wish, prompt, count)) as pieces:
                    async for text, reason in pieces:
                        await tell({**about, "choices": [_choice(index, text, reason or None)]})
        except TapestryError as failure:
            await tell(_problem(clean(failure.message, 300), kind="server_error"))
            return
        if wish.include_usage:
            await tell({**about, "choices": [], "usage": count.usage()})
        await write("data: [DONE]\n\n")

    async def _pieces(
        self, wish: Wish, prompt: str, count: Count
    ) -> AsyncGenerator[tuple[str, str], None]:
        """(text, "" or why it ends); what may be the beginning of a stop is held back."""
        count.prompt += len(prompt.encode())
        hold = max(map(len, wish.stop), default=1) - 1
        said, told, left, seed = "", 0, wish.max_tokens, wish.seed
        async with self._writing:
            while left > 0:
                size = min(left, PIECE_BYTES)
                piece = await self._piece(wish, prompt + said, size, seed)
                left, seed = left - size, (seed + SEED_STEP) % (1 << 63)
                said += piece
                count.completion += len(piece.encode())
                ends = [place for place in map(said.find, wish.stop) if place >= 0]
                if ends:
                    yield said[told : max(told, min(ends))], "stop"
                    return
                until = max(told, len(said) - hold)
                if left > 0:
                    yield said[told:until], ""
                    told = until
            yield said[told:], "length"

    async def _piece(self, wish: Wish, prompt: str, size: int, seed: int) -> str:
        answer = await self._member.ask_trainer(
            {
                "do": "generate",
                "model": wish.model,
                "prompt": prompt.replace(BROKEN, ""),
                "bytes": size,
                "temperature": wish.temperature,
                "seed": seed,
            }
        )
        text = str(answer.get("text", ""))
        return text.rstrip(BROKEN) or text


def _about(wish: Wish) -> dict[str, Any]:
    return {
        "id": f"cmpl-{secrets.token_hex(12)}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": wish.model,
    }


def _choice(index: int, text: str, reason: str | None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": reason}


def _problem(
    message: str, param: str = "", code: str = "", kind: str = "invalid_request_error"
) -> dict[str, Any]:
    found = {"message": message, "type": kind, "param": param or None, "code": code or None}
    return {"error": found}


def error(status: int, message: str, param: str = "", code: str = "") -> Response:
    """An error in OpenAI's form."""
    kind = "invalid_request_error" if status < 429 else "server_error"
    return JSONResponse(_problem(message, param, code, kind), status_code=status)


def _failed(failure: TapestryError) -> Response:
    return error(STATUS.get(failure.exit_code, 500), clean(failure.message, 300))
