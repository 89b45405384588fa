"""Record answers, replay them without a gateway."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock_client import Answer, Client, Code, InvalidRequest, NotFound, PenstockError, record
from penstock_client.errors import error_for
from penstock_client.fake import AsyncFakeClient, FakeClient, Feedback, NotRecorded, Recorder
from penstock_client.fake_gateway import FakeGateway
from penstock_client.grpc_client import GrpcClient
from penstock_client.recording import Asked, Recorded, Recording, read, write

from gateway.contract.descriptor import MessageClasses
from gateway.contract.examples import example_request
from tests.clients.servers import Refused, Seen, grpc_server, http_server, status_json
from tests.contract.cases import CONTRACTS

ROW = {"x": [5.1, 3.5, 1.4, 0.2]}


def iris(seen: Seen) -> tuple[int, Any]:
    rows = seen.body["instances"]
    if any(len(row["x"]) != 4 for row in rows):
        return 400, status_json(3, "x: expected 4 values", "WRONG_COUNT", field="instances[0].x", received="1")
    return 200, {"predictions": [{"label": round(row["x"][0]), "raw": {"b64": "AP8="}} for row in rows]}


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "iris.json"
    with http_server(iris) as server, Client(server.address) as client, Recorder(client, path) as recorder:
        recorder.predict("iris", ROW)
        recorder.predict("iris", [ROW, {"x": np.array([1, 2, 3, 4], np.float32)}])
        recorder.predict("iris", ROW, version=2)
        with pytest.raises(InvalidRequest):
            recorder.predict("iris", {"x": [1.0]})
    return path


async def test_what_was_recorded_is_answered(recording: Path) -> None:
    with FakeClient(recording) as fake:
        answer = fake.predict("iris", {"x": np.array([5.1, 3.5, 1.4, 0.2], np.float32)}, request_id="mine")
        assert answer == Answer(({"label": 5, "raw": b"\x00\xff"},), True, "iris", 7, "mine")
        assert [row["label"] for row in fake.predict("iris", [ROW, {"x": [1, 2, 3, 4]}]).rows] == [5, 1]
        assert fake.predict("iris", ROW).request_id
        fake.feedback("mine", label=1)
        assert fake.given == [Feedback("mine", 1, None, None)]
    async with AsyncFakeClient(recording) as awaited:
        assert (await awaited.predict("iris", ROW)).row["label"] == 5
        await awaited.feedback("mine", reward=0.5)
        assert awaited.given == [Feedback("mine", None, 0.5, None)]


def test_a_recorded_error_is_raised(recording: Path) -> None:
    with pytest.raises(InvalidRequest) as raised:
        FakeClient(recording).predict("iris", {"x": [1]})
    assert (raised.value.reason, raised.value.field) == ("WRONG_COUNT", "instances[0].x")


@pytest.mark.parametrize(
    ("model", "row", "call", "message"),
    [
        ("iris", {"x": [9, 9, 9, 9]}, {}, r"no answer of 'iris' for .*9, 9.* It holds 4: .*Record this input"),
        ("iris", ROW, {"version": 3}, "no answer of 'iris' for version 3, "),
        ("tulip", ROW, {}, "no answers of 'tulip'; its models: 'iris'"),
    ],
)
def test_what_was_not_recorded_says_so(recording: Path, model: str, row: Any, call: Any, message: str) -> None:
    with pytest.raises(NotRecorded, match=message):
        FakeClient(recording).predict(model, row, **call)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"penstock_recording": 2}', '{"penstock_recording": 1}'])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"other\.json is not a recording"):
        FakeClient(path)


@contextmanager
def fake_gateway(recording: Path) -> Iterator[FakeGateway]:
    with FakeGateway(recording) as gateway:
        thread = threading.Thread(target=gateway.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield gateway
        finally:
            gateway.shutdown()
            thread.join()


def test_the_fake_gateway_answers_any_client(recording: Path) -> None:
    with fake_gateway(recording) as gateway, Client(gateway.url) as client:
        answer = client.predict("iris", ROW, request_id="mine")
        assert answer == Answer(({"label": 5, "raw": b"\x00\xff"},), True, "iris", 7, "mine")
        assert len(client.predict("iris", [ROW, {"x": [1, 2, 3, 4]}]).rows) == 2
        assert client.predict("iris", ROW, version=2).row["label"] == 5
        with pytest.raises(InvalidRequest) as raised:
            client.predict("iris", {"x": [1]})
        assert raised.value.metadata == {"field": "instances[0].x", "received": "1"}
        with pytest.raises(NotFound, match="Record this input") as unknown:
            client.predict("iris", {"x": [9, 9, 9, 9]})
        assert unknown.value.reason == "NOT_RECORDED"
        client.feedback("mine", label=2)
        assert gateway.fake.given == [Feedback("mine", 2, None, None)]
        assert httpx.post(f"{gateway.url}/v1/models/iris:predict", content=b"{").status_code == 400
        assert httpx.post(f"{gateway.url}/elsewhere", content=b"{}").status_code == 404


_VALUES = st.recursive(
    st.one_of(st.integers(-(2**63), 2**63), st.floats(), st.text(), st.booleans()),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(), _VALUES, max_size=3), st.none() | st.integers(1, 9))
def test_every_input_is_found_again(tmp_path_factory: pytest.TempPathFactory, row: Any, version: int | None) -> None:
    path = tmp_path_factory.getbasetemp() / "recording.json"
    answer = Answer(({"y": [1.5]},), False, "m", 3, "r")
    write(path, Recording([Recorded.of(Asked.of("m", row, version=version), answer)], {("m", 1): b"\x00\xff"}))
    found = read(path)
    call = found.found(Asked.of("m", row, version=version))
    assert call is not None
    assert call.answer("r") == answer
    assert found.found(Asked.of("m", row, version=version, major=2)) is None
    assert found.descriptors == {("m", 1): b"\x00\xff"}
    assert json.loads(path.read_text())["penstock_recording"] == 1


def test_every_code_survives(tmp_path: Path) -> None:
    path = tmp_path / "errors.json"
    refused = {code: error_for(code, "no", reason=code.name) for code in Code}
    write(path, Recording([Recorded.of(Asked.of("m", {"x": int(code)}), refused[code]) for code in Code]))
    fake = FakeClient(path)
    for code in Code:
        with pytest.raises(PenstockError) as raised:
            fake.predict("m", {"x": int(code)})
        assert (raised.value.code, raised.value.reason) == (code, code.name)


def matrix(request: Any, messages: MessageClasses) -> Any:
    if request.scale < 0:
        raise Refused(3, "scale: must not be negative", "OUT_OF_RANGE", field="scale", received="-1")
    response: Any = messages.response()
    response.b.extend(request.scale * value for value in request.a)
    return response


def test_the_fake_gateway_answers_typed_grpc(tmp_path: Path) -> None:
    path = tmp_path / "matrix.json"
    with (
        grpc_server({"matrix": CONTRACTS["matrix"]}, matrix) as server,
        GrpcClient(server.address) as client,
        Recorder(client, path) as recorder,
    ):
        recorder.predict("matrix", {"a": [[1, 2, 3], [4, 5, 6]], "scale": 0.1})
        with pytest.raises(InvalidRequest):
            recorder.predict("matrix", {"a": [1, 2, 3, 4, 5, 6], "scale": -1})
    with fake_gateway(path) as gateway:
        with GrpcClient(gateway.url) as client:
            answer = client.predict("matrix", {"a": range_of(6), "scale": np.float32(0.1)}, request_id="mine")
            assert np.allclose(answer.array("b"), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
            assert (answer.version, answer.request_id, answer.model) == (7, "mine", "matrix")
            with pytest.raises(InvalidRequest) as raised:
                client.predict("matrix", {"a": range_of(6), "scale": -1})
            assert (raised.value.reason, raised.value.field) == ("OUT_OF_RANGE", "scale")
            with pytest.raises(NotFound) as unknown:
                client.predict("matrix", {"a": range_of(6), "scale": 2})
            assert unknown.value.reason == "NOT_RECORDED"
            client.feedback("mine", label=1)
        # The same recording over JSON, nested as that has it.
        with Client(gateway.url) as over_json:
            assert over_json.predict("matrix", {"a": [[1, 2, 3], [4, 5, 6]], "scale": 0.1}).version == 7
            with pytest.raises(NotFound):
                over_json.predict("matrix", {"a": [[1, 2], [3, 4], [5, 6]], "scale": 0.1})


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=2),
    st.lists(st.integers(-128, 127), min_size=2, max_size=2),
)
@settings(max_examples=20, deadline=None)
def test_integers_that_javascript_or_protobuf_cannot_tell_are_replayed(
    tmp_path_factory: pytest.TempPathFactory, longs: list[int], bytes_: list[int]
) -> None:
    path = tmp_path_factory.getbasetemp() / "integers.json"
    row = {"in_int64": longs, "in_int8": bytes_}
    asked = Asked.of("every-datatype", row)
    answer = Answer(
        ({"out_int64": longs, "out_int8": bytes(b & 0xFF for b in bytes_)},), True, "every-datatype", 3, "r"
    )
    write(path, Recording([Recorded.of(asked, answer)]))
    (call,) = json.loads(path.read_text())["calls"]
    assert all(isinstance(number, dict) or abs(number) < 2**53 for number in call["inputs"]["in_int64"])
    replayed = FakeClient(path).predict("every-datatype", {"in_int64": np.array(longs), "in_int8": bytes_})
    assert replayed.row == answer.row
    assert replayed.array("out_int8", np.int8).tolist() == [bytes_]


def echo(request: Any, messages: MessageClasses) -> Any:
    response: Any = messages.response()
    for instance in request.instances:
        prediction = response.predictions.add()
        for field, value in instance.ListFields():
            name = field.name.replace("in_", "out_")
            if isinstance(value, bytes):
                setattr(prediction, name, value)
            else:
                getattr(prediction, name).extend(value)
    return response


def test_tensors_of_bytes_and_long_integers_are_replayed_over_grpc(tmp_path: Path) -> None:
    path, contract = tmp_path / "every.json", CONTRACTS["every-datatype"]
    row = example_request(contract)["instances"][0]
    row |= {"in_uint8": [250, 1], "in_int8": [-1, 5], "in_int64": [2**53 + 1, -(2**63)], "in_uint64": [2**64 - 1, 0]}
    with (
        grpc_server({"every-datatype": contract}, echo) as server,
        GrpcClient(server.address) as client,
        Recorder(client, path) as recorder,
    ):
        recorded = recorder.predict("every-datatype", row)
    assert recorded.array("out_int8", np.int8).tolist() == [[-1, 5]]
    assert recorded.array("out_uint8", np.uint8).tolist() == [[250, 1]]
    assert FakeClient(path).predict("every-datatype", row).rows == recorded.rows
    with fake_gateway(path) as gateway, GrpcClient(gateway.url) as client:
        assert client.predict("every-datatype", row).rows == recorded.rows
        assert client.predict("every-datatype", {**row, "in_int8": b"\xff\x05"}).rows == recorded.rows


def test_requests_in_files_are_recorded_from_a_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, right, wrong = tmp_path / "recorded.json", tmp_path / "right.json", tmp_path / "wrong.json"
    right.write_text('{"a": [1, 2, 3], "scale": 2}')
    wrong.write_text('{"a": [1, 2, 3], "scale": -1}')
    with grpc_server({"matrix": CONTRACTS["matrix"]}, matrix) as server:
        out = ["--version", "7", "--out", str(path)]
        assert record.main([server.address, "matrix", str(right), str(wrong), *out]) == 0
        assert record.main([server.address, "tulip", str(right)]) == 1
        right.write_text("{")
        assert record.main([server.address, "matrix", str(right)]) == 1
    said = capsys.readouterr()
    assert "right.json: answered by version 7" in said.out
    assert "wrong.json: INVALID_ARGUMENT: scale: must not be negative" in said.out
    assert "no model 'tulip' here; there are: matrix" in said.err
    with fake_gateway(path) as gateway, GrpcClient(gateway.url) as client:
        assert client.predict("matrix", {"a": [1, 2, 3], "scale": 2.0}, version=7).row["b"] == [2, 4, 6]
        with pytest.raises(InvalidRequest):
            client.predict("matrix", {"a": [1, 2, 3], "scale": -1}, version=7)


def range_of(count: int) -> list[int]:
    return list(range(1, count + 1))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"x": [[1, 2]]}, {"x": [1, 2]}, True),
        ({"x": [[1, 2], [3, 4]]}, {"x": [[1, 2, 3, 4]]}, False),
        ({"x": [[1, 2]]}, {"x": [1, 2], "x_shape": [1, 2]}, True),
        ({"x": [[1, 2]]}, {"x": [1, 2], "x_shape": [2, 1]}, False),
        ({"x": [1], "y": []}, {"x": [1]}, True),
        ([{"x": [1]}], {"x": [1]}, True),
        ([{"x": [1]}, {"x": [2]}], {"x": [1, 2]}, False),
        ({"x": [[-1, 2]]}, {"x": {"b64": "/wI="}}, True),
        ({"x": [255, 2]}, {"x": {"b64": "/wI="}}, True),
        ({"x": [1, 2]}, {"x": {"b64": "/wI="}}, False),
        ({"x": ["a"]}, {"x": {"b64": "/wI="}}, False),
    ],
)
def test_nested_and_flat_are_the_same_where_shapes_agree(one: Any, other: Any, same: bool) -> None:
    assert Asked.of("m", one).matches(Asked.of("m", other)) is same
