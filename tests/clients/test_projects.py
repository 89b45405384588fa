"""The projects that `penstock api --format` writes: complete, accepted by protoc, and right about names and types."""

from __future__ import annotations

import io
import json
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.json_format import Parse
from penstock_client import Answer, Client
from penstock_client.fake import FakeClient, Recorder

from gateway.codegen.formats import Format, UnknownFormat, asked_format
from gateway.codegen.project import project, zipped
from gateway.contract.descriptor import file_descriptor, message_classes, proto_file_name
from gateway.contract.examples import example_request, example_response
from gateway.contract.model import NoTypedApi
from gateway.contract.snippets import Gateway
from tests.clients.servers import Seen, http_server
from tests.contract.cases import CONTRACTS
from tests.contract.compiling import compile_texts, without_options

GATEWAY = Gateway("gateway.example:80")
TYPED = {name: contract for name, contract in CONTRACTS.items() if contract.typed and contract.unary}
FOLDERS = [format for format in Format if not format.single]


@pytest.mark.parametrize("format", FOLDERS)
@pytest.mark.parametrize("name", TYPED)
def test_every_project_has_its_proto_an_example_that_fits_and_a_readme(format: Format, name: str) -> None:
    files = project(format, TYPED[name], GATEWAY)
    readme = files["README.md"].decode()
    assert "You must install" in readme
    assert not any(name.endswith(".j2") or "__" in name for name in files)
    if format is not Format.PYTHON:
        Parse(files["example.json"].decode(), message_classes(TYPED[name]).request())


@pytest.mark.parametrize("format", [Format.PROTO, Format.OPENAPI, Format.DESCRIPTOR, Format.CURL])
def test_a_document_is_one_file(format: Format) -> None:
    assert format.single
    ((path, content),) = project(format, CONTRACTS["iris"], GATEWAY).items()
    assert path.startswith("iris")
    assert content


def test_a_model_without_a_typed_api_has_no_project() -> None:
    with pytest.raises(NoTypedApi, match="has no typed API"):
        project(Format.GO, CONTRACTS["untyped"], GATEWAY)


def test_a_model_that_streams_has_documents_only() -> None:
    assert project(Format.PROTO, CONTRACTS["streams"], GATEWAY)
    with pytest.raises(UnknownFormat, match="answers in streams"):
        project(Format.GO, CONTRACTS["streams"], GATEWAY)


def test_an_unknown_format_names_those_there_are() -> None:
    with pytest.raises(UnknownFormat, match=r"no format 'cobol'; expected one of proto, .*kotlin"):
        asked_format("cobol")


def test_the_archive_is_the_same_each_time() -> None:
    files = project(Format.KOTLIN, CONTRACTS["iris"], GATEWAY)
    assert zipped(files) == zipped(project(Format.KOTLIN, CONTRACTS["iris"], GATEWAY))
    with zipfile.ZipFile(io.BytesIO(zipped(files))) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files


def module_of(name: str) -> types.ModuleType:
    contract = TYPED[name]
    source = project(Format.PYTHON, contract, GATEWAY)[f"{contract.key}_model.py"].decode()
    module = types.ModuleType(f"{contract.key}_model")
    # dataclasses look their module up there.
    sys.modules[module.__name__] = module
    exec(compile(source, f"{module.__name__}.py", "exec"), module.__dict__)
    return module


class Echo:
    """Answers the example answer of a contract, and keeps what it was asked."""

    def __init__(self, row: dict[str, Any]) -> None:
        self.row = row
        self.asked: list[Any] = []

    def predict(self, model: str, inputs: Any, **call: Any) -> Answer:
        self.asked.append((model, inputs))
        rows = (self.row,) * (len(inputs) if isinstance(inputs, list) else 1)
        return Answer(rows, True, model, 3, "r-1")

    def feedback(self, request_id: str, **given: Any) -> None:
        self.asked.append((request_id, given))


@pytest.mark.parametrize("name", TYPED)
def test_the_typed_python_module_takes_and_gives_the_models_own_names(name: str) -> None:
    contract = TYPED[name]
    module, request, response = module_of(name), example_request(contract), example_response(contract)
    row = request["instances"][0] if contract.batching else request
    client = Echo(response["predictions"][0] if contract.batching else response)
    names = {field.name: field.proto_name for field in contract.inputs}
    instance = module.Instance(**{names[key]: value for key, value in row.items() if key in names})
    answer = getattr(module, f"{contract.service}Model")(client).predict(instance)
    assert client.asked[0] == (contract.model, {key: value for key, value in row.items() if key in names})
    assert (answer.version, answer.request_id) == (3, "r-1")
    for field in contract.outputs:
        value = getattr(answer.row, field.proto_name)
        assert hasattr(value, "shape") == bool(field.tensor.shape)


def test_the_typed_module_works_with_a_recording(tmp_path: Path) -> None:
    def iris(_: Seen) -> tuple[int, Any]:
        return 200, {"predictions": [{"label": 2, "probabilities": [0.0, 0.25, 0.75]}]}

    module = module_of("iris")
    instance = module.Instance(x=[5.1, 3.5, 1.4, 0.2])
    path = tmp_path / "iris.json"
    with http_server(iris) as server, Client(server.address) as client, Recorder(client, path) as recorder:
        module.IrisModel(recorder).predict(instance)
    answer = module.IrisModel(FakeClient(path)).predict(instance)
    assert answer.row.label == 2
    assert answer.row.probabilities.tolist() == [0.0, 0.25, 0.75]
    assert answer.row.probabilities.dtype == "float32"
    assert json.loads(path.read_text())["calls"]


@pytest.mark.parametrize("name", ["every-datatype", "every-scalar"])
def test_the_typed_module_reads_tensors_of_bytes_that_came_over_grpc(name: str) -> None:
    contract = TYPED[name]
    module, row = module_of(name), example_response(contract)
    row = dict(row["predictions"][0] if contract.batching else row)
    values = 2 if contract.batching else 1
    row |= {"out_uint8": b"\xfa\x01"[:values], "out_int8": b"\xff\x01"[:values]}
    answer = getattr(module, f"{contract.service}Model")(Echo(row)).predict(
        module.Instance(**{field.proto_name: 0 for field in contract.inputs})
    )
    assert np.ravel(answer.row.out_uint8)[0] == 250
    assert np.ravel(answer.row.out_int8)[0] == -1


@pytest.mark.parametrize("name", TYPED)
def test_protoc_takes_the_proto_of_a_project(name: str, tmp_path: Path) -> None:
    contract = TYPED[name]
    files = project(Format.SWIFT, contract, GATEWAY)
    text = files[f"proto/{proto_file_name(contract)}"].decode()
    (made,) = compile_texts(tmp_path, {proto_file_name(contract): text}).values()
    assert without_options(made).service == file_descriptor(contract).service
