"""Copies of live requests for the mirror evaluator: the cluster, the policy on a route, and its share in the lease.

The share is 0 in the route and a runtime key in the lease beside the canary weights, so that mirroring ends within the
lease's time when nobody controls it. Envoy copies a request as it goes to the server, after `tensors.lua`: typed gRPC,
typed JSON and Open Inference gRPC all reach the evaluator as one `ModelInfer`. What becomes of a copy never reaches the
caller. The process at the other end is `rollout.evidence.mirror`.
"""

from __future__ import annotations

from gateway.envoy.clusters import plain_cluster
from gateway.envoy.context import Kind
from gateway.envoy.settings import EnvoySettings
from gateway.envoy.snapshot import Json, basis_points
from rollout.evidence.mirror.place import CLUSTER, MAX_MESSAGE_BYTES

MAX_IN_FLIGHT = 32
"""Copies that Envoy holds for an evaluator that does not answer; the next ones are dropped and counted. An evaluator
that works acknowledges in a millisecond, so this is tens of thousands of copies a second."""

LONGEST_S = 5.0
"""A copy that was not acknowledged by then is given up, and its memory with it."""

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_MIRRORED = frozenset({Kind.JSON, Kind.GRPC, Kind.OIP_GRPC})
"""Open Inference HTTP ends at another port of the server, in a form that the evaluator does not read."""


def mirror_clusters(settings: EnvoySettings) -> list[Json]:
    """The evaluator's cluster; none where the settings have no evaluator."""
    if settings.mirror is None:
        return []
    cluster = plain_cluster(CLUSTER, settings.mirror, http2=True, settings=settings)
    cluster["typed_extension_protocol_options"][_HTTP_OPTIONS]["common_http_protocol_options"] = {
        "idle_timeout": "300s",
        # The route's time limit does not hold for copies.
        "max_stream_duration": f"{LONGEST_S:g}s",
    }
    return [
        cluster
        | {
            "connect_timeout": "1s",
            "per_connection_buffer_limit_bytes": MAX_MESSAGE_BYTES,
            "circuit_breakers": {
                "thresholds": [{"max_requests": MAX_IN_FLIGHT, "max_pending_requests": MAX_IN_FLIGHT, "max_retries": 0}]
            },
        }
    ]


def mirror_policy(runtime_key: str, kind: Kind, settings: EnvoySettings) -> Json:
    """What a shared route's action gets besides; nothing for a protocol that is not mirrored."""
    if settings.mirror is None or kind not in _MIRRORED:
        return {}
    return {
        "request_mirror_policies": [
            {
                "cluster": CLUSTER,
                "runtime_fraction": {"default_value": basis_points(0), "runtime_key": runtime_key},
                "disable_shadow_host_suffix_append": True,
                "trace_sampled": False,
            }
        ]
    }


def mirror_key(runtime_prefix: str) -> str:
    """The runtime key of the mirrored share of a pair of versions."""
    return f"{runtime_prefix}.mirror"
