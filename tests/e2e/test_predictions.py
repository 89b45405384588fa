"""Every protocol gives onnxruntime's own answer, for every datatype and shape that this release promises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http

from adapters.signature import Datatype
from tests import models
from tests.e2e.running import Penstock
from tests.e2e.typed import from_proto, from_reflection

pytestmark = pytest.mark.e2e

NUMPY = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}


@dataclass(frozen=True)
class Case:
    """`rows` are the inputs per row of a batching model; for one that does not batch, a single mapping."""

    name: str
    artefact: bytes
    rows: list[dict[str, Any]] | dict[str, Any]


F32 = [0.1, -2.5, 3.4028235e38, 1e-42]
F64 = [0.1, -2.5, 1.7976931348623157e308, 5e-324]
I32 = [0, -1, 2**31 - 1, -(2**31)]
I64 = [0, -1, 2**63 - 1, -(2**63)]
TEXT = ["", "snow ☃ man", 'quo"te\\', "\n\t\x01"]

CASES = [
    Case("fp32", models.identity(Datatype.FP32), [{"x": F32}, {"x": F32[::-1]}]),
    Case("fp64", models.identity(Datatype.FP64), [{"x": F64}, {"x": F64[::-1]}]),
    Case("int32", models.identity(Datatype.INT32), [{"x": I32}, {"x": I32[::-1]}]),
    Case("int64", models.identity(Datatype.INT64), [{"x": I64}, {"x": I64[::-1]}]),
    Case("truths", models.identity(Datatype.BOOL), [{"x": [True, False, False, True]}]),
    Case("bytes", models.identity(Datatype.BYTES), [{"x": TEXT}, {"x": TEXT[::-1]}]),
    Case("matrix", models.add_one(Datatype.FP32, (2, 3)), [{"x": [[1, 2, 3], [4, 5, 6]]}]),
    Case("dynamic", models.sums(), [{"x": [1.5, 2.5, 3.0]}, {"x": [4.0, 5.0, 6.5]}]),
    Case("scalars", models.scalars(), [{"a": 1.5, "b": 2.0}, {"a": 3.0, "b": 3.0}, {"a": 0.0, "b": 0.0}]),
    Case("exclaim", models.string_exclaim(), [{"x": ["a", ""]}]),
    Case("classifier", models.classifier(), [{"X": [1, 2, 3, 4]}, {"X": [-4, 3, -2, 1]}]),
    Case("one-fp32", models.identity(Datatype.FP32, (2, 2), batching=False), {"x": [[1.5, 2.5], [3.5, 4.5]]}),
    Case("one-int64", models.add_one(Datatype.INT64, (4,), batching=False), {"x": [1, 2, 3, -4]}),
    Case("one-bytes", models.string_exclaim(batching=False), {"x": ["left", "right"]}),
    Case("one-dynamic", models.sums(batching=False), {"x": [1.0, 2.0, 4.0]}),
    Case("one-scalars", models.scalars(batching=False), {"a": 0.25, "b": 0.25}),
]
IDS = [case.name for case in CASES]


def camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.replace("-", "_").split("_"))


def service(name: str) -> str:
    return f"penstock.models.{name.replace('-', '_')}.v1.{camel(name)}"


def oracle(case: Case) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, np.ndarray[Any, Any]]]:
    """The input arrays, and onnxruntime's own outputs for them."""
    session = onnxruntime.InferenceSession(case.artefact, providers=["CPUExecutionProvider"])
    inputs = {}
    for one in session.get_inputs():
        value = case.rows[one.name] if isinstance(case.rows, dict) else [row[one.name] for row in case.rows]
        inputs[one.name] = np.array(value, NUMPY[one.type])
    names = [output.name for output in session.get_outputs()]
    return inputs, dict(zip(names, session.run(names, inputs), strict=True))


def expected_rows(case: Case, outputs: dict[str, np.ndarray[Any, Any]]) -> list[dict[str, Any]] | dict[str, Any]:
    if isinstance(case.rows, dict):
        return {name: array.tolist() for name, array in outputs.items()}
    return [{name: array[row].tolist() for name, array in outputs.items()} for row in range(len(case.rows))]


def flat(value: Any) -> Any:
    """Typed messages carry tensors flat."""
    if isinstance(value, dict):
        return {
            name: np.array(one, object).ravel().tolist() if isinstance(one, list) else one
            for name, one in value.items()
        }
    return [flat(row) for row in value]


@pytest.fixture(scope="module")
def deployed(penstock: Penstock) -> Penstock:
    for case in CASES:
        penstock.deploy_live(case.name, case.artefact)
    return penstock


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_json_over_http1_and_http2(deployed: Penstock, case: Case) -> None:
    _, outputs = oracle(case)
    body: dict[str, Any] = case.rows if isinstance(case.rows, dict) else {"instances": case.rows}
    for client in (httpx.Client(), httpx.Client(http1=False, http2=True)):
        with client:
            response = client.post(f"{deployed.url}/v1/models/{case.name}:predict", json=body)
        assert response.status_code == 200, response.text
        answer = response.json() if isinstance(case.rows, dict) else response.json()["predictions"]
        expected = expected_rows(case, outputs)
        assert as_arrays(case, answer, outputs) == as_arrays(case, expected, outputs)
        assert response.headers["x-penstock-model"] == case.name
        assert response.headers["x-penstock-version"] == "1"
        assert response.headers["x-request-id"]


def as_arrays(case: Case, answer: Any, outputs: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    """Bytes of each output in the model's own precision: JSON's shortest float32 is not Python's float."""
    arrays = {}
    for name, output in outputs.items():
        value = answer[name] if isinstance(answer, dict) else [row[name] for row in answer]
        array = np.array(value, output.dtype)
        assert array.shape == output.shape
        arrays[name] = array.tolist() if output.dtype == object else array.tobytes()
    return arrays


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_typed_grpc_by_the_served_proto_and_by_reflection(deployed: Penstock, case: Case) -> None:
    _, outputs = oracle(case)
    expected = flat(expected_rows(case, outputs))
    rows: Any = flat(case.rows)
    with grpc.insecure_channel(deployed.authority) as channel:
        for client in (
            from_proto(channel, deployed.url, case.name, service(case.name)),
            from_reflection(channel, service(case.name)),
        ):
            assert client.predict(rows) == expected


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_tritonclient_over_http_and_grpc(deployed: Penstock, case: Case) -> None:
    inputs, outputs = oracle(case)
    datatypes = {np.dtype("O"): "BYTES", np.dtype(bool): "BOOL"}
    for library, port in ((triton_http, deployed.authority), (triton_grpc, deployed.authority)):
        client = library.InferenceServerClient(port)
        try:
            sent = []
            for name, array in inputs.items():
                kind = datatypes.get(array.dtype) or (
                    f"FP{array.itemsize * 8}" if array.dtype.kind == "f" else f"INT{array.itemsize * 8}"
                )
                # Triton has no tensors of rank 0: a scalar is a tensor of one element.
                scalar = array.ndim == (0 if isinstance(case.rows, dict) else 1)
                wire = array.reshape(*array.shape, 1) if scalar else array
                tensor = library.InferInput(name, list(wire.shape), kind)
                tensor.set_data_from_numpy(
                    np.array([str(v).encode() for v in wire.ravel()], object).reshape(wire.shape)
                    if kind == "BYTES"
                    else wire
                )
                sent.append(tensor)
            assert client.is_server_live()
            assert client.is_server_ready()
            assert client.is_model_ready(case.name)
            result = client.infer(case.name, sent, request_id="mine")
            for name, output in outputs.items():
                got = result.as_numpy(name)
                if output.dtype == object:
                    assert [v.decode() for v in got.ravel()] == output.ravel().tolist()
                else:
                    assert got.ravel().tobytes() == output.ravel().tobytes()
            response = result.get_response()
            said = (
                (response["model_name"], response["model_version"], response["id"])
                if isinstance(response, dict)
                else (response.model_name, response.model_version, response.id)
            )
            assert said == (case.name, "1", "mine")
        finally:
            client.close()


def test_documents_are_served_for_every_model(deployed: Penstock) -> None:
    merged = httpx.get(f"{deployed.url}/openapi.json").json()
    assert merged["openapi"].startswith("3.1")
    for case in CASES:
        assert f"/v1/models/{case.name}:predict" in merged["paths"]
        own = httpx.get(f"{deployed.url}/v1/models/{case.name}/openapi.json")
        assert own.json()["openapi"].startswith("3.1")
        page = httpx.get(f"{deployed.url}/docs/{case.name}")
        assert page.status_code == 200
        assert case.name in page.text


def test_the_example_of_every_document_works_when_sent(deployed: Penstock) -> None:
    for case in CASES:
        document = httpx.get(f"{deployed.url}/v1/models/{case.name}/openapi.json").json()
        operation = document["paths"][f"/v1/models/{case.name}:predict"]["post"]
        media = operation["requestBody"]["content"]["application/json"]
        examples = [media["example"]] if "example" in media else [e["value"] for e in media["examples"].values()]
        assert examples
        for example in examples:
            response = httpx.post(f"{deployed.url}/v1/models/{case.name}:predict", json=example)
            assert response.status_code == 200, (case.name, example, response.text)
