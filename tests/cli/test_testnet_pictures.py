"""A testnet on pictures: held out, shared evenly, or refused in one line."""

from pathlib import Path
from typing import Any

import pytest

from tapestry_p2p.cli.testnet import pictures
from tapestry_p2p.cli.testnet.plan import make_plan
from tapestry_p2p.data import digits_csv, idx
from tapestry_p2p.errors import BAD_CONFIG, USAGE, TapestryError


def plan(data: str, tmp_path: Path, **changes: Any) -> Any:
    options: dict[str, Any] = {
        "members": 4,
        "byzantine": 1,
        "tolerate": None,
        "attack": "mirror",
        "data": data,
        "languages": "",
        "split": 1,
        "rounds": 2,
        "inner_steps": 2,
        "rule": "cs_plus",
        "codec": "2bit",
        "model": "small",
        "seed": 0,
        "out": tmp_path,
    }
    return make_plan(**{**options, **changes})


def fashion(folder: Path, count: int) -> Path:
    folder.mkdir()
    bodies = bytes(place % 256 for place in range(784 * count)), bytes(i % 10 for i in range(count))
    for name, shape, body in zip(idx.TRAIN, ((count, 28, 28), (count,)), bodies, strict=True):
        (folder / name).write_bytes(idx.pack(shape, body))
    return folder


def test_digits_are_cut_and_none_is_lost(tmp_path: Path) -> None:
    held, shares = pictures.cut("digits", 3, 5, tmp_path)
    files = [*map(Path, held["digits"]), *shares]
    lines = [path.read_bytes().splitlines() for path in files]
    assert sorted(line for part in lines for line in part) == sorted(digits_csv().splitlines())
    assert [len(part) for part in lines] == [180, 359, 420, 419, 419]
    again = tmp_path / "again"
    again.mkdir()
    assert pictures.cut("digits", 3, 5, again)[1][0].read_bytes() == shares[0].read_bytes()


def test_fashion_is_cut_and_none_is_lost(tmp_path: Path) -> None:
    source = fashion(tmp_path / "source", 600)
    assert pictures.task_of(str(source)) == "fashion"
    held, shares = pictures.cut(str(source), 3, 5, tmp_path)
    found = []
    for folder in [*map(Path, held["fashion"]), *shares]:
        count, size, points, labels = idx.read_pair(folder, idx.TRAIN)
        found += [(points[size * i : size * (i + 1)], labels[i]) for i in range(count)]
    _, _, points, labels = idx.read_pair(source, idx.TRAIN)
    assert sorted(found) == sorted((points[784 * i : 784 * (i + 1)], labels[i]) for i in range(600))


def test_the_task_follows_from_the_data(tmp_path: Path) -> None:
    made = plan("digits", tmp_path)
    assert (made.model.task, made.languages, made.split) == ("digits", ("digits",), 3)
    assert made.language(2) == "digits"
    (tmp_path / "model.toml").write_text('task = "digits"\nwidth = 16\n')
    assert plan("digits", tmp_path, model=str(tmp_path / "model.toml")).model.options == {
        "width": 16
    }
    assert plan(str(fashion(tmp_path / "f", 10)), tmp_path).model.task == "fashion"


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"model": "tiny"}, USAGE, "is for the task language, the data for digits"),
        ({"languages": "de"}, USAGE, "has no languages"),
        ({"data": "nowhere"}, BAD_CONFIG, "no such folder"),
    ],
)
def test_what_does_not_fit_is_refused(
    changes: dict[str, Any], status: int, said: str, tmp_path: Path
) -> None:
    with pytest.raises(TapestryError, match=said) as raised:
        plan(**{"data": "digits", "tmp_path": tmp_path, **changes})
    assert raised.value.exit_code == status


def test_too_few_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TapestryError, match="35 pictures < 128 x 2"):
        pictures.cut(str(fashion(tmp_path / "f", 50)), 2, 0, tmp_path)
    (tmp_path / "f" / idx.TRAIN[1]).write_bytes(b"broken")
    with pytest.raises(TapestryError, match="cannot be read"):
        pictures.cut(str(tmp_path / "f"), 2, 0, tmp_path)
