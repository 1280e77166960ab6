"""The page of a live member in a real browser: it fills, does what it says, in every size.

Runs where there is a Chromium. axe-core comes from npm, or is the file that TAPESTRY_AXE names.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
from chromium_kit import CHROMIUM, Tab, browser

from tapestry_p2p.daemon.ask import ask
from tapestry_p2p.errors import TapestryError
from tapestry_p2p.page.facts import MODELS

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]
ROOT = Path(__file__).parents[2]
PATIENCE_S = 180.0
AXE = "axe-core@4.14.1"
TINY = [f"--task-option={option}" for option in ("layers=1", "width=16", "heads=1", "context=32")]
ENVIRON = {
    "PATH": os.environ["PATH"],
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TAPESTRY_BUDGET__THREADS": "1",
    "TAPESTRY_TESTING__SPEED": "0.3",
}


def tapestry(home: Path, *words: str) -> str:
    """What a verb prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tapestry_p2p", *words],
        env={**ENVIRON, "TAPESTRY_HOME": str(home), "HOME": str(home.parent)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def start(stack: ExitStack, home: Path, *words: str) -> "subprocess.Popen[str]":
    """A verb that stays, ended with the stack."""
    process = stack.enter_context(
        subprocess.Popen(
            [sys.executable, "-m", "tapestry_p2p", *words],
            env={**ENVIRON, "TAPESTRY_HOME": str(home), "HOME": str(home.parent)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if words[0] == "page" else subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    )
    stack.callback(process.terminate)
    return process


def status(home: Path) -> dict[str, Any]:
    """The daemon's answer; empty if there is none."""
    try:
        return ask(home / "run" / "control.sock", {"do": "status"})
    except TapestryError:
        return {}


def wait_for(home: Path, what: Callable[[dict[str, Any]], Any]) -> None:
    """Until the status is so."""

    async def look() -> None:
        with trio.fail_after(PATIENCE_S):
            while not ((found := status(home)) and what(found)):
                await trio.sleep(0.3)

    trio.run(look)


def trainer_answers(home: Path) -> bool:
    """Whether the trainer is there to be asked."""
    try:
        return bool(ask(home / "run" / "text.sock", {"do": "evaluate"}, PATIENCE_S))
    except TapestryError:
        return False


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The link to the page of a member that learns together with another, and its home."""
    base = tmp_path_factory.mktemp("members")
    first, second = base / "a", base / "b"
    tapestry(first, "init", "--name", "Ana", "--network", "Harbour", *TINY)
    manifest = (first / "network.toml").read_text()
    manifest = manifest.replace("inner_steps = 50", "inner_steps = 5")
    manifest = manifest.replace("# probation_rounds is not given", "probation_rounds = 0")
    (first / "network.toml").write_text(manifest)
    with ExitStack() as stack:
        start(stack, first, "run")
        wait_for(first, lambda found: found["round"] >= 1)
        link = tapestry(first, "invite").strip()
        tapestry(second, "join", link, "--name", "Аna", "--yes")  # a Cyrillic A
        start(stack, second, "run")
        wait_for(first, lambda found: found["mixed"]["authors"])
        shown = start(stack, first, "page", "--port", "0")
        assert shown.stdout is not None
        yield shown.stdout.readline().strip(), first


def in_browser(
    folder: Path, link: str, job: Callable[[Tab], Awaitable[None]], language: str = "en"
) -> None:
    """Open the page, wait until it is filled, do the job; then nothing may have gone wrong."""

    async def work() -> None:
        async with browser(folder, language) as tab:
            await tab.look_like(1200)
            await tab.open(link)
            await tab.until("!document.getElementById('n-table')?.hidden")
            await tab.until("!document.getElementById('plot')?.hidden")
            await job(tab)
            origin = link.partition("/#")[0]
            foreign = [url for url in tab.requests if not url.startswith((origin, "about:"))]
            assert foreign == []
            assert len(tab.requests) >= 7
            assert tab.complaints == []

    trio.run(work)


def text(name: str) -> str:
    """JavaScript for the words of an element."""
    return f"document.getElementById({json.dumps(name)}).innerText"


def click(name: str) -> str:
    """JavaScript for a click, as by a hand: what is hidden or disabled is not clicked."""
    return (
        f"(e => !e.disabled && e.offsetParent && (e.click(), true))"
        f"(document.getElementById({json.dumps(name)}))"
    )


def test_all_panels_fill_and_move(page: tuple[str, Path], tmp_path: Path) -> None:
    async def job(tab: Tab) -> None:
        assert "together" in await tab.run(text("now-what"))
        assert await tab.run("location.hash") == ""  # the key is out of sight
        assert "Ana" in await tab.run(text("my-name"))
        body = await tab.run(text("n-body"))
        assert "Taken in full" in body or "Partly taken in" in body
        assert "looks like yours" in await tab.run(text("alike"))
        assert "message" in await tab.run(text("l-sum"))
        assert "%" in await tab.run(text("l-bars"))
        assert await tab.run("document.querySelectorAll('#l-body tr').length") >= 3
        assert await tab.run("document.querySelectorAll('#log li').length") >= 1
        assert await tab.run("document.querySelector('#plot canvas').width") > 200
        before = await tab.run(text("p-words"))
        await tab.until(f"{text('p-words')} !== {json.dumps(before)}")

    in_browser(tmp_path, page[0], job)


def test_a_text_streams_an_invite_copies_and_a_measure_shows(
    page: tuple[str, Path], tmp_path: Path
) -> None:
    async def job(tab: Tab) -> None:
        await tab.call(
            "Browser.grantPermissions",
            permissions=["clipboardReadWrite", "clipboardSanitizedWrite"],
        )
        await tab.run("document.getElementById('prompt').value = '<b>Tous</b>'")
        await tab.run(
            "window.lengths = new Set(); new MutationObserver(() => window.lengths.add("
            "document.getElementById('text').textContent.length)).observe(document.getElementById("
            "'text'), {characterData: true, childList: true, subtree: true})"
        )
        assert await tab.run(click("write"))
        await tab.until(f"{text('try-said')} === 'Done.'")
        shown = await tab.run(text("text"))
        assert shown.startswith("<b>Tous</b>")  # text, not markup
        assert len(shown) > 40
        assert await tab.run("window.lengths.size") >= 4  # it came in pieces
        assert await tab.run(click("invite"))
        link = await tab.until("document.getElementById('link').value")
        assert link.startswith("tapestry:")
        assert await tab.run("document.querySelector('#qr path').getAttribute('d').length") > 1000
        assert await tab.run(click("copy"))
        await tab.until(f"{text('copy-said')} === 'Copied.'")
        assert await tab.run("navigator.clipboard.readText()") == link
        assert await tab.run(click("measure"))
        await tab.until("document.querySelectorAll('#known td').length")

    in_browser(tmp_path, page[0], job)


def test_pause_pauses_and_resume_resumes(page: tuple[str, Path], tmp_path: Path) -> None:
    link, home = page

    async def job(tab: Tab) -> None:
        assert await tab.run(click("pause"))
        await tab.until(f"{text('now-what')}.includes('you said so')")
        assert "operator" in status(home)["paused"]
        await tab.until(f"{text('pause')} === 'Go on training' && {click('pause')}")
        await tab.until(f"!{text('now-what')}.includes('paused')")
        assert status(home)["paused"] == {}

    in_browser(tmp_path, link, job)
    wait_for(home, lambda _: trainer_answers(home))


def test_a_measure_that_failed_is_said(page: tuple[str, Path], tmp_path: Path) -> None:
    nothing = {"curves": {key: [] for key in MODELS}, "now": dict.fromkeys(MODELS), "gains": {}}

    async def job(tab: Tab) -> None:
        for failed in (True, False):
            answer = json.dumps({**nothing, "unit": "", "apart": None, "failed": failed})
            hidden = "['w-failed', 'w-none'].map((id) => document.getElementById(id).hidden)"
            assert await tab.run(f"draw.gain({answer}), {hidden}") == [not failed, failed]
        assert await tab.run("document.getElementById('w-failed').textContent")

    in_browser(tmp_path, page[0], job)


def test_the_model_is_written_where_the_page_says(page: tuple[str, Path], tmp_path: Path) -> None:
    link, home = page

    async def job(tab: Tab) -> None:
        await tab.until(click("export"))
        said = text("export-said")
        shown = await tab.until(f"{said}.includes('is in') && {said}")
        folders = list((home / "exports").iterdir())
        assert len(folders) == 1
        assert str(folders[0]) in shown
        assert (folders[0] / "model.safetensors").stat().st_size > 1000

    in_browser(tmp_path, link, job)


@pytest.mark.parametrize("language", ["en", "fr", "es", "ar", "hi", "zh"])
def test_it_speaks_the_readers_language_and_fits_a_phone(
    page: tuple[str, Path], tmp_path: Path, language: str
) -> None:
    words = json.loads((ROOT / "tapestry_p2p/page/static/words.json").read_text("utf-8"))

    async def job(tab: Tab) -> None:
        if language != "en":
            await tab.run(
                f"(s => {{ s.value = '{language}'; s.dispatchEvent(new Event('change')); }})"
                "(document.getElementById('language'))"
            )
        assert (
            await tab.run("document.querySelector('#n-title').innerText")
            == (words[language]["neighbours"])
        )
        assert await tab.run("document.documentElement.lang") == language
        direction = await tab.run("getComputedStyle(document.body).direction")
        assert direction == ("rtl" if language == "ar" else "ltr")
        for width in (360, 768, 1200):
            await tab.look_like(width)
            await trio.sleep(0.3)
            assert await tab.run("document.documentElement.scrollWidth") <= width
        if language == "ar":
            left, right = await tab.run(
                "['#pause', '#now'].map(q => document.querySelector(q).getBoundingClientRect())"
                ".map(r => innerWidth - r.right)"
            )
            assert left < right + 60  # the first button stands at the right edge

    in_browser(tmp_path, page[0], job)


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core."""
    if named := os.environ.get("TAPESTRY_AXE"):
        return Path(named).read_text("utf-8")
    if shutil.which("npm") is None:
        pytest.skip("Node.js is not installed, and TAPESTRY_AXE names no axe.min.js")
    folder = tmp_path_factory.mktemp("axe")
    command = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", AXE]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot fetch {AXE} here: {done.stderr.strip()[-200:]}")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8")


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (360, "light")])
def test_axe_finds_nothing_serious(
    page: tuple[str, Path], tmp_path: Path, axe: str, width: int, scheme: str
) -> None:
    async def job(tab: Tab) -> None:
        await tab.look_like(width, scheme=scheme)
        await tab.run("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert await tab.run(click("invite"))
        await tab.until("document.getElementById('link').value")
        await tab.run(axe + "; 0")
        found = await tab.run("axe.run().then(r => JSON.stringify(r.violations))")
        serious = [
            (each["id"], each["impact"], [node["html"] for node in each["nodes"]][:3])
            for each in json.loads(found)
            if each["impact"] in ("serious", "critical")
        ]
        assert serious == []

    in_browser(tmp_path, page[0], job)


def test_every_control_is_reached_by_the_keyboard(page: tuple[str, Path], tmp_path: Path) -> None:
    async def job(tab: Tab) -> None:
        wanted = set(
            await tab.run(
                "[...document.querySelectorAll('button, select, textarea, input, summary')]"
                ".filter(e => e.offsetParent && !e.disabled).map(e => e.id || e.textContent)"
            )
        )
        reached = set()
        for _ in range(3 * len(wanted)):
            for kind in ("keyDown", "keyUp"):
                await tab.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab",
                               windowsVirtualKeyCode=9)  # fmt: skip
            reached.add(
                await tab.run("document.activeElement.id || document.activeElement.textContent")
            )
            if wanted <= reached:
                break
        assert wanted <= reached
        outline = await tab.run("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"

    in_browser(tmp_path, page[0], job)


def test_without_the_key_the_page_says_what_to_do(page: tuple[str, Path], tmp_path: Path) -> None:
    async def work() -> None:
        async with browser(tmp_path) as tab:
            await tab.open(page[0].partition("#")[0])
            await tab.until(f"{text('now-next')}.includes('tapestry page')")
            assert not await tab.run("document.getElementById('pause').offsetParent")

    trio.run(work)
