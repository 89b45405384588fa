"""Predictions over typed gRPC, without generated code: messages are made from the gateway's own reflection.

Descriptors are read once per model and kept in a pool of this client's own, so that nothing can collide with other
protobuf code of the program. Typed gRPC carries tensors flat, row-major; shapes are the model's documents'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeAlias

import grpc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from penstock_client.answer import Answer
from penstock_client.client import DEFAULT_TIMEOUT_S
from penstock_client.errors import Code, PenstockError, error_for
from penstock_client.wire import Options, Row

_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""What a gateway lets through; gRPC's own 4 MB would refuse an answer with a few images."""

_Field: TypeAlias = Any
"""A FieldDescriptor; protobuf has one class of that name for each of its implementations."""


@dataclass(frozen=True, slots=True)
class _Service:
    path: str
    request: type[Message]
    response: type[Message]
    batching: bool


class GrpcClient:
    """Calls the models behind one gateway at `target`, 'host:port', in plain text (h2c).

    Close it, or use it in a `with` statement. Arguments as for `Client`.
    """

    def __init__(self, target: str, *, user_id: str | None = None, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        limits = [(f"grpc.max_{way}_message_length", _MAX_MESSAGE_BYTES) for way in ("send", "receive")]
        self._channel = grpc.insecure_channel(target, options=limits)
        self._defaults = Options(timeout_s=timeout_s, user_id=user_id)
        self._services: dict[str, _Service] = {}

    def predict(
        self,
        model: str,
        inputs: Row | Sequence[Row],
        *,
        version: int | None = None,
        user_id: str | None = None,
        request_id: str | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """As `Client.predict`, but answers hold tensors flat. Inputs may be nested or flat.

        Raises PenstockError, and ValueError or TypeError for inputs that no message of the model can hold.
        """
        options = self._defaults.with_call(version, user_id, request_id, timeout_s)
        service = self._service(model)
        request = _request(service, inputs)
        try:
            response, call = self._channel.unary_unary(
                service.path,
                request_serializer=service.request.SerializeToString,
                response_deserializer=service.response.FromString,
            ).with_call(request, timeout=options.timeout_s, metadata=tuple(options.headers().items()))
        except grpc.RpcError as error:
            raise _error_from(error) from error
        headers = dict(call.initial_metadata())
        if "x-penstock-version" not in headers:
            raise error_for(Code.INTERNAL, "the answer does not say its version: is this a Penstock gateway?")
        return Answer(
            rows=tuple(_row(row) for row in response.predictions) if service.batching else (_row(response),),
            batched=service.batching,
            model=headers.get("x-penstock-model", model),
            version=int(headers["x-penstock-version"]),
            request_id=headers.get("x-request-id", ""),
        )

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _service(self, model: str) -> _Service:
        if model not in self._services:
            self._services[model] = self._reflect(model)
        return self._services[model]

    def _reflect(self, model: str) -> _Service:
        key = model.replace("-", "_")
        try:
            database = ProtoReflectionDescriptorDatabase(self._channel)
            models = [name for name in database.get_services() if name.startswith("penstock.models.")]
            served = next((name for name in models if name.startswith(f"penstock.models.{key}.v1.")), None)
            if served is None:
                known = ", ".join(sorted(name.split(".")[2] for name in models)) or "none"
                raise error_for(Code.NOT_FOUND, f"no model {model!r} here; there are: {known}", reason="UNKNOWN_MODEL")
            method = DescriptorPool(database).FindServiceByName(served).methods_by_name["Predict"]
        except grpc.RpcError as error:
            raise _error_from(error) from error
        rows = method.input_type.fields_by_name.get("instances")
        return _Service(
            path=f"/{served}/Predict",
            request=GetMessageClass(method.input_type),
            response=GetMessageClass(method.output_type),
            batching=rows is not None and rows.message_type is not None,
        )


def _request(service: _Service, inputs: Row | Sequence[Row]) -> Message:
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


def _row(message: Message) -> dict[str, Any]:
    return {field.json_name: _value(message, field) for field in message.DESCRIPTOR.fields}


def _value(message: Message, field: _Field) -> Any:
    value = getattr(message, field.name)
    return list(value) if _is_repeated(field) else value


def _error_from(error: grpc.RpcError) -> PenstockError:
    """grpc.RpcError of a call is itself the call: it has the code, the details and the metadata."""
    metadata = dict((*(error.initial_metadata() or ()), *(error.trailing_metadata() or ())))
    info = error_details_pb2.ErrorInfo()
    status = status_pb2.Status.FromString(metadata.get("grpc-status-details-bin", b""))
    for detail in status.details:
        if detail.Unpack(info):
            break
    return error_for(
        error.code().value[0],
        error.details() or error.code().name,
        reason=info.reason,
        metadata=info.metadata,
        request_id=str(metadata.get("x-request-id", "")),
    )
