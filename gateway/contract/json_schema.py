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


_BASE64: Schema = {
    "type": "object",
    "description": "Bytes in base64, where text or an array of numbers would not do.",
    "properties": {"b64": {"type": "string", "contentEncoding": "base64"}},
    "required": ["b64"],
    "additionalProperties": False,
}


def datatype_schemas(datatypes: Sequence[Datatype]) -> dict[str, Schema]:
    """The schema of one value of each datatype, as components named after the datatypes, and what those refer to."""
    schemas = {datatype.value: _value_schema(datatype) for datatype in sorted(set(datatypes))}
    if not {Datatype.BYTES, Datatype.UINT8}.isdisjoint(datatypes):
        schemas["Base64"] = _BASE64
    return schemas


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
    forms = [_nested(tensor.datatype, tensor.shape)]
    description = f"{values_in_words(tensor)}."
    if side is Side.REQUEST and len(tensor.shape) > 1:
        description += " Nested arrays, or one flat array."
        forms.append(_array(_reference(tensor.datatype), None if DYNAMIC in tensor.shape else prod(tensor.shape)))
    if side is Side.REQUEST and tensor.datatype is Datatype.UINT8 and tensor.shape:
        description += " Or its bytes in base64."
        forms.append({"$ref": "#/components/schemas/Base64"})
    return {"description": description, **forms[0]} if len(forms) == 1 else {"description": description, "anyOf": forms}


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
        return {
            "description": "UTF-8 text; other bytes in base64.",
            "anyOf": [{"type": "string"}, {"$ref": "#/components/schemas/Base64"}],
        }
    if datatype in RANGES:
        low, high = RANGES[datatype]
        return {"type": "integer", "minimum": low, "maximum": high}
    limit = _FLOAT_MAX[datatype]
    return {
        "description": f"A number, rounded to {datatype}; what is not finite is a string.",
        "anyOf": [{"type": "number", "minimum": -limit, "maximum": limit}, {"enum": list(NOT_FINITE)}],
    }
