"""Small real servers that answer as a gateway does, on ports of their own.

The clients are tested here against what they send and what they make of replies; the end-to-end tests call the real
gateway with them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha import reflection

from gateway.contract.descriptor import MessageClasses, file_descriptor, message_classes
from gateway.contract.model import Contract


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass
class Recorded:
    """Where a server can be reached, and what it was sent."""

    address: str = ""
    seen: list[Seen] = field(default_factory=list)


Handler = Callable[[Seen], tuple[int, Any]]
"""What to answer: an HTTP status, and a value for JSON or raw bytes."""

ANSWER_HEADERS = {"x-request-id": "r-1", "x-penstock-model": "iris", "x-penstock-version": "7"}


def status_json(code: int, message: str, reason: str, **metadata: str) -> dict[str, Any]:
    """The error of a gateway as JSON."""
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "penstock"}
    return {"code": code, "status": "", "message": message, "details": [{**info, "metadata": metadata}]}


@contextmanager
def http_server(handler: Handler) -> Iterator[Recorded]:
    recorded = Recorded()

    class Serving(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            seen = Seen(self.path, {k.lower(): v for k, v in self.headers.items()}, json.loads(body))
            recorded.seen.append(seen)
            status, value = handler(seen)
            content = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            for name, text in ANSWER_HEADERS.items():
                self.send_header(name, text)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing: the tests look at what was recorded."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Serving)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        recorded.address = f"http://127.0.0.1:{server.server_address[1]}"
        yield recorded
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


Predict = Callable[[Any, MessageClasses], Any]
"""PredictRequest -> PredictResponse; raises Refused for an error."""


class Refused(Exception):
    def __init__(self, code: int, message: str, reason: str, **metadata: str) -> None:
        super().__init__(message)
        self.status = status_pb2.Status(code=code, message=message)
        self.status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain="penstock", metadata=metadata))


@contextmanager
def grpc_server(contracts: Mapping[str, Contract], predict: Predict) -> Iterator[Recorded]:
    """Typed gRPC of the contracts, with reflection."""
    recorded = Recorded()
    pool = DescriptorPool()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    names = [reflection.SERVICE_NAME]
    for contract in (c for c in contracts.values() if c.typed):
        pool.Add(file_descriptor(contract))
        names.append(contract.full_service)
        server.add_generic_rpc_handlers((_typed(contract, predict, recorded),))
    reflection.enable_server_reflection(names, server, pool=pool)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        recorded.address = f"127.0.0.1:{port}"
        yield recorded
    finally:
        server.stop(None).wait()


def _typed(contract: Contract, predict: Predict, recorded: Recorded) -> grpc.GenericRpcHandler:
    messages = message_classes(contract)

    def handle(request: Message, context: grpc.ServicerContext) -> Any:
        headers = dict(context.invocation_metadata())
        recorded.seen.append(Seen(contract.predict_grpc_path, headers, request))
        context.send_initial_metadata(tuple({**ANSWER_HEADERS, "x-penstock-model": contract.model}.items()))
        try:
            return predict(request, messages)
        except Refused as refused:
            context.set_trailing_metadata((("grpc-status-details-bin", refused.status.SerializeToString()),))
            code = next(c for c in grpc.StatusCode if c.value[0] == refused.status.code)
            context.abort(code, refused.status.message)
            raise AssertionError("abort raises") from refused

    def handle_stream(request: Message, context: grpc.ServicerContext) -> Iterator[Any]:
        """The same answer twice."""
        answer = handle(request, context)
        yield from (answer, answer)

    make: Callable[..., Any] = (
        grpc.unary_stream_rpc_method_handler if contract.decoupled else grpc.unary_unary_rpc_method_handler
    )
    method = make(
        handle_stream if contract.decoupled else handle,
        request_deserializer=messages.request.FromString,
        response_serializer=messages.response.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(contract.full_service, {contract.method: method})
