"""The scripts in the real Envoy, with the production configuration, against a stub that records what reaches it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from tritonclient.grpc import service_pb2

from tests.lua import vectors
from tests.lua.conftest import WIDE
from tests.lua.gateway import Gateway
from tests.lua.upstream import Abort, Upstream, http_json
from tests.lua.vectors import Model

ROWS = {"instances": [{"x": [1, 2, 3, 4]}, {"x": [5, 6, 7, 8.5]}]}


def answers(model: Model, name: str = "digits.3") -> Any:
    """One prediction per row: the label is the row's first value."""

    def answer(request: Any) -> Any:
        x = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(-1, 4)
        p = np.tile(np.array([[0.1, 0.7, 0.2]], np.float32), (len(x), 1))
        response = vectors.answer(model, [x[:, 0].astype(np.int64), p], identity=request.id)
        response.model_name = name
        return response

    return answer


def predict(channel: grpc.aio.Channel, model: Model) -> Any:
    return channel.unary_unary(
        model.contract.predict_grpc_path,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=model.classes.response.FromString,
    )


def typed(model: Model, *rows: list[float]) -> Any:
    instance: Any = model.classes.instance
    return model.classes.request(instances=[instance(x=row) for row in rows])


def same_details(error: Any, expected: dict[str, Any]) -> None:
    """The gRPC error says what the JSON error says."""
    metadata = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert error.code().value[0] == status.code == expected["code"]
    assert error.details() == status.message == expected["message"]
    detail = expected["details"][0]
    assert (info.reason, info.domain, dict(info.metadata)) == (detail["reason"], detail["domain"], detail["metadata"])


async def test_typed_json_is_a_prediction(http: httpx.AsyncClient, upstream: Upstream, digits: Model) -> None:
    upstream.answer = answers(digits)
    reply = await http.post("/v1/models/digits:predict", json=ROWS, headers={"x-request-id": "r-1"})
    assert reply.status_code == 200, reply.text
    assert reply.json() == {"predictions": [{"label": 1, "p": [0.1, 0.7, 0.2]}, {"label": 5, "p": [0.1, 0.7, 0.2]}]}
    assert reply.headers["content-type"] == "application/json"
    assert int(reply.headers["content-length"]) == len(reply.content)
    assert reply.headers["x-request-id"] == "r-1"
    assert (reply.headers["x-penstock-model"], reply.headers["x-penstock-version"]) == ("digits", "3")
    assert not [h for h in reply.headers if h.startswith(("grpc-", "x-penstock-local"))]
    (request,) = upstream.requests
    assert (request.model_name, request.model_version, request.id) == ("digits.3", "1", "2")
    assert [tuple(t.shape) for t in request.inputs] == [(2, 4)]
    assert request.raw_input_contents[0] == np.array([1, 2, 3, 4, 5, 6, 7, 8.5], np.float32).tobytes()
    assert upstream.metadata[0]["x-request-id"] == "r-1"


async def test_typed_grpc_is_the_same_prediction(channel: grpc.aio.Channel, upstream: Upstream, digits: Model) -> None:
    upstream.answer = answers(digits)
    call = predict(channel, digits)(typed(digits, [1, 2, 3, 4], [5, 6, 7, 8.5]), metadata=(("x-request-id", "r-2"),))
    reply = await call
    assert [(p.label, list(p.p)) for p in reply.predictions] == [
        (row[0], [float(v) for v in np.array([0.1, 0.7, 0.2], np.float32)]) for row in ([1], [5])
    ]
    metadata = dict(await call.initial_metadata())
    assert (metadata["x-penstock-model"], metadata["x-penstock-version"]) == ("digits", "3")
    assert metadata["x-request-id"] == "r-2"
    (request,) = upstream.requests
    assert request.raw_input_contents[0] == np.array([1, 2, 3, 4, 5, 6, 7, 8.5], np.float32).tobytes()


@pytest.mark.parametrize("how", ["header", "path", "encoded path"])
async def test_a_pinned_version_answers(http: httpx.AsyncClient, upstream: Upstream, digits: Model, how: str) -> None:
    upstream.answer = answers(digits, "digits.4")
    path = {"header": "/v1/models/digits:predict", "path": "/v1/models/digits/versions/4:predict"}.get(
        how, "/v1/models/d%69gits/versions/4%3Apredict"
    )
    reply = await http.post(path, json=ROWS, headers={"x-penstock-version": "4"} if how == "header" else {})
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-penstock-version"] == "4"
    assert upstream.requests[0].model_name == "digits.4"


async def test_a_model_that_does_not_batch_and_has_a_hyphen(
    http: httpx.AsyncClient, channel: grpc.aio.Channel, upstream: Upstream, words: Model
) -> None:
    upstream.answer = lambda request: vectors.answer(words, [np.array([b"x", "é".encode()], object)])
    reply = await http.post("/v1/models/two-words:predict", json={"flag": True, "text": ["ü", {"b64": "AP8="}]})
    assert reply.json() == {"y": ["x", "é"]}, reply.text
    assert upstream.requests[0].raw_input_contents[0] == b"\2\0\0\0\xc3\xbc\2\0\0\0\0\xff"
    assert upstream.requests[0].raw_input_contents[1] == b"\1"
    message: Any = words.classes.request()
    message.text.append("ü")
    message.flag = False
    typed_reply = await predict(channel, words)(message)
    assert list(typed_reply.y) == ["x", "é"]


JSON_MISTAKES: list[tuple[str, str, dict[str, Any], int, str, str]] = [
    ("POST", "/v1/models/digits:predict", {"content": b""}, 400, "EMPTY_BODY", "the body is empty"),
    (
        "POST",
        "/v1/models/digits:predict",
        {"content": b'{"instances":[{"x":[1]}]}'},
        400,
        "WRONG_COUNT",
        "instances[0].x: expected 4 values, received 1",
    ),
    (
        "POST",
        "/v1/models/digits:predict",
        {"content": b"{}", "headers": {"content-type": "text/csv"}},
        415,
        "WRONG_CONTENT_TYPE",
        "content-type: expected application/json",
    ),
    ("GET", "/v1/models/digits:predict", {}, 405, "METHOD_NOT_ALLOWED", "a prediction is a POST, not a GET"),
    (
        "PUT",
        "/v1/models/digits:predict",
        {"content": b"{}"},
        405,
        "METHOD_NOT_ALLOWED",
        "a prediction is a POST, not a PUT",
    ),
    ("POST", "/v1/models/digit:predict", {"json": ROWS}, 404, "UNKNOWN_MODEL", "no model is called digit;"),
    (
        "POST",
        "/v1/models/No.Such%20Model:predict",
        {"json": ROWS},
        404,
        "UNKNOWN_MODEL",
        "no model is called No.Such Model;",
    ),
    ("POST", "/v1/models/two_wordz:predict", {"json": ROWS}, 404, "UNKNOWN_MODEL", "no model is called two_wordz;"),
    (
        "POST",
        "/v1/models/digits/versions/9:predict",
        {"json": ROWS},
        404,
        "UNKNOWN_VERSION",
        "model digits has no loaded version 9",
    ),
    (
        "POST",
        "/v1/models/digits:predict",
        {"json": ROWS, "headers": {"x-penstock-version": "nine"}},
        404,
        "UNKNOWN_VERSION",
        "model digits has no loaded version nine",
    ),
    (
        "POST",
        "/v1/models/digits:classify",
        {"json": ROWS},
        404,
        "NOT_FOUND",
        "nothing is served at /v1/models/digits:classify",
    ),
    ("POST", "/nowhere", {"json": ROWS}, 404, "NOT_FOUND", "nothing is served at /nowhere"),
    ("GET", "/nowhere", {}, 404, "NOT_FOUND", "nothing is served at /nowhere"),
    (
        "POST",
        "/v1/models/dead:predict",
        {"json": {"x": 1}},
        503,
        "UNAVAILABLE",
        "the inference server could not be reached; try again",
    ),
]


@pytest.mark.parametrize(("method", "path", "args", "status", "reason", "message"), JSON_MISTAKES)
async def test_a_mistake_in_json_has_one_shape_and_keeps_the_connection(
    http: httpx.AsyncClient,
    upstream: Upstream,
    method: str,
    path: str,
    args: dict[str, Any],
    status: int,
    reason: str,
    message: str,
) -> None:
    reply = await http.request(method, path, **args)
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    error = reply.json()
    assert error["message"].startswith(message), error
    assert error["details"][0]["reason"] == reason
    assert error["details"][0]["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert reply.headers["x-request-id"]
    assert not [h for h in reply.headers if h.startswith("x-penstock-local")]
    if status == 405:
        assert reply.headers["allow"] == "POST"
    assert upstream.requests == []


async def test_a_body_beyond_the_limit_is_too_large(http1: httpx.AsyncClient, upstream: Upstream) -> None:
    # By HTTP/1: this client takes the reset of an HTTP/2 stream that it is still sending for a protocol error.
    reply = await http1.post("/v1/models/digits:predict", content=b" " * 5_000_000)
    assert reply.status_code == 413
    assert (reply.json()["code"], reply.json()["details"][0]["reason"]) == (8, "TOO_LARGE")
    assert upstream.requests == []


async def test_the_limit_is_exact_on_every_protocol(
    http: httpx.AsyncClient, channel: grpc.aio.Channel, upstream: Upstream, digits: Model
) -> None:
    """Also below the windows of Envoy's connections, which let more through than the route says."""
    upstream.answer = answers(digits)
    body = b'{"instances":[{"x":[1,2,3,4]}]}'
    assert (await http.post("/v1/models/digits:predict", content=body.ljust(20_000))).status_code == 200
    reply = await http.post("/v1/models/digits:predict", content=body.ljust(20_001))
    assert (reply.status_code, reply.json()["code"]) == (413, 8)
    assert "20001 bytes; this model's limit is 20000" in reply.json()["message"]
    error = await grpc_error(channel, "/penstock.models.digits.v1.Digits/Predict", b"\x0a" * 20_001)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_body_sent_as_curl_sends_it_is_json(http: httpx.AsyncClient, upstream: Upstream, digits: Model) -> None:
    upstream.answer = answers(digits)
    for content_type in ("application/x-www-form-urlencoded", "application/json; charset=utf-8", "Application/JSON"):
        reply = await http.post(
            "/v1/models/digits:predict",
            content=b'{"instances":[{"x":[1,2,3,4]}]}',
            headers={"content-type": content_type},
        )
        assert reply.status_code == 200, reply.text


async def test_a_mistake_does_not_cost_the_connection(upstream: Upstream, envoy: Gateway, digits: Model) -> None:
    upstream.answer = answers(digits)
    limits = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(base_url=envoy.url, limits=limits) as client:
        bad = await client.post("/v1/models/digits:predict", content=b"[")
        good = await client.post("/v1/models/digits:predict", json=ROWS)
        assert (bad.status_code, good.status_code) == (400, 200)
        assert bad.extensions["network_stream"] is good.extensions["network_stream"]


async def test_head_gets_no_body(http1: httpx.AsyncClient) -> None:
    reply = await http1.head("/v1/models/digits:predict")
    assert (reply.status_code, reply.content) == (405, b"")


async def test_a_mistake_in_grpc_carries_the_same_details(
    channel: grpc.aio.Channel, http1: httpx.AsyncClient, upstream: Upstream, digits: Model
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await predict(channel, digits)(typed(digits, [1, 2, 3]))
    reply = await http1.post("/v1/models/digits:predict", json={"instances": [{"x": [1, 2, 3]}]})
    same_details(caught.value, reply.json())
    assert upstream.requests == []


async def grpc_error(channel: grpc.aio.Channel, path: str, body: bytes, **options: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(path)(body, **options)
    return caught.value


GRPC_MISTAKES: list[tuple[str, bytes, grpc.StatusCode, str, str]] = [
    (
        "/penstock.models.digit.v1.Digit/Predict",
        b"",
        grpc.StatusCode.NOT_FOUND,
        "UNKNOWN_MODEL",
        "no model is called digit;",
    ),
    ("/penstock.models.digits.v1.Digits/Guess", b"", grpc.StatusCode.NOT_FOUND, "NOT_FOUND", "nothing is served at"),
    ("/nowhere.Service/Method", b"", grpc.StatusCode.NOT_FOUND, "NOT_FOUND", "nothing is served at"),
    (
        "/inference.GRPCInferenceService/ModelInfer",
        b"\x0a\x0bNo Such/m\xc3\xab",
        grpc.StatusCode.NOT_FOUND,
        "UNKNOWN_MODEL",
        "no model is called No Such/më;",
    ),
    (
        "/inference.GRPCInferenceService/ModelInfer",
        b"\x0a\x05no-no",
        grpc.StatusCode.NOT_FOUND,
        "UNKNOWN_MODEL",
        "no model is called no-no;",
    ),
    (
        "/inference.GRPCInferenceService/ModelInfer",
        b"\x0a\x06digits\x12\x017",
        grpc.StatusCode.NOT_FOUND,
        "UNKNOWN_VERSION",
        "model digits has no loaded version 7",
    ),
    (
        "/inference.GRPCInferenceService/ModelInfer",
        b"",
        grpc.StatusCode.INVALID_ARGUMENT,
        "MISSING_FIELD",
        "model_name: the request names no model",
    ),
    (
        "/penstock.models.digits.v1.Digits/Predict",
        b"\x0a" * 5_000_000,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "TOO_LARGE",
        "the body ",  # Envoy or the script says so, whoever sees it first
    ),
]


@pytest.mark.parametrize(("path", "body", "code", "reason", "message"), GRPC_MISTAKES)
async def test_a_mistake_in_grpc_has_one_shape(
    channel: grpc.aio.Channel, path: str, body: bytes, code: grpc.StatusCode, reason: str, message: str
) -> None:
    error = await grpc_error(channel, path, body)
    assert error.code() is code, error
    assert error.details().startswith(message)
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (status.code, info.reason, info.domain) == (code.value[0], reason, "penstock")
    assert not [k for k, _ in error.trailing_metadata() if k.startswith("x-penstock-local")]


async def test_a_compressed_grpc_message_is_unimplemented(channel: grpc.aio.Channel, digits: Model) -> None:
    for path in (digits.contract.predict_grpc_path, "/inference.GRPCInferenceService/ModelInfer"):
        error = await grpc_error(channel, path, b"\x0a\x06digits" + bytes(4000), compression=grpc.Compression.Gzip)
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "compressed" in error.details()


async def test_a_server_that_is_gone_is_unavailable(channel: grpc.aio.Channel) -> None:
    error = await grpc_error(channel, "/penstock.models.dead.v1.Dead/Predict", b"\x0d\0\0\x80\x3f")
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == "the inference server could not be reached; try again"


async def test_the_callers_own_deadline_is_kept(http: httpx.AsyncClient, envoy: Gateway, upstream: Upstream) -> None:
    """By grpc-timeout on both protocols. grpc.aio would give up by itself, so both go by HTTP."""
    upstream.answer = lambda request: asyncio.sleep(5, b"")
    reply = await http.post("/v1/models/slow:predict", json={"x": 1}, headers={"grpc-timeout": "200m"})
    assert (reply.status_code, reply.json()["status"]) == (504, "DEADLINE_EXCEEDED")
    assert reply.json()["details"][0]["reason"] == "DEADLINE"
    typed_reply = await http.post(
        "/penstock.models.slow.v1.Slow/Predict",
        content=vectors.framed(b"\x0d\0\0\x80\x3f"),
        headers={"content-type": "application/grpc", "te": "trailers", "grpc-timeout": "200m"},
    )
    assert typed_reply.headers["grpc-status"] == "4"
    text = envoy.stats("^penstock.requests")
    assert "model.slow.version.3.gs.4." in text, text


async def test_a_caller_without_a_deadline_gets_the_models_own(http: httpx.AsyncClient, upstream: Upstream) -> None:
    upstream.answer = lambda request: asyncio.sleep(5, b"")
    reply = await http.post("/v1/models/hasty:predict", json={"x": 1})
    assert (reply.status_code, reply.json()["status"]) == (504, "DEADLINE_EXCEEDED")
    typed_reply = await http.post(
        "/penstock.models.hasty.v1.Hasty/Predict",
        content=vectors.framed(b"\x0d\0\0\x80\x3f"),
        headers={"content-type": "application/grpc", "te": "trailers"},
    )
    assert typed_reply.headers["grpc-status"] == "4"


@pytest.mark.parametrize("initial_metadata", [False, True])
@pytest.mark.parametrize(
    ("code", "status"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, 400),
        (grpc.StatusCode.NOT_FOUND, 404),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
        (grpc.StatusCode.INTERNAL, 500),
    ],
)
async def test_the_servers_own_error_reaches_both_protocols(
    http: httpx.AsyncClient,
    channel: grpc.aio.Channel,
    upstream: Upstream,
    digits: Model,
    code: grpc.StatusCode,
    status: int,
    initial_metadata: bool,
) -> None:
    def fail(request: Any) -> Any:
        raise Abort(code, "bad: ü 100%", initial_metadata=initial_metadata)

    upstream.answer = fail
    reply = await http.post("/v1/models/digits:predict", json=ROWS)
    assert reply.status_code == status
    error = reply.json()
    assert (error["message"], error["status"]) == ("bad: ü 100%", code.name)
    assert error["details"][0]["metadata"] == {"hop": "server"}
    assert reply.headers["x-penstock-version"] == "3"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await predict(channel, digits)(typed(digits, [1, 2, 3, 4]))
    same_details(caught.value, error)


async def test_the_servers_own_details_and_metadata_stay_with_typed_grpc(
    http: httpx.AsyncClient, channel: grpc.aio.Channel, upstream: Upstream, digits: Model
) -> None:
    details = status_pb2.Status(code=9, message="warming up").SerializeToString()

    def fail(request: Any) -> Any:
        trailing = (("grpc-status-details-bin", details), ("x-model-note", "n"), ("x-blob-bin", b"\0\xff"))
        raise Abort(grpc.StatusCode.FAILED_PRECONDITION, "warming up", trailing=trailing)

    upstream.answer = fail
    error = await grpc_error(
        channel, digits.contract.predict_grpc_path, typed(digits, [1, 2, 3, 4]).SerializeToString()
    )
    metadata = dict(error.trailing_metadata())
    assert metadata["grpc-status-details-bin"] == details
    assert (metadata["x-model-note"], metadata["x-blob-bin"]) == ("n", b"\0\xff")
    reply = await http.post("/v1/models/digits:predict", json=ROWS)
    assert (reply.status_code, reply.json()["message"]) == (400, "warming up")
    assert not [h for h in reply.headers if h.startswith("grpc-")]


@pytest.mark.parametrize("garbage", [b"", b"\xff", b"\x32\x01a"])
async def test_a_malformed_answer_is_internal(
    http: httpx.AsyncClient, channel: grpc.aio.Channel, upstream: Upstream, digits: Model, garbage: bytes
) -> None:
    upstream.answer = lambda request: garbage
    reply = await http.post("/v1/models/digits:predict", json=ROWS)
    assert reply.status_code == 500
    assert reply.json()["details"][0]["reason"] == "BAD_ANSWER"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await predict(channel, digits)(typed(digits, [1, 2, 3, 4]))
    same_details(caught.value, reply.json())


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


async def test_a_client_cannot_name_the_scope_or_the_hash_itself(
    http: httpx.AsyncClient, upstream: Upstream, digits: Model
) -> None:
    upstream.answer = answers(digits)
    sent = {"x-penstock-model": "two_words", "x-penstock-hash": "mine", "x-user-id": "u1"}
    reply = await http.post("/v1/models/digits:predict", json=ROWS, headers=sent)
    assert reply.status_code == 200
    assert upstream.metadata[0]["x-penstock-model"] == "digits"
    assert "x-penstock-hash" not in upstream.metadata[0]


async def test_the_outcome_is_counted_by_model_version_and_status(
    http1: httpx.AsyncClient, upstream: Upstream, envoy: Gateway, digits: Model
) -> None:
    upstream.answer = answers(digits)
    await http1.post("/v1/models/digits:predict", json=ROWS)
    await http1.post("/v1/models/digits:predict", json={})
    text = envoy.stats("^penstock.requests")
    assert "model.digits.version.3.gs.0." in text, text
    assert "model.digits.version.3.gs.3." in text


async def test_a_body_of_150_528_numbers(http: httpx.AsyncClient, upstream: Upstream) -> None:
    numbers = np.random.default_rng(1).random(150_528)
    upstream.answer = lambda request: vectors.answer(
        WIDE, [np.frombuffer(request.raw_input_contents[0], np.float32).reshape(3, 224, 224)]
    )
    reply = await http.post("/v1/models/wide:predict", json={"x": numbers.tolist()})
    assert np.array_equal(np.array(reply.json()["y"], np.float32).reshape(-1), numbers.astype(np.float32))
