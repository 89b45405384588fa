"""The evaluator's gRPC face: Envoy's copies are acknowledged at once and unread; the control plane exchanges words.

Any method is acknowledged: whatever Envoy mirrors, it must never wait. What is no prediction is counted and dropped.
"""

from __future__ import annotations

import uuid
from typing import Any

import grpc

from adapters.triton.inference import MODEL_INFER
from rollout.evidence.mirror.bench import Bench, Copy
from rollout.evidence.mirror.place import MAX_MESSAGE_BYTES
from rollout.evidence.mirror.wire import EXCHANGE, Order, Report

_ACKNOWLEDGED = b""
"""An empty `ModelInferResponse`; Envoy throws it away."""


class EvaluatorService(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    """Serves every unary method in raw bytes, so that an acknowledgement costs no parsing."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._boot = uuid.uuid4().hex
        self._handlers = {
            EXCHANGE: grpc.unary_unary_rpc_method_handler(self._exchange),
            MODEL_INFER: grpc.unary_unary_rpc_method_handler(self._mirrored),
        }
        self._others = grpc.unary_unary_rpc_method_handler(self._foreign)

    def service(self, handler_call_details: Any) -> Any:
        return self._handlers.get(handler_call_details.method, self._others)

    async def _mirrored(self, data: bytes, context: grpc.aio.ServicerContext) -> bytes:
        headers = dict(context.invocation_metadata() or ())
        self._bench.offer(Copy(data, headers.get("x-request-id", ""), headers.get("x-penstock-model", "")))
        return _ACKNOWLEDGED

    async def _foreign(self, data: bytes, context: grpc.aio.ServicerContext) -> bytes:
        self._bench.totals.foreign += 1
        return _ACKNOWLEDGED

    async def _exchange(self, data: bytes, context: grpc.aio.ServicerContext) -> bytes:
        try:
            order = Order.of(data)
        except (ValueError, KeyError, TypeError) as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not an order of this version: {error!r}")
            raise AssertionError("abort raises") from error
        self._bench.take_pairs(order.pairs)
        self._bench.take_labels(order.labels)
        answered, last = self._bench.answered(order.seen if order.boot == self._boot else 0)
        return Report(self._boot, self._bench.totals, self._bench.pairs, answered, last).to_bytes()


def evaluator_server(bench: Bench) -> grpc.aio.Server:
    """Not started, and without a port."""
    server = grpc.aio.server(
        options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.so_reuseport", 0)],
    )
    server.add_generic_rpc_handlers((EvaluatorService(bench),))
    return server
