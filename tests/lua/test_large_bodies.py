"""64 MiB bodies pass over HTTP/1 and HTTP/2, typed and by Open Inference Protocol; more is refused with the limit.

HTTP/2 is gRPC's here: the HTTP/2 of httpx, written in Python, takes minutes for so much.
"""

from __future__ import annotations

import struct
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from tritonclient.grpc import service_pb2
from tritonclient.utils import serialize_byte_tensor

from gateway.envoy.state import ModelLimits
from tests.lua import vectors
from tests.lua.upstream import Upstream
from tests.lua.vectors import Model

SIZE = 64 * 1024 * 1024


def yes(model: Model) -> Any:
    return lambda request: vectors.answer(model, [np.array([b"yes"], np.object_)], identity=request.id)


def serialized(array: vectors.Array) -> bytes:
    return bytes(serialize_byte_tensor(array).item()) if array.dtype == np.object_ else array.tobytes()


def body_of(size: int) -> bytes:
    before, after = b'{"flag": true, "text": ["', b'"]}'
    return before + b"a" * (size - len(before) - len(after)) + after


async def test_typed_json(http1: httpx.AsyncClient, upstream: Upstream, words: Model) -> None:
    upstream.answer = yes(words)
    reply = await http1.post("/v1/models/two-words:predict", content=body_of(SIZE), timeout=60)
    assert (reply.status_code, reply.json()) == (200, {"y": ["yes"]})
    (request,) = upstream.requests
    (text,) = [raw for raw in request.raw_input_contents if len(raw) > 1]
    (length,) = struct.unpack_from("<I", text)
    assert length == len(text) - 4 == body_of(SIZE).count(b"a") - 1  # "flag" has one too
    assert text.count(b"a", 4) == length


async def test_typed_grpc(channel: grpc.aio.Channel, upstream: Upstream, words: Model) -> None:
    upstream.answer = yes(words)
    call = channel.unary_unary(words.contract.predict_grpc_path)
    request: Any = words.classes.request
    message = request(flag=True, text=["a" * (SIZE - 64)]).SerializeToString()
    response: Any = words.classes.response.FromString(await call(message, timeout=60))
    assert list(response.y) == ["yes"]
    assert max(len(raw) for raw in upstream.requests[0].raw_input_contents) == SIZE - 60


async def test_open_inference_http(http1: httpx.AsyncClient, upstream: Upstream) -> None:
    body = np.random.default_rng(0).bytes(SIZE)
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": "0"}
    reply = await http1.post("/v2/models/two-words/infer", content=body, headers=headers, timeout=60)
    assert reply.status_code == 200, reply.text
    ((_, _, _, received),) = upstream.http
    assert received == body


async def test_open_inference_grpc(channel: grpc.aio.Channel, upstream: Upstream, words: Model) -> None:
    upstream.answer = yes(words)
    text = np.array([b"a" * (SIZE - 1024)], np.object_)
    request = service_pb2.ModelInferRequest(model_name="two-words")
    for name, datatype, array in (("text", "BYTES", text), ("flag", "BOOL", np.array([True]))):
        request.inputs.add(name=name, datatype=datatype, shape=[1])
        request.raw_input_contents.append(serialized(array))
    call = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=service_pb2.ModelInferRequest.SerializeToString,
        response_deserializer=service_pb2.ModelInferResponse.FromString,
    )
    response: Any = await call(request, timeout=60)
    assert response.outputs[0].name == "y"
    assert upstream.requests[0].raw_input_contents == request.raw_input_contents


async def test_more_than_the_limit_is_refused(http1: httpx.AsyncClient, upstream: Upstream) -> None:
    limit = ModelLimits().request_bytes
    reply = await http1.post("/v1/models/two-words:predict", content=body_of(limit + 1), timeout=60)
    assert reply.status_code == 413
    assert reply.json()["details"][0]["reason"] == "TOO_LARGE"
    assert upstream.requests == []


async def test_more_than_the_limit_is_refused_over_grpc(
    channel: grpc.aio.Channel, upstream: Upstream, words: Model
) -> None:
    call = channel.unary_unary(words.contract.predict_grpc_path)
    request: Any = words.classes.request
    message = request(flag=True, text=["a" * ModelLimits().request_bytes]).SerializeToString()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(message, timeout=60)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert upstream.requests == []
