"""An example request and answer for any contract: always the same, always of the right datatypes and shapes.

Used by OpenAPI, the docs page and `penstock predict --example`. The values are small, because a model may take an
integer for an index: 0 and 1 for integers, quarters up to 1 for floats, "text" for strings. A dynamic dimension is
the smallest that the model is known to take.
Optional inputs are left out: what a model says it can do without, its example does without.
"""

from __future__ import annotations

import base64
from itertools import count
from math import prod
from typing import Any, TypeAlias

from adapters.signature import DYNAMIC, Datatype, TensorSpec
from gateway.contract.descriptor import json_name
from gateway.contract.model import Contract, Field

JsonValue: TypeAlias = Any
"""What json.dumps takes; nested lists of numbers make a precise type useless."""

READABLE_VALUES = 256
"""Above so many numbers an example is no help to a reader, and documents leave it out."""


def example_inputs(contract: Contract) -> tuple[Field, ...]:
    """The inputs that an example gives: the required ones; or all where none is, as no server takes nothing."""
    return tuple(field for field in contract.inputs if not field.tensor.optional) or contract.inputs


def example_request(contract: Contract) -> dict[str, JsonValue]:
    """A body for `:predict` with one row."""
    row = _row(example_inputs(contract), contract.dynamic_size)
    return {"instances": [row]} if contract.batching else row


def example_response(contract: Contract) -> dict[str, JsonValue]:
    """An answer of the right form; its values are not the model's."""
    row = _row(contract.outputs, contract.dynamic_size)
    return {"predictions": [row]} if contract.batching else row


def example_proto_json(contract: Contract) -> dict[str, JsonValue]:
    """The same request in proto3's own JSON, as grpcurl takes it: tensors flat, bytes in base64."""
    row: dict[str, JsonValue] = {}
    for field in example_inputs(contract):
        shape = example_shape(field.tensor, contract.dynamic_size)
        row[json_name(field)] = _proto_json(field, prod(shape))
        if field.shape_field:
            row[json_name(field.shape_field)] = list(shape)
    return {"instances": [row]} if contract.batching else row


def example_shape(tensor: TensorSpec, dynamic_size: int) -> tuple[int, ...]:
    return tuple(dynamic_size if d == DYNAMIC else d for d in tensor.shape)


def is_readable(fields: tuple[Field, ...], dynamic_size: int) -> bool:
    """Whether an example of these fields is short enough to be shown."""
    return is_readable_shape(*(example_shape(field.tensor, dynamic_size) for field in fields))


def is_readable_shape(*shapes: tuple[int, ...]) -> bool:
    """Whether tensors of these shapes together are short enough to be shown."""
    return sum(map(prod, shapes)) <= READABLE_VALUES


def example_value(datatype: Datatype, index: int) -> JsonValue:
    """The value at a position of the row-major tensor."""
    match datatype:
        case Datatype.BOOL:
            return index % 2 == 0
        case Datatype.BYTES:
            return "text"
        case Datatype.FP16 | Datatype.BF16 | Datatype.FP32 | Datatype.FP64:
            return (index % 4 + 1) / 4
        case _:
            return index % 2


def _proto_json(field: Field, count: int) -> JsonValue:
    values = [example_value(field.datatype, i) for i in range(count)]
    if field.proto_type == "bytes":
        return base64.b64encode(bytes(values)).decode()
    return values if field.repeated else values[0]


def _row(fields: tuple[Field, ...], dynamic_size: int) -> dict[str, JsonValue]:
    return {f.name: _nested(f.datatype, example_shape(f.tensor, dynamic_size), count()) for f in fields}


def _nested(datatype: Datatype, shape: tuple[int, ...], position: count[int]) -> JsonValue:
    if not shape:
        return example_value(datatype, next(position))
    return [_nested(datatype, shape[1:], position) for _ in range(shape[0])]
