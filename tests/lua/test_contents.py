"""Servers that answer in `contents` instead of `raw_output_contents`: every list there is, and what they get wrong."""

from __future__ import annotations

import json
import struct
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from adapters.signature import DYNAMIC, Datatype, TensorSpec
from tests.lua import vectors
from tests.lua.conftest import EVERY
from tests.lua.scripts import Refused, Scripts
from tests.lua.upstream import Upstream

ONE_OF = {d: vectors.model([TensorSpec("x", d, (1,))], [TensorSpec("y", d, (DYNAMIC,))]) for d in Datatype}


def framed_contents(datatype: Datatype, size: int, contents: bytes) -> bytes:
    output = b"\x0a\1y\x12" + bytes([len(datatype)]) + datatype.encode() + b"\x1a\1" + bytes([size])
    output += b"\x2a" + bytes([len(contents)]) + contents
    return vectors.framed(b"\x2a" + bytes([len(output)]) + output)


MINUS_ONE = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
READ: list[tuple[Datatype, bytes, list[Any]]] = [
    (Datatype.INT32, b"\x12\2\1\2\x12\1\3\x10\4", [1, 2, 3, 4]),  # two packed runs and one alone
    (Datatype.INT32, b"\x10" + MINUS_ONE, [-1]),
    (Datatype.INT8, b"\x12\x0a" + MINUS_ONE, [-1]),
    (Datatype.INT64, b"\x1a\x0a" + MINUS_ONE, [-1]),
    (Datatype.UINT64, b"\x2a\x0a" + MINUS_ONE, [2**64 - 1]),
    (Datatype.UINT32, b"\x20" + MINUS_ONE, [2**32 - 1]),  # as protobuf's parsers cut it
    (Datatype.BOOL, b"\x0a\3\0\1\2", [False, True, True]),
    (Datatype.FP32, b"\x35\0\0\x80\x3f\x32\4\0\0\0\x40", [1.0, 2.0]),
    (Datatype.FP64, b"\x39" + struct.pack("<d", 0.1), [0.1]),
    (Datatype.FP64, b"\x3a\x08" + struct.pack("<Q", 0xFFF8DEADBEEF0001), ["NaN"]),  # a NaN no Lua number may become
    (Datatype.BYTES, b"\x42\0\x42\2hi", ["", "hi"]),
    (Datatype.INT32, b"\xf8\1\5\x12\1\7\x0a\1\1", [7]),  # an unknown field and another list
    (Datatype.INT32, b"", []),
]


@pytest.mark.parametrize(("datatype", "contents", "values"), READ)
def test_a_list_is_read_as_protobuf_reads_it(
    scripts: Scripts, datatype: Datatype, contents: bytes, values: list[Any]
) -> None:
    made = ONE_OF[datatype]
    text, _ = scripts.encode_json(scripts.plan(made.context()), framed_contents(datatype, len(values), contents))
    assert json.loads(text) == {"y": values}


REFUSED: list[tuple[Datatype, int, bytes, str]] = [
    (Datatype.INT8, 1, b"\x10\x80\x01", "output y has the value 128, which is no INT8"),
    (Datatype.INT16, 1, b"\x10\x80\x80\x02", "output y has the value 32768, which is no INT16"),
    (Datatype.UINT8, 1, b"\x20\x80\x02", "output y has the value 256, which is no UINT8"),
    (Datatype.UINT16, 1, b"\x20\x80\x80\x04", "output y has the value 65536, which is no UINT16"),
    (Datatype.INT32, 2, b"\x10\1", "output y has 4 bytes, expected 8"),
    (Datatype.INT32, 1, b"", "output y has 0 bytes, expected 4"),
    (Datatype.INT32, 1, b"\x15\1\0\0\0", "output y has 0 bytes, expected 4"),  # the list in a wire type of its own
    (Datatype.INT32, 1, b"\x1a\1\1", "output y has 0 bytes, expected 4"),  # in another datatype's list
    (Datatype.INT32, 1, b"\x12\1\x80", "it is not valid protobuf: contents of output y"),
    (Datatype.INT32, 1, b"\x12\5\1", "it is not valid protobuf: contents of output y"),
    (Datatype.FP32, 1, b"\x32\3abc", "it is not valid protobuf: contents of output y"),
    (Datatype.FP32, 1, b"\x35\0", "it is not valid protobuf: contents of output y"),
    (Datatype.FP16, 1, b"\x32\4abcd", "output y of datatype FP16 is not in raw_output_contents"),
    (Datatype.BYTES, 2, b"\x42\1a", "output y ends before its last element"),
    (Datatype.BYTES, 1, b"\x42\1a\x42\1b", "output y goes on after its last element"),
]


@pytest.mark.parametrize(("datatype", "size", "contents", "message"), REFUSED)
def test_a_list_that_is_not_the_tensor_is_internal(
    scripts: Scripts, datatype: Datatype, size: int, contents: bytes, message: str
) -> None:
    with pytest.raises(Refused) as refused:
        scripts.encode_json(scripts.plan(ONE_OF[datatype].context()), framed_contents(datatype, size, contents))
    error = json.loads(refused.value.json)
    assert (error["code"], error["details"][0]["reason"]) == (13, "BAD_ANSWER")
    assert error["message"].startswith(f"the inference server's answer is malformed: {message}")


async def test_every_list_reaches_both_protocols_through_envoy(
    http: httpx.AsyncClient, channel: grpc.aio.Channel, upstream: Upstream
) -> None:
    values: dict[Datatype, list[Any]] = {
        Datatype.BOOL: [True, False],
        Datatype.BYTES: [b"", "é".encode()],
        Datatype.FP32: [0.5, float("inf")],
        Datatype.FP64: [0.1, -0.0],
    }
    arrays = [
        np.array(values.get(f.datatype) or _ends(f.datatype), vectors.DTYPES[f.datatype])
        for f in EVERY.contract.outputs
    ]
    upstream.answer = lambda request: vectors.answer(EVERY, arrays, in_contents=True)
    reply = await http.post("/v1/models/every:predict", json={"x": 1})
    assert reply.status_code == 200, reply.text
    expected = {f.name: vectors.json_value(f.datatype, a) for f, a in zip(EVERY.contract.outputs, arrays, strict=True)}
    assert reply.json() == expected
    call = channel.unary_unary(
        EVERY.contract.predict_grpc_path,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=EVERY.classes.response.FromString,
    )
    typed: Any = EVERY.classes.response()
    vectors.fill(typed, EVERY.contract.outputs, arrays)
    assert await call(EVERY.classes.request(x=1)) == typed


def _ends(datatype: Datatype) -> list[Any]:
    info = np.iinfo(vectors.DTYPES[datatype])
    return [int(info.min), int(info.max)]
