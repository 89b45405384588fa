"""Shapes that the number of values does not tell, and inputs that may be left out: what is read and what is refused."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest

from adapters.signature import DYNAMIC, Datatype, TensorSpec
from tests.lua import vectors
from tests.lua.scripts import Refused, Scripts

MODEL = vectors.model(
    [
        TensorSpec("x", Datatype.INT32, (DYNAMIC, DYNAMIC, 2)),
        TensorSpec("mask", Datatype.BOOL, (DYNAMIC,), optional=True),
        TensorSpec("k", Datatype.INT64, (), optional=True),
    ],
    [TensorSpec("y", Datatype.UINT8, (DYNAMIC, DYNAMIC))],
    max_batch_size=4,
)


def batch(*rows: str) -> bytes:
    return f'{{"instances":[{",".join(rows)}]}}'.encode()


GOOD = {
    '{"x":[[[1,2],[3,4]]]}': (1, 2, 2),
    '{"x":[[[1,2]],[[3,4]]]}': (2, 1, 2),
    '{"x": [ [ [ 1 , 2 ] , [ 3 , 4 ] ] ] }': (1, 2, 2),
    '{"x":[1,2,3,4],"x_shape":[2,1,2]}': (2, 1, 2),
    '{"x_shape":[1,2,2],"x":[1,2,3,4]}': (1, 2, 2),
    '{"x_shape":[1,2,2],"x":[[[1,2],[3,4]]]}': (1, 2, 2),
    '{"x":[]}': (0, 0, 2),
    '{"x":[[],[]]}': (2, 0, 2),
    '{"x":[],"x_shape":[3,0,2]}': (3, 0, 2),
    '{"x":[[],[],[]],"x_shape":[3,0,2]}': (3, 0, 2),
}


@pytest.mark.parametrize(("row", "shape"), GOOD.items())
@pytest.mark.parametrize("rows", [1, 3])
def test_json_says_its_shape_by_nesting_or_beside_the_values(
    scripts: Scripts, row: str, shape: tuple[int, ...], rows: int
) -> None:
    request = vectors.infer_request(scripts.decode_json(scripts.plan(MODEL.context()), batch(*[row] * rows)))
    assert [(i.name, tuple(i.shape)) for i in request.inputs] == [("x", (rows, *shape))]
    values = [1, 2, 3, 4][: shape[0] * shape[1] * shape[2]]
    assert request.raw_input_contents[0] == struct.pack(f"<{len(values)}i", *values) * rows


@pytest.mark.parametrize("absent", ["", ',"mask":null,"k":null', ',"mask":[]'])
def test_an_absent_optional_input_is_not_sent(scripts: Scripts, absent: str) -> None:
    body = batch('{"x":[[[1,2]]]' + absent + "}", '{"x":[[[1,2]]]}')
    request = vectors.infer_request(scripts.decode_json(scripts.plan(MODEL.context()), body))
    assert [i.name for i in request.inputs] == ["x"]
    assert len(request.raw_input_contents) == 1


def test_a_given_optional_input_is_sent(scripts: Scripts) -> None:
    body = batch('{"k":7,"mask":[true,false],"x":[[[1,2]]]}', '{"x":[[[1,2]]],"mask":[true,true],"k":8}')
    request = vectors.infer_request(scripts.decode_json(scripts.plan(MODEL.context()), body))
    assert [(i.name, tuple(i.shape)) for i in request.inputs] == [("x", (2, 1, 1, 2)), ("mask", (2, 2)), ("k", (2, 1))]
    assert request.raw_input_contents[1:] == [b"\1\0\1\1", struct.pack("<2q", 7, 8)]


NOT_TOLD = "missing field; the number of values does not tell the shape of x: expected its 3 sizes"
ONE_SHAPE = "as in instances[0]; all instances of a request have one shape"
SOME_ONLY = "has it, and an optional input is in all instances of a request or in none"
JSON_MISTAKES: list[tuple[bytes, str, str, str]] = [
    (batch('{"x":[1,2]}'), "MISSING_FIELD", "instances[0].x_shape", NOT_TOLD + ", or nested arrays in x"),
    (
        batch('{"x":[1,2],"x_shape":[1,2,2]}'),
        "WRONG_SHAPE",
        "instances[0].x_shape",
        "expected sizes whose product is the number of values, 2, received [1, 2, 2], which is 4",
    ),
    (
        batch('{"x":[1,2],"x_shape":[1,1]}'),
        "WRONG_COUNT",
        "instances[0].x_shape",
        "expected 3 sizes, one per dimension, received 2",
    ),
    (
        batch('{"x":[1,2],"x_shape":[1,1,2,1,1]}'),
        "WRONG_COUNT",
        "instances[0].x_shape",
        "expected 3 sizes, one per dimension, received 5",
    ),
    (batch('{"x":[1,2],"x_shape":[2,1,1]}'), "WRONG_SHAPE", "instances[0].x_shape[2]", "expected 2, received 1"),
    (
        batch('{"x":[[[1,2]]],"x_shape":[0,0,2]}'),
        "WRONG_SHAPE",
        "instances[0].x_shape",
        "expected sizes whose product is the number of values, 2, received [0, 0, 2], which is 0",
    ),
    (
        batch('{"x":[[[1,2],[3,4]]],"x_shape":[2,1,2]}'),
        "WRONG_SHAPE",
        "instances[0].x_shape",
        "expected [1, 2, 2], as x is nested, received [2, 1, 2]",
    ),
    (
        batch('{"x":[],"x_shape":[-1,0,2]}'),
        "OUT_OF_RANGE",
        "instances[0].x_shape[0]",
        "expected a size from 0 on, received -1",
    ),
    (
        batch('{"x":[],"x_shape":["a",0,2]}'),
        "WRONG_TYPE",
        "instances[0].x_shape[0]",
        'expected a size from 0 to 2147483647, received "a"',
    ),
    (batch('{"x":[],"x_shape":7}'), "WRONG_TYPE", "instances[0].x_shape", "expected an array of 3 sizes, received 7"),
    (
        batch('{"x":[],"x_shape":[0,0,2],"x_shape":[0,0,2]}'),
        "MALFORMED_JSON",
        "instances[0].x_shape",
        "duplicate key",
    ),
    (
        batch('{"x_shape":[0,0,2]}'),
        "MISSING_FIELD",
        "instances[0].x",
        "missing field; expected an array",
    ),
    (
        batch('{"x":[[[1,2]],[[3,4],[5,6]]]}'),
        "WRONG_COUNT",
        "instances[0].x[1]",
        "expected an array of 1, received 2",
    ),
    (batch('{"x":[[[1,2]],[[3]]]}'), "WRONG_COUNT", "instances[0].x[1][0]", "expected 2 values, received 1"),
    (batch('{"x":[[[1,2]],[]]}'), "WRONG_COUNT", "instances[0].x[1]", "expected an array of 1, received 0"),
    (batch('{"x":[[[1,2]],[[3,"a"]]]}'), "WRONG_TYPE", "instances[0].x[1][0][1]", "expected an integer"),
    (
        batch('{"x":[[[1,2]]]}', '{"x":[[[1,2]],[[1,2]]]}'),
        "WRONG_COUNT",
        "instances[1].x",
        "expected an array of 1, received 2",
    ),
    (
        batch('{"x":[[[1,2]],[[3,4]]]}', '{"x":[1,2,3,4],"x_shape":[1,2,2]}'),
        "WRONG_SHAPE",
        "instances[1].x",
        f"expected shape [2, 1, 2] ({ONE_SHAPE}), received [1, 2, 2]",
    ),
    (
        batch('{"x":[[[1,2]]],"mask":[true]}', '{"x":[[[1,2]]],"mask":[true,true]}'),
        "WRONG_COUNT",
        "instances[1].mask",
        f"expected 1 value ({ONE_SHAPE}), received 2",
    ),
    (
        batch('{"x":[[[1,2]]],"k":1}', '{"x":[[[1,2]]],"k":1}', '{"x":[[[1,2]]]}'),
        "MISSING_FIELD",
        "instances[2].k",
        f"missing field; instances[0] {SOME_ONLY}",
    ),
    (
        batch('{"x":[[[1,2]]]}', '{"x":[[[1,2]]],"mask":[true]}'),
        "MISSING_FIELD",
        "instances[0].mask",
        f"missing field; instances[1] {SOME_ONLY}",
    ),
    (batch('{"x":null}'), "WRONG_TYPE", "instances[0].x", "expected an array, received null"),
    (batch('{"x":[[[1,2]]],"k":nul}'), "WRONG_TYPE", "instances[0].k", "expected an integer of 64 bits, received nul"),
    (batch('{"x":[[[1,2]]],"k":null,"k":1}'), "MALFORMED_JSON", "instances[0].k", "duplicate key"),
]


@pytest.mark.parametrize(("body", "reason", "field", "message"), JSON_MISTAKES)
def test_a_mistake_in_a_json_shape_is_named(
    scripts: Scripts, body: bytes, reason: str, field: str, message: str
) -> None:
    json.loads(body.replace(b"nul}", b"null}"))
    with pytest.raises(Refused) as refused:
        scripts.decode_json(scripts.plan(MODEL.context()), body)
    named(refused.value, reason, field, message)


def named(refused: Refused, reason: str, field: str, message: str) -> None:
    error = json.loads(refused.json)
    assert (error["code"], error["details"][0]["reason"]) == (3, reason), error
    assert error["details"][0]["metadata"]["field"] == field
    assert error["message"].startswith(f"{field}: {message}")


def typed(*rows: dict[str, Any]) -> bytes:
    instance: Any = MODEL.classes.instance
    return vectors.framed(MODEL.classes.request(instances=[instance(**r) for r in rows]).SerializeToString())


def test_typed_requests_state_their_shape(scripts: Scripts) -> None:
    body = typed({"x": [1, 2, 3, 4], "x_shape": [2, 1, 2], "k": 0}, {"x": [5, 6, 7, 8], "x_shape": [2, 1, 2], "k": 1})
    request = vectors.infer_request(scripts.decode_typed(scripts.plan(MODEL.context()), body))
    assert [(i.name, tuple(i.shape)) for i in request.inputs] == [("x", (2, 2, 1, 2)), ("k", (2, 1))]


def test_typed_sizes_may_be_unpacked_and_split(scripts: Scripts) -> None:
    number = MODEL.contract.inputs[0].shape_field
    assert number is not None
    alone = bytes([number.number * 8 + 1])
    packed = bytes([number.number * 8 + 2])
    x = b"\x0a\x08" + struct.pack("<2i", 1, 2)
    row = alone + struct.pack("<q", 1) + x + packed + b"\x10" + struct.pack("<2q", 1, 2)
    body = vectors.framed(b"\x0a" + bytes([len(row)]) + row)
    request = vectors.infer_request(scripts.decode_typed(scripts.plan(MODEL.context()), body))
    assert tuple(request.inputs[0].shape) == (1, 1, 1, 2)


TYPED_MISTAKES: list[tuple[bytes, str, str, str]] = [
    (typed({"x": [1, 2]}), "MISSING_FIELD", "instances[0].x_shape", NOT_TOLD),
    (typed({"x_shape": [1, 1, 2]}), "WRONG_SHAPE", "instances[0].x_shape", "expected sizes whose product"),
    (typed({}), "MISSING_FIELD", "instances[0].x", "missing field; expected at least 1 value, received 0"),
    (
        typed({"x": [1, 2], "x_shape": [1, 1, 1, 1]}),
        "WRONG_COUNT",
        "instances[0].x_shape",
        "expected 3 sizes, one per dimension, received 4",
    ),
    (
        typed({"x": [1, 2], "x_shape": [1, 1, 2]}, {"x": [1, 2], "x_shape": [1, -1, 2]}),
        "OUT_OF_RANGE",
        "instances[1].x_shape[1]",
        "expected a size from 0 to 2147483647, received -1",
    ),
    (
        typed({"x": [1, 2], "x_shape": [1 << 62, 1, 2]}),
        "OUT_OF_RANGE",
        "instances[0].x_shape[0]",
        "expected a size from 0 to 2147483647, received 4611686018427387904",
    ),
    (
        typed({"x": [1, 2], "x_shape": [1, 1, 2]}, {"x": [1, 2, 3, 4], "x_shape": [2, 1, 2]}),
        "WRONG_SHAPE",
        "instances[1].x",
        "expected shape [1, 1, 2]",
    ),
    (
        typed({"x": [1, 2], "x_shape": [1, 1, 2], "mask": [True]}, {"x": [1, 2], "x_shape": [1, 1, 2]}),
        "MISSING_FIELD",
        "instances[1].mask",
        f"missing field; instances[0] {SOME_ONLY}",
    ),
]


@pytest.mark.parametrize(("body", "reason", "field", "message"), TYPED_MISTAKES)
def test_a_mistake_in_a_typed_shape_is_named(
    scripts: Scripts, body: bytes, reason: str, field: str, message: str
) -> None:
    with pytest.raises(Refused) as refused:
        scripts.decode_typed(scripts.plan(MODEL.context()), body)
    named(refused.value, reason, field, message)


def test_a_typed_answer_carries_its_shape_and_a_json_answer_is_nested(scripts: Scripts) -> None:
    array = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    body = vectors.framed(vectors.answer(MODEL, [array]).SerializeToString())
    plan = scripts.plan(MODEL.context())
    typed_answer: Any = MODEL.classes.response.FromString(vectors.unframed(scripts.encode_typed(plan, body)[0]))
    assert [list(p.y_shape) for p in typed_answer.predictions] == [[2, 3], [2, 3]]
    assert [p.y for p in typed_answer.predictions] == [array[0].tobytes(), array[1].tobytes()]
    assert json.loads(scripts.encode_json(plan, body)[0]) == {"predictions": [{"y": a.tolist()} for a in array]}
