"""Recorded answers over typed gRPC, with reflection: the half of the fake gateway that needs `penstock-client[grpc]`.

Recorded rows go through the model's own messages, so that they compare with what a request of any language holds.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import suppress
from dataclasses import replace
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha import reflection

from penstock_client.errors import Code, PenstockError, error_for
from penstock_client.grpc_messages import Service, inputs_of, request_of, response_of, services_of
from penstock_client.recording import Asked, ModelApi, Recorded, Recording
from penstock_client.wire import to_json

_THREADS = 4


def serve(recording: Recording) -> tuple[grpc.Server, str]:
    """A server that runs, on a free port of 127.0.0.1, and its address. Stop it at the end."""
    server = grpc.server(futures.ThreadPoolExecutor(_THREADS))
    pool = DescriptorPool()
    names = [reflection.SERVICE_NAME]
    for api, descriptor in recording.descriptors.items():
        for file in FileDescriptorSet.FromString(descriptor).file:
            pool.Add(file)
        for service in services_of(descriptor):
            if not service.streams:
                names.append(service.path.split("/")[1])
                server.add_generic_rpc_handlers(
                    (_handler(service, api, Recording(list(_calls(recording, api, service)))),)
                )
    reflection.enable_server_reflection(names, server, pool=pool)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"127.0.0.1:{port}"


def _calls(recording: Recording, api: ModelApi, service: Service) -> Iterator[Recorded]:
    for call in recording.calls:
        if call.asked.api == api:
            # Typed JSON can ask what no message can say (a text for a number): the gateway refused it.
            with suppress(ValueError, TypeError):
                request = request_of(service, call.asked.inputs)
                yield Recorded(replace(call.asked, inputs=_said(service, request)), call.outcome)


def _said(service: Service, request: Message) -> Any:
    """Its rows as JSON values."""
    return json.loads(to_json(inputs_of(service, request)))


def _handler(service: Service, api: ModelApi, recording: Recording) -> grpc.GenericRpcHandler:
    _, name, method = service.path.split("/")

    def answer(request: Message, context: grpc.ServicerContext) -> Message:
        headers = dict(context.invocation_metadata() or ())
        request_id = str(headers.get("x-request-id") or uuid.uuid4())
        try:
            pinned = headers.get("x-penstock-version")
            found = recording.found(Asked(*api, int(pinned) if pinned else None, _said(service, request)))
            if found is None:
                message = f"the recording holds no answer of {name} for this request; it holds {len(recording.calls)}"
                raise error_for(Code.NOT_FOUND, message, reason="NOT_RECORDED")
            recorded = found.answer(request_id)
        except PenstockError as error:
            return _refuse(context, error, request_id)
        version = ("x-penstock-version", str(recorded.version))
        context.send_initial_metadata((("x-request-id", request_id), ("x-penstock-model", recorded.model), version))
        return response_of(service, recorded.rows)

    unary: Callable[..., Any] = grpc.unary_unary_rpc_method_handler
    handler = unary(
        answer,
        request_deserializer=service.request.FromString,
        response_serializer=service.response.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(name, {method: handler})


def _refuse(context: grpc.ServicerContext, error: PenstockError, request_id: str) -> Message:
    info = AnyMessage()
    info.Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain="penstock", metadata=error.metadata))
    status = status_pb2.Status(code=int(error.code), message=error.message, details=[info])
    context.send_initial_metadata((("x-request-id", request_id),))
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(next(code for code in grpc.StatusCode if code.value[0] == error.code), error.message)
    raise AssertionError("abort raises")
