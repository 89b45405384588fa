"""The gRPC client: messages from reflection, every datatype, errors with details."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import Message
from penstock_client import Code, DeadlineExceeded, InvalidRequest, NotFound, PenstockError, Unavailable
from penstock_client.grpc_client import AsyncGrpcClient, GrpcClient

from adapters.signature import Datatype
from gateway.contract.descriptor import MessageClasses
from gateway.contract.examples import example_request
from tests.clients.servers import Refused, grpc_server
from tests.contract.cases import CONTRACTS

ROW = {"x": [5.1, 3.5, 1.4, 0.2]}


def echo(request: Any, messages: MessageClasses) -> Any:
    """Every output takes the value of the input at its place, where it can hold it."""
    response: Any = messages.response()
    if messages.instance is None:
        _echo_row(request, response)
    else:
        for row in request.instances:
            _echo_row(row, response.predictions.add())
    return response


def _echo_row(row: Any, answer: Any) -> None:
    for given, wanted in zip(row.DESCRIPTOR.fields, answer.DESCRIPTOR.fields, strict=False):
        value = getattr(row, given.name)
        if wanted.has_presence:
            setattr(answer, wanted.name, value if given.has_presence else int(sum(value)))
        else:
            getattr(answer, wanted.name).extend(value)


def test_one_row_and_several() -> None:
    with grpc_server(CONTRACTS, echo) as server, GrpcClient(server.address) as client:
        answer = client.predict("iris", {"x": [1, 2, 3, 4]})
        assert answer.row == {"label": 10, "probabilities": []}
        assert (answer.model, answer.version, answer.request_id, answer.batched) == ("iris", 7, "r-1", True)
        answer = client.predict("iris", [{"x": [1]}, {"x": np.array([2.0, 3.0])}])
        assert answer.array("label").tolist() == [1, 5]


def test_a_model_with_a_dash_in_its_name() -> None:
    with grpc_server(CONTRACTS, echo) as server, GrpcClient(server.address) as client:
        assert client.predict("digits-v2", {"image": np.ones((8, 8))}).row["label"] == 64


def test_a_model_that_does_not_batch_takes_nested_or_flat() -> None:
    with grpc_server(CONTRACTS, echo) as server, GrpcClient(server.address) as client:
        for a in ([[1, 2, 3], [4, 5, 6]], [1, 2, 3, 4, 5, 6], np.arange(1, 7).reshape(2, 3)):
            answer = client.predict("matrix", {"a": a, "scale": 2.0})
            assert answer.row == {"b": [1, 2, 3, 4, 5, 6]}
            assert not answer.batched
        with pytest.raises(TypeError, match="does not batch"):
            client.predict("matrix", [{"a": [1], "scale": 1.0}])


@pytest.mark.parametrize("model", ["every-datatype", "every-scalar", "odd-names"])
def test_every_datatype_and_name_arrives(model: str) -> None:
    body = example_request(CONTRACTS[model])
    row = body.get("instances", [body])[0]
    # "[x]" is the one name that proto3's JSON cannot have.
    row = {name.strip("[]"): value for name, value in row.items()}
    with grpc_server(CONTRACTS, echo) as server, GrpcClient(server.address) as client:
        client.predict(model, row)
        request = server.seen[0].body
    sent = request.instances[0] if hasattr(request, "instances") else request
    for field in CONTRACTS[model].inputs:
        value = getattr(sent, field.proto_name)
        expected = row[field.name.strip("[]")]
        if field.datatype in (Datatype.UINT8, Datatype.INT8):
            assert value == bytes(expected if isinstance(expected, list) else [expected])
        else:
            assert (list(value) if field.repeated else value) == expected


@pytest.mark.parametrize("pixels", [np.array([0, 255], np.uint8), [0, 255], b"\x00\xff", np.array([0, -1], np.int8)])
def test_bytes_tensors_take_arrays_lists_and_bytes(pixels: Any) -> None:
    with grpc_server(CONTRACTS, echo) as server, GrpcClient(server.address) as client:
        client.predict("every-datatype", {"in_uint8": pixels})
        assert server.seen[0].body.instances[0].in_uint8 == b"\x00\xff"


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        ({"y": [1]}, ValueError, "no input 'y'; expected: x"),
        ({"x": ["a"]}, TypeError, "x: "),
        ({"x": 1.0}, None, ""),
    ],
)
def test_inputs_that_no_message_holds_are_named(row: Any, kind: type[Exception] | None, message: str) -> None:
    with grpc_server(CONTRACTS, echo) as server, GrpcClient(server.address) as client:
        if kind is None:
            assert client.predict("iris", row).row["label"] == 1
        else:
            with pytest.raises(kind, match=message):
                client.predict("iris", row)


@pytest.mark.parametrize("value", [256, -129])
def test_a_value_beyond_one_byte_is_refused(value: int) -> None:
    with (
        grpc_server(CONTRACTS, echo) as server,
        GrpcClient(server.address) as client,
        pytest.raises(ValueError, match=f"in_uint8: {value} is not in the range of one byte"),
    ):
        client.predict("every-datatype", {"in_uint8": [value, 0]})


def test_the_call_says_version_user_and_request() -> None:
    with grpc_server(CONTRACTS, echo) as server, GrpcClient(server.address, user_id="alice") as client:
        client.predict("iris", ROW, version=3, request_id="mine")
        wanted = {"x-penstock-version": "3", "x-user-id": "alice", "x-request-id": "mine"}
        assert wanted.items() <= server.seen[0].headers.items()


def test_errors_carry_what_the_gateway_said() -> None:
    def refuse(request: Any, messages: MessageClasses) -> Message:
        raise Refused(3, "x: expected 4 values", "WRONG_COUNT", field="x", expected="4 values", received="3")

    with grpc_server(CONTRACTS, refuse) as server, GrpcClient(server.address) as client:
        with pytest.raises(InvalidRequest, match="x: expected 4 values") as raised:
            client.predict("iris", ROW)
        error = raised.value
        assert (error.code, error.reason, error.field) == (Code.INVALID_ARGUMENT, "WRONG_COUNT", "x")
        assert (error.expected, error.received, error.request_id) == ("4 values", "3", "r-1")


def test_an_unknown_model_names_those_there_are() -> None:
    iris_only = {"iris": CONTRACTS["iris"]}
    with (
        grpc_server(iris_only, echo) as server,
        GrpcClient(server.address) as client,
        pytest.raises(NotFound, match="no model 'tulip' here; there are: iris"),
    ):
        client.predict("tulip", ROW)


def test_no_gateway_there_is_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with GrpcClient(f"127.0.0.1:{taken.getsockname()[1]}") as client, pytest.raises(Unavailable):
            client.predict("iris", ROW)


def test_no_answer_in_time_is_a_deadline() -> None:
    finished = threading.Event()

    def late(request: Any, messages: MessageClasses) -> Message:
        finished.wait(30)
        return messages.response()

    with grpc_server(CONTRACTS, late) as server, GrpcClient(server.address) as client:
        try:
            with pytest.raises(DeadlineExceeded):
                client.predict("iris", ROW, timeout_s=0.05)
        finally:
            finished.set()


def test_an_api_of_another_major_is_another_service() -> None:
    second = {"iris": replace(CONTRACTS["iris"], major=2)}
    with grpc_server(second, echo) as server, GrpcClient(server.address) as client:
        assert client.predict("iris", ROW, major=2).version == 7
        assert server.seen[0].path == "/penstock.models.iris.v2.Iris/Predict"
        with pytest.raises(NotFound, match="no model 'iris' here"):
            client.predict("iris", ROW)


def test_shapes_are_filled_from_arrays_and_nested_lists() -> None:
    def answer(request: Any, messages: MessageClasses) -> Any:
        return messages.response()

    with grpc_server({"two-dynamic": CONTRACTS["two-dynamic"]}, answer) as server, GrpcClient(server.address) as client:
        for x in (np.ones((2, 3), np.float32), [[1, 1, 1], [1, 1, 1]]):
            client.predict("two-dynamic", {"pixels": np.zeros((2, 1, 3), np.uint8), "x": x, "x_shape": 5})
        for seen in server.seen:
            row = seen.body.instances[0] if hasattr(seen.body, "instances") else seen.body
            said = {
                field.json_name: list(value)
                for field, value in row.ListFields()
                if "_shape" in field.json_name[1:] and field.json_name != "x_shape"
            }
            assert said == {"pixels_shape": [2, 1, 3], "x_shape_2": [2, 3]}


async def test_a_model_that_streams() -> None:
    contracts = {name: CONTRACTS[name] for name in ("streams", "iris")}
    with grpc_server(contracts, echo) as server:
        with GrpcClient(server.address) as client:
            answers = list(client.predict_stream("streams", {"prompt": ["a"]}))
            assert [(answer.row, answer.version) for answer in answers] == [({"token": ["a"]}, 7)] * 2
            with pytest.raises(PenstockError, match="call predict_stream"):
                client.predict("streams", {"prompt": ["a"]})
            with pytest.raises(PenstockError, match="call predict"):
                client.predict_stream("iris", ROW)
        async with AsyncGrpcClient(server.address) as awaited:
            assert [answer.row async for answer in awaited.predict_stream("streams", {"prompt": ["b"]})] == [
                {"token": ["b"]}
            ] * 2
