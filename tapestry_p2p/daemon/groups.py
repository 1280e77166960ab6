"""trio.run whose failure is the operator's one error, not the group that nurseries wrap it in."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from tapestry_p2p.errors import TapestryError

T = TypeVar("T")


def run_unwrapped(main: Callable[..., Awaitable[T]], *args: object) -> T:
    """``trio.run``; the first TapestryError of a group is raised in its place."""
    try:
        found: T = trio.run(main, *args)
        return found
    except BaseExceptionGroup as group:
        error = _first(group)
        if error is None:
            raise
        raise error from group


def _first(group: BaseExceptionGroup[BaseException]) -> TapestryError | None:
    for error in group.exceptions:
        if isinstance(error, TapestryError):
            return error
        if isinstance(error, BaseExceptionGroup):
            found = _first(error)
            if found is not None:
                return found
    return None
