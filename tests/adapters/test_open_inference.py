"""Signatures from Open Inference metadata alone: what servers without Triton's ModelConfig say."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from adapters.open_inference import signature_of_metadata
from adapters.server import Address, NotReady, Served
from adapters.signature import DYNAMIC, Datatype, Signature, TensorSpec
from adapters.triton.client import Triton

MLSERVER: dict[str, Any] = {
    # What MLServer answers for a model whose model-settings.json lists its tensors
    # (https://mlserver.readthedocs.io, "Model Settings"): optional members are null, content types are parameters.
    "name": "mnist-svm",
    "versions": [],
    "platform": "",
    "inputs": [
        {"name": "images", "datatype": "FP32", "shape": [-1, 28, 28], "parameters": {"content_type": "np"}},
        {"name": "hints", "datatype": "BYTES", "shape": [-1], "parameters": {"content_type": "str"}},
    ],
    "outputs": [{"name": "predict", "datatype": "INT64", "shape": [-1], "parameters": None}],
    "parameters": {},
}


def test_mlservers_answer_is_a_model_that_does_not_batch() -> None:
    assert signature_of_metadata(MLSERVER) == Signature(
        (
            TensorSpec("images", Datatype.FP32, (DYNAMIC, 28, 28)),
            TensorSpec("hints", Datatype.BYTES, (DYNAMIC,)),
        ),
        (TensorSpec("predict", Datatype.INT64, (DYNAMIC,)),),
    )


def test_who_knows_the_batch_size_may_say_it() -> None:
    signature = signature_of_metadata(MLSERVER, max_batch_size=16)
    assert signature.max_batch_size == 16
    assert [spec.shape for spec in (*signature.inputs, *signature.outputs)] == [(28, 28), (), ()]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"inputs": None}, "names no inputs or no outputs: with MLServer, list them in the model's model-settings"),
        ({"outputs": []}, "names no inputs or no outputs"),
        ({"inputs": "x"}, "inputs is not a list of tensors"),
        ({"inputs": ["x"]}, "inputs is not a list of tensors"),
        ({"outputs": [{"name": "y", "datatype": "FP8"}]}, "output 'y' of 'mnist-svm' has the datatype 'FP8'"),
        ({"outputs": [{"name": "y", "datatype": "FP32", "shape": ["a"]}]}, r"has the shape \['a'\]: expected a list"),
        ({"outputs": [{"name": "y", "datatype": "FP32", "shape": 3}]}, "has the shape 3: expected a list"),
    ],
)
def test_metadata_that_is_no_signature_says_why(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(NotReady, match=reason):
        signature_of_metadata(MLSERVER | change)


def test_rows_must_come_first_in_every_tensor() -> None:
    fixed = {"name": "x", "datatype": "FP32", "shape": [4]}
    with pytest.raises(NotReady, match=r"input 'x' of 'mnist-svm' has the shape \[4\]: expected -1 first"):
        signature_of_metadata(MLSERVER | {"inputs": [fixed]}, max_batch_size=8)


async def test_a_server_that_knows_no_triton_extension_is_believed_by_its_metadata() -> None:
    """Stands in for MLServer, which needs an environment of its own: ModelMetadata, and UNIMPLEMENTED for the rest."""

    async def metadata(_request: Any, _context: Any) -> Any:
        tensors = {side: [{**tensor, "parameters": {}} for tensor in MLSERVER[side]] for side in ("inputs", "outputs")}
        plain = json.dumps({"name": MLSERVER["name"], **tensors})
        return json_format.Parse(plain, service_pb2.ModelMetadataResponse(), ignore_unknown_fields=True)

    handler = grpc.unary_unary_rpc_method_handler(
        metadata,
        request_deserializer=service_pb2.ModelMetadataRequest.FromString,
        response_serializer=service_pb2.ModelMetadataResponse.SerializeToString,
    )
    server = grpc.aio.server()
    service = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelMetadata": handler})
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    address = Address("127.0.0.1", port)
    client = Triton(name="mlserver", grpc=address, http=address)
    try:
        assert await client.describe(Served("mnist-svm", "")) == signature_of_metadata(MLSERVER)
    finally:
        await client.close()
        await server.stop(None)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | st.sampled_from(["FP32", "x", "-1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "datatype", "shape", "inputs", "outputs"]), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["name", "inputs", "outputs"]), json_values))
def test_any_json_is_a_signature_or_a_reason(metadata: dict[str, Any]) -> None:
    try:
        signature = signature_of_metadata(metadata)
    except NotReady:
        return
    assert signature.inputs
    assert signature.outputs
