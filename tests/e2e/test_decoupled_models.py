"""A decoupled model in the real Triton: any number of answers to one request, typed and by Open Inference Protocol.

Its answers are counted from 0. It goes on for ever when asked to, until somebody tells it to stop: that a caller's
cancel or deadline reached it shows in that it has time for the next caller (Triton runs one instance of it).
"""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from google.rpc import error_details_pb2, status_pb2
from tritonclient.utils import InferenceServerException

from adapters.signature import Datatype, Signature, TensorSpec
from gateway.contract.derive import derive
from gateway.contract.descriptor import MessageClasses, message_classes
from gateway.contract.model import Contract
from tests.e2e.running import Penstock

pytestmark = pytest.mark.e2e

MODEL = "ticks"
FOR_EVER = -1

CODE = """
import time
import numpy as np
import triton_python_backend_utils as pb_utils

LAST = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            tensors = (pb_utils.get_input_tensor_by_name(request, name) for name in ("count", "fail_at"))
            count, fail_at = (int(tensor.as_numpy()[0]) for tensor in tensors)
            sender = request.get_response_sender()
            i = 0
            while (count < 0 or i < count) and i + 1 != fail_at and not sender.is_cancelled():
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("i", np.array([i], np.int64))]))
                i += 1
                if count < 0:
                    time.sleep(0.002)
            if i + 1 == fail_at:
                error = pb_utils.TritonError(f"tick {i} broke", pb_utils.TritonError.INVALID_ARG)
                sender.send(pb_utils.InferenceResponse([], error), flags=LAST)
            else:
                sender.send(flags=LAST)
"""

CONFIG = """
backend: "python"
model_transaction_policy { decoupled: true }
input { name: "count" data_type: TYPE_INT64 dims: 1 }
input { name: "fail_at" data_type: TYPE_INT64 dims: 1 }
output { name: "i" data_type: TYPE_INT64 dims: 1 }
"""


def _integer(name: str) -> TensorSpec:
    return TensorSpec(name, Datatype.INT64, (1,))


SIGNATURE = Signature((_integer("count"), _integer("fail_at")), (_integer("i"),), decoupled=True)


@dataclass(frozen=True)
class Typed:
    """`PredictStream` of the model. `fail_at`: which answer is an error instead, from 1; 0 for none."""

    contract: Contract
    messages: MessageClasses
    stream: Any

    def body(self, count: int, fail_at: int = 0) -> Any:
        return self.messages.request(count=[count], fail_at=[fail_at])

    def call(self, count: int, fail_at: int = 0, *, timeout: float = 30) -> Any:
        return self.stream(self.body(count, fail_at), timeout=timeout)

    def numbers(self, count: int) -> list[int]:
        return [answer.i[0] for answer in self.call(count)]


@pytest.fixture(scope="module")
def ticking(penstock: Penstock) -> Penstock:
    folder = penstock.data_dir / "repository" / MODEL
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(CODE, encoding="utf-8")
    (folder / "config.pbtxt").write_text(CONFIG, encoding="utf-8")
    done = penstock.cli("adopt", MODEL)
    assert done.returncode == 0, done.stdout + done.stderr
    return penstock


@pytest.fixture(scope="module")
def typed(ticking: Penstock) -> Iterator[Typed]:
    contract = derive(MODEL, SIGNATURE)
    messages = message_classes(contract)
    with grpc.insecure_channel(ticking.authority) as channel:
        stream = channel.unary_stream(
            contract.predict_grpc_path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=messages.response.FromString,
        )
        yield Typed(contract, messages, stream)


def failure(error: Any) -> tuple[grpc.StatusCode, str, str]:
    """Code, message and reason, which the details say too."""
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    return error.code(), error.details(), info.reason


@pytest.mark.parametrize("count", [0, 1, 300])
def test_a_typed_stream_has_every_answer_and_an_end(typed: Typed, count: int) -> None:
    stream = typed.call(count)
    assert [answer.i[0] for answer in stream] == list(range(count))
    assert stream.code() is grpc.StatusCode.OK
    headers = dict((*stream.initial_metadata(), *stream.trailing_metadata()))
    assert (headers["x-penstock-model"], headers["x-penstock-version"]) == (MODEL, "1")


@pytest.mark.parametrize("fail_at", [1, 3])
def test_an_error_ends_a_typed_stream_with_the_models_own_status(typed: Typed, fail_at: int) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(typed.call(5, fail_at))
    message = f"tick {fail_at - 1} broke"
    assert failure(caught.value) == (grpc.StatusCode.INVALID_ARGUMENT, message, "SERVER_ERROR")


def test_answers_before_an_error_arrive(typed: Typed) -> None:
    stream = typed.call(5, 3)
    assert [next(stream).i[0], next(stream).i[0]] == [0, 1]
    with pytest.raises(grpc.RpcError):
        next(stream)


def test_answers_arrive_while_the_model_goes_on_and_a_cancel_reaches_it(typed: Typed) -> None:
    stream = typed.call(FOR_EVER)
    assert [next(stream).i[0] for _ in range(3)] == [0, 1, 2]
    stream.cancel()
    with pytest.raises(grpc.RpcError):
        list(stream)
    assert stream.code() is grpc.StatusCode.CANCELLED
    assert typed.numbers(2) == [0, 1]


def test_a_deadline_ends_a_typed_stream_and_reaches_the_model(typed: Typed) -> None:
    stream = typed.call(FOR_EVER, timeout=0.3)
    with pytest.raises(grpc.RpcError):
        list(stream)
    assert stream.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert typed.numbers(2) == [0, 1]


def test_a_mistake_is_refused_before_the_stream_begins(typed: Typed) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(typed.stream(typed.messages.request(count=[1, 2], fail_at=[0]), timeout=30))
    code, message, reason = failure(caught.value)
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "WRONG_COUNT")
    assert message.startswith("count: expected 1 value")


@dataclass
class OpenStream:
    """`ModelStreamInfer` by tritonclient, whose answers and errors come in by a callback."""

    client: Any
    events: queue.Queue[Any]

    def ask(self, count: int, fail_at: int = 0) -> None:
        tensors = []
        for name, value in (("count", count), ("fail_at", fail_at)):
            tensor = triton.InferInput(name, [1], "INT64")
            tensor.set_data_from_numpy(np.array([value], np.int64))
            tensors.append(tensor)
        self.client.async_stream_infer(MODEL, tensors, enable_empty_final_response=True)

    def next(self) -> int | str | None:
        """A number, the text of an error, or None for the end of a request's answers."""
        result, error = self.events.get(timeout=30)
        if error is not None:
            return str(error)
        values = result.as_numpy("i")
        return None if values is None else int(values[0])


@pytest.fixture(params=["false", "true"], ids=["errors as answers", "triton_grpc_error"])
def opened(ticking: Penstock, request: pytest.FixtureRequest) -> Iterator[OpenStream]:
    with triton.InferenceServerClient(ticking.authority) as client:
        events: queue.Queue[Any] = queue.Queue()
        headers = {"x-penstock-model": MODEL, "triton_grpc_error": request.param}
        client.start_stream(lambda result, error: events.put((result, error)), headers=headers)
        yield OpenStream(client, events)
        client.stop_stream(cancel_requests=True)


def test_tritons_stream_has_every_answer_of_every_request(opened: OpenStream) -> None:
    for count in (2, 0, 1):
        opened.ask(count)
    assert [opened.next() for _ in range(6)] == [0, 1, None, None, 0, None]


def test_an_error_on_tritons_stream_is_as_triton_has_it(opened: OpenStream, request: pytest.FixtureRequest) -> None:
    """Without `triton_grpc_error` an error is one more answer, and the stream goes on; with it the stream ends."""
    opened.ask(5, 2)
    assert opened.next() == 0
    as_status = request.node.callspec.id == "triton_grpc_error"
    error = opened.next()
    assert isinstance(error, str)
    assert "tick 1 broke" in error
    assert ("StatusCode.INVALID_ARGUMENT" in error) == as_status
    if not as_status:
        opened.ask(1)
        assert [opened.next(), opened.next()] == [0, None]


def test_a_caller_who_leaves_tritons_stream_frees_the_model(ticking: Penstock, typed: Typed) -> None:
    with triton.InferenceServerClient(ticking.authority) as client:
        events: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: events.put((result, error)), headers={"x-penstock-model": MODEL})
        stream = OpenStream(client, events)
        stream.ask(FOR_EVER)
        assert [stream.next(), stream.next()] == [0, 1]
        client.stop_stream(cancel_requests=True)
    assert typed.numbers(2) == [0, 1]


def test_a_stream_that_names_no_model_or_an_unknown_one_says_so(ticking: Penstock) -> None:
    for headers, words in (({}, "expected x-penstock-model"), ({"x-penstock-model": "tick"}, "did you mean ticks")):
        with triton.InferenceServerClient(ticking.authority) as client:
            events: queue.Queue[Any] = queue.Queue()
            client.start_stream(lambda result, error, to=events: to.put(error), headers=headers)
            error = events.get(timeout=30)
        assert isinstance(error, InferenceServerException)
        assert words in str(error)


@pytest.mark.parametrize(
    ("content_type", "code"),
    [
        ("application/json", "UNIMPLEMENTED"),
        ("application/proto", "unimplemented"),
        ("application/grpc-web+proto", "12"),
    ],
)
def test_protocols_that_carry_one_answer_are_refused_and_say_where_to_go(
    ticking: Penstock, typed: Typed, content_type: str, code: str
) -> None:
    message = typed.body(1).SerializeToString()
    bodies = {
        "application/json": json.dumps({"count": [1], "fail_at": [0]}).encode(),
        "application/proto": message,
        "application/grpc-web+proto": b"\0" + len(message).to_bytes(4, "big") + message,
    }
    typed_json = content_type == "application/json"
    path = f"/v1/models/{MODEL}:predict" if typed_json else typed.contract.predict_grpc_path
    response = httpx.post(
        ticking.url + path, content=bodies[content_type], headers={"content-type": content_type}, timeout=30
    )
    if content_type == "application/grpc-web+proto":
        assert (response.status_code, response.content[0]) == (200, 0x80)
        assert f"grpc-status:{code}" in response.text
    else:
        assert response.status_code == 501
        assert code in (response.json().get("status"), response.json()["code"])
    assert "answers one request with any number of answers" in unquote(response.text)
