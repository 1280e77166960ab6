"""Makes tapestry_p2p/data/digits.csv.gz from scikit-learn's copy of the UCI digits.

    pip install scikit-learn && python scripts/make_digits.py

Not run by anything else, so scikit-learn is no dependency. The same set gives the same bytes.
"""

import gzip
from importlib.resources import files
from pathlib import Path

TARGET = Path(__file__).parent.parent / "tapestry_p2p" / "data" / "digits.csv.gz"


def main() -> None:
    packed = files("sklearn.datasets").joinpath("data", "digits.csv.gz").read_bytes()
    rows = [
        [int(float(number)) for number in line.split(",")]
        for line in gzip.decompress(packed).decode().splitlines()
    ]
    if len(rows) != 1797 or {len(row) for row in rows} != {65}:
        raise SystemExit("this is not the set of 1797 digits of 8x8 pixels")
    text = "".join(",".join(map(str, row)) + "\n" for row in rows)
    TARGET.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    print(f"{len(rows)} digits, {TARGET.stat().st_size} bytes packed")


if __name__ == "__main__":
    main()
