"""The walls between the rooms, as imports: who may know whom, held for every file.

The table says what each room may import; anything else is a hole. Every kind of hole is also
planted once, to see that it is found. What a process really loads is looked at in processes.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "tapestry_p2p"

# The pure part of the standard library: no clock, no files, no sockets, no processes.
PURE = frozenset(
    "__future__ abc bisect collections contextlib copy dataclasses enum functools hashlib heapq"
    " itertools math operator random re string struct types typing unicodedata".split()
)
STANDARD = frozenset(sys.stdlib_module_names)


@dataclass(frozen=True)
class Wall:
    """What the files of one room may import: our own rooms, the standard library's, others'."""

    ours: frozenset[str]
    standard: frozenset[str]
    others: frozenset[str]
    files: frozenset[str] = frozenset()  # of the room; all if empty


def wall(ours: str, standard: frozenset[str], others: str = "") -> Wall:
    return Wall(frozenset(ours.split()), standard, frozenset(others.split()))


WALLS = {
    "errors": wall("", PURE),
    "corpus": wall("", PURE),
    "data": wall("", STANDARD),
    "link": wall("", STANDARD, "numpy msgpack"),
    "bulk": wall("", STANDARD, "numpy msgpack"),
    "heap": wall("", STANDARD),
    "crash": wall("", STANDARD),
    "learn": wall(
        "learn errors link bulk heap crash corpus data",
        STANDARD,
        "jax flax optax numpy msgpack safetensors",
    ),
    "mix": wall("mix", PURE, "numpy"),
    "gossip": wall("gossip", PURE, "msgpack cryptography"),
    "sim": wall("sim gossip mix errors", PURE, "numpy"),
    # programs that attack real daemons: a part of sim/ that has sockets
    "hostile": wall("sim daemon gossip mix errors", STANDARD, "trio"),
    "daemon": wall(
        "daemon gossip mix sim link bulk heap crash errors __init__",
        STANDARD,
        "trio msgspec msgpack numpy cryptography platformdirs prometheus_client h11",
    ),
    # the browser's process: of daemon, ask and paths alone (tests/page)
    "page": wall("page daemon errors", STANDARD, "trio starlette hypercorn segno"),
    "cli": wall(
        "cli page daemon gossip mix sim link bulk corpus data errors __init__",
        STANDARD,
        "trio msgspec numpy cyclopts rich matplotlib safetensors",
    ),
    "__init__": wall("", PURE),
    "__main__": wall("cli", STANDARD),
}
LIBP2P = frozenset({"libp2p", "multiaddr"})
LIBP2P_FILES = frozenset({"daemon/transport.py", "daemon/pipes.py", "daemon/guard.py"})
LEARNING_FILES = frozenset({"cli/simulation/learners.py"})  # a simulation's data is nobody's


def imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Every module that a file imports, wherever in it, also by name at run time."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parts, *([base] if base else [])])
            if base == PACKAGE:
                yield from (f"{base}.{alias.name}" for alias in node.names)
            else:
                yield base
        elif isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func)
            name = node.args[0]
            if called.endswith("import_module") or called == "__import__":
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    yield name.value
                elif isinstance(name, ast.JoinedStr) and isinstance(name.values[0], ast.Constant):
                    yield str(name.values[0].value)


def holes(place: str, source: str) -> list[str]:
    """What a file (`gossip/x.py`, below the package) imports or uses against its room's wall."""
    parts = place.removesuffix(".py").split("/")
    room = "hostile" if parts[:2] == ["sim", "hostile"] else parts[0]
    tree = ast.parse(source)
    package = ".".join([PACKAGE, *parts[:-1]])
    found = []
    for module in imports(tree, package):
        names = module.split(".")
        if names[0] == PACKAGE:
            target = names[1] if len(names) > 1 and names[1] in WALLS else "__init__"
            learns = target == "learn" and place in LEARNING_FILES
            allowed = learns or target in WALLS[room].ours
        elif names[0] in LIBP2P:
            allowed = place in LIBP2P_FILES
        elif names[0] in STANDARD:
            allowed = names[0] in WALLS[room].standard
        else:
            allowed = names[0] in WALLS[room].others
        if not allowed:
            found.append(f"{place} imports {module}")
    if WALLS[room].standard is PURE:
        found += [f"{place} uses {use}" for use in global_chance(tree)]
    return found


def global_chance(tree: ast.AST) -> Iterator[str]:
    """Uses of chance that nobody handed in: the random module's own functions, numpy's as well."""
    imported = any(  # else the word is the name of a generator that was handed in
        isinstance(node, ast.Import) and any(alias.name == "random" for alias in node.names)
        for node in ast.walk(tree)
    )
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            use = ast.unparse(node)
            of_module = imported and use.startswith("random.") and use != "random.Random"
            of_numpy = use.startswith(("np.random.", "numpy.random."))
            seeded = use in ("np.random.Generator", "np.random.default_rng", "np.random.PCG64")
            if of_module or (of_numpy and not seeded):
                yield use
        elif isinstance(node, ast.ImportFrom) and node.module == "random":
            yield from (f"random.{a.name}" for a in node.names if a.name != "Random")


FILES = sorted((ROOT / PACKAGE).rglob("*.py"))
PLACES = [str(path.relative_to(ROOT / PACKAGE)) for path in FILES]


@pytest.mark.parametrize("place", PLACES)
def test_no_file_reaches_through_a_wall(place: str) -> None:
    assert holes(place, (ROOT / PACKAGE / place).read_text()) == []


def test_every_room_was_looked_at() -> None:
    rooms = {place.removesuffix(".py").split("/")[0] for place in PLACES}
    assert rooms | {"hostile"} == set(WALLS)
    assert any(place.startswith("sim/hostile/") for place in PLACES)
    assert set(PLACES) >= LIBP2P_FILES | LEARNING_FILES


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("learn/x.py", "import tapestry_p2p.gossip.header"),
        ("learn/x.py", "from tapestry_p2p import mix"),
        ("learn/x.py", "from ..daemon import store"),
        ("learn/tasks/x.py", "from ...daemon.store import Store"),
        ("learn/x.py", "import libp2p"),
        ("learn/x.py", "import trio"),
        ("learn/x.py", "def f():\n    from tapestry_p2p.cli import main"),
        ("mix/x.py", "from tapestry_p2p.gossip import header"),
        ("mix/x.py", "import jax.numpy as jnp"),
        ("mix/x.py", "import time"),
        ("mix/x.py", "import os"),
        ("mix/x.py", "import numpy as np\nx = np.random.normal()"),
        ("gossip/x.py", "import numpy"),
        ("gossip/x.py", "from tapestry_p2p.mix.codec import decode"),
        ("gossip/x.py", "from tapestry_p2p.errors import TapestryError"),
        ("gossip/x.py", "import time"),
        ("gossip/x.py", "import datetime"),
        ("gossip/x.py", "import secrets"),
        ("gossip/x.py", "import socket"),
        ("gossip/x.py", "import trio"),
        ("gossip/x.py", "import random\nrandom.shuffle([])"),
        ("gossip/x.py", "from random import random"),
        ("gossip/x.py", "import importlib"),
        ("gossip/x.py", "__import__('time')"),
        ("sim/x.py", "from tapestry_p2p.daemon import store"),
        ("sim/x.py", "import trio"),
        ("sim/x.py", "import time"),
        ("daemon/x.py", "import libp2p.host"),
        ("daemon/x.py", "from multiaddr import Multiaddr"),
        ("daemon/x.py", "import jax"),
        ("daemon/x.py", "from tapestry_p2p.learn import trainer"),
        ("daemon/x.py", "from tapestry_p2p import learn"),
        ("daemon/x.py", "import importlib\nimportlib.import_module('tapestry_p2p.learn.load')"),
        ("daemon/transport.py", "import tapestry_p2p.cli.main"),
        ("page/x.py", "from tapestry_p2p.gossip import header"),
        ("page/x.py", "import numpy"),
        ("page/x.py", "from tapestry_p2p.learn import talk"),
        ("cli/x.py", "import jax"),
        ("cli/x.py", "import libp2p"),
        ("cli/simulate.py", "from tapestry_p2p.learn import crowd"),
        ("cli/simulation/learners.py", "import jax"),
        ("cli/x.py", "from tapestry_p2p.learn import vector"),
        ("cli/x.py", "import importlib\nimportlib.import_module(f'jax.{x}')"),
        ("link.py", "import jax"),
        ("link.py", "import trio"),
        ("corpus.py", "import numpy"),
        ("corpus.py", "import pathlib"),
        ("errors.py", "from tapestry_p2p import link"),
        ("data/__init__.py", "import numpy"),
    ],
)
def test_a_planted_hole_is_found(place: str, source: str) -> None:
    assert holes(place, source)


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("daemon/transport.py", "from libp2p.abc import ISecureConn"),
        ("gossip/x.py", "import random\nchance = random.Random(1)\nchance.shuffle([])"),
        ("gossip/x.py", "from . import header"),
        ("learn/tasks/x.py", "from ...link import digest"),
        ("sim/x.py", "from tapestry_p2p.gossip.protocol import Protocol"),
        ("cli/x.py", "import importlib\nimportlib.import_module(f'tapestry_p2p.cli.{x}')"),
    ],
)
def test_what_is_allowed_is_no_hole(place: str, source: str) -> None:
    assert holes(place, source) == []


@pytest.mark.parametrize("room", ["cli", "daemon", "gossip", "learn", "mix", "page", "sim"])
def test_a_room_opens_with_words_alone(room: str) -> None:
    body = ast.parse((ROOT / PACKAGE / room / "__init__.py").read_text()).body
    assert len(body) == 1
    assert isinstance(body[0], ast.Expr)


# ---- what processes load ---------------------------------------------------------------------

JAX = ("jax", "jaxlib", "flax", "optax")


def loaded(code: str, names: tuple[str, ...], **environ: str) -> set[str]:
    """Which of the modules a Python process has after running the code."""
    code = f"import sys\n{code}\nprint(*[n for n in {names} if n in sys.modules], file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", **environ},
    )
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("words", [["status"], ["status", "--json"], ["peers"], ["stop"]])
def test_verbs_that_ask_the_daemon_load_neither_jax_nor_libp2p(
    words: list[str], tmp_path: Path
) -> None:
    code = f"from tapestry_p2p.cli.main import main\nassert main({words}) == 3"
    heavy = (*JAX, "libp2p", "numpy", "cyclopts")
    assert loaded(code, heavy, TAPESTRY_HOME=str(tmp_path)) == set()


def test_the_node_never_loads_jax() -> None:
    code = "import tapestry_p2p.daemon.run, tapestry_p2p.daemon.describe, tapestry_p2p.daemon.join"
    assert loaded(code, (*JAX, "libp2p")) == {"libp2p"}


def test_the_trainer_loads_nothing_that_could_see_data_before_it_is_isolated() -> None:
    assert loaded("import tapestry_p2p.learn.trainer", (*JAX, "numpy", "libp2p", "trio")) == set()


# ---- taste, as a ratchet: these numbers only ever go down ------------------------------------

FILE_LINES_MAX = 700
FUNCTION_LINES_MAX = 50


@pytest.mark.parametrize("place", PLACES)
def test_a_file_opens_with_its_rule_and_fits_its_purpose(place: str) -> None:
    source = (ROOT / PACKAGE / place).read_text()
    tree = ast.parse(source)
    assert ast.get_docstring(tree), "open the file with its one rule"
    assert len(source.splitlines()) <= FILE_LINES_MAX
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            lines = (node.end_lineno or 0) - first.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{node.name} does not fit a screen"
