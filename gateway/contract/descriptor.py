"""Contract -> protobuf descriptors and message classes, without protoc.

Used for server reflection, for the descriptor set that callers download, and wherever Python must read or write a
model's messages. `gateway.contract.proto` writes the same file as text; a test compiles that text and compares.
Each model has a descriptor pool of its own, so that no two models (or majors, or tritonclient) can collide.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import Message

from gateway.contract.model import Contract, Field, NoTypedApi, ShapeField

_TYPES = {
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "string": FieldDescriptorProto.TYPE_STRING,
    "float": FieldDescriptorProto.TYPE_FLOAT,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "fixed32": FieldDescriptorProto.TYPE_FIXED32,
    "fixed64": FieldDescriptorProto.TYPE_FIXED64,
    "sfixed32": FieldDescriptorProto.TYPE_SFIXED32,
    "sfixed64": FieldDescriptorProto.TYPE_SFIXED64,
}


@dataclass(frozen=True, slots=True)
class MessageClasses:
    """A model's generated messages. `instance` and `prediction` are None for a model that does not batch."""

    pool: descriptor_pool.DescriptorPool
    request: type[Message]
    response: type[Message]
    instance: type[Message] | None
    prediction: type[Message] | None


def proto_file_name(contract: Contract) -> str:
    """The file's name inside descriptors and import paths."""
    return f"{contract.package.replace('.', '/')}/{contract.key}.proto"


def file_descriptor(contract: Contract) -> FileDescriptorProto:
    """What protoc makes of `proto_text(contract)`, without options and source positions.

    Raises NoTypedApi.
    """
    file = FileDescriptorProto(name=proto_file_name(contract), package=contract.package, syntax="proto3")
    if not contract.typed:
        raise NoTypedApi(contract)
    request = DescriptorProto(name="PredictRequest")
    response = DescriptorProto(name="PredictResponse")
    if contract.batching:
        instance = DescriptorProto(name="Instance")
        prediction = DescriptorProto(name="Prediction")
        _add_fields(instance, contract.inputs)
        _add_fields(prediction, contract.outputs)
        _add_rows(request, "instances", f".{contract.package}.Instance")
        _add_rows(response, "predictions", f".{contract.package}.Prediction")
        file.message_type.extend((request, instance, response, prediction))
    else:
        _add_fields(request, contract.inputs)
        _add_fields(response, contract.outputs)
        file.message_type.extend((request, response))
    service = file.service.add(name=contract.service)
    service.method.add(
        name=contract.method,
        input_type=f".{contract.package}.PredictRequest",
        output_type=f".{contract.package}.PredictResponse",
        # Left unset, as protoc does, where it is false.
        server_streaming=True if contract.decoupled else None,
    )
    return file


def descriptor_set(contracts: Iterable[Contract]) -> FileDescriptorSet:
    """The descriptor set of several typed models, for tools that read one file (grpcurl -protoset)."""
    return FileDescriptorSet(file=[file_descriptor(c) for c in contracts])


def message_classes(contract: Contract) -> MessageClasses:
    """Message classes in a descriptor pool of their own. Builds new classes at each call: keep the result."""
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file_descriptor(contract))

    def message(name: str) -> type[Message]:
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{contract.package}.{name}"))

    return MessageClasses(
        pool=pool,
        request=message("PredictRequest"),
        response=message("PredictResponse"),
        instance=message("Instance") if contract.batching else None,
        prediction=message("Prediction") if contract.batching else None,
    )


def json_name(field: Field | ShapeField) -> str:
    """The field's name in proto3 JSON: the tensor's own, but for the few that protoc refuses there.

    Typed JSON (`:predict`) knows every tensor by its own name, these too.
    """
    refused = "\0" in field.name or (field.name.startswith("[") and field.name.endswith("]"))
    return default_json_name(field.proto_name) if refused else field.name


def default_json_name(proto_name: str) -> str:
    """The JSON name protoc gives a field that does not set one: 'dense_out' -> 'denseOut'."""
    head, *rest = proto_name.split("_")
    return head + "".join(word[:1].upper() + word[1:] for word in rest)


def _add_fields(message: DescriptorProto, fields: Iterable[Field]) -> None:
    for field in fields:
        added = message.field.add(
            name=field.proto_name,
            number=field.number,
            label=FieldDescriptorProto.LABEL_REPEATED if field.repeated else FieldDescriptorProto.LABEL_OPTIONAL,
            type=_TYPES[field.proto_type],
            json_name=json_name(field),
        )
        if not field.repeated:
            # How protoc writes a proto3 `optional`: a oneof of one, after all real ones.
            added.proto3_optional = True
            added.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{field.proto_name}")
        if field.shape_field:
            message.field.add(
                name=field.shape_field.proto_name,
                number=field.shape_field.number,
                label=FieldDescriptorProto.LABEL_REPEATED,
                type=FieldDescriptorProto.TYPE_SFIXED64,
                json_name=json_name(field.shape_field),
            )


def _add_rows(message: DescriptorProto, name: str, type_name: str) -> None:
    message.field.add(
        name=name,
        number=1,
        label=FieldDescriptorProto.LABEL_REPEATED,
        type=FieldDescriptorProto.TYPE_MESSAGE,
        type_name=type_name,
        json_name=name,
    )
