"""The live table of a testnet: what a person sees while it runs. Reads statuses, prints."""

import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tapestry_p2p.cli.testnet.cluster import Member
from tapestry_p2p.page.names import called

LINE_EVERY_S = 5.0


class LiveTable:
    """A table on a terminal, else now and then a line; on stderr. A context."""

    def __init__(self, rounds: int, title: str, quiet: bool = False) -> None:
        self._rounds, self._title, self._quiet = rounds, title, quiet
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=False)
        self._said_at = 0.0
        self._phase = ""

    def __enter__(self) -> "LiveTable":
        if self._console.is_terminal and not self._quiet:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal and not self._quiet:
            self._live.stop()

    def phase(self, text: str) -> None:
        """Say what happens now."""
        self._phase = text
        if self._quiet:
            return
        if self._console.is_terminal:
            self._live.update(Text(text, style="dim"), refresh=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def show(self, members: list[Member]) -> None:
        """Draw the members as they are now."""
        if self._quiet:
            return
        if self._console.is_terminal:
            self._live.update(self._table(members), refresh=True)
        elif time.monotonic() - self._said_at >= LINE_EVERY_S:
            self._said_at = time.monotonic()
            done = [m.status.get("round", 0) for m in members if not m.home.byzantine]
            print(f"rounds done: {min(done)}..{max(done)} of {self._rounds}", file=sys.stderr)

    def _table(self, members: list[Member]) -> Table:
        table = Table(title=self._title, caption=self._phase, title_justify="left")
        for heading in (
            "member",
            "language",
            "progress",
            "training error",
            "hears",
            "how others treat it",
        ):
            table.add_column(heading)
        treated = treatment(members)
        for member in members:
            table.add_row(*self._cells(member, treated.get(member.home.peer_id)))
        return table

    def _cells(self, member: Member, share: float | None) -> tuple[Any, ...]:
        status = member.status
        if member.home.byzantine:
            loss, language = "", "-"
            name = Text(called(member.home.name, member.home.peer_id), style="red")
        else:
            trainer = status.get("trainer", {})
            loss = f"{trainer['loss']:.2f}" if trainer.get("steps") else "not yet"
            language = member.home.language
            name = Text(called(member.home.name, member.home.peer_id))
        hears = f"{max(0, status.get('live', 1) - 1)} members"
        return name, language, self._bar(status.get("round", 0)), loss, hears, _words(share)

    def _bar(self, done: int) -> str:
        filled = round(10 * min(done, self._rounds) / self._rounds)
        return "█" * filled + "░" * (10 - filled) + f" {done}/{self._rounds}"


def treatment(members: list[Member]) -> dict[str, float]:
    """By peer id: how much of its pull honest members let through on average, 0..1."""
    seen: dict[str, list[float]] = {}
    for member in members:
        if not member.home.byzantine:
            for row in member.peers:
                if row["coefficient"] is not None:
                    seen.setdefault(row["id"], []).append(row["coefficient"])
    return {peer: sum(shares) / len(shares) for peer, shares in seen.items()}


def _words(share: float | None) -> Text:
    if share is None:
        return Text("not heard yet", style="dim")
    if share > 0.97:
        return Text("taken in full", style="green")
    style = "red" if share < 0.5 else "yellow"
    return Text(f"pull cut to {100 * share:.0f} %", style=style)
