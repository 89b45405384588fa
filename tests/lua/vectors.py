"""Tensors of every datatype and shape, with numpy, protobuf and json as oracles of what they are on the wire."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
from google.protobuf.message import Message
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from adapters.signature import DYNAMIC, Datatype, Signature, TensorSpec
from gateway.contract.derive import derive
from gateway.contract.descriptor import MessageClasses, message_classes
from gateway.contract.model import Contract, Field
from gateway.envoy.context import TENSORS_FILTER, Kind, tensors_context
from gateway.envoy.state import ModelLimits, ServedVersion

Array = np.ndarray[Any, Any]

DTYPES: dict[Datatype, Any] = {
    Datatype.BOOL: np.bool_,
    Datatype.UINT8: np.uint8,
    Datatype.UINT16: np.uint16,
    Datatype.UINT32: np.uint32,
    Datatype.UINT64: np.uint64,
    Datatype.INT8: np.int8,
    Datatype.INT16: np.int16,
    Datatype.INT32: np.int32,
    Datatype.INT64: np.int64,
    Datatype.FP16: np.float16,
    Datatype.BF16: ml_dtypes.bfloat16,
    Datatype.FP32: np.float32,
    Datatype.FP64: np.float64,
    Datatype.BYTES: np.object_,
}
FLOATS = (Datatype.FP16, Datatype.BF16, Datatype.FP32, Datatype.FP64)


@dataclass(frozen=True)
class Model:
    contract: Contract
    classes: MessageClasses

    def context(self, kind: Kind = Kind.JSON) -> dict[str, Any]:
        """The filter_context as the compile makes it."""
        version = ServedVersion(3, "triton", f"{self.contract.model}.3", "1", self.contract)
        context: dict[str, Any] = tensors_context(version, kind, ModelLimits())[TENSORS_FILTER]["filter_context"]
        return context


def model(
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    max_batch_size: int = 0,
    name: str = "digits",
    decoupled: bool = False,
) -> Model:
    contract = derive(name, Signature(tuple(inputs), tuple(outputs), max_batch_size, decoupled=decoupled))
    return Model(contract, message_classes(contract))


def elements(datatype: Datatype, *, text: bool = False) -> st.SearchStrategy[Any]:
    """One element as numpy would hold it; BYTES as bytes."""
    match datatype:
        case Datatype.BOOL:
            return st.booleans()
        case Datatype.BYTES:
            return st.text(max_size=12).map(str.encode) if text else st.binary(max_size=12)
        case Datatype.FP64:
            return st.floats(width=64)
        case Datatype.FP32:
            return st.floats(width=32)
        case Datatype.FP16:
            return st.floats(width=16)
        case Datatype.BF16:
            return st.integers(0, 0xFFFF).map(lambda bits: float(np.uint16(bits).view(ml_dtypes.bfloat16)))
        case _:
            info = np.iinfo(DTYPES[datatype])
            return st.integers(int(info.min), int(info.max)) | st.sampled_from([int(info.min), 0, int(info.max)])


def shapes() -> st.SearchStrategy[tuple[int, ...]]:
    """Ranks 0 to 3; zero-sized dimensions; none, one or several unknown ones."""
    fixed = st.lists(st.integers(0, 3), max_size=3)
    dynamic = st.lists(st.integers(0, 3) | st.just(DYNAMIC), min_size=1, max_size=3)
    return st.one_of(fixed, dynamic).map(tuple)


@st.composite
def cases(draw: st.DrawFn, *, text: bool) -> tuple[Model, list[Sequence[Any] | None]]:
    """A model with up to three inputs (and the same outputs), and an array per tensor: whole, rows first.

    None for an optional input that the request leaves out.
    """
    names = ["x", "dense/Bias:0", "ünï\n"]
    count = draw(st.integers(1, 3))
    tensors = [
        TensorSpec(names[i], draw(st.sampled_from(list(Datatype))), draw(shapes()), optional=draw(st.booleans()))
        for i in range(count)
    ]
    batching = draw(st.booleans())
    rows = draw(st.integers(1, 3)) if batching else 1
    made = model(tensors, [replace(t, optional=False) for t in tensors], max_batch_size=4 if batching else 0)
    arrays: list[Sequence[Any] | None] = []
    for field in made.contract.inputs:
        tensor = field.tensor
        # Without values only a stated shape tells presence; what has no shape to state needs one value at least.
        least = 0 if field.shape_field and not tensor.optional else 1
        shape = tuple(draw(st.integers(least, 3)) if d == DYNAMIC else d for d in tensor.shape)
        if tensor.optional and (0 in shape or draw(st.booleans())):
            arrays.append(None)
            continue
        array_shape = (rows, *shape) if batching else shape
        total = int(np.prod(array_shape, dtype=int))
        values = draw(st.lists(elements(tensor.datatype, text=text), min_size=total, max_size=total))
        arrays.append(np.array(values, dtype=DTYPES[tensor.datatype]).reshape(array_shape))  # type: ignore[arg-type]  # numpy arrays are sequences here
    return made, arrays


def filled(made: Model, arrays: Sequence[Any]) -> list[Any]:
    """The arrays of an answer: what the request left out comes back as zeros."""
    return [
        a if a is not None else zeros(f, rows_of(made, arrays))
        for f, a in zip(made.contract.outputs, arrays, strict=True)
    ]


def zeros(field: Field, rows: int | None) -> Any:
    shape = tuple(2 if d == DYNAMIC else d for d in field.tensor.shape)
    whole = shape if rows is None else (rows, *shape)
    if field.datatype is Datatype.BYTES:
        return np.full(whole, b"", object)
    return np.zeros(whole, DTYPES[field.datatype])


def rows_of(made: Model, arrays: Sequence[Any]) -> int | None:
    """Rows of a request; None for a model that does not batch."""
    if not made.contract.batching:
        return None
    return next((len(a) for a in arrays if a is not None), 1)


def raw(datatype: Datatype, array: Any) -> bytes:
    """The tensor as raw_input_contents carry it; one NaN for all, as its payload is nobody's business."""
    flat = array.reshape(-1)
    if datatype is Datatype.BYTES:
        return b"".join(struct.pack("<I", len(value)) + value for value in flat)
    if datatype in FLOATS:
        with np.errstate(invalid="ignore"):  # signalling NaNs of bfloat16
            flat = np.where(np.isnan(flat), np.array(np.nan, dtype=flat.dtype), flat)
    return bytes(flat.astype(DTYPES[datatype]).tobytes())


def one_nan(datatype: Datatype, content: bytes) -> bytes:
    """The bytes of a tensor with every NaN replaced by the one of `raw`."""
    return raw(datatype, np.frombuffer(content, DTYPES[datatype])) if datatype in FLOATS else content


def json_value(datatype: Datatype, array: Any) -> Any:
    """The tensor as nested JSON values, as callers send it."""
    if np.ndim(array) > 0:
        return [json_value(datatype, part) for part in array]
    if datatype is Datatype.BYTES:
        item = array.item() if isinstance(array, np.ndarray) else array
        return item.decode()
    value = array.item() if hasattr(array, "item") else array
    if datatype in FLOATS:
        value = float(value)
        if value != value:
            return "NaN"
        if value in (float("inf"), float("-inf")):
            return "Infinity" if value > 0 else "-Infinity"
    return value


def same_values(datatype: Datatype, array: Any, value: Any) -> bool:
    """Whether `value` (from JSON) is the tensor: in its own nesting, of its own type, bit for bit."""
    if np.ndim(array) > 0:
        return (
            isinstance(value, list)
            and len(value) == len(array)
            and all(same_values(datatype, part, item) for part, item in zip(array, value, strict=True))
        )
    item = array.item() if isinstance(array, np.ndarray) else array
    if datatype is Datatype.BYTES:
        content = base64.b64decode(value["b64"], validate=True) if isinstance(value, dict) else value.encode()
        return bool(content == item)
    if datatype in FLOATS:
        # Floats are printed as floats.
        read = np.array(float(value)).astype(DTYPES[datatype])
        is_float = isinstance(value, (float, str))
        return is_float and raw(datatype, read) == raw(datatype, np.array(item).astype(DTYPES[datatype]))
    return type(value) is (bool if datatype is Datatype.BOOL else int) and bool(value == item)


def json_request(made: Model, arrays: Sequence[Any], *, flat: bool = False) -> Any:
    """The request as JSON values: nested arrays, or flat ones with the sizes beside those that need them."""
    fields = made.contract.inputs

    def row(values: Sequence[Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for field, value in zip(fields, values, strict=True):
            if value is not None:
                as_flat = flat and field.tensor.shape != ()
                found[field.name] = json_value(field.datatype, np.reshape(value, -1) if as_flat else value)
                if field.shape_field and (flat or 0 in np.shape(value)):  # nesting ends at an empty array
                    found[field.shape_field.name] = list(np.shape(value))
        return found

    rows = rows_of(made, arrays)
    if rows is not None:
        return {"instances": [row([None if a is None else a[r] for a in arrays]) for r in range(rows)]}
    return row(arrays)


def fill(message: Message, fields: Sequence[Field], values: Sequence[Any]) -> None:
    for field, value in zip(fields, values, strict=True):
        if value is None:
            continue
        if field.shape_field:
            getattr(message, field.shape_field.proto_name).extend(np.shape(value))
        flat = np.asarray(value).reshape(-1)
        if field.proto_type == "bytes":
            setattr(message, field.proto_name, flat.tobytes())
            continue
        items = [typed_value(field.datatype, item) for item in flat]
        if field.repeated:
            getattr(message, field.proto_name).extend(items)
        else:
            setattr(message, field.proto_name, items[0])


def typed_value(datatype: Datatype, item: Any) -> Any:
    if datatype is Datatype.BYTES:
        return item.decode()
    if datatype is Datatype.BOOL:
        return bool(item)
    return float(item) if datatype in FLOATS else int(item)


def typed_request(made: Model, arrays: Sequence[Any]) -> Any:
    request: Any = made.classes.request()
    if made.contract.batching:
        for r in range(rows_of(made, arrays) or 1):
            fill(request.instances.add(), made.contract.inputs, [None if a is None else a[r] for a in arrays])
    else:
        fill(request, made.contract.inputs, arrays)
    return request


def answer(made: Model, arrays: Sequence[Any], *, identity: str | None = None, in_contents: bool = False) -> Any:
    """The ModelInferResponse that a server gives, with the data in `raw_output_contents` or in `contents`."""
    response = service_pb2.ModelInferResponse(model_name="digits.3", model_version="1", id=identity or "")
    for field, array in zip(made.contract.outputs, arrays, strict=True):
        output = response.outputs.add(name=field.name, datatype=field.datatype.value, shape=np.shape(array))
        if in_contents:
            name, convert = CONTENTS[field.datatype]
            getattr(output.contents, name).extend(convert(value) for value in np.reshape(array, -1))
        else:
            response.raw_output_contents.append(raw(field.datatype, array))
    return response


CONTENTS: dict[Datatype, tuple[str, Callable[[Any], Any]]] = {
    Datatype.BOOL: ("bool_contents", bool),
    Datatype.UINT8: ("uint_contents", int),
    Datatype.UINT16: ("uint_contents", int),
    Datatype.UINT32: ("uint_contents", int),
    Datatype.UINT64: ("uint64_contents", int),
    Datatype.INT8: ("int_contents", int),
    Datatype.INT16: ("int_contents", int),
    Datatype.INT32: ("int_contents", int),
    Datatype.INT64: ("int64_contents", int),
    Datatype.FP32: ("fp32_contents", float),
    Datatype.FP64: ("fp64_contents", float),
    Datatype.BYTES: ("bytes_contents", bytes),
}
"""Field of InferTensorContents by datatype; there is none for 16-bit floats."""


def has_contents(made: Model) -> bool:
    return all(field.datatype in CONTENTS for field in made.contract.outputs)


def framed(message: bytes) -> bytes:
    return b"\0" + struct.pack(">I", len(message)) + message


def unframed(body: bytes) -> bytes:
    assert body[0] == 0
    assert struct.unpack(">I", body[1:5])[0] == len(body) - 5
    return body[5:]


def infer_request(body: bytes) -> Any:
    return service_pb2.ModelInferRequest.FromString(unframed(body))


def parse_strict(text: bytes) -> Any:
    """json.loads that refuses what JSON does not have: bare NaN, and duplicate keys."""

    def refuse(word: str) -> None:
        raise ValueError(word)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise ValueError("duplicate key")
        return made

    return json.loads(text.decode(), parse_constant=refuse, object_pairs_hook=unique)
