"""Callers' mistakes and servers' failures through the real Envoy: one shape of error on every protocol."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2, status_pb2

from tests.lua import vectors
from tests.lua.calls import ROWS, answers, grpc_error, predict, same_details, typed
from tests.lua.gateway import Gateway
from tests.lua.upstream import Abort, Upstream
from tests.lua.vectors import Model

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
