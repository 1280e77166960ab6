"""Answers that end when whoever asked has hung up: nothing is made that nobody will read."""

from collections.abc import Awaitable, Callable

import trio
from starlette.types import Receive, Scope, Send

Write = Callable[[str], Awaitable[None]]


class Stream:
    """An answer that is written bit by bit; ends when the viewer is gone or nothing is left."""

    def __init__(self, kind: str, produce: Callable[[Write], Awaitable[None]]) -> None:
        self._kind, self._produce = kind, produce

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer. Whatever `produce` raises is our own bug and ends the connection."""
        headers = [(b"content-type", self._kind.encode()), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

        async def write(text: str) -> None:
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when_gone, receive, nursery.cancel_scope)
            await self._produce(write)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            nursery.cancel_scope.cancel()


async def cancel_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
    """End what is done for a client when it hangs up. Its request must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
