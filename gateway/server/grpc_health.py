"""`grpc.health.v1.Health` for callers: one status per typed service, and "" for the gateway as a whole.

A service serves when its line's stable version completed its last test inference (`gateway.health`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.contract.lines import Line
from gateway.contract.model import Contract
from gateway.health import GatewayHealth

INFERENCE_SERVICE = "inference.GRPCInferenceService"
"""Serves when the gateway does."""

LOOK_S = 1.0
"""Seconds between two looks for a watcher; readiness itself is no fresher."""

_Status = health_pb2.HealthCheckResponse


class HealthService(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # generated code has no types
    """`contracts` gives those that are published now."""

    def __init__(self, *, health: GatewayHealth, contracts: Callable[[], Iterable[Contract]]) -> None:
        self._health = health
        self._contracts = contracts

    async def Check(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802 - the method's own name
        status = await self._status(request.service)
        if status == _Status.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {request.service!r}")
        return _Status(status=status)

    async def Watch(  # noqa: N802 - the method's own name
        self, request: Any, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[Any]:
        last = None
        while True:
            status = await self._status(request.service)
            if status != last:
                last = status
                yield _Status(status=status)
            await asyncio.sleep(LOOK_S)

    async def _status(self, service: str) -> int:
        if service in ("", INFERENCE_SERVICE):
            return _serving((await self._health.report()).ready)
        lines = (Line(c.model, c.major) for c in self._contracts() if c.full_service == service)
        line = next(lines, None)
        ready = None if line is None else self._health.line_ready(line)
        return int(_Status.SERVICE_UNKNOWN) if ready is None else _serving(ready)


def add_health(server: grpc.aio.Server, *, health: GatewayHealth, contracts: Callable[[], Iterable[Contract]]) -> None:
    """Serve health on the control gRPC server."""
    health_pb2_grpc.add_HealthServicer_to_server(HealthService(health=health, contracts=contracts), server)


def _serving(ready: bool) -> int:
    return int(_Status.SERVING if ready else _Status.NOT_SERVING)
