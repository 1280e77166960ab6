"""Writes tests/vectors/codecs.json: payloads and the exact bits that they decode to.

Run by hand after a deliberate change of a format: python tests/mix/make_codec_vectors.py
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from tapestry_p2p.mix.codec import CODECS, decode, encode

PATH = Path(__file__).parents[1] / "vectors" / "codecs.json"
SPELT_OUT_MAX = 600  # a longer vector stands as its hash alone


def main() -> None:
    rows = []
    for d in (1, 5, 256, 259, 600, 4096, 8300):
        vector = (np.random.default_rng(d).standard_normal(d) ** 3).astype(np.float32)
        for codec in CODECS:
            if d > SPELT_OUT_MAX and codec != "topk":  # the others have no longer blocks
                continue
            payload = encode(codec, vector)
            bits = decode(codec, payload, d).astype("<f4").tobytes()
            row = {"codec": codec, "d": d, "payload": payload.hex()}
            if d <= SPELT_OUT_MAX:
                row["float32"] = bits.hex()
            rows.append({**row, "sha256": hashlib.sha256(bits).hexdigest()})
    PATH.write_text(json.dumps(rows, indent=0) + "\n")


if __name__ == "__main__":
    main()
