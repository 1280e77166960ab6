"""Small pictures for a testnet: `digits` from the package, or a folder of `fashion`.

Knows the two files' forms, cuts held-out pictures away and shares the rest out evenly; nothing of
members or models.
"""

import random
from collections.abc import Sequence
from pathlib import Path

from tapestry_p2p.data import digits_csv, idx
from tapestry_p2p.errors import BAD_CONFIG, TapestryError

DIGITS, FASHION = "digits", "fashion"
HELD = (0.1, 0.3)  # up to here validation, up to here test, the rest is learned from
SHARE_MIN = 128  # pictures a member needs


def task_of(data: str) -> str:
    """The task of ``--data``: digits, fashion, or "" if these are no pictures."""
    if data == DIGITS:
        return DIGITS
    return FASHION if (Path(data) / idx.TRAIN[0]).is_file() else ""


def cut(
    data: str, members: int, seed: int, folder: Path
) -> tuple[dict[str, list[str]], list[Path]]:
    """Held-out files by task (validation, test), and each member's own, written under ``folder``.

    TapestryError (78) for files that cannot be read, or too few pictures.
    """
    kind = task_of(data)
    held = {kind: [str(folder / "validation"), str(folder / "test")]}
    shares = [folder / f"{member:02d}.{kind}" for member in range(members)]
    targets = [*map(Path, held[kind]), *shares]
    if kind == DIGITS:
        _cut_lines(digits_csv().splitlines(keepends=True), seed, targets)
    else:
        _cut_folder(Path(data), seed, targets)
    return held, shares


def _cut_lines(lines: list[bytes], seed: int, targets: Sequence[Path]) -> None:
    for target, places in zip(targets, _parts(len(lines), seed, len(targets) - 2), strict=True):
        target.write_bytes(b"".join(lines[place] for place in places))


def _cut_folder(source: Path, seed: int, targets: Sequence[Path]) -> None:
    try:
        count, size, pictures, labels = idx.read_pair(source, idx.TRAIN)
    except (OSError, ValueError) as error:
        raise TapestryError(f"--data {source} cannot be read: {error}", BAD_CONFIG) from error
    for target, places in zip(targets, _parts(count, seed, len(targets) - 2), strict=True):
        target.mkdir(exist_ok=True)
        bodies = (
            b"".join(pictures[size * place : size * (place + 1)] for place in places),
            bytes(labels[place] for place in places),
        )
        side = round(size**0.5)
        shapes = ((len(places), side, size // side), (len(places),))
        for name, shape, body in zip(idx.TRAIN, shapes, bodies, strict=True):
            (target / name).write_bytes(idx.pack(shape, body))


def _parts(count: int, seed: int, members: int) -> list[list[int]]:
    """Places of validation, test, and each member's pictures; drawn by the seed."""
    places = list(range(count))
    random.Random(seed).shuffle(places)
    first, second = (round(share * count) for share in HELD)
    own = places[second:]
    if len(own) < SHARE_MIN * members:
        raise TapestryError(
            f"{len(own)} pictures < {SHARE_MIN} x {members} honest members; take fewer members",
            BAD_CONFIG,
        )
    return [places[:first], places[first:second], *(own[m::members] for m in range(members))]
