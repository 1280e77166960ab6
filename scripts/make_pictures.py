"""Draws the pictures of docs/ anew, each by the command that stands under it.

    python scripts/make_pictures.py                       all but the slow ones, some minutes
    python scripts/make_pictures.py attacks page          those alone

The page's pictures are taken of one of three members, in headless Chromium, by the kit of
tests/browser. `loom` takes an hour and is drawn when it is named. Needs the extra `pictures`.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
TAPESTRY = [sys.executable, "-m", "tapestry_p2p"]
ENVIRON = {**os.environ, "PYTHONPATH": str(ROOT)}
WORLD = "simulate --task digits --members 8 --byzantine 1 --attack mirror"
# picture -> (the command's words, the file that it writes)
COMMANDS = {
    "under-attack-mean": (f"{WORLD} --tolerate 1 --rule mean", "curves.svg"),
    "under-attack-robust": (WORLD, "curves.svg"),
    "attacks": ("simulate --task average --members 8 --byzantine 1 --attack all", "curves.svg"),
    "demo": ("demo", "alone-together.svg"),
}
PAGE_ROUNDS = 30  # of the member whose page is shown: its curve has a shape by then
TINY = [f"--task-option={option}" for option in ("layers=1", "width=16", "heads=1", "context=32")]
PATIENCE_S = 1800.0
SLOW = ("loom",)


def draw(name: str) -> None:
    """One picture of a command that draws."""
    words, file = COMMANDS[name]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        subprocess.run(
            [*TAPESTRY, *words.split(), "--out", str(out)], env=ENVIRON, check=True, cwd=folder
        )
        shutil.copy(out / file, PICTURES / f"{name}.svg")


def draw_loom() -> None:
    """The bench draws it, after an hour."""
    command = [sys.executable, "benches/loom.py", "--tables", "methods", "--seeds", "1"]
    command += ["--picture", str(PICTURES / "loom.svg")]
    subprocess.run(command, cwd=ROOT, env=ENVIRON, check=True)


def draw_page() -> None:
    """A member's page on a wide screen, and in Arabic on a phone."""
    sys.path.append(str(ROOT / "tests" / "browser"))
    import trio
    from chromium_kit import Tab, browser

    async def look(tab: Tab, link: str, name: str, language: str, width: int) -> None:
        await tab.look_like(width)
        await tab.open(link)
        await tab.until("!document.getElementById('n-table')?.hidden")
        await tab.until("!document.getElementById('plot')?.hidden")
        await tab.run(
            f"(s => {{ s.value = '{language}'; s.dispatchEvent(new Event('change')); }})"
            "(document.getElementById('language'))"
        )
        await trio.sleep(1)
        await tab.picture(PICTURES / name)

    async def work(link: str, folder: Path) -> None:
        async with browser(folder / "wide") as tab:
            await look(tab, link, "page.png", "en", 1200)
        async with browser(folder / "phone") as tab:
            await look(tab, link, "page-phone.png", "ar", 390)

    with tempfile.TemporaryDirectory() as folder, _shown(Path(folder)) as link:
        trio.run(work, link, Path(folder))


@contextlib.contextmanager
def _shown(folder: Path) -> Iterator[str]:
    """The link to Bo's page: Ana founded the network, Bo and Caro came by her invite."""
    with contextlib.ExitStack() as stack:
        people = {name: folder / name for name in ("Ana", "Bo", "Caro")}
        link = ""
        for (name, home), language in zip(people.items(), ("fra", "deu_1996", "ita"), strict=True):
            environ = {**ENVIRON, "TAPESTRY_HOME": str(home), "TAPESTRY_BUDGET__THREADS": "1"}
            texts = folder / language
            _typed(environ, "data", "udhr", "--languages", language, "--out", str(texts))
            who = ["--name", name, "--languages", language[:2], "--data", str(texts)]
            if link:
                _typed(environ, "join", link, *who, "--yes")
            else:
                _typed(environ, "init", *who, "--network", "Harbour", *TINY)
            stack.enter_context(_running(["run"], environ))
            _until(partial(_made, 1, environ), f"{name} made a round")
            if not link:
                link = _typed(environ, "invite").strip()
            if name == "Bo":
                bo = environ
                page = stack.enter_context(_running(["page", "--port", "0"], environ))
        _until(partial(_made, PAGE_ROUNDS, bo), "Bo made its rounds")
        assert page.stdout is not None
        yield page.stdout.readline().strip()


def _typed(environ: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        [*TAPESTRY, *words], env=environ, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def _made(rounds: int, environ: dict[str, str]) -> bool:
    done = subprocess.run(
        [*TAPESTRY, "status", "--json"], env=environ, capture_output=True, check=False
    )
    return bool(done.stdout) and int(json.loads(done.stdout)["round"]) >= rounds


def _until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"not in {PATIENCE_S:.0f} s: {what}")
        time.sleep(1)


@contextlib.contextmanager
def _running(words: list[str], environ: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [*TAPESTRY, *words],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def main() -> int:
    """Draw what is named, or all that does not take an hour."""
    special = {"page": draw_page, "loom": draw_loom}
    names = [*COMMANDS, *special]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", nargs="*", metavar="PICTURE", help=", ".join(names))
    asked = parser.parse_args().pictures
    if unknown := set(asked) - set(names):
        parser.error(f"no picture {sorted(unknown)[0]}; there are {', '.join(names)}")
    for name in asked or [name for name in names if name not in SLOW]:
        print(f"drawing {name}", flush=True)
        special.get(name, partial(draw, name))()
    return 0


if __name__ == "__main__":
    sys.exit(main())
