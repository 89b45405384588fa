"""The golden table of mistakes: what each one is called, where it is, and what was expected and received."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

from adapters.signature import DYNAMIC, Datatype, TensorSpec
from tests.lua import vectors
from tests.lua.scripts import Refused, Scripts

BATCHING = vectors.model(
    [TensorSpec("x", Datatype.FP32, (4,)), TensorSpec("n", Datatype.INT64, ())],
    [TensorSpec("label", Datatype.INT64, ()), TensorSpec("p", Datatype.FP32, (3,))],
    max_batch_size=2,
)
WHOLE = vectors.model(
    [
        TensorSpec("img", Datatype.UINT8, (2, 2)),
        TensorSpec("s", Datatype.BYTES, (DYNAMIC,)),
        TensorSpec("b", Datatype.BOOL, (1,)),
        TensorSpec("i", Datatype.INT8, ()),
        TensorSpec("h", Datatype.FP16, (DYNAMIC, 2)),
    ],
    [TensorSpec("y", Datatype.BYTES, (DYNAMIC,))],
)
GOOD_ROW = '{"x":[1,2,3,4],"n":5}'
GOOD = '"img":[1,2,3,4],"s":["a"],"b":[true],"i":1,"h":[1,2]'

JSON_TABLE: list[tuple[str, str | bytes, str, str, str]] = [
    # model, body, reason, field, message
    ("batch", b"", "EMPTY_BODY", "", 'the body is empty; expected a JSON object such as {"instances":[...]}'),
    ("batch", " \n", "EMPTY_BODY", "", 'the body is empty; expected a JSON object such as {"instances":[...]}'),
    ("batch", "[1]", "WRONG_TYPE", "", "expected a JSON object, received an array"),
    (
        "batch",
        "{",
        "MALFORMED_JSON",
        "",
        "byte 1 of the JSON body: expected a field name in quotes, received the end of the body",
    ),
    ("batch", "{}", "MISSING_FIELD", "instances", "instances: missing field; expected an array of instances"),
    ("batch", '{"instances":[]}', "MISSING_FIELD", "instances", "instances: expected at least 1 instance, received 0"),
    (
        "batch",
        '{"instances":{}}',
        "WRONG_TYPE",
        "instances",
        "instances: expected an array of instances, received an object",
    ),
    ("batch", '{"instance":[]}', "UNKNOWN_FIELD", "instance", "instance: unknown field; expected instances"),
    (
        "batch",
        f'{{"instances":[{GOOD_ROW}],"instances":[]}}',
        "MALFORMED_JSON",
        "instances",
        "instances: duplicate key",
    ),
    ("batch", '{"instances":[1]}', "WRONG_TYPE", "instances[0]", "instances[0]: expected an object, received 1"),
    (
        "batch",
        '{"instances":[{"x":[1,2,3,4],"n":1},{"y":1}]}',
        "UNKNOWN_FIELD",
        "instances[1].y",
        "instances[1].y: unknown field; expected one of x, n",
    ),
    (
        "batch",
        '{"instances":[{"x":[1,2,3,4]}]}',
        "MISSING_FIELD",
        "instances[0].n",
        "instances[0].n: missing field; expected an integer of 64 bits",
    ),
    ("batch", '{"instances":[{"n":1,"n":2}]}', "MALFORMED_JSON", "instances[0].n", "instances[0].n: duplicate key"),
    (
        "batch",
        '{"instances":[{"x":[1,2,3]}]}',
        "WRONG_COUNT",
        "instances[0].x",
        "instances[0].x: expected 4 values, received 3",
    ),
    (
        "batch",
        '{"instances":[{"x":[1,2,3,4,5,6]}]}',
        "WRONG_COUNT",
        "instances[0].x",
        "instances[0].x: expected 4 values, received 6",
    ),
    (
        "batch",
        '{"instances":[{"x":[]}]}',
        "WRONG_COUNT",
        "instances[0].x",
        "instances[0].x: expected 4 values, received 0",
    ),
    (
        "batch",
        '{"instances":[{"x":5}]}',
        "WRONG_TYPE",
        "instances[0].x",
        "instances[0].x: expected an array of 4 values, received 5",
    ),
    (
        "batch",
        '{"instances":[{"x":[[1,2,3,4]]}]}',
        "WRONG_TYPE",
        "instances[0].x[0]",
        "instances[0].x[0]: expected a number, received an array",
    ),
    (
        "batch",
        '{"instances":[{"x":[1,2,"a",4]}]}',
        "WRONG_TYPE",
        "instances[0].x[2]",
        'instances[0].x[2]: expected a number, received "a"',
    ),
    (
        "batch",
        '{"instances":[{"x":[1,null,3,4]}]}',
        "WRONG_TYPE",
        "instances[0].x[1]",
        "instances[0].x[1]: expected a number, received null",
    ),
    (
        "batch",
        '{"instances":[{"x":[1,1e39,3,4]}]}',
        "OUT_OF_RANGE",
        "instances[0].x[1]",
        "instances[0].x[1]: expected a magnitude below 3.41e38, received 1e39",
    ),
    (
        "batch",
        '{"instances":[{"x":[1,NaN,3,4]}]}',
        "MALFORMED_JSON",
        "",
        "byte 22 of the JSON body: expected a number, received 'N'",
    ),
    (
        "batch",
        '{"instances":[{"x":[1,2,3,4,]}]}',
        "WRONG_COUNT",
        "instances[0].x",
        "instances[0].x: expected 4 values, received 5",
    ),
    (
        "batch",
        '{"instances":[{"x":[01,2,3,4]}]}',
        "MALFORMED_JSON",
        "",
        "byte 21 of the JSON body: expected a number, received '1'",
    ),
    (
        "batch",
        '{"instances":[{"x":[1 2]}]}',
        "MALFORMED_JSON",
        "",
        "byte 22 of the JSON body: expected ',' or ']', received '2'",
    ),
    (
        "batch",
        '{"instances":[{"n":9223372036854775808}]}',
        "OUT_OF_RANGE",
        "instances[0].n",
        "instances[0].n: expected an integer of 64 bits, received 9223372036854775808",
    ),
    (
        "batch",
        '{"instances":[{"n":1.5}]}',
        "WRONG_TYPE",
        "instances[0].n",
        "instances[0].n: expected an integer of 64 bits, received 1.5",
    ),
    (
        "batch",
        '{"instances":[{"n":"x"}]}',
        "WRONG_TYPE",
        "instances[0].n",
        'instances[0].n: expected an integer of 64 bits, received "x"',
    ),
    (
        "batch",
        f'{{"instances":[{GOOD_ROW},]}}',
        "MALFORMED_JSON",
        "",
        "byte 36 of the JSON body: expected an object, received ']'",
    ),
    (
        "batch",
        f'{{"instances":[{GOOD_ROW}],}}',
        "MALFORMED_JSON",
        "",
        "byte 37 of the JSON body: expected a field name in quotes, received '}'",
    ),
    (
        "batch",
        f'{{"instances":[{GOOD_ROW}]}}}}',
        "MALFORMED_JSON",
        "",
        "byte 37 of the JSON body: expected the end of the body, received '}'",
    ),
    (
        "batch",
        f'{{"instances":[{GOOD_ROW},{GOOD_ROW},{GOOD_ROW}]}}',
        "TOO_MANY_ROWS",
        "instances",
        "instances: expected at most 2 instances, received more",
    ),
    (
        "batch",
        b'{"insta\xffnces":1}',
        "MALFORMED_JSON",
        "",
        "byte 7 of the JSON body: expected UTF-8, received byte 0xff",
    ),
    ("batch", "[" * 100_000, "WRONG_TYPE", "", "expected a JSON object, received an array"),
    ("whole", "{}", "MISSING_FIELD", "img", "img: missing field; expected an array of 4 values"),
    ("whole", '{"img":[[1,2],[3]]}', "WRONG_COUNT", "img[1]", "img[1]: expected 2 values, received 1"),
    ("whole", '{"img":[[1,2],[3,4],[5,6]]}', "WRONG_COUNT", "img", "img: expected an array of 2, received 3"),
    ("whole", '{"img":[[1,2],3]}', "WRONG_TYPE", "img[1]", "img[1]: expected an array, received 3"),
    (
        "whole",
        '{"img":[1,2,3,256]}',
        "OUT_OF_RANGE",
        "img[3]",
        "img[3]: expected an integer from 0 to 255, received 256",
    ),
    ("whole", '{"img":{"b64":"AAEC"}}', "WRONG_COUNT", "img", "img: expected 4 values, received 3"),
    ("whole", '{"img":{"b64":"????"}}', "WRONG_TYPE", "img", "img: expected base64 text, received something else"),
    ("whole", '{"img":"AAEC"}', "WRONG_COUNT", "img", "img: expected 4 values, received 3"),
    ("whole", '{"i":"AAEC"}', "WRONG_COUNT", "i", "i: expected 1 value, received 3"),
    ("whole", '{"i":"!"}', "WRONG_TYPE", "i", "i: expected base64 text, received something else"),
    ("whole", '{"s":["a",1]}', "WRONG_TYPE", "s[1]", 's[1]: expected a string, or {"b64": "..."}, received 1'),
    (
        "whole",
        '{"s":["\\ud800"]}',
        "MALFORMED_JSON",
        "",
        "byte 7 of the JSON body: expected no lone surrogate, received '\\'",
    ),
    ("whole", '{"s":["\\x"]}', "MALFORMED_JSON", "", "byte 8 of the JSON body: expected an escape, received 'x'"),
    (
        "whole",
        '{"s":["\n"]}',
        "MALFORMED_JSON",
        "",
        "byte 7 of the JSON body: expected no control character in a string, received byte 0x0a",
    ),
    ("whole", '{"b":[1]}', "WRONG_TYPE", "b[0]", "b[0]: expected true or false, received 1"),
    ("whole", '{"i":[1]}', "WRONG_TYPE", "i", "i: expected an integer from -128 to 127, received an array"),
    ("whole", '{"i":-129}', "OUT_OF_RANGE", "i", "i: expected an integer from -128 to 127, received -129"),
    ("whole", '{"h":[1,2,3]}', "WRONG_COUNT", "h", "h: expected a multiple of 2 values, received 3"),
    ("whole", '{"h":[1,65520]}', "OUT_OF_RANGE", "h[1]", "h[1]: expected a magnitude below 65520, received 65520"),
    (
        "whole",
        f"{{{GOOD},}}",
        "MALFORMED_JSON",
        "",
        "byte 54 of the JSON body: expected a field name in quotes, received '}'",
    ),
]


@pytest.mark.parametrize(("which", "body", "reason", "field", "message"), JSON_TABLE)
def test_a_mistake_in_json_is_named(
    scripts: Scripts, which: str, body: str | bytes, reason: str, field: str, message: str
) -> None:
    made = BATCHING if which == "batch" else WHOLE
    with pytest.raises(Refused) as refused:
        scripts.decode_json(scripts.plan(made.context()), body.encode() if isinstance(body, str) else body)
    error = json.loads(refused.value.json)
    detail = error["details"][0]
    assert (detail["reason"], detail["metadata"].get("field", "")) == (reason, field)
    assert error["message"] == message
    assert (error["code"], error["status"]) == (3, "INVALID_ARGUMENT")
    assert detail["metadata"]["hop"] == "gateway"
    assert detail["domain"] == "penstock"
    same_status(refused.value.status, error)


def same_status(status: bytes, error: dict[str, Any]) -> None:
    """The gRPC details say what the JSON says."""
    parsed = status_pb2.Status.FromString(status)
    assert (parsed.code, parsed.message) == (error["code"], error["message"])
    info = error_details_pb2.ErrorInfo()
    assert parsed.details[0].Unpack(info)
    detail = error["details"][0]
    assert (info.reason, info.domain, dict(info.metadata)) == (detail["reason"], detail["domain"], detail["metadata"])


def row(**fields: Any) -> Any:
    return BATCHING.classes.request(instances=[BATCHING.classes.instance(**fields)])  # type: ignore[misc]  # batching models have instances


TYPED_TABLE: list[tuple[bytes, int, str, str, str]] = [
    (b"", 3, "EMPTY_BODY", "", "the call carries no message; expected one gRPC message"),
    (
        b"\1\0\0\0\0",
        12,
        "COMPRESSED",
        "grpc-encoding",
        "grpc-encoding: compressed messages are not supported; send the message without compression",
    ),
    (b"\0\0\0\0\2a", 3, "MALFORMED_PROTOBUF", "", "the call does not carry exactly one gRPC message"),
    (vectors.framed(b""), 3, "MISSING_FIELD", "instances", "instances: expected at least 1 instance, received 0"),
    (
        vectors.framed(b"\x0a\x05"),
        3,
        "MALFORMED_PROTOBUF",
        "",
        "the message is not valid protobuf: an instance is longer than the message",
    ),
    (
        vectors.framed(b"\x00"),
        3,
        "MALFORMED_PROTOBUF",
        "",
        "the message is not valid protobuf: a field's tag is wrong or cut short",
    ),
    (
        vectors.framed(b"\x0a\x04\x0a\x02ab"),
        3,
        "MALFORMED_PROTOBUF",
        "",
        "the message is not valid protobuf: the length of field x is not a multiple of 4",
    ),
    (
        vectors.framed(b"\x0a\x02\x0d\x00"),
        3,
        "MALFORMED_PROTOBUF",
        "",
        "the message is not valid protobuf: field x is cut short",
    ),
    (
        vectors.framed(row(n=1).SerializeToString()),
        3,
        "MISSING_FIELD",
        "instances[0].x",
        "instances[0].x: missing field; expected 4 values, received 0",
    ),
    (
        vectors.framed(row(x=[1, 2, 3, 4]).SerializeToString()),
        3,
        "MISSING_FIELD",
        "instances[0].n",
        "instances[0].n: missing field; expected 1 value, received 0",
    ),
    (
        vectors.framed(row(x=[1, 2, 3], n=1).SerializeToString()),
        3,
        "WRONG_COUNT",
        "instances[0].x",
        "instances[0].x: expected 4 values, received 3",
    ),
    (
        vectors.framed(row(x=[1, 2, 3, 4], n=1).SerializeToString() * 3),
        3,
        "TOO_MANY_ROWS",
        "instances",
        "instances: expected at most 2 instances, received more",
    ),
]


@pytest.mark.parametrize(("body", "code", "reason", "field", "message"), TYPED_TABLE)
def test_a_mistake_in_protobuf_is_named(
    scripts: Scripts, body: bytes, code: int, reason: str, field: str, message: str
) -> None:
    with pytest.raises(Refused) as refused:
        scripts.decode_typed(scripts.plan(BATCHING.context()), body)
    error = json.loads(refused.value.json)
    detail = error["details"][0]
    assert (error["code"], detail["reason"], detail["metadata"].get("field", "")) == (code, reason, field)
    assert error["message"] == message
    same_status(refused.value.status, error)


def good_answer() -> Any:
    return vectors.answer(BATCHING, [np.array([1]), np.zeros((1, 3), np.float32)], identity="1")


def missing_output(response: Any) -> None:
    del response.outputs[0]
    del response.raw_output_contents[0]


def wrong_datatype(response: Any) -> None:
    response.outputs[1].datatype = "FP64"


def wrong_shape(response: Any) -> None:
    response.outputs[1].shape[1] = 4


def wrong_rank(response: Any) -> None:
    response.outputs[1].shape.append(1)


def wrong_rows(response: Any) -> None:
    response.outputs[1].shape[0] = 2


def wrong_length(response: Any) -> None:
    response.raw_output_contents[1] += b"\0"


def other_row_count(response: Any) -> None:
    response.id = "2"


def twice(response: Any) -> None:
    response.outputs.append(response.outputs[0])
    response.raw_output_contents.append(response.raw_output_contents[0])


def no_data(response: Any) -> None:
    del response.raw_output_contents[1]


BAD_ANSWERS = {
    missing_output: "output label is missing",
    wrong_datatype: "output p is FP64, expected FP32",
    wrong_shape: "output p has shape [1, 4], expected [rows, 3]",
    wrong_rank: "output p has shape [1, 3, 1], expected [rows, 3]",
    wrong_rows: "output p has 2 rows, another has 1",
    wrong_length: "output p has 13 bytes, expected 12",
    other_row_count: "it has 1 rows for a request of 2",
    twice: "output label is there twice",
    no_data: "it has 2 outputs and the data of 1",
}


@pytest.mark.parametrize(("spoil", "message"), BAD_ANSWERS.items(), ids=lambda v: getattr(v, "__name__", ""))
def test_a_malformed_answer_is_internal_and_says_so(scripts: Scripts, spoil: Any, message: str) -> None:
    response = good_answer()
    plan = scripts.plan(BATCHING.context())
    assert scripts.encode_json(plan, vectors.framed(response.SerializeToString()))
    spoil(response)
    for encode in (scripts.encode_json, scripts.encode_typed):
        with pytest.raises(Refused) as refused:
            encode(plan, vectors.framed(response.SerializeToString()))
        error = json.loads(refused.value.json)
        assert error["message"] == f"the inference server's answer is malformed: {message}"
        assert (error["code"], error["details"][0]["reason"]) == (13, "BAD_ANSWER")
        assert error["details"][0]["metadata"]["hop"] == "server"


@pytest.mark.parametrize("body", [b"", b"\0\0\0\0\1", b"\1\0\0\0\0", b"\0\0\0\0\1\xff", b"\0\0\0\0\2\x2a\x09"])
def test_an_answer_that_is_no_message_is_internal(scripts: Scripts, body: bytes) -> None:
    with pytest.raises(Refused, match="BAD_ANSWER"):
        scripts.encode_json(scripts.plan(BATCHING.context()), body)


def test_bytes_that_are_not_text_reach_json_callers_in_base64_and_are_refused_for_a_proto_string(
    scripts: Scripts,
) -> None:
    body = vectors.framed(vectors.answer(WHOLE, [np.array([b"\xff\0"], object)]).SerializeToString())
    plan = scripts.plan(WHOLE.context())
    assert json.loads(scripts.encode_json(plan, body)[0]) == {"y": [{"b64": base64.b64encode(b"\xff\0").decode()}]}
    with pytest.raises(Refused, match="not UTF-8 text"):
        scripts.encode_typed(plan, body)


def test_an_output_nobody_asked_for_is_left_out(scripts: Scripts) -> None:
    response = good_answer()
    response.outputs.add(name="extra", datatype="INT32", shape=[1])
    response.raw_output_contents.append(struct.pack("<i", 5))
    text, label = scripts.encode_json(scripts.plan(BATCHING.context()), vectors.framed(response.SerializeToString()))
    assert json.loads(text) == {"predictions": [{"label": 1, "p": [0.0, 0.0, 0.0]}]}
    assert label == b"[1]"
