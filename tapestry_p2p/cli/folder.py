"""The folder of an exported model: which files are in it, and how each is read and written.

Knows names and forms. What the lineage proves is verify.py's; export.py makes one. Imports neither
jax nor our learning code: a folder from anybody can be read with this alone.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tapestry_p2p.errors import FAILURE, TapestryError
from tapestry_p2p.mix.codec import Vector

FORMAT = "tapestry export 1"
MODEL, INT8, PUBLISHED = "model.safetensors", "model.int8.safetensors", "published.safetensors"
WHOLE = "whole.safetensors"  # the base with the adapters added, where adapters were trained
LOCAL = "local.safetensors"  # of a task with parameters that never leave; never stays in the folder
CARD, CONFIG, MANIFEST = "README.md", "config.json", "network.toml"
LINEAGE, SIGNATURE = "lineage.json", "lineage.sig"
NEEDED = (MODEL, INT8, CARD, CONFIG, MANIFEST)
JSON_BYTES_MAX = 64 << 20
SCALE = ":scale"  # as learn/int8.py names them

Row = tuple[str, tuple[int, ...], str]  # path, shape, dtype of a leaf


def digest_of(path: Path) -> str:
    """SHA-256 of a file's bytes in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def beside(folder: Path) -> Path:
    """Where the parameters lie that are not in the folder, for they never leave their member."""
    return folder.with_name(f"{folder.name}.{LOCAL}")


def files_in(folder: Path) -> Iterator[Path]:
    """All that lies in the folder, whatever it is, by name."""
    yield from sorted(folder.iterdir())


def write_json(path: Path, value: dict[str, Any]) -> None:
    """One JSON object, readable."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. TapestryError (1) if there is none."""
    try:
        if path.stat().st_size > JSON_BYTES_MAX:
            raise ValueError("too long")
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise ValueError("no object")
    except OSError as error:
        raise TapestryError(f"{path} cannot be read: {error.strerror}", FAILURE) from error
    except (ValueError, RecursionError) as error:
        raise TapestryError(f"{path} is not what `tapestry export` writes", FAILURE) from error
    return value


def layout_of(config: dict[str, Any]) -> list[Row]:
    """The leaves in the order in which they stand in the vector. ValueError if malformed."""
    rows = []
    for row in config["layout"]:
        path, shape, dtype = row
        if not (isinstance(path, str) and isinstance(dtype, str)):
            raise ValueError("layout")
        rows.append((path, tuple(map(int, shape)), dtype))
    return rows


def schema_of(layout: list[Row]) -> str:
    """The schema hash of a layout; docs/wire.md, "The vector"."""
    lines = (f"{path}\t{'x'.join(map(str, shape))}\t{dtype}\n" for path, shape, dtype in layout)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_tensors(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file by name. TapestryError (1) if it is none."""
    import safetensors.numpy
    from safetensors import SafetensorError

    try:
        found: dict[str, Any] = safetensors.numpy.load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise TapestryError(f"{path.name} is no safetensors file of ours: {error}") from error
    return found


def write_tensors(path: Path, layout: list[Row], vector: Vector, facts: dict[str, str]) -> None:
    """float32[d] as named tensors."""
    import safetensors.numpy

    tensors, start = {}, 0
    for name, shape, _ in layout:
        size = int(np.prod(shape, dtype=np.int64))
        tensors[name] = vector[start : start + size].reshape(shape)
        start += size
    path.write_bytes(safetensors.numpy.save(tensors, metadata=facts))


def read_vector(path: Path, layout: list[Row]) -> Vector:
    """The tensors of a float32 file as float32[d]. TapestryError (1) if they do not fit."""
    tensors = read_tensors(path)
    expected = {name: shape for name, shape, _ in layout}
    found = {name: array.shape for name, array in tensors.items() if array.dtype == np.float32}
    if found != expected or len(tensors) != len(expected):
        raise TapestryError(f"{path.name} does not hold the tensors that {CONFIG} names")
    return np.concatenate([tensors[name].ravel() for name, _, _ in layout])


def read_rounded(path: Path, layout: list[Row]) -> tuple[Vector, Vector]:
    """The vector float32[d] that an int8 file stands for, and the step between its levels there.

    The step is 0 where a tensor was left as it is. TapestryError (1) if the file does not fit.
    """
    tensors = read_tensors(path)
    parts, steps = [], []
    for name, shape, _ in layout:
        array, scale = tensors.pop(name, None), tensors.pop(name + SCALE, None)
        wanted = np.float32 if scale is None else np.int8
        if array is None or array.shape != shape or array.dtype != wanted:
            raise TapestryError(f"{path.name} does not hold the tensors that {CONFIG} names")
        if scale is not None and np.broadcast_shapes(shape, scale.shape) != shape:
            raise TapestryError(f"{path.name}: the scales of {name} have another shape")
        parts.append((array if scale is None else array * scale).astype(np.float32).ravel())
        step = np.float32(0) if scale is None else scale.astype(np.float32)
        steps.append(np.broadcast_to(step, shape).ravel())
    if tensors:
        raise TapestryError(f"{path.name} holds more than {CONFIG} names")
    return np.concatenate(parts), np.concatenate(steps)


def apart(one: Vector, other: Vector) -> float:
    """||one - other|| / ||other||, summed in float64."""
    reference = float(np.linalg.norm(other.astype(np.float64)))
    return float(np.linalg.norm(one.astype(np.float64) - other)) / (reference or 1.0)
