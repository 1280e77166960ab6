"""The page's paths: an empty HTML page and its files, live events, seven things to do, /v1.

Every handler stands behind guard.Guard. Only POST changes anything. Errors are a code that the
catalogue words in the reader's language, and the daemon's own line beside it.
"""

import json
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import segno
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from tapestry_p2p.errors import NO_DAEMON, NOT_READY, TIMEOUT, TapestryError
from tapestry_p2p.page.board import VIEWERS_MAX, Board
from tapestry_p2p.page.completions import Completions
from tapestry_p2p.page.daemon import Member
from tapestry_p2p.page.facts import real
from tapestry_p2p.page.guard import EVENTS, Guard
from tapestry_p2p.page.names import clean, readable
from tapestry_p2p.page.stream import Stream, Write

FILES = {  # path -> (file, type)
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/words.json": ("words.json", "application/json"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/uPlot.iife.min.js": ("uPlot.iife.min.js", "text/javascript; charset=utf-8"),
    "/uPlot.min.css": ("uPlot.min.css", "text/css; charset=utf-8"),
}
TICKETS_MAX, TICKET_S = 32, 15.0
KEEP_ALIVE_S = 15.0
PROMPT_CHARS_MAX, TEXT_BYTES_MAX, PIECE_BYTES = 2000, 1000, 24
MODELS = ("shared", "sovereign")
BROKEN = "\ufffd"  # bytes of a character that is not whole yet
STATUS = {NO_DAEMON: (503, "no_daemon"), NOT_READY: (503, "not_ready"), TIMEOUT: (504, "slow")}

Answer = ASGIApp  # what a handler hands back: called once, to answer


@dataclass(frozen=True, slots=True)
class Wanted:
    """What text is wanted."""

    prompt: str
    size: int  # bytes
    temperature: float
    model: str


class Actions:
    """What the page can show and do. One text and one export at a time."""

    def __init__(self, member: Member, board: Board) -> None:
        self._member, self._board = member, board
        self._tickets: dict[str, float] = {}  # -> until when
        self.writing, self._exporting = trio.Lock(), trio.Lock()

    # ---- live ----------------------------------------------------------------------------------

    async def ticket(self, request: Request) -> Response:
        """A word by which an EventSource, which sends no header of ours, is known: once, soon."""
        now = trio.current_time()
        self._tickets = {t: until for t, until in self._tickets.items() if until > now}
        if len(self._tickets) >= TICKETS_MAX:
            return problem(429, "busy")
        ticket = secrets.token_urlsafe(24)
        self._tickets[ticket] = now + TICKET_S
        return JSONResponse({"ticket": ticket})

    async def events(self, request: Request) -> Answer:
        """What changes, as server-sent events, until the viewer goes."""
        until = self._tickets.pop(request.query_params.get("ticket", ""), 0.0)
        if until < trio.current_time():
            return problem(401, "key")
        if self._board.viewers >= VIEWERS_MAX:
            return problem(429, "busy")
        return Stream("text/event-stream", self._events)

    async def _events(self, write: Write) -> None:
        board, since = self._board, 0
        board.viewers += 1
        board.hurry()
        try:
            while True:
                since, news = board.news(since)
                for name, text in news:
                    await write(f"event: {name}\ndata: {text}\n\n")
                if not news:
                    await write(": still here\n\n")
                await board.wait(since, KEEP_ALIVE_S)
        finally:
            board.viewers -= 1

    # ---- doing ---------------------------------------------------------------------------------

    async def pause(self, request: Request) -> Response:
        """Let the member train no more for a while."""
        return await self._tell("pause")

    async def resume(self, request: Request) -> Response:
        """Let it train again."""
        return await self._tell("resume")

    async def _tell(self, verb: str) -> Response:
        found = await self._member.ask(verb)
        self._board.hurry()
        reasons = found.get("paused")
        return JSONResponse({"paused": sorted(reasons) if isinstance(reasons, dict) else []})

    async def invite(self, request: Request) -> Response:
        """The invite link, and its QR code as rows of 0 and 1."""
        link = str((await self._member.ask("invite")).get("link", ""))
        try:
            rows = ["".join(map(str, row)) for row in segno.make_qr(link, error="m").matrix]
        except segno.DataOverflowError:
            rows = []  # too many addresses for a code; the link itself is there
        return JSONResponse({"link": clean(link, 8192), "qr": rows})

    async def export(self, request: Request) -> Response:
        """Write the model into a folder of this member."""
        if self._exporting.locked():
            return problem(429, "busy")
        async with self._exporting:
            return JSONResponse(await self._member.export())

    async def evaluate(self, request: Request) -> Response:
        """How well the model knows each of this member's texts, worst first."""
        found = await self._member.ask_trainer({"do": "evaluate"})
        return JSONResponse({"tables": scores(found)})

    async def generate(self, request: Request) -> Answer:
        """A text that goes on, in pieces: lines of JSON, each {"text"} or {"error", "detail"}."""
        wanted = await _wanted(request)
        if wanted is None:
            return problem(400, "bad")
        if self.writing.locked():
            return problem(429, "busy")
        return Stream("application/x-ndjson", lambda write: self._generate(wanted, write))

    async def _generate(self, wanted: Wanted, write: Write) -> None:
        async with self.writing:
            said, left = "", wanted.size
            try:
                while left > 0:
                    text = await self._piece(wanted, said, min(left, PIECE_BYTES))
                    left -= PIECE_BYTES
                    said += text
                    await write(json.dumps({"text": text}) + "\n")
            except TapestryError as error:
                code = STATUS.get(error.exit_code, (500, "failed"))[1]
                await write(json.dumps({"error": code, "detail": clean(error.message, 300)}) + "\n")

    async def _piece(self, wanted: Wanted, said: str, size: int) -> str:
        """Some further bytes; a character that is cut at the end is left to the next piece."""
        answer = await self._member.ask_trainer(
            {
                "do": "generate",
                "prompt": (wanted.prompt + said.replace(BROKEN, ""))[-PROMPT_CHARS_MAX:],
                "bytes": size,
                "temperature": wanted.temperature,
                "model": wanted.model,
                "seed": secrets.randbelow(1 << 31),
            }
        )
        text = readable(str(answer.get("text", "")))
        return text.rstrip(BROKEN) or text


async def _wanted(request: Request) -> Wanted | None:
    """The wish in the body; None if it is out of bounds."""
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict):
        return None
    prompt, size, temperature = body.get("prompt"), body.get("bytes"), real(body.get("temperature"))
    if not isinstance(prompt, str) or len(prompt) > PROMPT_CHARS_MAX:
        return None
    if any("\ud800" <= c <= "\udfff" for c in prompt):
        return None  # half a character: no text
    if type(size) is not int or not 0 < size <= TEXT_BYTES_MAX:
        return None
    if temperature is None or not 0 <= temperature <= 2:
        return None
    model = body.get("model", MODELS[0])
    if model not in MODELS:
        return None
    return Wanted(prompt, size, temperature, model)


def scores(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each measure's table, worst text first: [{"measure", "rows": [[text, value], ...]}]."""
    tables = []
    for measure, by_text in found.items():
        if not isinstance(by_text, dict):
            continue
        rows = [(clean(text), real(value)) for text, value in by_text.items()]
        known = [(text, value) for text, value in rows if value is not None]
        known.sort(key=lambda row: row[1], reverse=measure != "accuracy")
        if known:
            tables.append({"measure": clean(measure), "rows": known})
    return tables


def problem(status: int, code: str, detail: str = "") -> Response:
    """An error for the page: a code that the catalogue words, and the daemon's own line."""
    return JSONResponse({"error": code, "detail": detail}, status_code=status)


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, TapestryError)
    status, code = STATUS.get(error.exit_code, (500, "failed"))
    return problem(status, code, clean(error.message, 300))


def make_app(member: Member, board: Board, port: int, key: str, token: str = "") -> ASGIApp:
    """The whole page, behind its guard; ``token`` is for programs (none: they may not ask)."""
    actions = Actions(member, board)
    routes = [Route(path, _file(*file)) for path, file in FILES.items()]
    routes.append(Route(EVENTS, actions.events, methods=["GET"]))
    doing = ("ticket", "pause", "resume", "invite", "export", "evaluate", "generate")
    routes += [Route(f"/api/{verb}", getattr(actions, verb), methods=["POST"]) for verb in doing]
    programs = Completions(member, actions.writing)
    routes.append(Route("/v1/completions", programs.complete, methods=["POST"]))
    routes += [Route(path, programs.models) for path in ("/v1/models", "/v1/models/{name}")]
    app = Starlette(routes=routes, exception_handlers={TapestryError: _failed})
    app.router.redirect_slashes = False
    return Guard(app, port, key, token)


def _file(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    content = (files("tapestry_p2p.page") / "static" / name).read_bytes()

    async def show(request: Request) -> Response:
        return Response(content, media_type=kind)

    return show
