"""Small ONNX models for tests, made by hand so that every answer can be worked out on paper.

Each function returns the bytes of an ONNX file. With `batching` the first dimension is the dynamic "N" and `shape`
leaves it out, as in `adapters.signature`. Used by every test area; depends on onnx and the signature values only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper
from onnx.onnx_ml_pb2 import GraphProto, ModelProto, NodeProto, ValueInfoProto

from adapters.signature import DYNAMIC, Datatype

OPSET: Final = 20
IR_VERSION: Final = 10
"""Both old enough for every onnxruntime that the project meets."""

ONNX_TYPE: Final[dict[Datatype, int]] = {
    Datatype.BOOL: TensorProto.BOOL,
    Datatype.UINT8: TensorProto.UINT8,
    Datatype.UINT16: TensorProto.UINT16,
    Datatype.UINT32: TensorProto.UINT32,
    Datatype.UINT64: TensorProto.UINT64,
    Datatype.INT8: TensorProto.INT8,
    Datatype.INT16: TensorProto.INT16,
    Datatype.INT32: TensorProto.INT32,
    Datatype.INT64: TensorProto.INT64,
    Datatype.FP16: TensorProto.FLOAT16,
    Datatype.BF16: TensorProto.BFLOAT16,
    Datatype.FP32: TensorProto.FLOAT,
    Datatype.FP64: TensorProto.DOUBLE,
    Datatype.BYTES: TensorProto.STRING,
}

LIMIT: Final = 100
"""Largest value that `fails_on_large_input` answers, and that `slow_on_large_input` answers fast."""


def value(name: str, datatype: Datatype, shape: Sequence[int], *, batching: bool = True) -> ValueInfoProto:
    """One graph input or output; dynamic dimensions get a symbol of their own ("N" for the batch)."""
    dims: list[int | str] = [f"{name}_{i}" if d == DYNAMIC else d for i, d in enumerate(shape)]
    return helper.make_tensor_value_info(name, ONNX_TYPE[datatype], ["N", *dims] if batching else dims)


def model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    constants: Sequence[TensorProto] = (),
) -> bytes:
    """A checked ONNX file of these nodes."""
    graph: GraphProto = helper.make_graph(nodes, "test", inputs, outputs, initializer=constants)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", 3)]
    made: ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    checker.check_model(made)
    return bytes(made.SerializeToString())


def identity(datatype: Datatype = Datatype.FP32, shape: Sequence[int] = (4,), *, batching: bool = True) -> bytes:
    """y = x, for every datatype and shape."""
    return model(
        [helper.make_node("Identity", ["x"], ["y"])],
        [value("x", datatype, shape, batching=batching)],
        [value("y", datatype, shape, batching=batching)],
    )


def add(
    amount: int, datatype: Datatype = Datatype.FP32, shape: Sequence[int] = (4,), *, batching: bool = True
) -> bytes:
    """y = x + amount, for FP32, FP64, INT32 and INT64. Different amounts make versions that can be told apart."""
    dtype = helper.tensor_dtype_to_np_dtype(ONNX_TYPE[datatype])
    return model(
        [helper.make_node("Add", ["x", "amount"], ["y"])],
        [value("x", datatype, shape, batching=batching)],
        [value("y", datatype, shape, batching=batching)],
        [numpy_helper.from_array(np.array(amount, dtype), "amount")],
    )


def add_one(datatype: Datatype = Datatype.FP32, shape: Sequence[int] = (4,), *, batching: bool = True) -> bytes:
    """y = x + 1."""
    return add(1, datatype, shape, batching=batching)


def optional_bias(*, batching: bool = True) -> bytes:
    """y = (x + bias) * scale. `bias` has a default (1) that callers may override; `scale` (2) is listed among the
    inputs as old exporters list weights."""
    shape = (2,) if batching else (DYNAMIC,)
    return model(
        [helper.make_node("Add", ["x", "bias"], ["sum"]), helper.make_node("Mul", ["sum", "scale"], ["y"])],
        [
            value("x", Datatype.FP32, shape, batching=batching),
            value("bias", Datatype.FP32, shape, batching=batching),
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, []),
        ],
        [value("y", Datatype.FP32, shape, batching=batching)],
        [
            numpy_helper.from_array(np.ones((1, 2) if batching else (1,), np.float32), "bias"),
            numpy_helper.from_array(np.array(2, np.float32), "scale"),
        ],
    )


def optional_type(*, batching: bool = True) -> bytes:
    """y = x + more, or 2x where `more`, which is of ONNX's optional type, is not given."""
    rows: list[int | str] = ["N", 2] if batching else [2]
    given_type = helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, rows))
    branches = {
        name: helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])
        for name, node in (
            ("element", helper.make_node("OptionalGetElement", ["more"], ["element"])),
            ("same", helper.make_node("Identity", ["x"], ["same"])),
        )
    }
    return model(
        [
            helper.make_node("OptionalHasElement", ["more"], ["given"]),
            helper.make_node("If", ["given"], ["term"], then_branch=branches["element"], else_branch=branches["same"]),
            helper.make_node("Add", ["x", "term"], ["y"]),
        ],
        [value("x", Datatype.FP32, (2,), batching=batching), helper.make_value_info("more", given_type)],
        [value("y", Datatype.FP32, (2,), batching=batching)],
    )


def many_inputs(*, batching: bool = True) -> bytes:
    """Six inputs of six datatypes and shapes (a scalar, a vector, a matrix, a dynamic one), each answered as it is.

    Inputs are named after their datatype ("fp32"), outputs likewise with a suffix ("fp32_out").
    """
    shapes: dict[Datatype, Sequence[int]] = {
        Datatype.FP32: (4,),
        Datatype.FP64: (2, 3),
        Datatype.INT32: (),
        Datatype.INT64: (DYNAMIC,),
        Datatype.BOOL: (3,),
        Datatype.BYTES: (2,),
    }
    names = {datatype: datatype.value.lower() for datatype in shapes}
    return model(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in names.values()],
        [value(names[d], d, shape, batching=batching) for d, shape in shapes.items()],
        [value(f"{names[d]}_out", d, shape, batching=batching) for d, shape in shapes.items()],
    )


def scalars(*, batching: bool = True) -> bytes:
    """total = a + b, `same` = whether they are equal: tensors of one element per row (shape `()`)."""
    return model(
        [helper.make_node("Add", ["a", "b"], ["total"]), helper.make_node("Equal", ["a", "b"], ["same"])],
        [value(name, Datatype.FP32, (), batching=batching) for name in ("a", "b")],
        [value("total", Datatype.FP32, (), batching=batching), value("same", Datatype.BOOL, (), batching=batching)],
    )


def string_identity(shape: Sequence[int] = (2,), *, batching: bool = True) -> bytes:
    """y = x on text."""
    return identity(Datatype.BYTES, shape, batching=batching)


def string_exclaim(shape: Sequence[int] = (2,), *, batching: bool = True) -> bytes:
    """y = x + "!" on text."""
    return model(
        [helper.make_node("StringConcat", ["x", "mark"], ["y"])],
        [value("x", Datatype.BYTES, shape, batching=batching)],
        [value("y", Datatype.BYTES, shape, batching=batching)],
        [numpy_helper.from_array(np.array(["!"], object), "mark")],
    )


def sums(*, batching: bool = True) -> bytes:
    """x has one dynamic dimension; `doubled` = 2x keeps it, `total` = its sum is a scalar."""
    last = 1 if batching else 0
    return model(
        [
            helper.make_node("Add", ["x", "x"], ["doubled"]),
            helper.make_node("ReduceSum", ["x", "axes"], ["total"], keepdims=0),
        ],
        [value("x", Datatype.FP32, (DYNAMIC,), batching=batching)],
        [
            value("doubled", Datatype.FP32, (DYNAMIC,), batching=batching),
            value("total", Datatype.FP32, (), batching=batching),
        ],
        [numpy_helper.from_array(np.array([last], np.int64), "axes")],
    )


def classifier(features: int = 4, classes: int = 3, seed: int = 0) -> bytes:
    """What skl2onnx makes of a classifier with `zipmap=False`: `label` INT64 [N], `probabilities` FP32 [N, classes].

    `seed` picks the weights: other seeds are other versions of the same model.
    """
    weights = np.random.default_rng(seed).normal(size=(features, classes)).astype(np.float32)
    return model(
        [
            helper.make_node("MatMul", ["X", "weights"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["probabilities"], axis=-1),
            helper.make_node("ArgMax", ["scores"], ["label"], axis=-1, keepdims=0),
        ],
        [value("X", Datatype.FP32, (features,))],
        [value("label", Datatype.INT64, ()), value("probabilities", Datatype.FP32, (classes,))],
        [numpy_helper.from_array(weights, "weights")],
    )


def fails_on_large_input() -> bytes:
    """y = x, INT64 [N, 1]; a row above `LIMIT` (or below -1 - LIMIT) fails inside the run, as an index out of range."""
    return model(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        [value("x", Datatype.INT64, (1,))],
        [value("y", Datatype.INT64, (1,))],
        [numpy_helper.from_array(np.arange(LIMIT + 1, dtype=np.int64), "table")],
    )


def slow_on_large_input(rounds: int = 200) -> bytes:
    """y = x, FP32 [N, 4]; a batch with a value above `LIMIT` costs `rounds` products of 128 x 128 matrices more."""
    matrix = np.eye(128, dtype=np.float32)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["still"]),
            helper.make_node("MatMul", ["carried", "matrix"], ["product"]),
        ],
        "work",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, [128, 128]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("product", TensorProto.FLOAT, [128, 128]),
        ],
    )
    return model(
        [
            helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
            helper.make_node("Greater", ["largest", "limit"], ["large"]),
            helper.make_node("Where", ["large", "many", "none"], ["trips"]),
            helper.make_node("Loop", ["trips", "", "matrix"], ["worked"], body=body),
            # The work must reach the output, or the optimiser removes it: worked is the identity, so this adds 0.
            helper.make_node("Gather", ["worked", "row"], ["worked_row"]),
            helper.make_node("Slice", ["worked_row", "from", "to"], ["zeros"]),
            helper.make_node("Add", ["x", "zeros"], ["y"]),
        ],
        [value("x", Datatype.FP32, (4,))],
        [value("y", Datatype.FP32, (4,))],
        [
            numpy_helper.from_array(np.array(LIMIT, np.float32), "limit"),
            numpy_helper.from_array(np.array(rounds, np.int64), "many"),
            numpy_helper.from_array(np.array(0, np.int64), "none"),
            numpy_helper.from_array(matrix, "matrix"),
            numpy_helper.from_array(np.array(0, np.int64), "row"),
            numpy_helper.from_array(np.array([4], np.int64), "from"),
            numpy_helper.from_array(np.array([8], np.int64), "to"),
        ],
    )


def zipmap_classifier(classes: int = 3) -> bytes:
    """What skl2onnx makes without `zipmap=False`: `probabilities` is a sequence of maps, which no server can send."""
    maps = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    )
    return model(
        [
            helper.make_node("Softmax", ["X"], ["scores"], axis=-1),
            helper.make_node("ArgMax", ["scores"], ["label"], axis=-1, keepdims=0),
            helper.make_node(
                "ZipMap", ["scores"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=list(range(classes))
            ),
        ],
        [value("X", Datatype.FP32, (classes,))],
        [value("label", Datatype.INT64, ()), helper.make_value_info("probabilities", maps)],
    )
