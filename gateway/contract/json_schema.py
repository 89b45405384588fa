"""JSON Schema (2020-12) of tensors and rows, as typed JSON takes and gives them. A part of `gateway.contract.openapi`.

What a schema of arrays cannot say (a flat array whose length must be a multiple of something, rows that must agree on
a dynamic dimension) is left to the gateway's own checks and said in the descriptions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from math import prod
from typing import Any, TypeAlias

from adapters.signature import DYNAMIC, Datatype, TensorSpec
from gateway.contract.model import Field
from gateway.contract.words import RANGES, values_in_words

Schema: TypeAlias = dict[str, Any]


class Side(Enum):
    """Requests may give a tensor of rank 2 and more flat; answers are always nested."""

    REQUEST = "request"
    RESPONSE = "response"


_FLOAT_MAX: Mapping[Datatype, float] = {
    Datatype.FP16: 65504.0,
    Datatype.BF16: 3.3895313892515355e38,
    Datatype.FP32: 3.4028234663852886e38,
    Datatype.FP64: 1.7976931348623157e308,
}

NOT_FINITE = ("NaN", "Infinity", "-Infinity")


def datatype_schemas(datatypes: Sequence[Datatype]) -> dict[str, Schema]:
    """The schema of one value of each datatype, as components named after the datatypes."""
    return {datatype.value: _value_schema(datatype) for datatype in sorted(set(datatypes))}


def row_schema(fields: Sequence[Field], side: Side, description: str) -> Schema:
    """An object with one property per tensor; all are required and nothing else is allowed in a request."""
    schema: Schema = {
        "type": "object",
        "description": description,
        "properties": {field.name: tensor_schema(field.tensor, side) for field in fields},
        "required": [field.name for field in fields],
    }
    if side is Side.REQUEST:
        schema["additionalProperties"] = False
    return schema


def tensor_schema(tensor: TensorSpec, side: Side) -> Schema:
    nested = _nested(tensor.datatype, tensor.shape)
    description = f"{values_in_words(tensor)}."
    if len(tensor.shape) < 2 or side is Side.RESPONSE:
        return {"description": description, **nested}
    flat = _array(_reference(tensor.datatype), None if DYNAMIC in tensor.shape else prod(tensor.shape))
    return {"description": f"{description} Nested arrays, or one flat array.", "anyOf": [nested, flat]}


def _nested(datatype: Datatype, shape: Sequence[int]) -> Schema:
    if not shape:
        return _reference(datatype)
    return _array(_nested(datatype, shape[1:]), None if shape[0] == DYNAMIC else shape[0])


def _array(items: Schema, length: int | None) -> Schema:
    if length is None:
        return {"type": "array", "items": items}
    return {"type": "array", "items": items, "minItems": length, "maxItems": length}


def _reference(datatype: Datatype) -> Schema:
    return {"$ref": f"#/components/schemas/{datatype}"}


def _value_schema(datatype: Datatype) -> Schema:
    if datatype is Datatype.BOOL:
        return {"type": "boolean"}
    if datatype is Datatype.BYTES:
        return {"type": "string", "description": "UTF-8 text."}
    if datatype in RANGES:
        low, high = RANGES[datatype]
        return {"type": "integer", "minimum": low, "maximum": high}
    limit = _FLOAT_MAX[datatype]
    return {
        "description": f"A number, rounded to {datatype}; what is not finite is a string.",
        "anyOf": [{"type": "number", "minimum": -limit, "maximum": limit}, {"enum": list(NOT_FINITE)}],
    }
