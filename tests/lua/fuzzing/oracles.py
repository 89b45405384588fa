"""What a body means, by json, numpy and google.protobuf: the tensors it must become, or that it must be refused.

Written from the rules of docs/api.md, not from the scripts.
"""

from __future__ import annotations

import base64
import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tritonclient.grpc import service_pb2

from adapters.signature import DYNAMIC, Datatype
from gateway.contract.model import Field
from tests.lua import vectors
from tests.lua.vectors import Model

LARGEST_SIZE = 2**31 - 1
MOST_EMPTY_ARRAYS = 2**20


class NotAllowed(Exception):
    """The format's own parser reads it, the contract does not allow it."""


@dataclass(frozen=True)
class Sent:
    """An input as the server must receive it: shape with the rows first, and the raw bytes."""

    name: str
    shape: tuple[int, ...]
    content: bytes


@dataclass(frozen=True)
class Cell:
    """An input of one row.

    `nested`: sizes by dimension, as far as JSON's nesting tells them; `stated`: those in `<name>_shape`.
    """

    elements: list[bytes]
    nested: dict[int, int] | None = None
    stated: list[int] | None = None
    missing: bool = False


def sent(made: Model, rows: Sequence[Sequence[Cell]]) -> list[Sent]:
    """The tensors of a request. Raises NotAllowed."""
    if not rows or (made.contract.batching and len(rows) > made.contract.max_rows):
        raise NotAllowed("rows")
    found = []
    for index, field in enumerate(made.contract.inputs):
        cells = [row[index] for row in rows]
        present = [bool(c.elements) or c.nested is not None or c.stated is not None for c in cells]
        if field.tensor.optional:
            if any(present) != all(present):
                raise NotAllowed("optional in some rows only")
            if not any(present):
                continue
        elif any(c.missing for c in cells):
            raise NotAllowed("missing")
        shape: tuple[int, ...] | None = None
        for cell in cells:
            own = _shape(field, cell, shape)
            if shape is not None and own != shape:
                raise NotAllowed("instances of several shapes")
            shape = own
        assert shape is not None
        batch = (len(rows),) if made.contract.batching else ()
        whole = (*batch, *shape) if field.tensor.shape else (*batch, 1)
        found.append(Sent(field.name, whole, b"".join(b"".join(c.elements) for c in cells)))
    return found


def _shape(field: Field, cell: Cell, known: tuple[int, ...] | None) -> tuple[int, ...]:
    declared = field.tensor.shape
    count = len(cell.elements)

    def told(rest: Sequence[int] | None) -> tuple[int, ...]:
        assert cell.nested is not None
        return tuple(d if d != DYNAMIC else cell.nested.get(i, rest[i] if rest else 0) for i, d in enumerate(declared))

    if cell.stated is not None:
        stated = tuple(cell.stated)
        if len(stated) != len(declared) or any(d not in (DYNAMIC, s) for d, s in zip(declared, stated, strict=True)):
            raise NotAllowed("sizes")
        if _product(stated) != count or (cell.nested is not None and told(stated) != stated):
            raise NotAllowed("sizes")
        return stated
    if DYNAMIC not in declared:
        if count != _product(declared):
            raise NotAllowed("count")
        return declared
    if cell.nested is not None:
        return told(known)
    if known is not None and count != _product(known):
        raise NotAllowed("count")
    unit = _product([d for d in declared if d != DYNAMIC])
    if count and (declared.count(DYNAMIC) > 1 or unit == 0 or count % unit):
        raise NotAllowed("the count does not tell the shape")
    return tuple(count // unit if d == DYNAMIC and count else 0 if d == DYNAMIC else d for d in declared)


def _product(sizes: Sequence[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total


def of_json(made: Model, body: bytes) -> list[Sent]:
    """The tensors that a JSON body means. Raises ValueError (not JSON) or NotAllowed."""
    # Python also reads UTF-16 and a byte order mark; JSON between systems is UTF-8 without one (RFC 8259, 8.1).
    document = vectors.parse_strict(body)
    if not isinstance(document, dict):
        raise NotAllowed("no object")
    if made.contract.batching:
        if set(document) != {"instances"} or not isinstance(document["instances"], list):
            raise NotAllowed("instances")
        rows = document["instances"]
    else:
        rows = [document]
    names = {f.name for f in made.contract.inputs}
    names |= {f.shape_field.name for f in made.contract.inputs if f.shape_field}
    if any(not isinstance(row, dict) or set(row) - names for row in rows):
        raise NotAllowed("fields")
    return sent(made, [[_json_cell(field, row) for field in made.contract.inputs] for row in rows])


def _json_cell(field: Field, row: dict[str, Any]) -> Cell:
    stated = None
    if field.shape_field and field.shape_field.name in row:
        stated = _stated(row[field.shape_field.name])
    if field.name not in row or (field.tensor.optional and row[field.name] is None):
        return Cell([], None, stated, missing=True)
    value, declared = row[field.name], field.tensor.shape
    if field.datatype in (Datatype.UINT8, Datatype.INT8) and isinstance(value, (dict, str)):
        return Cell([bytes([b]) for b in _base64(value)], None, stated)
    if not declared:
        return Cell([content_of(field.datatype, value)], None, stated)
    if not isinstance(value, list):
        raise NotAllowed("no array")
    if len(declared) > 1 and value and isinstance(value[0], list):
        nested: dict[int, int] = {}
        return Cell(_nested(field, value, 0, nested), nested, stated)
    return Cell([content_of(field.datatype, v) for v in value], None, stated)


def _stated(value: Any) -> list[int]:
    if not isinstance(value, list):
        raise NotAllowed("sizes")
    sizes = [int(np.frombuffer(content_of(Datatype.INT32, v), np.int32)[0]) for v in value]
    if any(size < 0 for size in sizes):
        raise NotAllowed("sizes")
    return sizes


def _nested(field: Field, value: Any, depth: int, sizes: dict[int, int]) -> list[bytes]:
    declared = field.tensor.shape
    if depth == len(declared):
        return [content_of(field.datatype, value)]
    if not isinstance(value, list) or declared[depth] not in (DYNAMIC, len(value)):
        raise NotAllowed("nesting")
    if sizes.setdefault(depth, len(value)) != len(value):
        raise NotAllowed("ragged")
    return [item for part in value for item in _nested(field, part, depth + 1, sizes)]


def content_of(datatype: Datatype, value: Any) -> bytes:
    """One JSON value as an element's raw bytes."""
    if datatype is Datatype.BYTES:
        if not isinstance(value, (str, dict)):
            raise NotAllowed("text")
        content = _base64(value) if isinstance(value, dict) else value.encode()  # lone surrogates raise ValueError
        return vectors.raw(datatype, np.array([content, b""], object)[:1])
    if datatype is Datatype.BOOL:
        if not isinstance(value, bool):
            raise NotAllowed("bool")
        return bytes([value])
    if isinstance(value, bool) or value is None or isinstance(value, (list, dict)):
        raise NotAllowed("number")
    return _float(datatype, value) if datatype in vectors.FLOATS else _integer(datatype, value)


_BASE64 = set(string.ascii_letters + string.digits + "+/-_")


def _base64(value: dict[str, Any] | str) -> bytes:
    """Both alphabets; padding may be left out."""
    text = value if isinstance(value, str) else value.get("b64")
    if not isinstance(text, str) or (isinstance(value, dict) and len(value) != 1):
        raise NotAllowed("b64")
    if len(text) % 4 == 0:
        text = text.removesuffix("=").removesuffix("=") if text.endswith("=") else text
    if len(text) % 4 == 1 or set(text) - _BASE64:
        raise NotAllowed("b64")
    return base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4))


def _float(datatype: Datatype, value: Any) -> bytes:
    dtype = vectors.DTYPES[datatype]
    if isinstance(value, str):
        if value not in ("NaN", "Infinity", "-Infinity"):
            raise NotAllowed("text")
        return vectors.raw(datatype, np.array([float(value)]).astype(dtype))
    try:
        wide = float(value)
    except OverflowError as error:
        raise NotAllowed("range") from error
    with np.errstate(over="ignore"):
        made = np.array([wide]).astype(dtype)
    if not np.isfinite(made[0]):
        raise NotAllowed("range")
    return bytes(made.tobytes())


def _integer(datatype: Datatype, value: Any) -> bytes:
    if isinstance(value, str):
        digits = value.removeprefix("-")
        if datatype not in (Datatype.INT64, Datatype.UINT64) or not digits.isascii() or not digits.isdigit():
            raise NotAllowed("text")
        if len(digits) > 1 and digits[0] == "0":
            raise NotAllowed("text")
        value = int(value)
    if isinstance(value, float):
        if not np.isfinite(value) or value != int(value) or abs(value) >= 2**53:
            raise NotAllowed("no exact integer")
        value = int(value)
    dtype = vectors.DTYPES[datatype]
    info = np.iinfo(dtype)
    if not info.min <= value <= info.max:
        raise NotAllowed("range")
    return bytes(np.array([value], dtype).tobytes())


def of_typed(made: Model, message: Any) -> list[Sent]:
    """The tensors that a parsed PredictRequest means. Raises NotAllowed."""
    rows = list(message.instances) if made.contract.batching else [message]
    return sent(made, [[_typed_cell(field, row) for field in made.contract.inputs] for row in rows])


def _typed_cell(field: Field, row: Any) -> Cell:
    stated = list(getattr(row, field.shape_field.proto_name)) if field.shape_field else []
    if any(not 0 <= size <= LARGEST_SIZE for size in stated):
        raise NotAllowed("sizes")
    value = getattr(row, field.proto_name)
    if not field.repeated and not row.HasField(field.proto_name):
        items: list[bytes] = []
    elif field.proto_type == "bytes":
        items = [bytes([b]) for b in value]
    else:
        array = _array_of(field.datatype, list(value) if field.repeated else [value])
        items = [vectors.raw(field.datatype, array[i : i + 1]) for i in range(len(array))]
    # proto3 does not tell an empty list from an absent one; a tensor without values has none to give.
    static_empty = DYNAMIC not in field.tensor.shape and 0 in field.tensor.shape
    return Cell(items, None, stated or None, missing=not items and not stated and not static_empty)


def _array_of(datatype: Datatype, items: list[Any]) -> Any:
    dtype = vectors.DTYPES[datatype]
    if datatype is Datatype.BYTES:
        return np.array([*(item.encode() for item in items), None], object)[:-1]
    if datatype in (Datatype.INT16, Datatype.UINT16):
        info = np.iinfo(dtype)
        if any(not info.min <= item <= info.max for item in items):
            raise NotAllowed("range")
    half = datatype in (Datatype.FP16, Datatype.BF16)
    with np.errstate(over="ignore", invalid="ignore"):
        made = np.array(items, np.float32 if half else dtype).astype(dtype)
    if half and any(np.isfinite(item) and not np.isfinite(m) for item, m in zip(items, made, strict=True)):
        raise NotAllowed("range")
    return made


@cache
def _lenient_response() -> Any:
    """ModelInferResponse without `parameters` and with bytes for text: those parts are nobody's business here."""
    file = descriptor_pb2.FileDescriptorProto()
    service_pb2.DESCRIPTOR.CopyToProto(file)
    kept = [m for m in file.message_type if m.name in ("ModelInferResponse", "InferTensorContents")]
    trimmed = descriptor_pb2.FileDescriptorProto(name="lenient.proto", package="inference", syntax="proto3")
    for message in kept:
        _loosen(message)
        trimmed.message_type.append(message)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(trimmed)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelInferResponse"))


def _loosen(message: Any) -> None:
    fields = [f for f in message.field if f.name != "parameters"]
    del message.field[:]
    message.field.extend(fields)
    nested = [n for n in message.nested_type if not n.options.map_entry]
    del message.nested_type[:]
    message.nested_type.extend(nested)
    for field in message.field:
        if field.type == field.TYPE_STRING:
            field.type = field.TYPE_BYTES
    for inner in message.nested_type:
        _loosen(inner)


def of_answer(made: Model, body: bytes) -> list[Any]:
    """The arrays of a server's answer, whole, rows first. Raises DecodeError or NotAllowed."""
    response = _lenient_response().FromString(body)
    if response.raw_output_contents and len(response.raw_output_contents) != len(response.outputs):
        raise NotAllowed("raw contents")
    fields = {f.name.encode(): f for f in made.contract.outputs}
    found: dict[str, Any] = {}
    rows = None
    for k, output in enumerate(response.outputs):
        field = fields.get(output.name)
        if field is None:
            continue
        if field.name in found or output.datatype != field.datatype.value.encode():
            raise NotAllowed("twice, or another datatype")
        shape = _answer_shape(made, field, list(output.shape))
        batch = shape[0] if made.contract.batching else 1
        if rows is not None and rows != batch:
            raise NotAllowed("rows")
        rows = batch
        if response.raw_output_contents:
            flat = _raw(field.datatype, response.raw_output_contents[k])
        else:
            flat = _contents(field.datatype, output.contents)
        if len(flat) != _product(shape):
            raise NotAllowed("length")
        found[field.name] = flat.reshape(shape)
    if len(found) != len(fields):
        raise NotAllowed("missing")
    if made.contract.batching and response.id and response.id != str(rows).encode():
        raise NotAllowed("rows of another request")
    return [found[f.name] for f in made.contract.outputs]


def _answer_shape(made: Model, field: Field, sizes: list[int]) -> tuple[int, ...]:
    batch = 1 if made.contract.batching else 0
    own = sizes[batch:]
    if not field.tensor.shape and own == [1]:
        own = []
    if len(sizes) < batch or len(own) != len(field.tensor.shape) or any(not 0 <= s <= 2**53 for s in sizes):
        raise NotAllowed("rank")
    if any(d not in (DYNAMIC, s) for d, s in zip(field.tensor.shape, own, strict=True)):
        raise NotAllowed("shape")
    whole = (*sizes[:batch], *own)
    arrays = _product([*sizes[:batch], *(max(size, 1) for size in own[:-1])])
    if _product(whole) == 0 and arrays > MOST_EMPTY_ARRAYS:
        raise NotAllowed("nothing but empty arrays")
    return whole


def _raw(datatype: Datatype, content: bytes) -> Any:
    if datatype is Datatype.BYTES:
        items, at = [], 0
        while at < len(content):
            size = int.from_bytes(content[at : at + 4], "little")
            if at + 4 + size > len(content) or at + 4 > len(content):
                raise NotAllowed("elements")
            items.append(content[at + 4 : at + 4 + size])
            at += 4 + size
        return np.array([*items, None], object)[:-1]
    dtype = np.dtype(vectors.DTYPES[datatype])
    if len(content) % dtype.itemsize:
        raise NotAllowed("length")
    if datatype is Datatype.BOOL:
        return np.frombuffer(content, np.uint8) != 0
    return np.frombuffer(content, dtype)


def _contents(datatype: Datatype, contents: Any) -> Any:
    if datatype not in vectors.CONTENTS:
        if contents.ByteSize():
            raise NotAllowed("no list for it")
        return np.array([], vectors.DTYPES[datatype])
    items = list(getattr(contents, vectors.CONTENTS[datatype][0]))
    if datatype is Datatype.BYTES:
        return np.array([*items, None], object)[:-1]
    dtype = vectors.DTYPES[datatype]
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        if any(not info.min <= item <= info.max for item in items):
            raise NotAllowed("range")
    return np.array(items, dtype)
