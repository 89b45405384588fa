"""The models that are fuzzed, valid bodies for them, and mutations."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from adapters.signature import DYNAMIC, Datatype, TensorSpec
from gateway.contract.model import Field
from tests.lua import vectors
from tests.lua.vectors import Model

MODELS: Sequence[Model] = (
    vectors.model(
        [TensorSpec("x", Datatype.FP32, (4,)), TensorSpec("n", Datatype.INT64, ())],
        [TensorSpec("label", Datatype.INT64, ()), TensorSpec("p", Datatype.FP32, (3,))],
        max_batch_size=3,
        name="numbers",
    ),
    vectors.model(
        [
            TensorSpec("d", Datatype.FP64, (2, 2)),
            TensorSpec("b", Datatype.BOOL, (2,)),
            TensorSpec("u", Datatype.UINT64, (DYNAMIC,)),
            TensorSpec("s", Datatype.BYTES, (DYNAMIC,)),
        ],
        [TensorSpec("t", Datatype.BYTES, (DYNAMIC,)), TensorSpec("h", Datatype.FP16, (2, 2))],
        name="mixed",
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
        name="image",
    ),
    vectors.model(
        [
            TensorSpec("x", Datatype.FP32, (DYNAMIC, DYNAMIC)),
            TensorSpec("k", Datatype.INT32, (2, DYNAMIC, 3), optional=True),
            TensorSpec("o", Datatype.UINT16, (), optional=True),
        ],
        [TensorSpec("m", Datatype.UINT32, (DYNAMIC, DYNAMIC)), TensorSpec("z", Datatype.BF16, (0,))],
        max_batch_size=3,
        name="shapes",
    ),
)

JSON_BITS = [b'{"b64":"AQ=="}', b"0.1000000014901161193847656250000001", b"9223372036854775808", b"\\ud83d\\ude00"]
JSON_BITS += [bytes([c]) for c in b'[]{},:"0-.e \n\\\xff\0']
JSON_BITS += (
    b"E5 \\u00e9 1e400 1e-400 NaN null true 01 1.0 3.5 -0 -0.0 16777217 \xc3\xa9 [] [[]] ],[ 2147483648".split()
)
JSON_BITS += [
    b",}",
    b",]",
    b"[,",
    b",,",
    b"}}",
    b"]]",
    b'"NaN"',
    b'"Infinity"',
    b'"x"',
    b'"x_shape":[1,2]',
    b',"o":1',
    b'"k":null',
]

WIRE_BITS = [bytes([b]) for b in (0, 1, 2, 4, 8, 10, 13, 16, 18, 26, 34, 42, 50, 0x7F, 0x80, 0xFF)] + [
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\xf8\x01\x05",
    b"\xfa\x01\x02hi",
    b"\xfb\x01\xfc\x01",
    b"\x0a\x00",
    b"\x0d\0\0\x80\x3f",
    b"\x80\x02",
    b"\xff\xff\x03",
]


def request_arrays(made: Model, rng: random.Random) -> list[Any]:
    """An array per input, rows first; None for an optional input that is left out."""
    rows = rng.randint(1, made.contract.max_rows)
    return [
        None if field.tensor.optional and rng.random() < 0.5 else _array(field, made, rows, rng)
        for field in made.contract.inputs
    ]


def answer_arrays(made: Model, rng: random.Random) -> list[Any]:
    rows = rng.randint(1, made.contract.max_rows)
    return [_array(field, made, rows, rng) for field in made.contract.outputs]


def json_body(made: Model, rng: random.Random) -> bytes:
    value = vectors.json_request(made, request_arrays(made, rng), flat=rng.random() < 0.3)
    return json.dumps(value, ensure_ascii=rng.random() < 0.5, separators=rng.choice([None, (",", ":")])).encode()


def typed_body(made: Model, rng: random.Random) -> bytes:
    return bytes(vectors.typed_request(made, request_arrays(made, rng)).SerializeToString())


def answer_body(made: Model, rng: random.Random) -> bytes:
    """A server's answer, by raw contents or (where the datatypes have them) by `contents`."""
    in_contents = rng.random() < 0.4 and vectors.has_contents(made)
    arrays = answer_arrays(made, rng)
    identity = str(vectors.rows_of(made, arrays)) if rng.random() < 0.5 else None
    return bytes(vectors.answer(made, arrays, identity=identity, in_contents=in_contents).SerializeToString())


def _array(field: Field, made: Model, rows: int, rng: random.Random) -> Any:
    shape = tuple(rng.randint(1, 3) if d == DYNAMIC else d for d in field.tensor.shape)
    shape = (rows, *shape) if made.contract.batching else shape
    values = [_element(field.datatype, rng) for _ in range(int(np.prod(shape, dtype=int)))]
    return np.array(values, vectors.DTYPES[field.datatype]).reshape(shape)


def _element(datatype: Datatype, rng: random.Random) -> Any:
    if datatype is Datatype.BOOL:
        return rng.random() < 0.5
    if datatype is Datatype.BYTES:
        return rng.choice([b"", b"a", 'é\n"'.encode(), b"hello"])
    if datatype in vectors.FLOATS:
        return rng.choice([0.0, -0.0, 1.5, 1e-7, 3.1415926535, rng.random(), float("nan"), float("inf")])
    info = np.iinfo(vectors.DTYPES[datatype])
    return rng.choice([int(info.min), int(info.max), 0, 1, rng.randint(int(info.min), int(info.max))])


def mutate(body: bytes, rng: random.Random, bits: Sequence[bytes]) -> bytes:
    """Up to four edits: bytes taken away, put in, replaced, or repeated from elsewhere in the body."""
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
