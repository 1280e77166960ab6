"""A model in a folder, used without a daemon: ``python -m tapestry_p2p.learn.offline``.

One JSON request on standard input, one JSON answer on standard output. Rule: leaves the network
before it reads or imports anything; whatever a task prints goes to stderr. Trains nothing, writes
nothing but the compile cache.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapestry_p2p.heap import resident_bytes
from tapestry_p2p.learn import isolation

if TYPE_CHECKING:
    from tapestry_p2p.learn.task import Params, Task
    from tapestry_p2p.learn.vector import Layout

USAGE, FAILURE, BAD_CONFIG = 2, 1, 78
GENERATED_BYTES_MAX = 4096


def main() -> int:
    """Answer the one request; 0 also where the answer is an error."""
    isolation.close_inherited(2)
    isolated, how = isolation.leave_network()
    answers = os.dup(1)
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    if request["int8"]:
        spare_memory()
    answer = _answered(request)
    with os.fdopen(answers, "w") as out:
        json.dump({**answer, "isolated": isolated, "isolation": how}, out)
    return 0


def spare_memory() -> None:
    """Let XLA order a step by memory; must come before jax is imported.

    By default its CPU scheduler makes float32 of all eight-bit matrices before it uses the first:
    four times the memory, and twice the time (`benches/generate.py`).
    """
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_enable_concurrency_optimized_scheduler=false"


def _answered(request: dict[str, Any]) -> dict[str, Any]:
    from tapestry_p2p.learn.cache import use_cache
    from tapestry_p2p.learn.task import TaskError

    try:
        with contextlib.suppress(OSError):  # without one where none can be made
            use_cache(Path(request["cache_dir"]))
        return answer(request)
    except TaskError as error:
        return {"error": f"{error}", "exit_code": BAD_CONFIG}
    except Exception as error:  # a user's task may raise anything
        import traceback

        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}", "exit_code": FAILURE}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The answer to ``do``: generate or evaluate. TaskError, and what a task raises."""
    from tapestry_p2p.learn.load import load
    from tapestry_p2p.learn.task import Data, evaluator_of

    judging = request["do"] == "evaluate"
    data = Data(
        [Path(path) for path in request.get("data", [])], request["data_seed"], needed=judging
    )
    task = load(request["task"], request["options"], data)
    local = Path(request["local"]) if request.get("local") else None
    params = load_params(task, Path(request["file"]), request["schema"], local)
    if judging:
        found = evaluator_of(task)(params, "test", None)
        names = ("loss", "bits_per_byte", "bits_per_char", "accuracy")
        return {name: {"held out": found[name]} for name in names if name in found}
    return _generate(task, params, request)


def _generate(task: Task, params: Params, request: dict[str, Any]) -> dict[str, Any]:
    generate = getattr(task, "generate", None)
    size, temperature = request["bytes"], request["temperature"]
    if generate is None:
        return {"error": f"the task {task.name} generates nothing", "exit_code": FAILURE}
    if not 0 < size <= GENERATED_BYTES_MAX:
        return {"error": f"bytes must be 1..{GENERATED_BYTES_MAX}", "exit_code": USAGE}
    if not 0 <= temperature <= 100 or request["seed"] < 0:
        return {"error": "temperature must be 0..100, seed 0 or more", "exit_code": USAGE}
    generate(params, request["prompt"], 1, temperature, request["seed"])  # compiles
    begin = time.monotonic()
    text = generate(params, request["prompt"], size, temperature, request["seed"])
    seconds = time.monotonic() - begin
    return {
        "text": text,
        "seconds": seconds,
        "tokens_per_s": size / seconds,
        "weights_bytes": weights_bytes(params),
        "resident_bytes": resident_bytes(),
    }


def load_params(task: Task, path: Path, schema: str, local: Path | None = None) -> Params:
    """The tree that a safetensors file holds; eight-bit leaves stay so where the task can use them.

    ``local``: the file of the parameters that never leave, if the model has such. TaskError if the
    task builds another model than the one of that schema hash ("" is any), or a parameter lacks.
    """
    import jax
    import safetensors.numpy

    from tapestry_p2p.learn.int8 import SCALE, Int8, dense
    from tapestry_p2p.learn.task import TaskError

    layout = _layout(task, schema)
    if schema and layout.schema != schema:
        raise TaskError("task_error", "the task builds another model than the one in the folder")
    tensors = {**safetensors.numpy.load_file(path), **_own_part(layout, local)}
    leaves: dict[str, Any] = {
        leaf.path: Int8(tensors[leaf.path], tensors[leaf.path + SCALE])
        if leaf.path + SCALE in tensors
        else tensors[leaf.path].astype(jax.numpy.dtype(leaf.dtype))
        for leaf in (*layout.leaves, *layout.local_leaves)
    }
    params = jax.device_put(layout.tree(leaves))
    return params if _takes_int8(task) else dense(params)


def _layout(task: Task, schema: str) -> Layout:
    """Of the task's model; without making one, if it tells its shapes."""
    import jax

    from tapestry_p2p.learn.task import layout_of

    shapes = getattr(getattr(task, "model", None), "shapes", None)
    if shapes is not None:
        layout = layout_of(task, shapes)
        if schema in ("", layout.schema):
            return layout
    return layout_of(task, task.init(jax.random.key(0)))


def _own_part(layout: Layout, local: Path | None) -> dict[str, Any]:
    """The leaves that stay with the member, by their paths; TaskError if the file lacks one."""
    import safetensors.numpy

    from tapestry_p2p.learn.task import TaskError

    found = safetensors.numpy.load_file(local) if local is not None else {}
    for leaf in layout.local_leaves:
        if leaf.path not in found or found[leaf.path].shape != leaf.shape:
            raise TaskError(
                "task_error",
                f"{leaf.path} never left the member, and {local or 'no file beside the folder'}"
                " does not hold it: ask the running member, or export with --local",
            )
    return {leaf.path: found[leaf.path] for leaf in layout.local_leaves}


def _takes_int8(task: Task) -> bool:
    from tapestry_p2p.learn.linen import LinenModel
    from tapestry_p2p.learn.nnx import NnxModel

    return isinstance(getattr(task, "model", None), LinenModel | NnxModel)


def weights_bytes(params: Params) -> int:
    """What the parameters take in memory."""
    import jax

    return sum(leaf.nbytes for leaf in jax.tree.leaves(params))


if __name__ == "__main__":
    sys.exit(main())
