"""The `.system` scope: everything on the callers' port that belongs to no single model.

Only what is listed here is reachable. The control plane's ADS and the servers' administrative methods share ports
with some of it, and stay out of callers' reach because no route names them.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.envoy.clusters import Protocol, physical_name
from gateway.envoy.context import no_tensors
from gateway.envoy.cors import cors_policy
from gateway.envoy.routes import CONTROL_HTTP, HASH_HEADER, SERVER_HEADERS
from gateway.envoy.settings import EnvoySettings
from gateway.envoy.snapshot import Json
from gateway.envoy.state import GatewayState

SYSTEM_SCOPE = ".system"
CONTROL_GRPC = "penstock-control"
"""Cluster of the control plane's gRPC port: ADS, access logs, reflection, health."""

_CONTROL_GRPC_SERVICES = (
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
    "/grpc.health.v1.Health/",
)
_CONTROL_GRPC_METHODS = ("RepositoryIndex", "ModelReady")
"""Of Open Inference Protocol. The index has public names, which no server knows; ModelReady comes here for what no
model's routes answer, so that it can be answered with "no" (`tensors.lua`)."""

_CONTROL_HTTP_PATHS: tuple[Json, ...] = (
    {"path": "/"},
    {"path": "/openapi.json"},
    {"path": "/v1/feedback"},
    {"path": "/v2/repository/index"},
    {"path_separated_prefix": "/docs"},
    {"path_separated_prefix": "/v1/models"},
)
_SERVER_HTTP_PATHS = ("/v2", "/v2/", "/v2/health/live", "/v2/health/ready")
_SERVER_GRPC_METHODS = ("ServerLive", "ServerReady", "ServerMetadata")
_OIP_SERVICE = "/inference.GRPCInferenceService/"


def system_route_configuration(state: GatewayState, settings: EnvoySettings, *, control_plane: bool = True) -> Json:
    """Routes of the `.system` scope. Without a control plane (a static configuration) only the servers' own."""
    routes = [*(_control_routes(settings) if control_plane else ()), *_server_routes(state, settings)]
    return {
        "name": SYSTEM_SCOPE,
        "virtual_hosts": [
            {
                "name": SYSTEM_SCOPE,
                "domains": ["*"],
                "routes": routes,
                "typed_per_filter_config": {**no_tensors(), **cors_policy(settings)},
            }
        ],
        "request_headers_to_remove": [HASH_HEADER],
        "response_headers_to_remove": list(SERVER_HEADERS),
    }


def _control_routes(settings: EnvoySettings) -> Iterator[Json]:
    for prefix in _CONTROL_GRPC_SERVICES:
        # Reflection and health watching are streams without an end; the idle timeout bounds them.
        yield {"match": {"prefix": prefix}, "route": {"cluster": CONTROL_GRPC, "timeout": "0s"}}
    timeout = f"{settings.system_timeout_s:g}s"
    for method in _CONTROL_GRPC_METHODS:
        yield {"match": {"path": _OIP_SERVICE + method}, "route": {"cluster": CONTROL_GRPC, "timeout": timeout}}
    for match in _CONTROL_HTTP_PATHS:
        yield {"match": match, "route": {"cluster": CONTROL_HTTP, "timeout": timeout}}


def _server_routes(state: GatewayState, settings: EnvoySettings) -> Iterator[Json]:
    """Server-wide Open Inference Protocol calls, answered by the first server; it speaks for all."""
    if not state.backends:
        return
    backend = min(backend.name for backend in state.backends)
    paths = [(Protocol.HTTP, path) for path in _SERVER_HTTP_PATHS]
    paths += [(Protocol.GRPC, _OIP_SERVICE + method) for method in _SERVER_GRPC_METHODS]
    for protocol, path in paths:
        cluster = physical_name(backend, protocol)
        yield {"match": {"path": path}, "route": {"cluster": cluster, "timeout": f"{settings.system_timeout_s:g}s"}}
