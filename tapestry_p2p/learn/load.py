"""A task by its name: one of this package or of an installed one, or ``path/to/file.py:make_task``.

Rule: the only place that turns a name into code. It is run as it is, as trusted as the data; that
is why the trainer has left the network before it gets here. Installed packages offer tasks under
the entry-point group `GROUP`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from tapestry_p2p.heap import lasting
from tapestry_p2p.learn.task import Data, Options, Task, TaskError, local_patterns

BUILT_IN = {
    "language": "tapestry_p2p.learn.tasks.language",
    "digits": "tapestry_p2p.learn.tasks.digits",
    "fashion": "tapestry_p2p.learn.tasks.fashion",
}

GROUP = "tapestry.tasks"


def load(name: str, options: Options, data: Data) -> Task:
    """The task called ``name``. TaskError ``task_not_found``, ``task_error`` or a data code."""
    for path in data.paths:
        if not path.exists():
            raise TaskError("data_missing", f"no such data: {path}")
    with lasting():
        make = _maker(name)
    task = make(options, data)
    if not isinstance(task, Task):
        raise TaskError("task_error", f"{name} made no task: init, loss, batches, name needed")
    local_patterns(task)
    return task


def _maker(name: str) -> Any:
    if name in BUILT_IN:
        return importlib.import_module(BUILT_IN[name]).make_task
    file, colon, function = name.rpartition(":")
    if not colon:
        return _installed(name)
    path = Path(file)
    if path.suffix != ".py" or not path.is_file():
        raise TaskError("task_not_found", f"{name!r} is no FILE.py:FUNCTION")
    maker = getattr(_module(path), function, None)
    if not callable(maker):
        raise TaskError("task_not_found", f"{path} has no function {function!r}")
    return maker


def _installed(name: str) -> Any:
    """What an installed package offers under that name; one package only."""
    offered = list(entry_points(group=GROUP, name=name))
    if len(offered) > 1:
        raise TaskError("task_not_found", f"{len(offered)} installed packages have a task {name!r}")
    if not offered:
        known = sorted({*BUILT_IN, *entry_points(group=GROUP).names})
        raise TaskError("task_not_found", f"{name!r}: not {known}, nor FILE.py:FUNCTION")
    return offered[0].load()


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"tapestry_task_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise TaskError("task_not_found", f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
