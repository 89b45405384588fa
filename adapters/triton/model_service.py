"""The part of Open Inference Protocol's service that the gateway answers from its own knowledge of models.

Served on the control plane's gRPC port, to which Envoy routes these two methods. The messages are Triton's, so that
only the adapters know tritonclient; the answers are given in the public names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import grpc
from tritonclient.grpc import service_pb2

from adapters.server import Listed

SERVICE: Final = "inference.GRPCInferenceService"


def add_model_service(
    server: grpc.aio.Server, *, index: Callable[[], Iterable[Listed]], ready: Callable[[str, str], bool]
) -> None:
    """Answer RepositoryIndex with `index()` and ModelReady with `ready(name, version)`; the version may be empty."""

    async def repository_index(request: Any, context: grpc.aio.ServicerContext) -> Any:
        if request.repository_name:
            await context.abort(
                grpc.StatusCode.UNIMPLEMENTED, "repository_name: there is one repository; expected nothing here"
            )
        listed = (entry for entry in index() if entry.ready or not request.ready)
        return service_pb2.RepositoryIndexResponse(models=[_model(entry) for entry in listed])

    async def model_ready(request: Any, _context: grpc.aio.ServicerContext) -> Any:
        return service_pb2.ModelReadyResponse(ready=ready(request.name, request.version))

    handlers = {
        "RepositoryIndex": _unary(repository_index, service_pb2.RepositoryIndexRequest),
        "ModelReady": _unary(model_ready, service_pb2.ModelReadyRequest),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


def _unary(answer: Any, request: Any) -> grpc.RpcMethodHandler:
    return grpc.unary_unary_rpc_method_handler(
        answer, request_deserializer=request.FromString, response_serializer=lambda message: message.SerializeToString()
    )


def _model(entry: Listed) -> Any:
    return service_pb2.RepositoryIndexResponse.ModelIndex(
        name=entry.served.name, version=entry.served.version, state=entry.state, reason=entry.reason
    )
