"""Typed calls to a decoupled model: one request, any number of typed answers, each as soon as the server gives it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from gateway.envoy.context import Kind
from tests.lua import vectors
from tests.lua.conftest import TALKER
from tests.lua.scripts import Refused, Scripts
from tests.lua.upstream import Abort, Upstream


def stream_plan(scripts: Scripts) -> Any:
    return scripts.plan(TALKER.context(Kind.GRPC))


def said(words: list[str], score: float = 0.5) -> Any:
    """One answer of the server: a row with some words."""
    arrays = [np.array([[w.encode() for w in words]], object), np.array([score], np.float32)]
    return service_pb2.ModelStreamInferResponse(infer_response=vectors.answer(TALKER, arrays, identity="2"))


LAST = service_pb2.ModelStreamInferResponse(infer_response=service_pb2.ModelInferResponse(model_name="talker.3"))


def typed_of(words: list[str], score: float = 0.5) -> Any:
    prediction: Any = TALKER.classes.prediction
    return TALKER.classes.response(predictions=[prediction(token=words, score=score)])


@settings(max_examples=200, deadline=None)
@given(
    answers=st.lists(st.lists(st.text(max_size=20), max_size=4), max_size=5),
    cuts=st.lists(st.integers(0, 5000), max_size=12),
)
def test_answers_come_out_typed_wherever_the_stream_is_cut(
    scripts: Scripts, answers: list[list[str]], cuts: list[int]
) -> None:
    body = b"".join(vectors.framed(said(words).SerializeToString()) for words in answers)
    body += vectors.framed(LAST.SerializeToString())
    edges = [0, *sorted(c % (len(body) + 1) for c in cuts), len(body)]
    out = scripts.stream(stream_plan(scripts), [body[a:b] for a, b in itertools.pairwise(edges) if b > a])
    assert [TALKER.classes.response.FromString(m) for m in messages(out)] == [typed_of(words) for words in answers]


def messages(stream: bytes) -> Iterator[bytes]:
    while stream:
        size = int.from_bytes(stream[1:5], "big")
        yield stream[5 : 5 + size]
        stream = stream[5 + size :]


def test_an_answer_is_passed_on_as_soon_as_it_is_whole(scripts: Scripts) -> None:
    stream = scripts.require("stream_answer")
    state = stream[b"new"](stream_plan(scripts))
    first, second = (vectors.framed(said([w]).SerializeToString()) for w in ("a", "b"))
    assert stream[b"edit"](state, first[:-1]) == b""
    assert stream[b"edit"](state, first[-1:] + second[:7]) == vectors.framed(typed_of(["a"]).SerializeToString())


MALFORMED = {
    b"\1\0\0\0\0": "it is compressed",
    b"\0\xff\xff\xff\xff": "an answer of the stream has 4294967295 bytes",
    b"\0\0\0\0\1\x12": "an answer of the stream",
    b"\0\0\0\0\4\x12\2\x2a\5": "a field is cut short",
    vectors.framed(said(["a"]).SerializeToString().replace(b"FP32", b"FP64")): "output score is FP64, expected FP32",
}


@pytest.mark.parametrize(("body", "message"), MALFORMED.items())
def test_a_malformed_answer_of_a_stream_is_internal(scripts: Scripts, body: bytes, message: str) -> None:
    with pytest.raises(Refused) as refused:
        scripts.stream(stream_plan(scripts), [body])
    error = json.loads(refused.value.json)
    assert (error["code"], error["details"][0]["reason"]) == (13, "BAD_ANSWER")
    assert message in error["message"]


def test_a_stream_that_ends_within_an_answer_is_internal(scripts: Scripts) -> None:
    with pytest.raises(Refused, match="ends within an answer"):
        scripts.stream(stream_plan(scripts), [vectors.framed(said(["a"]).SerializeToString())[:-1]])


def call(channel: grpc.aio.Channel) -> Any:
    instance: Any = TALKER.classes.instance
    return channel.unary_stream(
        TALKER.contract.predict_grpc_path,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=TALKER.classes.response.FromString,
    )(TALKER.classes.request(instances=[instance(prompt="hi"), instance(prompt="you")]))


async def test_a_typed_call_gets_every_answer(channel: grpc.aio.Channel, upstream: Upstream) -> None:
    upstream.answers = lambda request: [said(["Hello"]), said(["to", "you"], 0.25), LAST]
    stream = call(channel)
    assert [m async for m in stream] == [typed_of(["Hello"]), typed_of(["to", "you"], 0.25)]
    assert dict(await stream.initial_metadata())["x-penstock-model"] == "talker"
    (request,) = upstream.requests
    assert (request.model_name, tuple(request.inputs[0].shape)) == ("talker.3", (2, 1))
    assert request.raw_input_contents[0] == b"\2\0\0\0hi\3\0\0\0you"
    assert upstream.metadata[0]["triton_grpc_error"] == "true"


async def test_no_answer_at_all_is_an_empty_stream(channel: grpc.aio.Channel, upstream: Upstream) -> None:
    upstream.answers = lambda request: []
    assert [m async for m in call(channel)] == []


async def collect(stream: Any, received: list[Any]) -> None:
    async for message in stream:
        received.append(message)  # noqa: PERF401  # a comprehension would lose those before an error


def status_of(error: grpc.aio.AioRpcError) -> tuple[Any, error_details_pb2.ErrorInfo]:
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    return status, info


ENDS: dict[str, tuple[Any, grpc.StatusCode, str, str]] = {
    "a malformed answer": (b"\x12\1\xff", grpc.StatusCode.INTERNAL, "BAD_ANSWER", "the inference server's answer is"),
    "a message of text": (
        service_pb2.ModelStreamInferResponse(error_message="out of tokens"),
        grpc.StatusCode.INTERNAL,
        "SERVER_ERROR",
        "out of tokens",
    ),
    "a status": (
        Abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no more"),
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "SERVER_ERROR",
        "no more",
    ),
}


@pytest.mark.parametrize(("end", "code", "reason", "message"), ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("answered", [0, 1])
async def test_what_goes_wrong_ends_the_stream_with_its_error(
    channel: grpc.aio.Channel,
    upstream: Upstream,
    end: Any,
    code: grpc.StatusCode,
    reason: str,
    message: str,
    answered: int,
) -> None:
    def answers(request: Any) -> Iterator[Any]:
        yield from [said(["Hello"])] * answered
        if isinstance(end, Abort):
            raise end
        yield end
        yield said(["too late"])

    upstream.answers = answers
    received: list[Any] = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await collect(call(channel), received)
    assert received == [typed_of(["Hello"])] * answered
    assert caught.value.code() is code
    _, info = status_of(caught.value)
    assert (info.reason, info.metadata["hop"]) == (reason, "server")
    assert caught.value.details().startswith(message)


async def test_a_mistake_in_the_request_never_reaches_the_server(channel: grpc.aio.Channel, upstream: Upstream) -> None:
    stream = channel.unary_stream(TALKER.contract.predict_grpc_path)(b"")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        [m async for m in stream]
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert status_of(caught.value)[1].reason == "MISSING_FIELD"
    assert upstream.requests == []


async def test_json_says_where_the_stream_is(http: httpx.AsyncClient, upstream: Upstream) -> None:
    reply = await http.post("/v1/models/talker:predict", json={"instances": [{"prompt": "hi"}]})
    assert (reply.status_code, reply.json()["status"]) == (501, "UNIMPLEMENTED")
    assert reply.json()["details"][0]["reason"] == "STREAM_ONLY"
    assert "PredictStream" in reply.json()["details"][0]["metadata"]["try"]
    assert upstream.requests == []
