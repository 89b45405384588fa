"""One instance in the forms that the protocols carry: flat fields of a typed message, tensors of Open Inference.

An instance is what the typed JSON API takes: values by input name, nested by shape. Pure; used by `loadtest.surface`.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from loadtest.inputs import Tensor, flat, shape_of

_FORMATS = {
    "BOOL": "?",
    "INT8": "b",
    "UINT8": "B",
    "INT16": "h",
    "UINT16": "H",
    "INT32": "i",
    "UINT32": "I",
    "INT64": "q",
    "UINT64": "Q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}


def typed_row(instance: Mapping[str, Any], message: Descriptor) -> dict[str, Any]:
    """The instance in its typed message's JSON form: elements flat, their shape beside them where there is a field."""
    fields = {field.json_name: field for field in message.fields} | {field.name: field for field in message.fields}
    row = dict(instance)
    for name, value in instance.items():
        field = fields.get(name)
        if field is not None and field.type == FieldDescriptor.TYPE_BYTES and isinstance(value, list | int):
            row[name] = _bytes_text(value)
        elif isinstance(value, list):
            row[name] = flat(value)
        if isinstance(value, list) and f"{name}_shape" in fields:
            row.setdefault(f"{name}_shape", list(shape_of(value)))
    return row


def tensor_shape(value: Any, tensor: Tensor, *, batching: bool) -> tuple[int, ...]:
    """The shape of one instance's tensor as Open Inference wants it, a batch of one where the model batches."""
    known = tensor.shape[1:] if batching else tensor.shape
    if any(size < 0 for size in known):
        sizes = shape_of(value)
        if len(sizes) == len(known):
            known = sizes
        else:
            # Flat values of one dynamic dimension: it is what the others leave.
            others = 1
            for size in known:
                others *= size if size > 0 else 1
            known = tuple(len(elements(value, tensor.datatype)) // others if size < 0 else size for size in known)
    return (1, *known) if batching else tuple(known)


def elements(value: Any, datatype: str) -> list[Any]:
    """The elements of a tensor in row-major order; base64 text of a tensor of bytes is taken apart."""
    if isinstance(value, str) and datatype in ("UINT8", "INT8"):
        raw = base64.b64decode(value)
        return list(struct.unpack(f"<{len(raw)}{_FORMATS[datatype]}", raw))
    return flat(value)


def raw_contents(values: list[Any], datatype: str) -> bytes:
    """Elements as Open Inference's raw contents: little-endian, row-major; texts with their length before them."""
    if datatype == "BYTES":
        texts = [value.encode() for value in values]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    if datatype == "BF16":
        # The upper half of an FP32.
        return b"".join(struct.pack("<f", value)[2:] for value in values)
    return struct.pack(f"<{len(values)}{_FORMATS[datatype]}", *values)


def _bytes_text(value: list[Any] | int) -> str:
    return base64.b64encode(bytes(int(element) & 0xFF for element in flat(value))).decode()
