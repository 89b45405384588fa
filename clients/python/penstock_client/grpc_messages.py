"""A model's protobuf messages and Python values, each into the other, without generated code.

Descriptors come from the gateway's reflection and are kept in a pool of their own, so that nothing can collide with
other protobuf code of the program. Typed gRPC carries tensors flat, row-major.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from penstock_client.wire import Row

_Field: TypeAlias = Any
"""A FieldDescriptor; protobuf has one class of that name for each of its implementations."""


@dataclass(frozen=True, slots=True)
class Service:
    """What a call to one model needs."""

    path: str
    request: type[Message]
    response: type[Message]
    batching: bool


def service_in(files: Sequence[bytes], name: str) -> Service:
    """The service of that full name. `files`: serialised FileDescriptorProtos, those a file imports before it."""
    pool = DescriptorPool()
    for file in files:
        pool.Add(FileDescriptorProto.FromString(file))
    method = pool.FindServiceByName(name).methods_by_name["Predict"]
    rows = method.input_type.fields_by_name.get("instances")
    return Service(
        path=f"/{name}/Predict",
        request=GetMessageClass(method.input_type),
        response=GetMessageClass(method.output_type),
        batching=rows is not None and rows.message_type is not None,
    )


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


def _set(message: Message, field: _Field, value: Any) -> None:
    """Errors of protobuf about one value get the field's name."""
    try:
        if field.type == FieldDescriptor.TYPE_BYTES:
            setattr(message, field.name, value if isinstance(value, bytes) else bytes(map(_byte, _flat(value))))
        elif _is_repeated(field):
            getattr(message, field.name).extend(_flat(value))
        else:
            setattr(message, field.name, value.tolist() if hasattr(value, "tolist") else value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{field.json_name}: {error}") from error


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


def rows_of(service: Service, response: Message) -> tuple[Row, ...]:
    if service.batching:
        return tuple(_row(row) for row in getattr(response, "predictions"))  # noqa: B009  # as in request_of
    return (_row(response),)


def _row(message: Message) -> dict[str, Any]:
    return {field.json_name: _value(message, field) for field in message.DESCRIPTOR.fields}


def _value(message: Message, field: _Field) -> Any:
    value = getattr(message, field.name)
    return list(value) if _is_repeated(field) else value
