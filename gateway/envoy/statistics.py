"""What Envoy measures of predictions: the access loggers of the bootstrap. `rollout.evidence.envoy` reads the counts.

Counts come from Envoy's stats access logger, so a version needs no cluster of its own to be told apart.
"""

from __future__ import annotations

from gateway.envoy.settings import EnvoySettings
from gateway.envoy.snapshot import Json
from rollout.evidence.envoy_counts import LATENCY, PREFIX, REQUESTS, envoy_edge, latency_limits_us

METADATA = "penstock"
"""Dynamic metadata namespace that `tensors.lua` fills: model, version, gs (gRPC status), label."""


def latency_buckets() -> Json:
    """`histogram_bucket_settings` entry: limits that Envoy counts exactly."""
    edges = [envoy_edge(limit) for limit in latency_limits_us()]
    return {"match": {"prefix": f"{PREFIX}.{LATENCY}"}, "buckets": edges}


def access_logs(control_cluster: str | None, settings: EnvoySettings) -> list[Json]:
    """Access loggers of the listener. `control_cluster` gets every prediction's request id, version, outcome, timings,
    label and sticky caller, for the feedback and the judge; None leaves that out."""
    loggers = [_stats_logger()]
    if control_cluster is not None:
        loggers.append(_als(control_cluster, settings))
    return [logger | {"filter": _is_prediction()} for logger in loggers]


def _stats_logger() -> Json:
    arm = [_tag("model", _metadata("model")), _tag("version", _metadata("version")), _tag("gs", _metadata("gs"))]
    ending = [_tag("flags", "%RESPONSE_FLAGS%"), _tag("code", "%RESPONSE_CODE%")]
    return {
        "name": "envoy.access_loggers.stats",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.stats.v3.Config",
            "stats_scope": {"prefix": PREFIX},
            "counters": [{"stat": {"name": REQUESTS, "tags": [*arm, *ending]}, "value_fixed": 1}],
            "histograms": [
                {
                    "stat": {"name": LATENCY, "tags": arm},
                    "unit": "Microseconds",
                    # From the caller's last byte in to the first byte out: without the caller's slow upload, with
                    # Lua, queueing and all retries. Other spans are empty on a timeout and would drop the sample.
                    "value_format": "%COMMON_DURATION(DS_RX_END:DS_TX_BEG:us)%",
                }
            ],
        },
    }


def _als(control_cluster: str, settings: EnvoySettings) -> Json:
    return {
        "name": "envoy.access_loggers.http_grpc",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
            "common_config": {
                "log_name": PREFIX,
                "transport_api_version": "V3",
                "grpc_service": {"envoy_grpc": {"cluster_name": control_cluster}},
                "buffer_flush_interval": f"{settings.als_flush_s:g}s",
                "buffer_size_bytes": 65_536,
                "grpc_stream_retry_policy": {"retry_back_off": {"base_interval": "0.2s", "max_interval": "1s"}},
            },
            # The caller's own header: what Lua makes of it for the hash is taken off before a server sees it.
            "additional_request_headers_to_log": [settings.sticky_header.lower()],
        },
    }


def _is_prediction() -> Json:
    """Only what reached `tensors.lua` counts: a wrong path or an unknown model says nothing of a version."""
    return {
        "metadata_filter": {
            "matcher": {"filter": METADATA, "path": [{"key": "version"}], "value": {"present_match": True}},
            "match_if_key_not_found": False,
        }
    }


def _metadata(key: str) -> str:
    return f"%DYNAMIC_METADATA({METADATA}:{key})%"


def _tag(name: str, value_format: str) -> Json:
    return {"name": name, "value_format": value_format}
