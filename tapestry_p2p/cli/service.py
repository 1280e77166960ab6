"""Verbs for the service manager: print the units, or put them where systemd looks.

Knows the unit files (tapestry_p2p/units) and where they go; starts nothing. What a unit must be
told of this machine goes into drop-ins, so that an upgrade can replace the unit.
"""

import os
import shutil
import sys
from importlib.resources import files
from pathlib import Path

from cyclopts import App

from tapestry_p2p.daemon.paths import SERVICE_NAME
from tapestry_p2p.errors import FAILURE, USAGE, TapestryError

app = App(
    name="service", help="Run this member by systemd.\n\nExample: tapestry service install --user"
)

PYTHON = "/opt/tapestry/.venv/bin/python"  # as the units have it
NODE, TRAINER, PAGE, USER, GPU = (
    "tapestry@.service",
    "tapestry-trainer@.service",
    "tapestry-page@.service",
    "tapestry.service",
    "tapestry-trainer@.service.d/gpu.conf",
)
SYSTEM_FOLDER = Path("etc/systemd/system")
HIDDEN = (Path("/home"), Path("/root"), Path("/run/user"), Path("/tmp"))  # noqa: S108


def unit(name: str, python: str = PYTHON) -> str:
    """The text of a unit, for this Python."""
    text = (files("tapestry_p2p") / "units" / name).read_text("utf-8")
    return text.replace(PYTHON, python)


@app.command(name="print")
def print_(*, user: bool = False) -> int:
    """Print the units, for the Python that runs this.

    Example: tapestry service print --user

    Parameters
    ----------
    user
        The one unit for your own systemd (`systemctl --user`).
    """
    for name in (USER,) if user else (NODE, TRAINER, PAGE):
        print(f"# {name}\n{unit(name, sys.executable)}")
    return 0


@app.command
def install(
    name: str = "",
    *,
    user: bool = False,
    data: list[Path] | None = None,
    gpu: bool = False,
    root: Path = Path("/"),
) -> int:
    """Write the units, and say what to do next. Starts nothing.

    Example: tapestry service install --user

    Example: sudo tapestry service install ana --data /srv/texts

    Parameters
    ----------
    name
        The member: its configuration is /etc/tapestry/NAME. Not with --user.
    user
        For your own systemd instead: one unit in your home, the member of your account.
    data
        Files or folders with the data: the trainer may read them, the node does not see them.
    gpu
        Let the trainer use a GPU.
    root
        Another root folder, to build an image.
    """
    if user:
        return _install_user()
    if not SERVICE_NAME.fullmatch(name):
        raise TapestryError("NAME: 1 to 20 letters, digits, - and _ (or --user)", USAGE)
    folder = root / SYSTEM_FOLDER
    paths = [path.absolute() for path in data or []]
    written = [_write(folder / each, unit(each, sys.executable)) for each in (NODE, TRAINER, PAGE)]
    if paths:
        trainer = folder / f"tapestry-trainer@{name}.service.d" / "data.conf"
        blind = [
            folder / f"{unit_name}@{name}.service.d" / "data.conf"
            for unit_name in ("tapestry", "tapestry-page")
        ]
        hidden_data = _section("InaccessiblePaths", [f"-{path}" for path in paths])
        written.append(_write(trainer, _section("BindReadOnlyPaths", paths)))
        written += [_write(path, hidden_data) for path in blind]
    if gpu:
        target = folder / f"tapestry-trainer@{name}.service.d" / "gpu.conf"
        written.append(_write(target, unit(GPU)))
    for path in written:
        print(f"wrote {path}")
    if hidden := [path for path in HIDDEN if Path(sys.executable).is_relative_to(path)]:
        print(f"note: services do not see {hidden[0]}, where this Python is: install to /opt")
    print(_next_steps(name))
    return 0


def _install_user() -> int:
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    print(f"wrote {_write(Path(base) / 'systemd/user' / USER, unit(USER, sys.executable))}")
    print("next: systemctl --user daemon-reload && systemctl --user enable --now tapestry")
    if shutil.which("loginctl"):
        print("to run while you are away: loginctl enable-linger")
    return 0


def _next_steps(name: str) -> str:
    return (
        f"next: put network.toml, tapestry.toml and key.pem (mode 0600) into /etc/tapestry/{name}\n"
        f"      (an `init` or `join` in another TAPESTRY_HOME makes them), then\n"
        f"      systemctl daemon-reload && systemctl enable --now tapestry@{name}\n"
        f"      sudo TAPESTRY_SERVICE={name} tapestry status\n"
        f"      to look in a browser: systemctl enable --now tapestry-page@{name}, then\n"
        f"      sudo TAPESTRY_SERVICE={name} tapestry page"
    )


def _section(key: str, values: list[Path] | list[str]) -> str:
    return "[Service]\n" + "".join(f"{key}={value}\n" for value in values)


def _write(path: Path, text: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise TapestryError(f"{path} cannot be written: {error.strerror}", FAILURE) from error
    return path
