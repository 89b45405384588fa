"""A stub inference server that records what reaches it: gRPC by grpc.aio with raw bytes, HTTP by a small ASGI app.

Not a model: the answers are what a test puts in. The real server's answers are tested where the real server runs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc
import uvicorn
from tritonclient.grpc import service_pb2

Answer = Callable[[Any], Any]


@dataclass
class Upstream:
    """`answer` maps the received ModelInferRequest to a ModelInferResponse, bytes, or raises `Abort`; `answers` maps it
    to those of a stream."""

    answer: Answer = lambda request: service_pb2.ModelInferResponse()
    answers: Callable[[Any], Iterable[Any]] | None = None
    requests: list[Any] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    http: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    http_answer: tuple[int, dict[str, str], bytes] = (200, {"content-type": "application/json"}, b"{}")
    grpc_port: int = 0
    http_port: int = 0
    server: Any = None
    web: Any = None
    web_task: Any = None

    async def start(self) -> None:
        self.server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
        self.server.add_generic_rpc_handlers([_Handlers(self)])
        self.grpc_port = self.server.add_insecure_port("127.0.0.1:0")
        await self.server.start()
        config = uvicorn.Config(
            self._app, host="127.0.0.1", port=0, log_level="error", lifespan="off", ws="none", interface="asgi3"
        )
        self.web = uvicorn.Server(config)
        self.web_task = asyncio.create_task(self.web.serve())
        while not self.web.started:
            await asyncio.sleep(0.01)
        self.http_port = self.web.servers[0].sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self.web.should_exit = True
        await self.web_task
        await self.server.stop(None)

    def reset(self) -> None:
        self.requests.clear()
        self.metadata.clear()
        self.http.clear()
        self.answer = lambda request: service_pb2.ModelInferResponse()
        self.answers = None

    async def _app(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        body = b""
        while True:
            part = await receive()
            body += part.get("body", b"")
            if not part.get("more_body"):
                break
        headers = {k.decode(): v.decode() for k, v in scope["headers"]}
        self.http.append((scope["method"], scope["raw_path"].decode(), headers, body))
        status, reply_headers, reply = self.http_answer
        pairs = [(k.encode(), v.encode()) for k, v in reply_headers.items()]
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [*pairs, (b"content-length", str(len(reply)).encode())],
            }
        )
        await send({"type": "http.response.body", "body": reply})


class Abort(Exception):
    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        initial_metadata: bool = False,
        trailing: tuple[tuple[str, str | bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.trailing = trailing
        self.code = code
        self.message = message
        self.initial_metadata = initial_metadata


REQUESTS = {
    "ModelInfer": service_pb2.ModelInferRequest,
    "ModelReady": service_pb2.ModelReadyRequest,
    "ModelMetadata": service_pb2.ModelMetadataRequest,
    "ModelConfig": service_pb2.ModelConfigRequest,
    "ModelStatistics": service_pb2.ModelStatisticsRequest,
}


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def service(self, details: Any) -> Any:
        service, _, method = details.method.rpartition("/")
        if service != "/inference.GRPCInferenceService":
            return None
        if method == "ModelStreamInfer":
            return grpc.stream_stream_rpc_method_handler(self._stream)
        if method not in REQUESTS:
            return None

        async def unary(body: bytes, context: Any) -> bytes:
            return await self._unary(REQUESTS[method].FromString(body), context)

        return grpc.unary_unary_rpc_method_handler(unary)

    async def _unary(self, request: Any, context: Any) -> bytes:
        self._upstream.requests.append(request)
        self._upstream.metadata.append(dict(context.invocation_metadata()))
        try:
            answer = self._upstream.answer(request)
        except Abort as abort:
            if abort.initial_metadata:
                await context.send_initial_metadata(())
            await context.abort(abort.code, abort.message, abort.trailing)
        if asyncio.iscoroutine(answer):
            answer = await answer
        return answer if isinstance(answer, bytes) else bytes(answer.SerializeToString())

    async def _stream(self, bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for body in bodies:
            request = service_pb2.ModelInferRequest.FromString(body)
            self._upstream.requests.append(request)
            self._upstream.metadata.append(dict(context.invocation_metadata()))
            if self._upstream.answers is None:
                yield self._upstream.answer(request).SerializeToString()
                continue
            try:
                for answer in self._upstream.answers(request):
                    yield answer if isinstance(answer, bytes) else answer.SerializeToString()
            except Abort as abort:
                await context.abort(abort.code, abort.message)


def http_json(value: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"content-type": "application/json"}, json.dumps(value, separators=(",", ":")).encode()
