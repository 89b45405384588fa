"""Triton configurations: what a signature becomes, and that it can be read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc.model_config_pb2 import ModelConfig

from adapters.server import Artefact, NotReady
from adapters.signature import DYNAMIC, Datatype, Signature, TensorSpec
from adapters.triton.ask_once import SEQUENCE
from adapters.triton.config import model_config, served_wire_shape
from adapters.triton.describe import signature_of
from adapters.triton.settings import ModelBackend, TritonSettings

dimension = st.one_of(st.just(DYNAMIC), st.integers(1, 1_000_000))
specs = st.builds(
    TensorSpec,
    name=st.text(min_size=1, max_size=20),
    datatype=st.sampled_from(Datatype),
    shape=st.lists(dimension | st.just(0), max_size=4).map(tuple),
)


def read_back(config: Any) -> Signature:
    """A configuration that names its tensors needs no metadata beside it."""
    return signature_of(config, {})


@st.composite
def signatures(draw: st.DrawFn) -> Signature:
    tensors = draw(st.lists(specs, min_size=2, max_size=8, unique_by=lambda spec: spec.name))
    cut = draw(st.integers(1, len(tensors) - 1))
    inputs = [replace(tensor, optional=draw(st.booleans())) for tensor in tensors[:cut]]
    return Signature(tuple(inputs), tuple(tensors[cut:]), draw(st.sampled_from([0, 1, 64])))


def stored(signature: Signature) -> Artefact:
    return Artefact("digits", 3, Path("model.onnx"), "sha256:abc", signature)


@given(signatures())
def test_a_configuration_tells_the_signature_it_was_made_from(signature: Signature) -> None:
    made = model_config(stored(signature), name="digits.3", settings=TritonSettings())
    parsed = text_format.Parse(text_format.MessageToString(made), ModelConfig())
    assert read_back(parsed) == signature


@given(signatures())
def test_no_tensor_is_declared_without_dimensions(signature: Signature) -> None:
    made = model_config(stored(signature), name="digits.3", settings=TritonSettings())
    assert all(tensor.dims and 0 not in tensor.dims for tensor in (*made.input, *made.output))
    assert made.HasField("dynamic_batching") is signature.batching


def test_the_configuration_text_is_this() -> None:
    signature = Signature(
        inputs=(TensorSpec("X", Datatype.FP32, (4,)),),
        outputs=(TensorSpec("label", Datatype.INT64, ()), TensorSpec("name", Datatype.BYTES, (DYNAMIC,))),
        max_batch_size=64,
    )
    settings = TritonSettings(backend=ModelBackend.ONNXRUNTIME, instances=2, max_queue_delay_us=100)
    made = model_config(stored(signature), name="digits.3", settings=settings)
    parameters = "".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'
        for key, value in (
            ("penstock_digest", "sha256:abc"),
            ("penstock_model", "digits"),
            ("penstock_shapes", '{\\"label\\": []}'),
            ("penstock_version", "3"),
        )
    )
    expected = text_format.Parse(
        """
        name: "digits.3" backend: "onnxruntime" default_model_filename: "model.onnx" max_batch_size: 64
        input { name: "X" data_type: TYPE_FP32 dims: 4 }
        output { name: "label" data_type: TYPE_INT64 dims: 1 reshape { } }
        output { name: "name" data_type: TYPE_STRING dims: -1 }
        version_policy { latest { num_versions: 1 } }
        instance_group { count: 2 kind: KIND_CPU }
        dynamic_batching { max_queue_delay_microseconds: 100 }
        """
        + parameters,
        ModelConfig(),
    )
    assert made == expected


def test_a_batching_queue_has_no_policy() -> None:
    """With one, Triton's batcher misses wake-ups and requests lie for half a second (docs/decisions/0001)."""
    signature = Signature((TensorSpec("x", Datatype.FP32, (4,)),), (TensorSpec("y", Datatype.FP32, (4,)),), 64)
    made = model_config(stored(signature), name="digits.3", settings=TritonSettings())
    assert not made.dynamic_batching.HasField("default_queue_policy")


def test_what_has_no_shape_travels_as_one_element() -> None:
    assert served_wire_shape(TensorSpec("label", Datatype.INT64, ())) == (1,)
    assert served_wire_shape(TensorSpec("x", Datatype.INT64, (2, DYNAMIC))) == (2, DYNAMIC)


def test_a_vector_of_one_is_not_a_scalar() -> None:
    for rows in (0, 64):
        vector = Signature((TensorSpec("x", Datatype.FP32, (1,)),), (TensorSpec("y", Datatype.FP32, ()),), rows)
        made = model_config(stored(vector), name="digits.3", settings=TritonSettings())
        assert read_back(made) == vector


def test_a_configuration_without_tensors_is_read_from_the_metadata() -> None:
    with pytest.raises(NotReady, match="'strange' names no inputs"):
        signature_of(ModelConfig(name="strange"), {"name": "strange"})
    x, y = {"name": "x", "datatype": "FP32", "shape": ["-1", "4"]}, {"name": "y", "datatype": "INT64", "shape": ["-1"]}
    assert signature_of(ModelConfig(name="m"), {"name": "m", "inputs": [x], "outputs": [y]}) == Signature(
        (TensorSpec("x", Datatype.FP32, (DYNAMIC, 4)),), (TensorSpec("y", Datatype.INT64, (DYNAMIC,)),)
    )


def parsed(text: str) -> ModelConfig:
    return text_format.Parse(text, ModelConfig())


def test_what_a_hand_written_configuration_says_is_read() -> None:
    config = parsed(
        """
        name: "detector" backend: "tensorrt" max_batch_size: 8
        model_transaction_policy { decoupled: true }
        input { name: "image" data_type: TYPE_UINT8 dims: [-1, -1, 3] allow_ragged_batch: true }
        input { name: "threshold" data_type: TYPE_FP32 dims: 1 reshape { } optional: true }
        input { name: "flat" data_type: TYPE_BF16 dims: 6 reshape { shape: [2, 3] } }
        output { name: "names" data_type: TYPE_STRING dims: -1 }
        """
    )
    assert signature_of(config, {}) == Signature(
        (
            TensorSpec("image", Datatype.UINT8, (DYNAMIC, DYNAMIC, 3)),
            TensorSpec("threshold", Datatype.FP32, (), optional=True),
            # Callers send what dims says; the reshape is between the server and the model.
            TensorSpec("flat", Datatype.BF16, (6,)),
        ),
        (TensorSpec("names", Datatype.BYTES, (DYNAMIC,)),),
        8,
        decoupled=True,
    )


def test_a_model_with_state_says_that_typed_calls_cannot_reach_it() -> None:
    config = parsed(
        """
        name: "m" max_batch_size: 8 sequence_batching { }
        input { name: "x" data_type: TYPE_FP32 dims: 1 } output { name: "y" data_type: TYPE_FP32 dims: 1 }
        """
    )
    assert signature_of(config, {}).obstacles == (SEQUENCE,)


def test_shape_tensors_have_no_rows_so_the_whole_shapes_of_the_metadata_count() -> None:
    config = parsed(
        """
        name: "m" max_batch_size: 8
        input { name: "x" data_type: TYPE_FP32 dims: -1 }
        input { name: "size" data_type: TYPE_INT32 dims: 1 is_shape_tensor: true }
        output { name: "y" data_type: TYPE_FP32 dims: -1 }
        """
    )
    tensors = [{"name": n, "datatype": d, "shape": s} for n, d, s in (("x", "FP32", [-1, -1]), ("size", "INT32", [2]))]
    y = {"name": "y", "datatype": "FP32", "shape": [-1, -1]}
    signature = signature_of(config, {"name": "m", "inputs": tensors, "outputs": [y]})
    assert not signature.batching
    assert [spec.shape for spec in signature.inputs] == [(DYNAMIC, DYNAMIC), (2,)]


def test_a_data_type_that_is_none_is_refused() -> None:
    config = parsed('name: "m" input { name: "x" dims: 1 } output { name: "y" data_type: TYPE_FP32 dims: 1 }')
    with pytest.raises(NotReady, match="tensor 'x' of 'm' has the data type TYPE_INVALID"):
        signature_of(config, {})
