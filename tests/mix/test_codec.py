"""Codecs as bytes: golden vectors, docs/wire.md read once more, sizes, everything malformed."""

import hashlib
import json
import math
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapestry_p2p.mix.codec import (
    CODECS,
    CodecError,
    Vector,
    decode,
    decode_add,
    encode,
    payload_bytes,
    payload_norm,
)
from tapestry_p2p.mix.copy import PublicCopy

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "codecs.json").read_text())


def draw(seed: int, d: int) -> Vector:
    return (np.random.default_rng(seed).standard_normal(d) ** 3).astype(np.float32)


# ---- the bytes -------------------------------------------------------------------------------


def test_every_codec_has_golden_vectors() -> None:
    assert {row["codec"] for row in VECTORS} == set(CODECS)


@pytest.mark.parametrize("row", VECTORS, ids=lambda r: f"{r['codec']}-{r['d']}")
def test_golden_vectors_decode_to_the_same_bits(row: dict[str, str | int]) -> None:
    codec, d = str(row["codec"]), int(row["d"])
    payload = bytes.fromhex(str(row["payload"]))
    bits = decode(codec, payload, d).astype("<f4").tobytes()
    assert hashlib.sha256(bits).hexdigest() == row["sha256"]
    assert row.get("float32", bits.hex()) == bits.hex()
    assert encode(codec, draw(d, d)) == payload


@pytest.mark.parametrize(
    ("codec", "d", "payload", "values"),
    [
        ("fp32", 2, "0000803f 000000c0", [1.0, -2.0]),
        ("int8", 3, "0000003f 02 fe 7f", [1.0, -1.0, 63.5]),
        ("int4", 3, "003f f2 07", [1.0, -0.5, 3.5]),
        ("2bit", 5, "803f e4 02", [0.4528, 1.5104, -0.4528, -1.5104, -0.4528]),
        ("1bit", 9, "0040 05 01", [-2.0, 2.0, -2.0, 2.0, 2.0, 2.0, 2.0, 2.0, -2.0]),
        # one value of seven, at 5: low bits 000101, upper bits 01
        ("topk", 7, "0000 803f 45 03", [0, 0, 0, 0, 0, -1.0, 0]),
        # two of 70, at 3 and 66: low 000011 and 000010, upper 1, 01 -> bits 0 and 2 of four
        ("topk", 70, "803f 0040 83 50 09", [0] * 3 + [2.0] + [0] * 62 + [-1.0] + [0] * 3),
    ],
)
def test_payloads_spelt_by_hand(codec: str, d: int, payload: str, values: list[float]) -> None:
    decoded = decode(codec, bytes.fromhex(payload), d)
    assert decoded.tolist() == np.array(values, np.float32).tolist()


# ---- docs/wire.md, section 4, once more: a loop over bits, nothing shared with the codecs ------


def bits_of(data: bytes) -> list[int]:
    return [byte >> i & 1 for byte in data for i in range(8)]


def number(bits: list[int]) -> int:
    return sum(bit << i for i, bit in enumerate(bits))


def bfloat16(data: bytes) -> float:
    return float(struct.unpack("<f", b"\0\0" + data)[0])


def by_the_book(codec: str, data: bytes, d: int) -> list[float]:
    """float32[d], as docs/wire.md says; products are rounded to float32."""
    if codec == "fp32":
        return list(struct.unpack(f"<{d}f", data))
    if codec == "topk":
        return [value for record in records(data, d) for value in record]
    block, size = {"int8": (256, 4), "int4": (64, 2), "2bit": (256, 2), "1bit": (256, 2)}[codec]
    n = math.ceil(d / block)
    heads = [data[size * i : size * (i + 1)] for i in range(n)]
    scales = [struct.unpack("<f", h)[0] if size == 4 else bfloat16(h) for h in heads]
    codes = bits_of(data[size * n :])
    out = []
    for i in range(d):
        if codec == "int8":
            level: float = struct.unpack("b", data[size * n + i : size * n + i + 1])[0]
        elif codec == "int4":
            nibble = number(codes[4 * i : 4 * i + 4])
            level = nibble - 16 if nibble > 7 else nibble
        elif codec == "2bit":
            level = (1.5104 if codes[2 * i] else 0.4528) * (-1 if codes[2 * i + 1] else 1)
        else:
            level = -1 if codes[i] else 1
        out.append(float(np.float32(level) * np.float32(scales[i // block])))
    return out


def records(data: bytes, d: int) -> list[list[float]]:
    out, at = [], 0
    for start in range(0, d, 4096):
        m = min(4096, d - start)
        k = math.ceil(m / 64)
        levels = [bfloat16(data[at : at + 2]), bfloat16(data[at + 2 : at + 4])]
        places = bits_of(data[at + 4 : at + 4 + k])
        codes = bits_of(data[at + 4 + k : at + 4 + k + math.ceil(k / 4)])
        at += 4 + k + math.ceil(k / 4)
        ones = [p for p, bit in enumerate(places[6 * k :]) if bit]
        values = [0.0] * m
        for i, place in enumerate(ones):
            index = (place - i) * 64 + number(places[6 * i : 6 * i + 6])
            values[index] = levels[codes[2 * i]] * (-1 if codes[2 * i + 1] else 1)
        out.append(values)
    assert at == len(data)
    return out


@pytest.mark.parametrize("d", [1, 2, 63, 64, 65, 255, 257, 1000, 4095, 4096, 4097, 9000])
@pytest.mark.parametrize("codec", CODECS)
def test_the_decoder_agrees_with_the_book(codec: str, d: int) -> None:
    payload = encode(codec, draw(d, d))
    assert decode(codec, payload, d).tolist() == by_the_book(codec, payload, d)


# ---- sizes -----------------------------------------------------------------------------------

BYTES_PER_PARAMETER = {
    "fp32": 4, "int8": 1 + 4 / 256, "int4": 1 / 2 + 2 / 64, "2bit": 1 / 4 + 2 / 256,
    "1bit": 1 / 8 + 2 / 256, "topk": 84 / 4096,
}  # fmt: skip


@pytest.mark.parametrize("codec", CODECS)
def test_a_payload_is_as_long_as_stated(codec: str) -> None:
    rate = BYTES_PER_PARAMETER[codec]
    assert payload_bytes(codec, 1 << 20) == rate * (1 << 20)
    for d in (*range(1, 70), 255, 256, 257, 4095, 4096, 4097, 4161, 70_000):
        length = payload_bytes(codec, d)
        assert len(encode(codec, draw(1, d))) == length
        assert rate * d <= length <= rate * d + 6  # no more than a short block's head beyond it


def test_nothing_has_no_bytes() -> None:
    for codec in CODECS:
        assert encode(codec, np.zeros(0, np.float32)) == b""
        assert decode(codec, b"", 0).shape == (0,)


def test_an_unknown_name_is_refused() -> None:
    for call in (
        lambda: encode("4bit", np.ones(3, np.float32)),
        lambda: decode("", b"", 0),
        lambda: payload_bytes("2BIT", 3),
        lambda: decode_add("none", b"", np.ones(3, np.float32)),
        lambda: payload_norm("none", b"", 3),
    ):
        with pytest.raises(CodecError):
            call()


# ---- what no honest encoder makes ------------------------------------------------------------

ONE, HALF = b"\x80\x3f", b"\x00\x3f"
WHOLE = bytes(48) + b"\xff" * 8 + bytes(8)  # 64 indices, the low bits of all 0, upper ones at 0..63
MALFORMED = [
    ("fp32", 1, struct.pack("<f", math.nan), "not finite"),
    ("fp32", 1, struct.pack("<f", -math.inf), "not finite"),
    ("fp32", 1, struct.pack("<f", 2.0**-101), "tiny"),
    ("fp32", 1, struct.pack("<I", 1), "tiny"),
    ("fp32", 1, struct.pack("<f", -0.0), "negative zero"),
    ("int8", 1, struct.pack("<f", math.nan) + b"\x01", "scale"),
    ("int8", 1, struct.pack("<f", -1.0) + b"\x01", "scale"),
    ("int8", 1, struct.pack("<f", -0.0) + b"\x00", "scale"),
    ("int8", 1, struct.pack("<f", 2.0**101) + b"\x01", "scale"),
    ("int8", 1, struct.pack("<f", 2.0**-101) + b"\x01", "scale"),
    ("int8", 1, struct.pack("<f", 1.0) + b"\x80", "code"),
    ("int8", 1, struct.pack("<f", 0.0) + b"\x01", "scale 0"),
    ("int8", 257, struct.pack("<2f", 1.0, 0.0) + bytes(256) + b"\x01", "scale 0"),
    ("int8", 257, struct.pack("<2f", 0.0, 1.0) + b"\x01" + bytes(256), "scale 0"),
    ("int4", 2, b"\xc0\x7f\x11", "scale"),
    ("int4", 2, ONE + b"\x18", "code"),
    ("int4", 2, ONE + b"\x81", "code"),
    ("int4", 1, ONE + b"\x11", "unused"),
    ("int4", 2, b"\x00\x00\x10", "scale 0"),
    ("int4", 65, ONE + b"\x00\x00" + bytes(32) + b"\x01", "scale 0"),
    ("2bit", 1, b"\xff\x7f\x01", "scale"),
    ("2bit", 1, ONE + b"\x04", "unused"),
    ("2bit", 257, ONE + ONE + bytes(64) + b"\x80", "unused"),
    ("1bit", 1, b"\x80\xbf\x01", "scale"),
    ("1bit", 1, ONE + b"\x02", "unused"),
    ("1bit", 1, b"\x00\x00\x01", "scale 0"),
    ("topk", 7, b"\x00\x00\x80\x7f\x45\x03", "scale"),
    ("topk", 7, b"\x00\x00\x80\x3f\x47\x03", "beyond"),  # index 7 of seven
    ("topk", 7, b"\x00\x00\x80\x3f\xc5\x03", "many"),  # two upper ones, k = 1
    ("topk", 7, b"\x00\x00\x80\x3f\x05\x03", "many"),
    ("topk", 7, b"\x00\x00\x80\x3f\x45\x07", "unused"),
    ("topk", 7, ONE + ONE + b"\x45\x03", "order"),
    ("topk", 7, ONE + HALF + b"\x45\x03", "order"),
    ("topk", 7, ONE + b"\x00\x00\x45\x02", "order"),
    ("topk", 7, HALF + ONE + b"\x45\x03", "no value"),  # the small level is not used
    ("topk", 7, b"\x00\x00" + ONE + b"\x45\x00", "no value"),  # nor is the large one
    ("topk", 7, b"\x00\x00\x00\x00\x45\x01", "value of 0"),
    ("topk", 7, b"\x00\x00\x00\x00\x45\x02", "value of 0"),
    ("topk", 70, HALF + ONE + b"\x42\x30\x09", "rise"),  # 2, then 1
    ("topk", 4096, bytes(4) + WHOLE + bytes(16), "rise"),
]


@pytest.mark.parametrize(("codec", "d", "payload", "reason"), MALFORMED)
def test_what_no_honest_encoder_makes_is_refused(
    codec: str, d: int, payload: bytes, reason: str
) -> None:
    target = draw(5, d)
    before = target.tobytes()
    calls: list[Callable[[], object]] = [
        lambda: decode(codec, payload, d),
        lambda: decode_add(codec, payload, target),
        lambda: payload_norm(codec, payload, d),
    ]
    for call in calls:
        with pytest.raises(CodecError, match=reason):
            call()
    assert target.tobytes() == before


@pytest.mark.parametrize("codec", CODECS)
def test_a_late_fault_leaves_the_target_as_it_was(codec: str) -> None:
    d = 3 * (1 << 16) + 3999  # four pieces; the fault is in the last bytes
    payload = bytearray(encode(codec, draw(2, d)))
    payload[-4:] = {
        "fp32": struct.pack("<f", math.nan), "int8": b"\0\0\0\x80", "int4": b"\0\0\0\xf1",
        "2bit": b"\0\0\0\xff", "1bit": b"\0\0\0\xff", "topk": b"\0\0\0\xff",
    }[codec]  # fmt: skip
    target = draw(3, d)
    before = target.tobytes()
    with pytest.raises(CodecError):
        decode_add(codec, bytes(payload), target)
    assert target.tobytes() == before


@pytest.mark.parametrize("codec", CODECS)
@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_bytes_decode_to_something_finite_or_are_refused(
    codec: str, data: st.DataObject
) -> None:
    d = data.draw(st.integers(1, 600) | st.integers(4000, 4300))
    size = payload_bytes(codec, d)
    random = data.draw(st.binary(min_size=1, max_size=300))
    honest = bytearray(encode(codec, draw(data.draw(st.integers(0, 9)), d)))
    for _ in range(data.draw(st.integers(0, 3))):
        honest[data.draw(st.integers(0, size - 1))] ^= 1 << data.draw(st.integers(0, 7))
    for payload in (random, (random * size)[:size], bytes(honest)):
        try:
            vector = decode(codec, payload, d)
        except CodecError:
            continue
        magnitudes = np.abs(vector)
        assert vector.shape == (d,)
        assert np.isfinite(vector).all()
        assert (magnitudes[magnitudes > 0] > 2.0**-102).all()  # far from denormal


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 4000, 4999])
def test_what_is_not_finite_is_not_encoded(codec: str, bad: float, place: int) -> None:
    vector = draw(4, 5000)
    vector[place] = bad
    with pytest.raises(CodecError, match="not finite"):
        encode(codec, vector)


@pytest.mark.parametrize(
    ("codec", "most"), [("int8", 127), ("int4", 7), ("2bit", 1.5104), ("1bit", 1), ("topk", 1)]
)
def test_beyond_the_largest_scale_values_saturate(codec: str, most: float) -> None:
    vector = np.array([3e38, -3e38, 3e38], np.float32)
    largest = np.float32(most) * np.float32(2.0**100)
    sent = [1] if codec == "topk" else [1, -1, 1]
    assert decode(codec, encode(codec, vector), 3)[: len(sent)].tolist() == [
        float(largest) * sign for sign in sent
    ]


# ---- the public copy -------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS)
def test_a_copy_advances_as_by_the_whole_vector_or_not_at_all(codec: str) -> None:
    d = 5000
    payload = encode(codec, draw(6, d))
    difference = decode(codec, payload, d)
    length = float(np.linalg.norm(difference.astype(np.float64)))
    fused, whole = PublicCopy(draw(7, d)), PublicCopy(draw(7, d))
    fused.advance(codec, payload, length * 1.001)
    whole.add(difference)
    assert fused.vector.tobytes() == whole.vector.tobytes()
    for norm_max, data in ((length * 0.999, payload), (1e9, payload[:-1])):
        with pytest.raises(CodecError):
            fused.advance(codec, data, norm_max)
        assert fused.vector.tobytes() == whole.vector.tobytes()
