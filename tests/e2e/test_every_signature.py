"""Every signature of the fixture set, over every protocol, through the real Envoy and Triton: bit for bit what
onnxruntime itself answers.

In `make test` are the fixtures marked `quick`, one of each kind. All of them are nightly (`make test-all`): each model
is a process of Triton's that imports onnxruntime, so that all of them need a minute or two and gigabytes of memory,
which is too much for every change.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http

from adapters.onnx.run import run
from adapters.sample import Array
from adapters.signature import TensorSpec
from adapters.triton.config import served_wire_shape
from gateway.contract.derive import derive
from gateway.contract.descriptor import message_classes
from gateway.contract.open_inference import NOT_IN_JSON, calls
from gateway.contract.proto import proto_text
from gateway.contract.snippets import Gateway
from tests.e2e.running import Penstock
from tests.lua import vectors
from tests.lua.vectors import Model
from tests.signatures.fixtures import FIXTURES, Fixture
from tests.signatures.values import from_json, inputs_of

pytestmark = pytest.mark.e2e

ROWS = 2


@dataclass(frozen=True)
class Live:
    """A fixture that is served, with what callers know of it and what onnxruntime says."""

    fixture: Fixture
    model: Model
    session: Any
    penstock: Penstock

    @property
    def name(self) -> str:
        return self.fixture.name

    @property
    def batching(self) -> bool:
        return self.fixture.signature.batching

    def inputs(self, *, finite: bool, optional: bool = True) -> dict[str, Array]:
        return inputs_of(self.fixture.signature, rows=ROWS, finite=finite, optional=optional)

    def arrays(self, inputs: Mapping[str, Array]) -> list[Any]:
        """In the order of the contract, text as bytes, None for what is left out."""
        arrays = [inputs.get(field.name) for field in self.model.contract.inputs]
        return [_as_bytes(array) if array is not None and array.dtype == np.object_ else array for array in arrays]

    def expected(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        names = [spec.name for spec in self.fixture.signature.outputs]
        return dict(zip(names, run(self.session, names, inputs), strict=True))

    def check(self, answer: Mapping[str, Array], inputs: Mapping[str, Array]) -> None:
        """Equal to the last bit (any NaN is as good as another), shapes included."""
        expected = self.expected(inputs)
        assert set(answer) == set(expected)
        for spec in self.fixture.signature.outputs:
            got, want = answer[spec.name], expected[spec.name]
            assert got.shape == want.shape, spec.name
            assert vectors.raw(spec.datatype, _as_bytes(got)) == vectors.raw(spec.datatype, _as_bytes(want)), spec.name

    def row_shapes(self, expected: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
        return {name: array.shape[1:] if self.batching else array.shape for name, array in expected.items()}


def _as_bytes(array: Array) -> Array:
    if array.dtype != np.object_:
        return array
    made = np.empty(array.size, np.object_)
    made[:] = [each.encode() if isinstance(each, str) else each for each in array.ravel()]
    return made.reshape(array.shape)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(fixture, id=name, marks=() if fixture.quick else pytest.mark.nightly)
        for name, fixture in FIXTURES.items()
    ],
)
def live(request: pytest.FixtureRequest, penstock: Penstock) -> Live:
    fixture: Fixture = request.param
    artefact = fixture.artefact()
    penstock.deploy_live(fixture.name, artefact)
    contract = derive(fixture.name, fixture.signature)
    session = onnxruntime.InferenceSession(artefact, providers=["CPUExecutionProvider"])
    return Live(fixture, Model(contract, message_classes(contract)), session, penstock)


def test_the_file_has_the_signature_that_is_published(live: Live) -> None:
    """So that the messages of this test are the ones that callers generate."""
    served = httpx.get(f"{live.penstock.url}/v1/models/{live.name}.proto").raise_for_status().text
    assert served == proto_text(live.model.contract)


@pytest.mark.parametrize("optional", [True, False], ids=["all", "required"])
def test_typed_grpc(live: Live, optional: bool) -> None:
    inputs = live.inputs(finite=False, optional=optional)
    request = vectors.typed_request(live.model, live.arrays(inputs))
    with grpc.insecure_channel(live.penstock.authority) as channel:
        call = channel.unary_unary(
            live.model.contract.predict_grpc_path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=live.model.classes.response.FromString,
        )
        response = call(request, timeout=30)
    rows = list(response.predictions) if live.batching else [response]
    assert len(rows) == (ROWS if live.batching else 1)
    shapes = live.row_shapes(live.expected(inputs))
    live.check(_stacked(live, [_from_message(live, row, shapes) for row in rows]), inputs)


def _from_message(live: Live, row: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    found = {}
    for field in live.model.contract.outputs:
        shape = shapes[field.name]
        if field.shape_field:
            assert tuple(getattr(row, field.shape_field.proto_name)) == shape
        value = getattr(row, field.proto_name)
        if field.proto_type == "bytes":
            array = np.frombuffer(value, vectors.DTYPES[field.datatype])
        elif field.repeated:
            array = np.array(list(value), vectors.DTYPES[field.datatype])
        else:
            assert row.HasField(field.proto_name)
            array = np.array([value], vectors.DTYPES[field.datatype])
        found[field.name] = array.reshape(shape)
    return found


def _stacked(live: Live, rows: list[dict[str, Array]]) -> dict[str, Array]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]} if live.batching else rows[0]


@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])
@pytest.mark.parametrize("optional", [True, False], ids=["all", "required"])
def test_typed_json(live: Live, flat: bool, optional: bool) -> None:
    inputs = live.inputs(finite=False, optional=optional)
    body = vectors.json_request(live.model, live.arrays(inputs), flat=flat)
    response = httpx.post(f"{live.penstock.url}{live.model.contract.predict_http_path}", json=body, timeout=30)
    assert response.status_code == 200, response.text
    answer = vectors.parse_strict(response.content)
    rows = answer["predictions"] if live.batching else [answer]
    shapes = live.row_shapes(live.expected(inputs))
    specs = live.fixture.signature.outputs
    arrays = [{s.name: from_json(s, row[s.name], shapes[s.name]) for s in specs} for row in rows]
    live.check(_stacked(live, arrays), inputs)


def test_open_inference_over_grpc(live: Live) -> None:
    inputs = live.inputs(finite=False)
    with triton_grpc.InferenceServerClient(live.penstock.authority) as client:
        answer = client.infer(live.name, _tensors(triton_grpc, live, inputs))
    live.check(_from_open_inference(live, answer), inputs)


def test_open_inference_over_http_in_binary(live: Live) -> None:
    inputs = live.inputs(finite=False)
    with triton_http.InferenceServerClient(live.penstock.authority) as client:
        answer = client.infer(live.name, _tensors(triton_http, live, inputs))
    live.check(_from_open_inference(live, answer), inputs)


def test_open_inference_over_http_in_json(live: Live) -> None:
    """FP16 and BF16 have no JSON form in the protocol, nor has NaN."""
    tensors = (*live.fixture.signature.inputs, *live.fixture.signature.outputs)
    if not NOT_IN_JSON.isdisjoint(spec.datatype for spec in tensors):
        return
    inputs = live.inputs(finite=True)
    outputs = [
        triton_http.InferRequestedOutput(spec.name, binary_data=False) for spec in live.fixture.signature.outputs
    ]
    with triton_http.InferenceServerClient(live.penstock.authority) as client:
        answer = client.infer(live.name, _tensors(triton_http, live, inputs, binary_data=False), outputs=outputs)
    live.check(_from_open_inference(live, answer), inputs)


def _tensors(library: Any, live: Live, inputs: Mapping[str, Array], **how: bool) -> list[Any]:
    made = []
    for spec in live.fixture.signature.inputs:
        array = _as_bytes(inputs[spec.name])
        wire = array if spec.shape else array.reshape((*array.shape, *served_wire_shape(spec)))
        tensor = library.InferInput(spec.name, list(wire.shape), spec.datatype.value)
        tensor.set_data_from_numpy(wire, **how)
        made.append(tensor)
    return made


def _from_open_inference(live: Live, answer: Any) -> dict[str, Array]:
    return {spec.name: _unwrapped(spec, answer.as_numpy(spec.name)) for spec in live.fixture.signature.outputs}


def _unwrapped(spec: TensorSpec, array: Array) -> Array:
    """Triton knows no tensor without a dimension of its own: a scalar is one element."""
    return array if spec.shape else array.reshape(array.shape[:-1])


def test_the_examples_of_its_documents_work(live: Live) -> None:
    document = httpx.get(f"{live.penstock.url}/v1/models/{live.name}/openapi.json").raise_for_status().json()
    path = live.model.contract.predict_http_path
    media = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    response = httpx.post(f"{live.penstock.url}{path}", json=media["example"], timeout=30)
    assert response.status_code == 200, response.text


def test_the_open_inference_calls_of_its_page_work(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    """Shown where there is no typed API; made from the tensors alone, so they must work for any model."""
    for snippet in calls(live.model.contract, Gateway(live.penstock.authority)):
        if snippet.title.startswith("Python"):
            exec(snippet.text, {})
            printed = capsys.readouterr().out
            assert all(spec.name in printed for spec in live.fixture.signature.outputs)
        else:
            done = subprocess.run(["bash", "-c", snippet.text], capture_output=True, text=True, timeout=60, check=True)
            answer = json.loads(done.stdout)
            assert {output["name"] for output in answer["outputs"]} == {
                spec.name for spec in live.fixture.signature.outputs
            }
