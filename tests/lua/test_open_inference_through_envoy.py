"""The Open Inference Protocol through the real Envoy: public names outside, the server's own inside."""

from __future__ import annotations

import json
from typing import Any

import grpc
import httpx
import numpy as np
from tritonclient.grpc import service_pb2

from tests.lua.calls import answers
from tests.lua.upstream import Upstream, http_json
from tests.lua.vectors import Model


async def oip(channel: grpc.aio.Channel, method: str, request: Any, response: Any, **metadata: str) -> Any:
    call = channel.unary_unary(
        f"/inference.GRPCInferenceService/{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=response.FromString,
    )
    return await call(request, metadata=tuple(metadata.items()))


async def test_open_inference_grpc_keeps_public_names(
    channel: grpc.aio.Channel, upstream: Upstream, digits: Model
) -> None:
    upstream.answer = answers(digits)
    body = np.arange(4, dtype=np.float32).tobytes()
    request = service_pb2.ModelInferRequest(model_name="digits", id="mine")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    request.raw_input_contents.append(body)
    reply = await oip(channel, "ModelInfer", request, service_pb2.ModelInferResponse)
    assert (reply.model_name, reply.model_version, reply.id) == ("digits", "3", "mine")
    (seen,) = upstream.requests
    assert (seen.model_name, seen.model_version, seen.id, seen.raw_input_contents[0]) == ("digits.3", "1", "mine", body)


async def test_open_inference_grpc_version_in_the_message_is_a_pin(
    channel: grpc.aio.Channel, upstream: Upstream, digits: Model
) -> None:
    upstream.answer = lambda request: service_pb2.ModelInferResponse(model_name="digits.4", model_version="1")
    request = service_pb2.ModelInferRequest(model_name="digits", model_version="4")
    reply = await oip(channel, "ModelInfer", request, service_pb2.ModelInferResponse)
    assert (reply.model_name, reply.model_version) == ("digits", "4")
    assert upstream.requests[0].model_name == "digits.4"


async def test_open_inference_grpc_about_a_model_speaks_of_its_public_name(
    channel: grpc.aio.Channel, upstream: Upstream
) -> None:
    upstream.answer = lambda request: service_pb2.ModelMetadataResponse(
        name="digits.3", versions=["1"], platform="python", inputs=[{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    )
    metadata = await oip(
        channel, "ModelMetadata", service_pb2.ModelMetadataRequest(name="digits"), service_pb2.ModelMetadataResponse
    )
    assert (metadata.name, list(metadata.versions), metadata.platform, metadata.inputs[0].name) == (
        "digits",
        ["3"],
        "python",
        "x",
    )

    upstream.answer = lambda request: service_pb2.ModelConfigResponse(config={"name": "digits.3", "max_batch_size": 4})
    config = await oip(
        channel, "ModelConfig", service_pb2.ModelConfigRequest(name="digits"), service_pb2.ModelConfigResponse
    )
    assert (config.config.name, config.config.max_batch_size) == ("digits", 4)

    upstream.answer = lambda request: service_pb2.ModelStatisticsResponse(
        model_stats=[{"name": "digits.3", "version": "1", "inference_count": 7}, {"name": "digits.3", "version": "1"}]
    )
    stats = await oip(
        channel,
        "ModelStatistics",
        service_pb2.ModelStatisticsRequest(name="digits"),
        service_pb2.ModelStatisticsResponse,
    )
    assert [(s.name, s.version, s.inference_count) for s in stats.model_stats] == [
        ("digits", "3", 7),
        ("digits", "3", 0),
    ]

    upstream.answer = lambda request: service_pb2.ModelReadyResponse(ready=True)
    ready = await oip(
        channel, "ModelReady", service_pb2.ModelReadyRequest(name="digits"), service_pb2.ModelReadyResponse
    )
    assert ready.ready
    assert {r.DESCRIPTOR.name for r in upstream.requests} == {
        "ModelMetadataRequest",
        "ModelConfigRequest",
        "ModelStatisticsRequest",
        "ModelReadyRequest",
    }
    assert {r.name for r in upstream.requests} == {"digits.3"}


async def test_open_inference_http_keeps_public_names(http: httpx.AsyncClient, upstream: Upstream) -> None:
    answer = {
        "model_name": "digits.3",
        "model_version": "1",
        "outputs": [{"name": "label", "data": [1], "model_name": "digits.3"}],
    }
    upstream.http_answer = http_json(answer)
    reply = await http.post("/v2/models/digits/infer", json={"inputs": []})
    assert reply.json() == answer | {"model_name": "digits", "model_version": "3"}, reply.text
    assert (reply.headers["x-penstock-model"], reply.headers["x-penstock-version"]) == ("digits", "3")
    method, path, _, body = upstream.http[0]
    assert (method, path, json.loads(body)) == ("POST", "/v2/models/digits.3/versions/1/infer", {"inputs": []})


async def test_open_inference_http_binary_extension(http: httpx.AsyncClient, upstream: Upstream) -> None:
    head = json.dumps(
        {
            "model_name": "digits.3",
            "model_version": "1",
            "outputs": [{"name": "p", "parameters": {"binary_data_size": 4}}],
        }
    ).encode()
    tail = b"\0\xff{\x01"
    upstream.http_answer = (
        200,
        {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))},
        head + tail,
    )
    reply = await http.post(
        "/v2/models/digits/infer", content=b"{}" + tail, headers={"inference-header-content-length": "2"}
    )
    size = int(reply.headers["inference-header-content-length"])
    assert json.loads(reply.content[:size])["model_name"] == "digits"
    assert reply.content[size:] == tail
    assert upstream.http[0][3] == b"{}" + tail
    assert upstream.http[0][2]["inference-header-content-length"] == "2"


async def test_open_inference_http_about_a_model(http: httpx.AsyncClient, upstream: Upstream) -> None:
    upstream.http_answer = http_json(
        {"name": "digits.4", "versions": ["1"], "platform": "python", "inputs": [{"name": "digits.4"}]}
    )
    reply = await http.get("/v2/models/digits/versions/4")
    assert reply.json() == {"name": "digits", "versions": ["4"], "platform": "python", "inputs": [{"name": "digits.4"}]}
    upstream.http_answer = http_json(
        {
            "model_stats": [
                {"name": "digits.3", "version": "1", "n": {"name": "digits.3"}},
                {"name": "digits.3", "version": "1"},
            ]
        }
    )
    reply = await http.get("/v2/models/digits/stats")
    assert reply.json() == {
        "model_stats": [
            {"name": "digits", "version": "3", "n": {"name": "digits.3"}},
            {"name": "digits", "version": "3"},
        ]
    }
    assert [path for _, path, _, _ in upstream.http] == [
        "/v2/models/digits.4/versions/1",
        "/v2/models/digits.3/versions/1/stats",
    ]


async def test_open_inference_http_errors_have_the_key_its_clients_read(http: httpx.AsyncClient) -> None:
    reply = await http.post("/v2/models/nobody/infer", json={})
    assert reply.status_code == 404
    assert reply.json()["error"] == reply.json()["message"]
    assert reply.json()["error"].startswith("no model is called nobody;")
