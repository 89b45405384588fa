"""Mutated bodies: never a crash, never an unlabelled error, never a wrong acceptance.

A few thousand in every run; `PENSTOCK_FUZZ=100000` for the whole. The oracles are json, numpy and google.protobuf: what
they read, the scripts either read alike or refuse with an error of the request.
"""

from __future__ import annotations

import json
import os
import random
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError

from adapters.signature import DYNAMIC, Datatype, TensorSpec
from tests.lua import vectors
from tests.lua.scripts import Refused, Scripts
from tests.lua.vectors import Model

COUNT = int(os.environ.get("PENSTOCK_FUZZ", "3000"))
SEED = int(os.environ.get("PENSTOCK_FUZZ_SEED", "20"))

MODELS = (
    vectors.model(
        [TensorSpec("x", Datatype.FP32, (4,)), TensorSpec("n", Datatype.INT64, ())],
        [TensorSpec("label", Datatype.INT64, ()), TensorSpec("p", Datatype.FP32, (3,))],
        max_batch_size=3,
    ),
    vectors.model(
        [
            TensorSpec("d", Datatype.FP64, (2, 2)),
            TensorSpec("b", Datatype.BOOL, (2,)),
            TensorSpec("u", Datatype.UINT64, (DYNAMIC,)),
            TensorSpec("s", Datatype.BYTES, (DYNAMIC,)),
        ],
        [TensorSpec("t", Datatype.BYTES, (DYNAMIC,)), TensorSpec("h", Datatype.FP16, (2, 2))],
    ),
    vectors.model(
        [
            TensorSpec("img", Datatype.UINT8, (DYNAMIC, 2)),
            TensorSpec("i", Datatype.INT8, ()),
            TensorSpec("w", Datatype.INT16, (3,)),
            TensorSpec("f", Datatype.BF16, (2,)),
        ],
        [TensorSpec("y", Datatype.FP64, ()), TensorSpec("q", Datatype.INT8, (2,)), TensorSpec("b", Datatype.BOOL, ())],
        max_batch_size=2,
    ),
)

JSON_BITS = [
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b":",
    b'"',
    b"0",
    b"-",
    b".",
    b"e",
    b"E5",
    b" ",
    b"\n",
    b"\\",
    b"\\u00e9",
    b"\\ud83d\\ude00",
    b"1e400",
    b"1e-400",
    b"NaN",
    b'"NaN"',
    b'"Infinity"',
    b"null",
    b"true",
    b"9223372036854775808",
    b"\xff",
    b"\xc3\xa9",
    b"0.1000000014901161193847656250000001",
    b"16777217",
    b"\0",
    b'"x"',
    b"01",
    b"1.0",
    b"3.5",
    b"-0",
    b"-0.0",
    b'{"b64":"AQ=="}',
]


def rows_of(made: Model, rng: random.Random) -> list[Any]:
    arrays: list[Any] = []
    rows = rng.randint(1, 3) if made.contract.max_rows > 2 else rng.randint(1, 2)
    for field in made.contract.inputs:
        size = rng.randint(1, 3)
        shape = tuple(size if d == DYNAMIC else d for d in field.tensor.shape)
        shape = (rows, *shape) if made.contract.batching else shape
        total = int(np.prod(shape, dtype=int))
        arrays.append(
            np.array([element(field.datatype, rng) for _ in range(total)], vectors.DTYPES[field.datatype]).reshape(
                shape
            )
        )
    return arrays


def element(datatype: Datatype, rng: random.Random) -> Any:
    if datatype is Datatype.BOOL:
        return rng.random() < 0.5
    if datatype is Datatype.BYTES:
        return rng.choice([b"", b"a", 'é\n"'.encode(), b"hello"])
    if datatype in vectors.FLOATS:
        return rng.choice([0.0, -0.0, 1.5, 1e-7, 3.1415926535, rng.random(), float("nan"), float("inf")])
    info = np.iinfo(vectors.DTYPES[datatype])
    return rng.choice([int(info.min), int(info.max), 0, 1, rng.randint(int(info.min), int(info.max))])


def mutate(body: bytes, rng: random.Random, bits: list[bytes]) -> bytes:
    data = bytearray(body)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 4])):
        at = rng.randint(0, len(data))
        match rng.randint(0, 4):
            case 0:
                data[at : at + rng.randint(1, 4)] = b""
            case 1:
                data[at:at] = rng.choice(bits)
            case 2:
                data[at : at + 1] = rng.choice(bits)
            case 3 if data:
                data[min(at, len(data) - 1)] = rng.randint(0, 255)
            case _:
                other = rng.randint(0, len(data))
                data[at:at] = data[other : other + rng.randint(1, 12)]
    return bytes(data)


class NotAllowed(Exception):
    """Python reads it, the contract does not allow it."""


def json_oracle(made: Model, body: bytes) -> list[bytes]:
    """The raw tensors that a body means. Raises ValueError or NotAllowed."""
    # Python also reads UTF-16 and a byte order mark; JSON between systems is UTF-8 without one (RFC 8259, 8.1).
    document = vectors.parse_strict(body)
    if not isinstance(document, dict):
        raise NotAllowed("no object")
    if made.contract.batching:
        if set(document) != {"instances"} or not isinstance(document["instances"], list) or not document["instances"]:
            raise NotAllowed("instances")
        rows = document["instances"]
        if len(rows) > made.contract.max_rows:
            raise NotAllowed("rows")
    else:
        rows = [document]
    contents = []
    for field in made.contract.inputs:
        flats = []
        for row in rows:
            if not isinstance(row, dict) or set(row) != {f.name for f in made.contract.inputs}:
                raise NotAllowed("fields")
            flats.append(flat_of(field.datatype, list(field.tensor.shape), row[field.name]))
        if len({len(f) for f in flats}) != 1:
            raise NotAllowed("instances of several shapes")
        contents.append(b"".join(b"".join(f) for f in flats))
    return contents


def flat_of(datatype: Datatype, shape: list[int], value: Any) -> list[bytes]:
    if not shape:
        return [content_of(datatype, value)]
    if datatype is Datatype.UINT8 and isinstance(value, dict):
        if set(value) != {"b64"} or not isinstance(value["b64"], str):
            raise NotAllowed("b64")
        raise Unsure
    if not isinstance(value, list):
        raise NotAllowed("no array")
    if len(shape) > 1 and value and isinstance(value[0], list):
        flat = nested(datatype, shape, value)
    else:
        flat = [content_of(datatype, v) for v in value]
    unit = int(np.prod([d for d in shape if d != DYNAMIC], dtype=int))
    if (len(flat) != unit) if DYNAMIC not in shape else len(flat) % unit:
        raise NotAllowed("count")
    return flat


def nested(datatype: Datatype, shape: list[int], value: Any) -> list[bytes]:
    if not shape:
        return [content_of(datatype, value)]
    if not isinstance(value, list) or (shape[0] != DYNAMIC and len(value) != shape[0]):
        raise NotAllowed("nesting")
    return [item for part in value for item in nested(datatype, shape[1:], part)]


class Unsure(Exception):
    """No oracle for this one: base64 dialects differ. Any labelled outcome will do."""


def content_of(datatype: Datatype, value: Any) -> bytes:
    dtype = vectors.DTYPES[datatype]
    if datatype is Datatype.BYTES:
        if isinstance(value, dict):
            raise Unsure
        if not isinstance(value, str):
            raise NotAllowed("text")
        content = value.encode()  # a lone surrogate raises a ValueError
        return vectors.raw(datatype, np.array([content], object))
    if datatype is Datatype.BOOL:
        if not isinstance(value, bool):
            raise NotAllowed("bool")
        return bytes([value])
    if isinstance(value, bool) or value is None or isinstance(value, (list, dict)):
        raise NotAllowed("number")
    if datatype in vectors.FLOATS:
        if isinstance(value, str):
            if value not in ("NaN", "Infinity", "-Infinity"):
                raise NotAllowed("text")
            return vectors.raw(datatype, np.array([float(value)]).astype(dtype))
        try:
            wide = float(value)
        except OverflowError as error:
            raise NotAllowed("range") from error
        with np.errstate(over="ignore"):
            made = np.array([wide]).astype(dtype)
        if not np.isfinite(made[0]):
            raise NotAllowed("range")
        return made.tobytes()
    if isinstance(value, str):
        if (
            datatype not in (Datatype.INT64, Datatype.UINT64)
            or not value.lstrip("-").isascii()
            or not value.lstrip("-").isdigit()
        ):
            raise NotAllowed("text")
        text = value.removeprefix("-")
        if not text.isdigit() or (len(text) > 1 and text[0] == "0"):
            raise NotAllowed("text")
        value = int(value)
    if isinstance(value, float):
        if value != int(value) if np.isfinite(value) else True:
            raise NotAllowed("fraction")
        if abs(value) >= 2**53:
            raise NotAllowed("not exact")
        value = int(value)
    info = np.iinfo(dtype)
    if not info.min <= value <= info.max:
        raise NotAllowed("range")
    return np.array([value], dtype).tobytes()


@pytest.mark.parametrize("which", range(len(MODELS)))
def test_json_is_read_as_python_and_numpy_read_it_or_refused(scripts: Scripts, which: int) -> None:
    made = MODELS[which]
    plan = scripts.plan(made.context())
    rng = random.Random(SEED + which)
    accepted = 0
    for _ in range(COUNT // len(MODELS)):
        seed = json.dumps(vectors.json_request(made, rows_of(made, rng)), ensure_ascii=rng.random() < 0.5).encode()
        body = mutate(seed, rng, JSON_BITS)
        try:
            expected: list[bytes] | None = json_oracle(made, body)
        except (ValueError, NotAllowed, RecursionError):
            expected = None
        except Unsure:
            with_label(scripts.decode_json, plan, body)
            continue
        contents = contents_of(with_label(scripts.decode_json, plan, body))
        if expected is not None and contents is not None:
            # -0 is an integer to Python, which has no negative zero; IEEE 754 has one and JSON text can say it.
            same = [a == b or b"-0" in body for a, b in zip(contents, expected, strict=True)]
            assert all(same), body
            accepted += 1
        else:
            assert (expected is None) == (contents is None), (body, expected)
    assert accepted > COUNT // len(MODELS) // 10, "the mutations must leave enough that is valid"


def with_label(call: Any, plan: Any, body: bytes) -> bytes | None:
    """What the scripts make of a body; None when they refuse it. Any other error is a fault."""
    try:
        made: bytes = call(plan, body)
        return made
    except Refused as refused:
        error = json.loads(refused.json)
        assert error["code"] in (3, 12), (body, error)
        assert error["details"][0]["reason"].isupper()
        return None


def contents_of(body: bytes | None) -> list[bytes] | None:
    return None if body is None else list(vectors.infer_request(body).raw_input_contents)


WIRE_BITS = [bytes([b]) for b in (0, 1, 2, 4, 8, 10, 13, 16, 18, 26, 0x7F, 0x80, 0xFF)] + [
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\xf8\x01\x05",
    b"\xfa\x01\x02hi",
    b"\xfb\x01\xfc\x01",
    b"\x0a\x00",
    b"\x0d\0\0\x80\x3f",
]


@pytest.mark.parametrize("which", range(len(MODELS)))
def test_protobuf_is_read_as_protobuf_reads_it_or_refused(scripts: Scripts, which: int) -> None:
    made = MODELS[which]
    plan = scripts.plan(made.context())
    rng = random.Random(SEED + 100 + which)
    accepted = 0
    for _ in range(COUNT // len(MODELS)):
        body = mutate(vectors.typed_request(made, rows_of(made, rng)).SerializeToString(), rng, WIRE_BITS)
        contents = contents_of(with_label(scripts.decode_typed, plan, vectors.framed(body)))
        try:
            expected = typed_oracle(made, made.classes.request.FromString(body))
        except (DecodeError, NotAllowed, OverflowError):
            assert contents is None, body
            continue
        assert contents is not None, body
        for field, got, want in zip(made.contract.inputs, contents, expected, strict=True):
            assert vectors.one_nan(field.datatype, got) == want, body
        accepted += 1
    assert accepted > COUNT // len(MODELS) // 20, "the mutations must leave enough that is valid"


def typed_oracle(made: Model, message: Any) -> list[bytes]:
    rows = list(message.instances) if made.contract.batching else [message]
    if not rows or (made.contract.batching and len(rows) > made.contract.max_rows):
        raise NotAllowed("rows")
    contents = []
    for field in made.contract.inputs:
        dtype = vectors.DTYPES[field.datatype]
        flats = []
        for row in rows:
            value = getattr(row, field.proto_name)
            if not field.repeated and not row.HasField(field.proto_name):
                raise NotAllowed("absent")
            if field.proto_type == "bytes":
                array = np.frombuffer(value, dtype)
            else:
                items = list(value) if field.repeated else [value]
                array = array_of(field.datatype, items)
            unit = int(np.prod([d for d in field.tensor.shape if d != DYNAMIC], dtype=int))
            count = len(array)
            if count == 0 or ((count != unit) if DYNAMIC not in field.tensor.shape else count % unit):
                raise NotAllowed("count")
            flats.append(array)
        if len({len(f) for f in flats}) != 1:
            raise NotAllowed("instances of several shapes")
        contents.append(b"".join(vectors.raw(field.datatype, f) for f in flats))
    return contents


def array_of(datatype: Datatype, items: list[Any]) -> Any:
    dtype = vectors.DTYPES[datatype]
    if datatype is Datatype.BYTES:
        return np.array([item.encode() for item in items] + [None], object)[:-1]
    if datatype in (Datatype.INT16, Datatype.UINT16):
        info = np.iinfo(dtype)
        if any(not info.min <= item <= info.max for item in items):
            raise NotAllowed("range")
    with np.errstate(over="ignore"):
        made = np.array(items, np.float32 if datatype in (Datatype.FP16, Datatype.BF16) else dtype).astype(dtype)
    if datatype in (Datatype.FP16, Datatype.BF16) and any(
        np.isfinite(item) and not np.isfinite(m) for item, m in zip(items, made, strict=True)
    ):
        raise NotAllowed("range")
    return made


@pytest.mark.parametrize("which", range(len(MODELS)))
def test_answers_of_a_broken_server_never_crash_and_never_make_bad_json(scripts: Scripts, which: int) -> None:
    made = MODELS[which]
    plan = scripts.plan(made.context())
    rng = random.Random(SEED + 200 + which)
    outputs = Model(made.contract, made.classes)
    passed = 0
    for _ in range(COUNT // len(MODELS)):
        arrays = []
        for field in outputs.contract.outputs:
            shape = tuple(2 if d == DYNAMIC else d for d in field.tensor.shape)
            shape = (2, *shape) if made.contract.batching else shape
            total = int(np.prod(shape, dtype=int))
            arrays.append(
                np.array([element(field.datatype, rng) for _ in range(total)], vectors.DTYPES[field.datatype]).reshape(
                    shape
                )
            )
        body = mutate(vectors.answer(made, arrays).SerializeToString(), rng, [*WIRE_BITS, rng.randbytes(8)])
        for encode in (scripts.encode_json, scripts.encode_typed):
            try:
                reply, label = encode(plan, vectors.framed(body))
            except Refused as refused:
                error = json.loads(refused.json)
                assert (error["code"], error["details"][0]["reason"]) == (13, "BAD_ANSWER"), body
                continue
            passed += 1
            assert label is None or isinstance(json.loads(label), list)
            if encode == scripts.encode_json:
                vectors.parse_strict(reply)
            else:
                made.classes.response.FromString(vectors.unframed(reply))
    assert passed > COUNT // len(MODELS) // 5
