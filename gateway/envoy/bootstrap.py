"""What Envoy is started with: the callers' listener, the filters, statistics, limits, and where its control plane is.

Nothing here changes while Envoy runs; everything that belongs to a model arrives by ADS (`gateway.envoy.compile`)
without touching the listener or a connection. `gateway.envoy.yaml_config` prints it.
"""

from __future__ import annotations

from typing import Any

from adapters.server import Address
from gateway.envoy.clusters import plain_cluster
from gateway.envoy.context import TENSORS_FILTER
from gateway.envoy.cors import CORS_FILTER
from gateway.envoy.lua_bundle import model_source, tensors_source
from gateway.envoy.routes import CONTROL_HTTP, LOCAL_HEADER, MODEL_HEADER, VERSION_HEADER
from gateway.envoy.settings import EnvoySettings
from gateway.envoy.snapshot import Json
from gateway.envoy.statistics import access_logs, latency_buckets
from gateway.envoy.system_routes import CONTROL_GRPC

MODEL_FILTER = "penstock.model"
_CALLERS = "callers"
"""Name of the callers' port in Envoy's own statistics."""

RUNTIME_LAYER = "penstock"
"""Name of the RTDS resource that carries the leases."""

_HTTP_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"
_NETWORK_FILTERS = "type.googleapis.com/envoy.extensions.filters.network"

_ADS: Json = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
"""Wait for the control plane as long as it takes: an Envoy that starts without it would answer 404 to everybody."""


_LEAST_WINDOW_BYTES = 4 * 1024 * 1024
"""Of a caller's HTTP/2 stream: a smaller one would slow uploads over long distances."""
_MOST_WINDOW_BYTES = 2**31 - 1
"""What HTTP/2 itself allows."""


def bootstrap(settings: EnvoySettings) -> Json:
    """The bootstrap of an Envoy that takes everything else from the control plane."""
    scopes = {
        "rds_config_source": _ADS,
        "scoped_rds": {"scoped_rds_config_source": _ADS},
    }
    runtime = {
        "name": RUNTIME_LAYER,
        "rtds_layer": {"name": RUNTIME_LAYER, "rtds_config": _ADS | {"initial_fetch_timeout": "1s"}},
    }
    return {
        **_process(settings),
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [
                    {
                        "envoy_grpc": {
                            "cluster_name": CONTROL_GRPC,
                            # Envoy's own back-off took 9 s to find a restarted control plane.
                            "retry_policy": {"retry_back_off": {"base_interval": "0.2s", "max_interval": "1s"}},
                            "max_receive_message_length": 64 * 1024 * 1024,
                        }
                    }
                ],
            },
            "cds_config": _ADS,
        },
        "layered_runtime": _runtime(runtime),
        "static_resources": {
            "listeners": [listener(settings, scopes, als_cluster=CONTROL_GRPC)],
            "clusters": _control_clusters(settings),
        },
    }


def static_bootstrap(
    settings: EnvoySettings, *, clusters: list[Json], scopes: list[Json], runtime: Json, control_plane: bool
) -> Json:
    """A complete configuration: everything inline, weights that never lapse.

    With `control_plane` its documents, feedback, reflection and access log are there too.
    """
    inline = {"scoped_route_configurations_list": {"scoped_route_configurations": scopes}}
    return {
        **_process(settings),
        "layered_runtime": _runtime({"name": RUNTIME_LAYER, "static_layer": dict(runtime)}),
        "static_resources": {
            "listeners": [listener(settings, inline, als_cluster=CONTROL_GRPC if control_plane else None)],
            "clusters": [*clusters, *(_control_clusters(settings) if control_plane else ())],
        },
    }


def _control_clusters(settings: EnvoySettings) -> list[Json]:
    return [
        plain_cluster(CONTROL_GRPC, settings.control_grpc, http2=True, settings=settings),
        plain_cluster(CONTROL_HTTP, settings.control_http, http2=False, settings=settings),
    ]


def listener(settings: EnvoySettings, scopes: Json, *, als_cluster: str | None) -> Json:
    """The callers' port. `scopes` says where scoped routes come from."""
    return {
        "name": "callers",
        "address": _socket(settings.listen),
        # Bodies have their limit per route; this one bounds what a connection may pile up before that.
        "per_connection_buffer_limit_bytes": 1024 * 1024,
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": _connection_manager(settings, scopes, als_cluster),
                    }
                ]
            }
        ],
    }


def _connection_manager(settings: EnvoySettings, scopes: Json, als_cluster: str | None) -> Json:
    return {
        "@type": f"{_NETWORK_FILTERS}.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": _CALLERS,
        "codec_type": "AUTO",
        "scoped_routes": {
            "name": "models",
            "scope_key_builder": {"fragments": [{"header_value_extractor": {"name": MODEL_HEADER, "index": 0}}]},
            **scopes,
        },
        "http_filters": [
            # Names the model; the route is chosen again after it, so that its header picks the scope.
            _lua(MODEL_FILTER, model_source(settings), clear_route_cache=True),
            *([_filter(CORS_FILTER, "cors.v3.Cors")] if settings.allowed_origins else ()),
            # Rewrites :path. Choosing the route again after that would undo the canary split.
            _lua(TENSORS_FILTER, tensors_source(), clear_route_cache=False),
            _filter("envoy.filters.http.router", "router.v3.Router", suppress_envoy_headers=True),
        ],
        "access_log": access_logs(als_cluster, settings),
        "local_reply_config": {"mappers": [_mark_local_replies(settings)]},
        "server_name": "penstock",
        "use_remote_address": True,
        # Callers may bring their own request id; its length is bounded by the limit on headers, and the control
        # plane's access log reader forgets ids too long to be joined with feedback.
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        # A 400 that says what is wrong must not close the caller's HTTP/1.1 connection.
        "stream_error_on_invalid_http_message": True,
        "normalize_path": True,
        "merge_slashes": True,
        "max_request_headers_kb": settings.max_header_kib,
        "request_headers_timeout": "10s",
        "stream_idle_timeout": f"{settings.idle_timeout_s:g}s",
        "common_http_protocol_options": {"idle_timeout": "900s", "max_headers_count": 100},
        "http2_protocol_options": {
            "max_concurrent_streams": 1000,
            # Also how much of a body may be held before its route is known: Open Inference gRPC names the model in
            # the message, which is read whole for it.
            "initial_stream_window_size": min(max(_LEAST_WINDOW_BYTES, settings.max_body_bytes), _MOST_WINDOW_BYTES),
            "initial_connection_window_size": 16 * 1024 * 1024,
            # Without it one malformed request would end every other caller's stream on a shared connection.
            "override_stream_error_on_invalid_http_message": True,
        },
    }


def _mark_local_replies(settings: EnvoySettings) -> Json:
    """Marks what Envoy answers by itself: `model.lua` words it in the one error shape and removes the marks."""
    marks = {
        LOCAL_HEADER: "%RESPONSE_CODE_DETAILS%",
        f"{LOCAL_HEADER}-path": "%REQ(:path)%",
        f"{LOCAL_HEADER}-model": f"%REQ({MODEL_HEADER})%",
        f"{LOCAL_HEADER}-name": "%REQ(x-penstock-name)%",
        f"{LOCAL_HEADER}-version": f"%REQ({VERSION_HEADER})%",
        f"{LOCAL_HEADER}-deadline": "%REQ(grpc-timeout)%",
        f"{LOCAL_HEADER}-type": "%REQ(content-type)%",
        f"{LOCAL_HEADER}-form": "%DYNAMIC_METADATA(penstock.web:form)%",
    }
    if settings.allowed_origins:
        marks[f"{LOCAL_HEADER}-origin"] = "%REQ(origin)%"
        marks[f"{LOCAL_HEADER}-preflight"] = "%REQ(access-control-request-method)%"
    always = {"op": "GE", "value": {"default_value": 0, "runtime_key": "penstock.none"}}
    return {
        "filter": {"status_code_filter": {"comparison": always}},
        "headers_to_add": [
            {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
            for key, value in marks.items()
        ],
    }


def _filter(name: str, message: str, **config: Any) -> Json:
    return {"name": name, "typed_config": {"@type": f"{_HTTP_FILTERS}.{message}", **config}}


def _lua(name: str, source: str, *, clear_route_cache: bool) -> Json:
    return {
        "name": name,
        "typed_config": {
            "@type": f"{_HTTP_FILTERS}.lua.v3.Lua",
            "default_source_code": {"inline_string": source},
            "clear_route_cache": clear_route_cache,
        },
    }


def _process(settings: EnvoySettings) -> Json:
    return {
        "node": {"id": settings.node_id, "cluster": "penstock"},
        "admin": {"address": _socket(settings.admin)},
        "stats_flush_interval": "1s",
        "stats_config": {
            "histogram_bucket_settings": [latency_buckets()],
            # A dozen statistics for each model's subscription, which nobody reads and every scrape would carry.
            "stats_matcher": {"exclusion_list": {"patterns": [{"prefix": f"http.{_CALLERS}.rds."}]}},
        },
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
        "overload_manager": _overload(settings),
    }


def _overload(settings: EnvoySettings) -> Json:
    heap, connections = (
        "envoy.resource_monitors.fixed_heap",
        "envoy.resource_monitors.global_downstream_max_connections",
    )
    resource = "type.googleapis.com/envoy.extensions.resource_monitors"

    def action(name: str, threshold: float) -> Json:
        return {"name": name, "triggers": [{"name": heap, "threshold": {"value": threshold}}]}

    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            {
                "name": heap,
                "typed_config": {
                    "@type": f"{resource}.fixed_heap.v3.FixedHeapConfig",
                    "max_heap_size_bytes": settings.max_heap_bytes,
                },
            },
            {
                "name": connections,
                "typed_config": {
                    "@type": f"{resource}.downstream_connections.v3.DownstreamConnectionsConfig",
                    "max_active_downstream_connections": settings.max_downstream_connections,
                },
            },
        ],
        "actions": [
            action("envoy.overload_actions.shrink_heap", 0.9),
            action("envoy.overload_actions.stop_accepting_requests", 0.98),
        ],
    }


def _runtime(penstock_layer: Json) -> Json:
    admin: dict[str, Any] = {"name": "admin", "admin_layer": {}}
    return {"layers": [penstock_layer, admin]}


def _socket(address: Address) -> Json:
    return {"socket_address": {"address": address.host, "port_value": address.port}}
