"""Calls from browsers: which web sites' pages may call, with which headers, and what they may read of an answer.

Used by the route configurations, a policy on each; the filter is in the chain only where origins are allowed
(`EnvoySettings.allowed_origins`). It stands after `penstock.model`, which makes the scope known that holds the policy.
The filter knows only requests that have a route to a server: what Envoy answers by itself (an unknown model, a version
that is not there) gets its headers from `cors.lua`, by the same settings.
"""

from __future__ import annotations

from gateway.envoy.settings import EnvoySettings
from gateway.envoy.snapshot import Json

CORS_FILTER = "envoy.filters.http.cors"

_METHODS = ("GET", "POST", "OPTIONS")
_MAY_SEND = (
    "content-type",
    "x-user-agent",
    "x-grpc-web",
    "grpc-timeout",
    "connect-protocol-version",
    "connect-timeout-ms",
    "inference-header-content-length",
    "x-request-id",
    "x-penstock-version",
)
_MAY_READ = (
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
    "inference-header-content-length",
    "retry-after",
    "x-request-id",
    "x-penstock-model",
    "x-penstock-version",
)
_MAX_AGE_S = 7200
"""Browsers ask again after this; two hours is the most that Chromium takes."""


def cors_policy(settings: EnvoySettings) -> Json:
    """`typed_per_filter_config` of a virtual host; empty where no origin is allowed.

    Cookies are never allowed: callers are not known by them, and `*` with cookies would be everybody's.
    """
    if not settings.allowed_origins:
        return {}
    policy = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": [
            {"safe_regex": {"regex": ".*"}} if origin == "*" else {"exact": origin}
            for origin in settings.allowed_origins
        ],
        "allow_methods": ", ".join(_METHODS),
        "allow_headers": _may_send(settings),
        "expose_headers": ", ".join(_MAY_READ),
        "max_age": str(_MAX_AGE_S),
    }
    return {CORS_FILTER: policy}


def cors_of_replies(settings: EnvoySettings) -> Json:
    """What `cors.lua` puts on Envoy's own replies: the origins, and headers of every answer and of a preflight's."""
    return {
        "origins": list(settings.allowed_origins),
        "headers": {"access-control-expose-headers": ", ".join(_MAY_READ)},
        "preflight": {
            "access-control-allow-methods": ", ".join(_METHODS),
            "access-control-allow-headers": _may_send(settings),
            "access-control-max-age": str(_MAX_AGE_S),
        },
    }


def _may_send(settings: EnvoySettings) -> str:
    return ", ".join((*_MAY_SEND, settings.sticky_header))
