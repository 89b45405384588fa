"""The scripts in the real Envoy, with the production configuration, against a stub that records what reaches it."""

from __future__ import annotations

from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from tests.lua import vectors
from tests.lua.calls import ROWS, answers, predict, typed
from tests.lua.conftest import WIDE
from tests.lua.gateway import Gateway
from tests.lua.upstream import Upstream
from tests.lua.vectors import Model


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


async def test_a_body_sent_as_curl_sends_it_is_json(http: httpx.AsyncClient, upstream: Upstream, digits: Model) -> None:
    upstream.answer = answers(digits)
    for content_type in ("application/x-www-form-urlencoded", "application/json; charset=utf-8", "Application/JSON"):
        reply = await http.post(
            "/v1/models/digits:predict",
            content=b'{"instances":[{"x":[1,2,3,4]}]}',
            headers={"content-type": content_type},
        )
        assert reply.status_code == 200, reply.text


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
