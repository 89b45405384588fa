"""Requests made from a contract are ones that the contract takes, in all four protocols."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from adapters.signature import Datatype, Signature, TensorSpec
from gateway.contract.derive import derive
from gateway.contract.descriptor import file_descriptor
from gateway.contract.openapi import model_document
from loadtest.examples import Example
from loadtest.inputs import Range, Tensor, flat, random_examples, shape_of
from loadtest.messages import elements, raw_contents, tensor_shape
from loadtest.surface import InferApi, TypedApi, WrongExample, form_of

INFER = service_pb2.DESCRIPTOR
NUMBERS = [datatype for datatype in Datatype if datatype not in (Datatype.BYTES, Datatype.BF16)]
TENSORS = st.lists(
    st.builds(
        TensorSpec,
        name=st.sampled_from(["x", "pixels", "Age", "a_b"]),
        datatype=st.sampled_from(list(Datatype)),
        shape=st.lists(st.sampled_from([-1, 1, 2, 3]), max_size=3).map(tuple),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda tensor: tensor.name,
)
"""Inputs of any datatype, scalars and dynamic dimensions among them."""


def apis(inputs: list[TensorSpec], max_batch_size: int) -> tuple[TypedApi, InferApi, Any]:
    """What the load tester reads off a gateway that serves such a model, without the gateway."""
    outputs = (TensorSpec("y", Datatype.FP32, (1,)),)
    contract = derive("model", Signature(tuple(inputs), outputs, max_batch_size=max_batch_size))
    pool = DescriptorPool()
    pool.Add(file_descriptor(contract))
    service = pool.FindServiceByName(contract.predict_grpc_path.split("/")[1])
    method = service.methods_by_name["Predict"]
    typed = TypedApi(
        "model", contract.predict_grpc_path, contract.predict_http_path, method.input_type, method.output_type
    )
    batch = (-1,) if max_batch_size else ()
    tensors = tuple(Tensor(t.name, t.datatype.name, (*batch, *(t.shape or ((1,) if batch else ())))) for t in inputs)
    infer = InferApi(
        "model",
        tensors,
        bool(max_batch_size),
        INFER.message_types_by_name["ModelInferRequest"],
        INFER.message_types_by_name["ModelInferResponse"],
    )
    return typed, infer, model_document(contract)


@given(TENSORS, st.sampled_from([0, 8]), st.integers(min_value=0, max_value=1000))
def test_random_examples_fit_every_protocol(inputs: list[TensorSpec], max_batch_size: int, seed: int) -> None:
    typed, infer, document = apis(inputs, max_batch_size)
    form = form_of(typed, infer.inputs, document)
    datatypes = {tensor.name: tensor.datatype for tensor in infer.inputs}
    (example,) = random_examples(form, datatypes, Range(), seed=seed, count=1)
    message: Any = GetMessageClass(typed.request).FromString(typed.grpc_body(example))
    assert message.ByteSize() == len(typed.grpc_body(example))
    assert json.loads(typed.json_body(example))
    request = service_pb2.ModelInferRequest.FromString(infer.grpc_body(example))
    for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        assert all(size >= 0 for size in tensor.shape)
        width = {"BYTES": None, "BF16": 2}.get(tensor.datatype, np.dtype(_numpy(tensor.datatype)).itemsize)
        if width is not None:
            assert len(raw) == math.prod(tensor.shape) * width
    for told in json.loads(infer.json_body(example))["inputs"]:
        assert len(told["data"]) == math.prod(told["shape"])


def _numpy(datatype: str) -> str:
    names = {"BOOL": "bool", "BYTES": "object", "BF16": "float16"}
    return names.get(datatype, datatype.lower().replace("fp", "float"))


@given(st.sampled_from(NUMBERS), st.lists(st.integers(min_value=0, max_value=100), max_size=8))
def test_raw_contents_are_what_numpy_writes(datatype: Datatype, values: list[int]) -> None:
    array = np.array(values, dtype=_numpy(datatype.name))
    assert raw_contents(array.tolist(), datatype.name) == array.astype(array.dtype.newbyteorder("<")).tobytes()


def test_random_numbers_stay_in_the_range_and_in_what_the_datatype_holds() -> None:
    form, datatypes = {"a": [0.5, 0.5], "b": [1], "c": "AAAA"}, {"a": "FP32", "b": "INT8", "c": "UINT8"}
    for example in random_examples(form, datatypes, Range(-1000.0, 1000.0), seed=3):
        assert all(-1000 <= value <= 1000 for value in example.instance["a"])
        assert -128 <= example.instance["b"][0] <= 127
        assert len(elements(example.instance["c"], "UINT8")) == 3
    assert random_examples(form, datatypes, Range(), seed=3) == random_examples(form, datatypes, Range(), seed=3)


def test_a_dynamic_dimension_is_what_the_values_leave() -> None:
    tensor = Tensor("x", "FP32", (-1, -1, 2))
    assert tensor_shape([[1, 2], [3, 4], [5, 6]], tensor, batching=True) == (1, 3, 2)
    assert tensor_shape([1, 2, 3, 4, 5, 6], tensor, batching=True) == (1, 3, 2)


@pytest.mark.parametrize(("value", "shape"), [(5, ()), ([], (0,)), ([[1, 2, 3], [4, 5, 6]], (2, 3))])
def test_shapes_and_elements_of_nested_arrays(value: Any, shape: tuple[int, ...]) -> None:
    assert shape_of(value) == shape
    assert len(flat(value)) == math.prod(shape)


def test_an_example_that_does_not_fit_is_refused_by_name() -> None:
    _, infer, _ = apis([TensorSpec("x", Datatype.FP32, (2,))], 8)
    with pytest.raises(WrongExample, match="has the input 'z'; model takes x"):
        infer.grpc_body(Example({"z": [1, 2]}, None))
    with pytest.raises(WrongExample, match="x: no FP32"):
        infer.grpc_body(Example({"x": ["a", "b"]}, None))


def test_what_was_made_is_json_of_its_message() -> None:
    typed, _, _ = apis([TensorSpec("x", Datatype.FP32, (2, 2)), TensorSpec("n", Datatype.UINT8, (2,))], 8)
    body = typed.grpc_body(Example({"x": [[1, 2], [3, 4]], "n": [1, 255]}, None))
    assert json_format.MessageToDict(GetMessageClass(typed.request).FromString(body)) == {
        "instances": [{"x": [1.0, 2.0, 3.0, 4.0], "n": "Af8="}]
    }
