"""`bugreport`: what a developer needs to see of this member, in one file, without its secrets.

Takes only what is known to be harmless: facts of this program's own, and lines that the node itself
logged. The trainer's log is left out, for a task's error may hold a piece of the data; so are all
data paths, keys and task files. Folders of this user and addresses are put out of the texts.
"""

import io
import ipaddress
import json
import platform
import re
import sys
import time
import zipfile
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib import metadata
from pathlib import Path
from typing import Any

from tapestry_p2p import __version__
from tapestry_p2p.cli.log import read
from tapestry_p2p.cli.output import note, show
from tapestry_p2p.daemon import config as member
from tapestry_p2p.daemon.ask import ask
from tapestry_p2p.daemon.logs import FILE_NAME, as_text
from tapestry_p2p.daemon.manifest import load_manifest
from tapestry_p2p.daemon.paths import Paths, find_paths
from tapestry_p2p.errors import FAILURE, OK, TapestryError

LOG_LINES = 1000
LIBRARIES = ("jax", "flax", "optax", "numpy", "trio", "libp2p", "cryptography", "msgspec")
SHOWN = ("budget", "log", "metrics")  # of tapestry.toml; of other keys only whether they are set
_ADDRESS = re.compile(r"/(ip4|ip6|dns|dns4|dns6)/[^/\s\"']+")
_DIALLED = re.compile(r"(all attempts to connect to )\S+")  # trio's words, with a host's name
_NUMBERS = re.compile(r"\b(?!127\.0\.0\.1\b|0\.0\.0\.0\b)\d{1,3}(?:\.\d{1,3}){3}\b")
_GROUPS = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")  # IPv6?
_FILE = re.compile(r"\$DATA/(?:.*(?= cannot be read: )|.*)")  # of the data: its name tells
_SETTING = re.compile(
    r"tapestry\.toml: |\$TAPESTRY_\w+: "
)  # a line that may quote what is wrong there
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


def bugreport(*, output: Path | None = None, json: bool = False) -> int:
    """Write what a developer needs to see of this member into one .zip file, without secrets.

    In it: versions, state and ids, metrics, the last lines of the node's log, what `doctor` finds,
    sizes of files. Not in it: keys, data and where it lies, the trainer's log, addresses, names of
    your folders. Look into it before you give it to anybody. Needs no running member.

    Example: tapestry bugreport --output report.zip

    Parameters
    ----------
    output
        The file to write; must not exist. tapestry-bugreport-TIME.zip here unless given.
    json
        Print JSON: the file and what is in it.
    """
    paths = find_paths()
    target = output or Path(f"tapestry-bugreport-{time.strftime('%Y%m%d-%H%M%S')}.zip")
    parts = collect(paths)
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    try:
        with target.open("xb") as file:
            file.write(data.getvalue())
    except OSError as error:
        raise TapestryError(f"{target} cannot be written: {error.strerror}", FAILURE) from error
    lines = [f"{len(text.encode()):>9} bytes  {name}" for name, text in parts.items()]
    show({"path": str(target), "parts": list(parts)}, as_json=json, lines=[*lines, str(target)])
    note("please look into it before you give it to anybody: unzip it, every part is plain text")
    return OK


def collect(paths: Paths) -> dict[str, str]:
    """Name -> text of every part; a part that cannot be made says why."""
    makers: dict[str, Callable[[Paths], str]] = {
        "about.txt": _about,
        "config.txt": _config,
        "network.txt": _network,
        "status.json": _status,
        "metrics.txt": _metrics,
        "doctor.txt": _doctor,
        "files.txt": _files,
        "log.txt": _log,
    }
    parts = {}
    for name, make in makers.items():
        try:
            text = make(paths)
        except TapestryError as error:
            text = f"not to be had: {error.message}\n"
        except OSError as error:
            text = f"not to be had: {error.strerror}\n"
        except Exception as error:  # where something is broken, the other parts are wanted most
            text = f"not to be had: {type(error).__name__}\n"
        parts[name] = text
    data = _data(paths)
    return {name: hide(text, paths, data) for name, text in parts.items()}


def _data(paths: Paths) -> list[str]:
    """Where the data lies: doctor names it."""
    try:
        return member.load_config(paths.member).data.paths
    except TapestryError:
        return []


def hide(text: str, paths: Paths, data: list[str]) -> str:
    """The text without data paths, this user's folders, and addresses but this machine's own."""
    folders = {str(paths.config): "$CONFIG", str(paths.state): "$STATE"}
    folders |= {str(paths.trainer): "$TRAINER", str(paths.cache): "$CACHE"}
    folders |= {str(paths.runtime): "$RUNTIME", str(Path.home()): "~"}
    folders |= dict.fromkeys(data, "$DATA")
    for folder in sorted(folders, key=len, reverse=True):
        if len(folder) > 1:
            text = re.sub(re.escape(folder) + r"(?!\w)", folders[folder], text)
    text = "\n".join(map(_without_settings, _FILE.sub("$DATA", text).split("\n")))
    text = _ADDRESS.sub(lambda m: m[0] if m[0] in _OPEN else f"/{m[1]}/(hidden)", text)
    text = _DIALLED.sub(r"\1(hidden)", text)
    return _GROUPS.sub(_without_ip6, _NUMBERS.sub("(hidden)", text))


def _without_settings(line: str) -> str:
    return _QUOTED.sub("'(hidden)'", line) if _SETTING.search(line) else line


def _without_ip6(match: re.Match[str]) -> str:
    try:
        address = ipaddress.IPv6Address(match[0])
    except ValueError:  # a time, for one
        return match[0]
    return match[0] if address.is_loopback or address.is_unspecified else "(hidden)"


_OPEN = ("/ip4/127.0.0.1", "/ip4/0.0.0.0", "/ip6/::", "/ip6/::1")


def _about(paths: Paths) -> str:
    lines = [
        f"tapestry {__version__}",
        f"Python {sys.version.split()[0]} ({platform.python_implementation()})",
        f"{platform.system()} {platform.release()} {platform.machine()}",
        f"under systemd: {'yes' if paths.text else 'no'}",
    ]
    for name in LIBRARIES:
        try:
            lines.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            lines.append(f"{name} is missing")
    return "\n".join(lines) + "\n"


def _config(paths: Paths) -> str:
    """Sections that hold nothing personal whole; of the others which keys were set."""
    config, origin = member.load_with_origin(paths.member)
    lines = []
    for name in sorted(origin):
        section, _, key = name.partition(".")
        value = getattr(getattr(config, section), key)
        shown = f"= {value!r}" if section in SHOWN else "is set, not shown"
        lines.append(f"{name} {shown} ({origin[name]})")
    return "\n".join(lines or ["everything at its default"]) + "\n"


def _network(paths: Paths) -> str:
    manifest = load_manifest(paths.manifest)
    return (
        f"network id {manifest.network_id.hex()}\n"
        f"parameters {manifest.schema.parameters}, rule {manifest.mixing.rule},"
        f" f {manifest.mixing.f}, codec {manifest.streams.codec}\n"
    )


def _status(paths: Paths) -> str:
    status = ask(paths.control_socket, {"do": "status"})
    return json.dumps(status, indent=1, ensure_ascii=False) + "\n"  # as `hide` knows the folders


def _metrics(paths: Paths) -> str:
    return str(ask(paths.control_socket, {"do": "metrics"})["text"])


def _doctor(paths: Paths) -> str:
    from tapestry_p2p.cli.doctor import doctor

    said = io.StringIO()
    with redirect_stdout(said):
        code = doctor()
    return f"{said.getvalue()}exit status {code}\n"


def _files(paths: Paths) -> str:
    """Sizes of the node's own files. Of the trainer's folder and the configuration's only a sum."""
    lines = [f"{size:>12}  {name}" for name, size in sorted(_sizes(paths.state).items())]
    for name, folder in (("trainer", paths.trainer), ("cache", paths.cache)):
        lines.append(f"{sum(_sizes(folder).values()):>12}  all of {name}")
    return "\n".join(lines) + "\n"


def _sizes(folder: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            found[str(path.relative_to(folder))] = path.stat().st_size
    return found


def _log(paths: Paths) -> str:
    rows: list[dict[str, Any]] = list(read(paths.log / FILE_NAME))[-LOG_LINES:]
    if not rows:
        return "no log file here; under systemd: journalctl, see `tapestry log`\n"
    return "\n".join(map(as_text, rows)) + "\n"
