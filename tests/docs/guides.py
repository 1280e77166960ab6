"""The pages whose commands are typed as they stand, and a reader who types them.

A reader is a person with a home, a folder and nothing else of ours; `run` and `page` stay in the
background, an invite that one person prints is what another one joins by.
"""

import json
import os
import re
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from docs_kit import ROOT, Block, blocks

SAMPLE_LINK = (
    "tapestry:" + "ab" * 32 + "?a=/ip4/127.0.0.1/tcp/1/p2p/"
    "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
)
GUIDES = [
    ROOT / "README.md",
    ROOT / "docs/tutorial.md",
    *sorted((ROOT / "docs/howto").glob("*.md")),
    ROOT / "docs/why.md",
]
COMMAND_S = 420.0  # for what takes a minute on an idle machine
STAYS = re.compile(r"^(?:\S*/)?tapestry (run|page)\b(?!.*--help)")
MAY_BE_UNWELL = re.compile(r"tapestry (status|doctor)\b")  # 4 is an answer, too


class Reader:
    """Somebody at a keyboard, in a folder with `./tapestry`, or with `tapestry` installed."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._at = folder
        self._stack = stack
        self._environ = {
            "PATH": f"{folder}/bin:{os.environ['PATH']}",
            "HOME": str(folder),
            "TAPESTRY_HOME": str(folder / "home"),
            "TAPESTRY_BUDGET__THREADS": "1",
            "TAPESTRY_LISTEN__ADDRESSES": '["/ip4/127.0.0.1/tcp/0"]',
            "JAX_PLATFORMS": "cpu",
        }
        (folder / "bin").mkdir(parents=True)
        for name, words in (("tapestry", "-m tapestry_p2p"), ("python", "")):
            program = folder / "bin" / name
            program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} {words} "$@"\n')
            program.chmod(0o755)
        (folder / "tapestry").symlink_to(folder / "bin" / "tapestry")
        for part in ("docs", "benches", "tapestry_p2p"):
            (folder / part).symlink_to(ROOT / part)

    def types(self, command: str, link: str) -> str:
        """One line, to its end or, if it stays, until it works; what it printed."""
        command = command.replace("tapestry:...", link)
        if re.search(r"tapestry join\b", command):
            command += " --yes"  # it asks on a terminal alone
        if command.startswith("cd "):
            self._at = self._at / command[3:]
            return ""
        if command.startswith("export "):
            name = command[7:].partition("=")[0]
            command = command.replace("/some/folder", str(self.folder / "some"))
            self._environ[name] = self._typed(f'{command}; printf %s "${name}"').stdout
            return ""
        if STAYS.match(command):
            self._stays(command)
            return ""
        done = self._typed(command)
        allowed = (0, 4) if MAY_BE_UNWELL.search(command) else (0,)
        assert done.returncode in allowed, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def _typed(self, command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self._at,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )

    def _stays(self, command: str) -> None:
        log = self.folder / "log"
        with log.open("ab") as file:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self._at,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        self._stack.callback(_ended, process)
        deadline = time.monotonic() + COMMAND_S
        while time.monotonic() < deadline:
            assert process.poll() is None, f"{command}\n{log.read_text()[-2000:]}"
            with suppress(AssertionError, ValueError, KeyError):
                shown = json.loads(self.types("tapestry status --json", ""))
                if shown["round"] >= 1:
                    return
            time.sleep(1)
        raise AssertionError(f"{command}: no round; {log.read_text()[-2000:]}")


def _ended(process: "subprocess.Popen[bytes]") -> None:
    """As Ctrl-C in its terminal would end it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def follow(page: Path, folder: Path) -> list[str]:
    """Type a page's blocks in order; the commands that were typed. AssertionError if one fails."""
    people: dict[str, Reader] = {}
    typed: list[str] = []
    link = SAMPLE_LINK
    with ExitStack() as stack:
        for block in _run(page):
            name = block.person or "reader"
            if name not in people:
                people[name] = Reader(folder / name, stack)
            for command in (*block.before, *block.commands):
                printed = people[name].types(command, link)
                typed.append(command)
                invited = re.search(r"^tapestry:\S+$", printed, re.MULTILINE)
                link = invited[0] if invited else link
    return typed


def _run(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.is_shell and not block.not_run]
