"""The HTTP client: what it sends, what it makes of answers and of errors; sync and async alike."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from penstock_client import (
    Answer,
    AsyncClient,
    Client,
    Code,
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    PenstockError,
    ServerFault,
    TooMuch,
    Unavailable,
)

from tests.clients.servers import Handler, Seen, http_server, status_json

ROW = {"x": [5.1, 3.5, 1.4, 0.2]}


def iris(seen: Seen) -> tuple[int, Any]:
    """A model that batches: the label is the number of values."""
    rows = [{"label": len(row["x"]), "probabilities": [0.5, 0.25, 0.25]} for row in seen.body["instances"]]
    return 200, {"predictions": rows}


def matrix(seen: Seen) -> tuple[int, Any]:
    """A model that does not batch."""
    if "instances" in seen.body:
        refusal = status_json(3, "instances: no such input; expected a", "UNKNOWN_FIELD", field="instances")
        return 400, refusal
    return 200, {"b": seen.body["a"]}


def failing(status: int, value: Any) -> Handler:
    return lambda _: (status, value)


async def test_one_row() -> None:
    def check(answer: Answer) -> None:
        assert answer.row == {"label": 4, "probabilities": [0.5, 0.25, 0.25]}
        assert (answer.model, answer.version, answer.request_id, answer.batched) == ("iris", 7, "r-1", True)

    with http_server(iris) as server:
        with Client(server.address) as client:
            check(client.predict("iris", ROW))
        async with AsyncClient(server.address) as client_to_await:
            check(await client_to_await.predict("iris", ROW))
        first, second = server.seen
        assert first.path == second.path == "/v1/models/iris:predict"
        assert first.body == second.body == {"instances": [ROW]}


def test_several_rows() -> None:
    with http_server(iris) as server, Client(server.address) as client:
        answer = client.predict("iris", [{"x": [1]}, {"x": [1, 2]}])
        assert [row["label"] for row in answer.rows] == [1, 2]
        with pytest.raises(ValueError, match=r"has 2 rows: use \.rows"):
            _ = answer.row


async def test_a_model_that_does_not_batch_is_found_out_once() -> None:
    with http_server(matrix) as server:
        with Client(server.address) as client:
            for _ in range(2):
                answer = client.predict("matrix", {"a": [1, 2]})
                assert (answer.row, answer.batched) == ({"b": [1, 2]}, False)
        assert [list(seen.body) for seen in server.seen] == [["instances"], ["a"], ["a"]]
        server.seen.clear()
        async with AsyncClient(server.address) as client_to_await:
            for _ in range(2):
                assert (await client_to_await.predict("matrix", {"a": [3]})).row == {"b": [3]}
        assert [list(seen.body) for seen in server.seen] == [["instances"], ["a"], ["a"]]


def test_several_rows_for_a_model_that_does_not_batch_are_refused_by_the_gateway() -> None:
    with (
        http_server(matrix) as server,
        Client(server.address) as client,
        pytest.raises(InvalidRequest, match="instances"),
    ):
        client.predict("matrix", [{"a": [1]}, {"a": [2]}])


def test_the_call_says_version_user_request_and_deadline() -> None:
    with http_server(iris) as server, Client(server.address, user_id="alice", timeout_s=2.5) as client:
        client.predict("iris", ROW)
        client.predict("iris", ROW, version=3, user_id="bob", request_id="mine", timeout_s=1)
        plain, full = (seen.headers for seen in server.seen)
        assert plain["x-user-id"] == "alice"
        assert plain["grpc-timeout"] == "2500m"
        assert "x-penstock-version" not in plain
        wanted = {"x-penstock-version": "3", "x-user-id": "bob", "x-request-id": "mine", "grpc-timeout": "1000m"}
        assert wanted.items() <= full.items()


def test_numpy_in_and_out() -> None:
    with http_server(iris) as server, Client(server.address) as client:
        rows = np.arange(8, dtype=np.float32).reshape(2, 4)
        answer = client.predict("iris", [{"x": row} for row in rows])
        assert server.seen[0].body == {"instances": [{"x": row.tolist()} for row in rows]}
        found = answer.array("probabilities", np.float32)
        assert found.dtype == np.float32
        assert found.tolist() == [[0.5, 0.25, 0.25]] * 2


def test_an_array_of_a_model_that_does_not_batch_has_the_tensors_shape() -> None:
    with http_server(matrix) as server, Client(server.address) as client:
        answer = client.predict("matrix", {"a": np.ones((2, 3))})
        assert answer.array("b").shape == (2, 3)


def test_numbers_that_are_not_finite_travel_as_proto3_json_has_them() -> None:
    with http_server(matrix) as server, Client(server.address) as client:
        answer = client.predict("matrix", {"a": np.array([np.nan, np.inf, -np.inf, 1.0])})
        assert server.seen[-1].body == {"a": ["NaN", "Infinity", "-Infinity", 1.0]}
        assert np.array_equal(answer.array("b", float), [np.nan, np.inf, -np.inf, 1.0], equal_nan=True)


def test_bytes_travel_in_base64() -> None:
    def tag(seen: Seen) -> tuple[int, Any]:
        return 200, {"predictions": [{"raw": [row["raw"], "text"]} for row in seen.body["instances"]]}

    with http_server(tag) as server, Client(server.address) as client:
        answer = client.predict("tag", {"raw": b"\xff\x00"})
        assert server.seen[0].body == {"instances": [{"raw": {"b64": "/wA="}}]}
        assert answer.row == {"raw": [b"\xff\x00", "text"]}


def test_an_input_of_no_known_kind_is_named() -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(TypeError, match="an input is a object: expected"):
        client.predict("iris", {"x": object()})


@pytest.mark.parametrize(
    ("http", "code", "kind"),
    [
        (400, Code.INVALID_ARGUMENT, InvalidRequest),
        (404, Code.NOT_FOUND, NotFound),
        (413, Code.RESOURCE_EXHAUSTED, TooMuch),
        (500, Code.INTERNAL, ServerFault),
        (503, Code.UNAVAILABLE, Unavailable),
        (504, Code.DEADLINE_EXCEEDED, DeadlineExceeded),
    ],
)
def test_errors_carry_what_the_gateway_said(http: int, code: Code, kind: type[PenstockError]) -> None:
    wrong = status_json(code, "x: expected 4 values", "WRONG_COUNT", field="x", expected="4 values", received="3")
    with http_server(failing(http, wrong)) as server, Client(server.address) as client:
        with pytest.raises(kind, match="x: expected 4 values") as raised:
            client.predict("iris", ROW)
        error = raised.value
        assert (error.code, error.reason, error.field) == (code, "WRONG_COUNT", "x")
        assert (error.expected, error.received, error.request_id) == ("4 values", "3", "r-1")


@pytest.mark.parametrize(
    ("http", "body", "kind"),
    [
        (502, b"<html>Bad Gateway</html>", Unavailable),
        (503, b"", Unavailable),
        (400, b"[]", InvalidRequest),
        (418, b'{"detail": "tea"}', ServerFault),
        (200, b"not a prediction", ServerFault),
        (200, b"[1]", ServerFault),
    ],
)
def test_what_a_gateway_never_says_is_still_an_error_with_its_text(
    http: int, body: bytes, kind: type[PenstockError]
) -> None:
    with http_server(failing(http, body)) as server, Client(server.address) as client:
        with pytest.raises(kind) as raised:
            client.predict("iris", ROW)
        assert body.decode() in str(raised.value)


async def test_no_gateway_there_is_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with Client(url) as client, pytest.raises(Unavailable, match="Does a gateway run there"):
            client.predict("iris", ROW)
        async with AsyncClient(url) as client_to_await:
            with pytest.raises(Unavailable, match="Does a gateway run there"):
                await client_to_await.predict("iris", ROW)


def test_no_answer_in_time_is_a_deadline() -> None:
    finished = threading.Event()

    def late(_: Seen) -> tuple[int, Any]:
        finished.wait(30)
        return 200, {}

    with http_server(late) as server, Client(server.address) as client:
        try:
            with pytest.raises(DeadlineExceeded, match=r"within 0\.05 s"):
                client.predict("iris", ROW, timeout_s=0.05)
        finally:
            finished.set()


@pytest.mark.parametrize(
    ("give", "body"),
    [
        (lambda c: c.feedback("r-1", label=3), {"request_id": "r-1", "label": 3}),
        (lambda c: c.feedback("r-1", label=0), {"request_id": "r-1", "label": 0}),
        (lambda c: c.feedback("r-1", label=[1, 2]), {"request_id": "r-1", "label": [1, 2]}),
        (lambda c: c.feedback("r-1", label="cat", row=1), {"request_id": "r-1", "label": "cat", "row": 1}),
        (lambda c: c.feedback("r-1", reward=0.5), {"request_id": "r-1", "reward": 0.5}),
        (lambda c: c.feedback("r-1", label=np.int64(3)), {"request_id": "r-1", "label": 3}),
    ],
)
def test_feedback(give: Callable[[Client], None], body: Any) -> None:
    with http_server(failing(200, {})) as server, Client(server.address) as client:
        give(client)
        assert server.seen[0].path == "/v1/feedback"
        assert server.seen[0].body == body


async def test_refused_feedback_is_an_error() -> None:
    refusal = status_json(5, "no request r-9", "NOT_FOUND", field="request_id")
    with http_server(failing(404, json.dumps(refusal).encode())) as server:
        with Client(server.address) as client, pytest.raises(NotFound, match="no request r-9"):
            client.feedback("r-9", label=1)
        async with AsyncClient(server.address) as client_to_await:
            with pytest.raises(NotFound, match="no request r-9"):
                await client_to_await.feedback("r-9", reward=1.0)


def test_an_api_of_another_major_is_another_path() -> None:
    with http_server(iris) as server, Client(server.address) as client:
        client.predict("iris", ROW, major=2)
        assert server.seen[0].path == "/v2/models/iris:predict"
