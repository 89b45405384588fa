"""The .proto text compiles to the very descriptor that is built directly, and its stubs work over gRPC."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from google.protobuf import descriptor_pool, json_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.signature import DYNAMIC, Datatype, Signature, TensorSpec
from gateway.contract.derive import derive
from gateway.contract.descriptor import (
    default_json_name,
    descriptor_set,
    file_descriptor,
    message_classes,
    proto_file_name,
)
from gateway.contract.examples import example_inputs, example_proto_json
from gateway.contract.model import NoTypedApi
from gateway.contract.proto import proto_text
from tests.contract.cases import CONTRACTS, TYPED
from tests.contract.compiling import compile_texts, run_protoc, without_options


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FileDescriptorProto]:
    texts = {proto_file_name(contract): proto_text(contract) for contract in TYPED.values()}
    return compile_texts(tmp_path_factory.mktemp("protos"), texts)


@pytest.mark.parametrize("model", TYPED)
def test_protoc_makes_the_same_descriptor_of_the_text(model: str, compiled: dict[str, FileDescriptorProto]) -> None:
    ours = file_descriptor(CONTRACTS[model])
    assert without_options(compiled[ours.name]) == ours


def test_the_text_without_annotations_imports_nothing_and_says_the_same(tmp_path: Path) -> None:
    texts = {proto_file_name(c): proto_text(c, annotations=False) for c in TYPED.values()}
    for name, file in compile_texts(tmp_path, texts).items():
        assert not file.dependency
        (ours,) = [file_descriptor(c) for c in TYPED.values() if proto_file_name(c) == name]
        assert without_options(file) == ours


def test_the_text_maps_predict_to_its_http_path(compiled: dict[str, FileDescriptorProto]) -> None:
    file = compiled[proto_file_name(CONTRACTS["google"])]
    options = file.service[0].method[0].options
    assert b"/v1/models/google:predict" in options.SerializeToString()


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12) | st.sampled_from(
    ["x", "x_shape", "x_shape_2", "xShape", "X", "x-shape"]
)
tensors = st.lists(
    st.builds(
        TensorSpec,
        name=names,
        datatype=st.sampled_from(Datatype),
        optional=st.booleans(),
        labels=st.lists(st.text(max_size=3), max_size=2).map(tuple),
        description=st.text(max_size=12),
        shape=st.one_of(
            st.lists(st.integers(1, 9), max_size=3).map(tuple),
            st.lists(st.sampled_from([DYNAMIC, 0, 3]), max_size=4).map(tuple),
        ),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda tensor: tensor.name,
).map(tuple)


@settings(max_examples=60, deadline=None)
@given(st.builds(Signature, inputs=tensors, outputs=tensors, max_batch_size=st.integers(0, 2), decoupled=st.booleans()))
def test_protoc_takes_any_signature(signature: Signature) -> None:
    contract = derive("any", signature)
    with TemporaryDirectory() as folder:
        (file,) = compile_texts(Path(folder), {proto_file_name(contract): proto_text(contract)}).values()
    assert without_options(file) == file_descriptor(contract)


@pytest.mark.parametrize("model", TYPED)
def test_messages_take_the_example_and_survive_the_wire(model: str) -> None:
    messages = message_classes(CONTRACTS[model])
    example = example_proto_json(CONTRACTS[model])
    request = json_format.ParseDict(example, messages.request(), descriptor_pool=messages.pool)
    again = messages.request.FromString(request.SerializeToString())
    assert again == request
    row = again.instances[0] if messages.instance else again  # type: ignore[attr-defined]  # made at run time
    given = example_inputs(CONTRACTS[model])
    assert len(row.ListFields()) == sum(len(field.numbers) for field in given)


@pytest.mark.parametrize("model", sorted(set(CONTRACTS) - set(TYPED)))
def test_without_a_typed_api_there_is_no_file(model: str) -> None:
    for write in (proto_text, file_descriptor):
        with pytest.raises(NoTypedApi, match="has no typed API: "):
            write(CONTRACTS[model])


def test_absence_of_a_scalar_shows() -> None:
    messages = message_classes(CONTRACTS["every-scalar"])
    request = messages.request()
    assert not request.HasField("in_fp32")
    setattr(request, "in_fp32", 0.0)  # noqa: B010  # a plain assignment does not type: the class is made at run time
    assert request.HasField("in_fp32")


def test_packed_floats_are_the_little_endian_tensor() -> None:
    messages = message_classes(CONTRACTS["iris"])
    assert messages.instance is not None
    instance = messages.instance(x=[1.0, 2.0, 3.0, 4.0])
    assert instance.SerializeToString() == b"\x0a\x10" + bytes.fromhex("0000803f000000400000404000008040")


def test_two_models_and_two_majors_do_not_collide() -> None:
    first = message_classes(CONTRACTS["iris"])
    second = message_classes(CONTRACTS["iris"])
    assert first.request.DESCRIPTOR.full_name == second.request.DESCRIPTOR.full_name
    assert first.pool is not second.pool


def test_a_descriptor_set_holds_every_model() -> None:
    found = descriptor_set(TYPED.values())
    assert [file.name for file in found.file] == [proto_file_name(c) for c in TYPED.values()]


@pytest.mark.parametrize("model", TYPED)
def test_default_json_names_are_protocs(model: str) -> None:
    for field in message_classes(CONTRACTS[model]).request.DESCRIPTOR.fields:
        bare = FileDescriptorProto(name="bare.proto", syntax="proto3")
        assert default_json_name(field.name) == _protocs_json_name(bare, field.name)


def _protocs_json_name(file: FileDescriptorProto, field: str) -> str:

    message = file.message_type.add(name="M")
    message.field.add(name=field, number=1, type="TYPE_BOOL", label="LABEL_OPTIONAL")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return str(pool.FindMessageTypeByName("M").fields[0].json_name)


STUBS_AT_WORK = '''
"""A server and a client made of nothing but the generated stubs."""
from concurrent import futures

import grpc
import iris_pb2
import iris_pb2_grpc


class Servicer(iris_pb2_grpc.IrisServicer):
    def Predict(self, request, context):
        rows = [iris_pb2.Prediction(label=int(max(row.x)), probabilities=row.x[:3]) for row in request.instances]
        return iris_pb2.PredictResponse(predictions=rows)


server = grpc.server(futures.ThreadPoolExecutor(1))
iris_pb2_grpc.add_IrisServicer_to_server(Servicer(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    stub = iris_pb2_grpc.IrisStub(channel)
    answer = stub.Predict(iris_pb2.PredictRequest(instances=[iris_pb2.Instance(x=[1, 2, 3, 9])]), timeout=20)
server.stop(None)
print(answer.predictions[0].label, list(answer.predictions[0].probabilities))
'''


@pytest.mark.parametrize("annotations", [True, False])
def test_grpc_stubs_made_from_the_text_work(tmp_path: Path, annotations: bool) -> None:
    (tmp_path / "iris.proto").write_text(proto_text(CONTRACTS["iris"], annotations=annotations), encoding="utf-8")
    run_protoc(tmp_path, f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}", "iris.proto")
    (tmp_path / "at_work.py").write_text(STUBS_AT_WORK, encoding="utf-8")
    done = subprocess.run([sys.executable, "at_work.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "9 [1.0, 2.0, 3.0]\n"
