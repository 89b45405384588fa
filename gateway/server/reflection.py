"""gRPC server reflection (v1 and v1alpha) over the contracts as they are now; reached by callers through Envoy.

The services are Envoy's, so nothing here can be read off this server: the descriptors come from the published
contracts at each request, and from the files that every gateway has (health, google.api, Open Inference Protocol).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import grpc
from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor_pb2 import DESCRIPTOR as DESCRIPTOR_FILE
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from gateway.contract.descriptor import file_descriptor
from gateway.contract.model import Contract

_NAMES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
_METHOD = "ServerReflectionInfo"

_COMMON_FILES = (
    DESCRIPTOR_FILE,
    http_pb2.DESCRIPTOR,
    annotations_pb2.DESCRIPTOR,
    health_pb2.DESCRIPTOR,
    reflection_pb2.DESCRIPTOR,
)


def add_reflection(
    server: grpc.aio.Server,
    *,
    contracts: Callable[[], Iterable[Contract]],
    more_files: Iterable[FileDescriptorProto] = (),
) -> None:
    """Serve reflection on the control gRPC server.

    `contracts` gives those that are published now; `more_files` are further services behind the gateway, with every
    file that they import.
    """
    common = [_proto(descriptor) for descriptor in _COMMON_FILES]
    common.append(_reflection_v1())
    reflection = Reflection(contracts=contracts, common=(*common, *more_files))
    for service in _NAMES:
        # v1 is v1alpha under another name: the messages are the same on the wire.
        handler = grpc.stream_stream_rpc_method_handler(
            reflection.answer_all,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {_METHOD: handler}),))


class Reflection:
    """Answers reflection requests. `common` are files that are always there."""

    def __init__(self, *, contracts: Callable[[], Iterable[Contract]], common: Iterable[FileDescriptorProto]) -> None:
        self._contracts = contracts
        self._common = tuple(common)

    async def answer_all(self, requests: AsyncIterator[Any], _context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            yield self.answer(request)

    def answer(self, request: Any) -> Any:
        """One request, one response; what is not there is an error response, never an exception."""
        files = self._files()
        match request.WhichOneof("message_request"):
            case "list_services":
                return reflection_pb2.ServerReflectionResponse(
                    original_request=request,
                    list_services_response=reflection_pb2.ListServiceResponse(
                        service=[reflection_pb2.ServiceResponse(name=name) for name in sorted(_services(files))]
                    ),
                )
            case "file_by_filename":
                return _found(request, files, request.file_by_filename)
            case "file_containing_symbol":
                symbol = request.file_containing_symbol
                name = next((file.name for file in files.values() if symbol in _symbols(file)), "")
                return _found(request, files, name)
            case "file_containing_extension":
                wanted = request.file_containing_extension
                return _found(request, files, _extension_file(files, wanted.containing_type, wanted.extension_number))
            case "all_extension_numbers_of_type":
                extended = request.all_extension_numbers_of_type
                numbers = [e.number for f in files.values() for e in f.extension if e.extendee == f".{extended}"]
                return reflection_pb2.ServerReflectionResponse(
                    original_request=request,
                    all_extension_numbers_response=reflection_pb2.ExtensionNumberResponse(
                        base_type_name=extended, extension_number=sorted(numbers)
                    ),
                )
            case _:
                return _error(request, grpc.StatusCode.INVALID_ARGUMENT, "the request asks for nothing")

    def _files(self) -> dict[str, FileDescriptorProto]:
        typed = [file_descriptor(contract) for contract in self._contracts() if contract.typed]
        return {file.name: file for file in (*self._common, *typed)}


def _found(request: Any, files: dict[str, FileDescriptorProto], name: str) -> Any:
    if name not in files:
        return _error(request, grpc.StatusCode.NOT_FOUND, "no such file or symbol; list the services to see what is")
    wanted: dict[str, FileDescriptorProto] = {}
    _collect(files, name, wanted)
    return reflection_pb2.ServerReflectionResponse(
        original_request=request,
        file_descriptor_response=reflection_pb2.FileDescriptorResponse(
            file_descriptor_proto=[file.SerializeToString() for file in wanted.values()]
        ),
    )


def _collect(files: dict[str, FileDescriptorProto], name: str, into: dict[str, FileDescriptorProto]) -> None:
    """The file and all that it imports, so that one answer is enough for a client."""
    if name in into or name not in files:
        return
    into[name] = files[name]
    for dependency in files[name].dependency:
        _collect(files, dependency, into)


def _error(request: Any, code: grpc.StatusCode, message: str) -> Any:
    return reflection_pb2.ServerReflectionResponse(
        original_request=request,
        error_response=reflection_pb2.ErrorResponse(error_code=code.value[0], error_message=message),
    )


def _services(files: dict[str, FileDescriptorProto]) -> Iterator[str]:
    for file in files.values():
        for service in file.service:
            yield f"{file.package}.{service.name}"


def _symbols(file: FileDescriptorProto) -> Iterator[str]:
    prefix = f"{file.package}." if file.package else ""
    for message in file.message_type:
        yield from _message_symbols(prefix, message)
    for enum in file.enum_type:
        yield f"{prefix}{enum.name}"
    for extension in file.extension:
        yield f"{prefix}{extension.name}"
    for service in file.service:
        yield f"{prefix}{service.name}"
        for method in service.method:
            yield f"{prefix}{service.name}.{method.name}"


def _message_symbols(prefix: str, message: DescriptorProto) -> Iterator[str]:
    name = f"{prefix}{message.name}"
    yield name
    for member in (
        *(field.name for field in message.field),
        *(oneof.name for oneof in message.oneof_decl),
        *(enum.name for enum in message.enum_type),
    ):
        yield f"{name}.{member}"
    for nested in message.nested_type:
        yield from _message_symbols(f"{name}.", nested)


def _extension_file(files: dict[str, FileDescriptorProto], extended: str, number: int) -> str:
    for file in files.values():
        if any(e.extendee == f".{extended}" and e.number == number for e in file.extension):
            return file.name
    return ""


def _proto(descriptor: Any) -> FileDescriptorProto:
    file = FileDescriptorProto()
    descriptor.CopyToProto(file)
    return file


def _reflection_v1() -> FileDescriptorProto:
    """The v1 file, made from v1alpha's: only the package differs."""
    file = _proto(reflection_pb2.DESCRIPTOR)
    file.name = "grpc/reflection/v1/reflection.proto"
    file.package = "grpc.reflection.v1"
    old, new = ".grpc.reflection.v1alpha.", ".grpc.reflection.v1."
    for message in file.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(old, new)
    for service in file.service:
        for method in service.method:
            method.input_type = method.input_type.replace(old, new)
            method.output_type = method.output_type.replace(old, new)
    return file
