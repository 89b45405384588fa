"""A model's protobuf messages and Python values, each into the other, without generated code.

Descriptors come from the gateway's reflection and are kept in a pool of their own, so that nothing can collide with
other protobuf code of the program. Typed gRPC carries tensors flat, row-major.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from penstock_client.wire import Row, from_json

_Field: TypeAlias = Any
"""A FieldDescriptor; protobuf has one class of that name for each of its implementations."""


@dataclass(frozen=True, slots=True)
class Service:
    """What a call to one model needs."""

    path: str
    request: type[Message]
    response: type[Message]
    batching: bool
    streams: bool
    """Whether one request has any number of responses (`PredictStream`)."""
    descriptor: bytes
    """A serialised FileDescriptorSet."""


def service_in(files: Sequence[bytes], name: str) -> Service:
    """The service of that full name. `files`: serialised FileDescriptorProtos, those a file imports before it."""
    found = FileDescriptorSet(file=[FileDescriptorProto.FromString(file) for file in files])
    pool = DescriptorPool()
    for file in found.file:
        pool.Add(file)
    (method,) = pool.FindServiceByName(name).methods
    rows = method.input_type.fields_by_name.get("instances")
    return Service(
        path=f"/{name}/{method.name}",
        request=GetMessageClass(method.input_type),
        response=GetMessageClass(method.output_type),
        batching=rows is not None and rows.message_type is not None,
        streams=method.server_streaming,
        descriptor=found.SerializeToString(),
    )


def services_of(descriptor: bytes) -> list[Service]:
    """Those of a serialised FileDescriptorSet. Raises google.protobuf.message.DecodeError."""
    files = FileDescriptorSet.FromString(descriptor).file
    serialised = [file.SerializeToString() for file in files]
    return [service_in(serialised, f"{file.package}.{each.name}") for file in files for each in file.service]


def request_of(service: Service, inputs: Row | Sequence[Row]) -> Message:
    """The request that holds these inputs, nested or flat. Raises ValueError or TypeError when no request can."""
    request = service.request()
    if service.batching:
        instances: Any = getattr(request, "instances")  # noqa: B009  # the class is made at run time
        for row in [inputs] if isinstance(inputs, Mapping) else inputs:
            _fill(instances.add(), row)
    elif isinstance(inputs, Mapping):
        _fill(request, inputs)
    else:
        raise TypeError("this model does not batch: expected one mapping of inputs, received a list")
    return request


def _fill(message: Message, row: Row) -> None:
    fields = {field.json_name: field for field in message.DESCRIPTOR.fields}
    for name, value in row.items():
        if name not in fields:
            raise ValueError(f"no input {name!r}; expected: {', '.join(fields)}")
        _set(message, fields[name], value)
        companion = _companion(message, fields[name])
        if companion is not None and companion.json_name not in row:
            getattr(message, companion.name).extend(_shape(value))


def _companion(message: Message, field: _Field) -> _Field | None:
    """The `<name>_shape` of a tensor whose values do not tell its shape: declared right behind it."""
    following = message.DESCRIPTOR.fields[field.index + 1 : field.index + 2]
    for other in following:
        says_shape = re.fullmatch(rf"{re.escape(field.json_name)}_shape(_\d+)?", other.json_name)
        if says_shape and other.type == FieldDescriptor.TYPE_SFIXED64 and _is_repeated(other):
            return other
    return None


def _set(message: Message, field: _Field, value: Any) -> None:
    """Errors of protobuf about one value get the field's name."""
    try:
        if field.type == FieldDescriptor.TYPE_BYTES:
            value = from_json(value) if isinstance(value, dict) else value
            setattr(message, field.name, value if isinstance(value, bytes) else bytes(map(_byte, _flat(value))))
        elif _is_repeated(field):
            getattr(message, field.name).extend(_read(field, each) for each in _flat(value))
        else:
            setattr(message, field.name, _read(field, value.tolist() if hasattr(value, "tolist") else value))
    except (TypeError, ValueError) as error:
        raise type(error)(f"{field.json_name}: {error}") from error


def _read(field: _Field, value: Any) -> Any:
    """Numbers and bytes that JSON has as text ("NaN", long integers, {"b64": ...}) are taken too."""
    if isinstance(value, str) and field.type != FieldDescriptor.TYPE_STRING:
        # Any other text is protobuf's to refuse, with the type that it expects.
        with suppress(ValueError):
            return float(value) if field.cpp_type in _FLOATS else int(value)
    return from_json(value)


_FLOATS = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)


def _shape(value: Any) -> tuple[int, ...]:
    """What an array or nested lists say of it; nothing for flat values, whose shape only the caller knows."""
    if hasattr(value, "shape"):
        return tuple(value.shape) if len(value.shape) > 1 else ()
    found = []
    while isinstance(value, list | tuple):
        found.append(len(value))
        value = value[0] if value else None
    return tuple(found) if len(found) > 1 else ()


def _is_repeated(field: _Field) -> bool:
    """Every field of a contract that is not repeated is `optional`, and so has presence."""
    return not field.has_presence


def _byte(value: int) -> int:
    """UINT8 and INT8 tensors are one byte per value, and their field does not say which of the two it is."""
    if not -128 <= value <= 255:
        raise ValueError(f"{value} is not in the range of one byte")
    return value & 0xFF


def _flat(value: Any) -> Iterable[Any]:
    if hasattr(value, "tolist"):
        yield from value.ravel().tolist()
    elif isinstance(value, list | tuple):
        for member in value:
            yield from _flat(member)
    else:
        yield value


def response_of(service: Service, rows: Sequence[Row]) -> Message:
    """The response that holds these rows, for a fake."""
    response = service.response()
    for row in rows:
        into: Any = response
        if service.batching:
            into = getattr(response, "predictions").add()  # noqa: B009  # as in request_of
        _fill(into, row)
    return response


def inputs_of(service: Service, request: Message) -> list[Row]:
    """The rows of a request, for a fake: what was given, flat."""
    rows: Any = getattr(request, "instances") if service.batching else [request]  # noqa: B009  # as in request_of
    return [{field.json_name: _value(row, field) for field, _ in row.ListFields()} for row in rows]


def rows_of(service: Service, response: Message) -> tuple[Row, ...]:
    if service.batching:
        return tuple(_row(row) for row in getattr(response, "predictions"))  # noqa: B009  # as in request_of
    return (_row(response),)


def _row(message: Message) -> dict[str, Any]:
    return {field.json_name: _value(message, field) for field in message.DESCRIPTOR.fields}


def _value(message: Message, field: _Field) -> Any:
    value = getattr(message, field.name)
    return list(value) if _is_repeated(field) else value
