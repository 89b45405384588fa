"""JSON Schema (2020-12) of tensors and rows, as typed JSON takes and gives them. A part of `gateway.contract.openapi`.

What a schema of arrays cannot say (a flat array whose length must be a multiple of something, rows that must agree on
a dynamic dimension) is left to the gateway's own checks and said in the descriptions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from math import prod
from typing import Any, TypeAlias

from adapters.signature import DYNAMIC, Datatype
from gateway.contract.model import Field
from gateway.contract.words import RANGES, on_one_line, tensor_in_sentences, values_in_words

Schema: TypeAlias = dict[str, Any]


class Side(Enum):
    """Requests may give a tensor of rank 2 and more flat; answers are always nested."""

    REQUEST = "request"
    RESPONSE = "response"


_FLOAT_MAX: Mapping[Datatype, float] = {
    Datatype.FP16: 65504.0,
    Datatype.BF16: 3.39e38,
    Datatype.FP32: 3.4028235e38,
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
    """An object with one property per tensor; a request has all that are not optional and nothing else.

    A tensor whose shape its values do not tell may have its shape beside it in a request.
    """
    properties: Schema = {}
    for field in fields:
        properties[field.name] = tensor_schema(field, side)
        if field.shape_field and side is Side.REQUEST:
            properties[field.shape_field.name] = _shape_schema(field)
    schema: Schema = {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": [field.name for field in fields if not (field.tensor.optional and side is Side.REQUEST)],
    }
    if not schema["required"]:
        del schema["required"]
    if side is Side.REQUEST:
        schema["additionalProperties"] = False
    return schema


def tensor_schema(field: Field, side: Side) -> Schema:
    tensor = field.tensor
    forms = [_nested(tensor.datatype, tensor.shape)]
    schema: Schema = {"description": _description(field, side)}
    if side is Side.REQUEST and len(tensor.shape) > 1:
        schema["description"] += " Nested arrays, or one flat array."
        forms.append(_array(_reference(tensor.datatype), None if DYNAMIC in tensor.shape else prod(tensor.shape)))
    if side is Side.REQUEST and tensor.datatype is Datatype.UINT8 and tensor.shape:
        schema["description"] += " Or its bytes in base64."
        forms.append({"$ref": "#/components/schemas/Base64"})
    if tensor.labels:
        schema["x-labels"] = list(tensor.labels)
    return {**schema, **forms[0]} if len(forms) == 1 else {**schema, "anyOf": forms}


def _description(field: Field, side: Side) -> str:
    """What is known of a tensor, in sentences. Only a request says a shape: answers are nested."""
    tensor = field.tensor
    shape_name = field.shape_field.name if field.shape_field and side is Side.REQUEST else ""
    return tensor_in_sentences(tensor, values_in_words(tensor, shape_name))


def _shape_schema(field: Field) -> Schema:
    return {
        "description": f"The shape of {on_one_line(field.name)}: flat values need it, nested arrays say it themselves.",
        **_array({"type": "integer", "minimum": 0}, len(field.tensor.shape)),
    }


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
