"""Envoy clusters of an inference server: one per protocol, and the two aliases that carry canary weights.

Versions have no clusters of their own. An Envoy weighted cluster takes its runtime key from the cluster's name, so
the stable and the canary entry of a route need two names for the same server: two aggregate clusters per protocol.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import ip_address

from adapters.server import Address
from gateway.envoy.settings import EnvoySettings
from gateway.envoy.snapshot import Json
from gateway.envoy.state import Backend

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


class Protocol(StrEnum):
    """Which port of an inference server."""

    GRPC = "grpc"
    HTTP = "http"


class Arm(StrEnum):
    """Which of a model's two traffic shares; also the last part of a runtime key."""

    STABLE = "stable"
    CANARY = "canary"


def physical_name(backend: str, protocol: Protocol) -> str:
    return backend if protocol is Protocol.GRPC else f"{backend}-http"


def alias_name(backend: str, protocol: Protocol, arm: Arm) -> str:
    return f"{physical_name(backend, protocol)}.{arm}"


def backend_clusters(backend: Backend, settings: EnvoySettings) -> list[Json]:
    """All clusters of one inference server."""
    clusters: list[Json] = []
    for protocol, address in ((Protocol.GRPC, backend.grpc), (Protocol.HTTP, backend.http)):
        name = physical_name(backend.name, protocol)
        clusters.append(_physical(name, address, protocol, settings))
        clusters.extend(_alias(alias_name(backend.name, protocol, arm), name, protocol, settings) for arm in Arm)
    return clusters


def plain_cluster(name: str, address: Address, *, http2: bool, settings: EnvoySettings) -> Json:
    """A cluster with one address and nothing else: the control plane's ports."""
    return {
        "name": name,
        **_endpoints(name, address),
        "connect_timeout": f"{settings.connect_timeout_s:g}s",
        "typed_extension_protocol_options": _protocol(http2=http2),
        # Finds a peer that vanished without a word (a pulled cable, a lost machine). Not by HTTP/2 pings: gRPC servers,
        # Triton and our own among them, end a connection that is pinged more than once in five minutes.
        "upstream_connection_options": {
            "tcp_keepalive": {"keepalive_time": 20, "keepalive_interval": 5, "keepalive_probes": 3}
        },
    }


def _physical(name: str, address: Address, protocol: Protocol, settings: EnvoySettings) -> Json:
    return {
        **plain_cluster(name, address, http2=protocol is Protocol.GRPC, settings=settings),
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": _circuit_breakers(settings),
        "outlier_detection": _outlier_detection(),
        # A name that resolves to nothing more, or a server that fails, must not take the last address away.
        "common_lb_config": {"healthy_panic_threshold": {"value": 50}},
    }


def _alias(name: str, target: str, protocol: Protocol, settings: EnvoySettings) -> Json:
    return {
        "name": name,
        "connect_timeout": f"{settings.connect_timeout_s:g}s",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {
            "name": "envoy.clusters.aggregate",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig",
                "clusters": [target],
            },
        },
        # Envoy speaks the alias's protocol and counts requests and retries on the alias: repeat both.
        "typed_extension_protocol_options": _protocol(http2=protocol is Protocol.GRPC),
        "circuit_breakers": _circuit_breakers(settings),
    }


def _endpoints(name: str, address: Address) -> Json:
    return {
        "type": "STATIC" if _is_ip(address.host) else "STRICT_DNS",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {
                    "lb_endpoints": [
                        {
                            "endpoint": {
                                "address": {"socket_address": {"address": address.host, "port_value": address.port}}
                            }
                        }
                    ]
                }
            ],
        },
    }


def _protocol(*, http2: bool) -> Json:
    return {
        _HTTP_OPTIONS: {
            "@type": f"type.googleapis.com/{_HTTP_OPTIONS}",
            "explicit_http_config": {"http2_protocol_options" if http2 else "http_protocol_options": {}},
            "common_http_protocol_options": {"idle_timeout": "300s" if http2 else "30s"},
        }
    }


def _circuit_breakers(settings: EnvoySettings) -> Json:
    return {
        "thresholds": [
            {
                "max_connections": settings.max_connections,
                "max_pending_requests": settings.max_requests,
                "max_requests": settings.max_requests,
                # Envoy's default of 3 concurrent retries failed half of the requests when one of two servers died.
                "retry_budget": {"budget_percent": {"value": 50}, "min_retry_concurrency": 20},
            }
        ]
    }


def _outlier_detection() -> Json:
    """Eject an address that cannot be reached. Answers never eject: stable and canary share the server, and a bad
    canary's errors must not take the server from the stable version. At most half, so one address stays."""
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 2,
        "enforcing_consecutive_local_origin_failure": 100,
        "enforcing_local_origin_success_rate": 0,
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "interval": "1s",
        "base_ejection_time": "2s",
        "max_ejection_percent": 50,
    }


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
