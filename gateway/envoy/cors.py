"""Calls from browsers: which web sites' pages may call, with which headers, and what they may read of an answer.

Used by the route configurations, a policy on each; the filter is in the chain only where origins are allowed
(`EnvoySettings.allowed_origins`). It stands after `penstock.model`, which makes the scope known that holds the policy.
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
        "allow_headers": ", ".join((*_MAY_SEND, settings.sticky_header)),
        "expose_headers": ", ".join(_MAY_READ),
        "max_age": str(_MAX_AGE_S),
    }
    return {CORS_FILTER: policy}


def cors_of_refusals(settings: EnvoySettings) -> Json:
    """Fields of a virtual host that let pages of any origin read its direct responses, which Envoy's filter passes by.

    They are constant, so they cannot follow the caller's origin: where only some origins are allowed, their pages see
    such a refusal (an unknown version) as a failed fetch without its reason.
    """
    if settings.allowed_origins != ("*",):
        return {}
    headers = {"access-control-allow-origin": "*", "access-control-expose-headers": ", ".join(_MAY_READ)}
    return {
        "response_headers_to_add": [
            {"header": {"key": key, "value": value}, "append_action": "ADD_IF_ABSENT"} for key, value in headers.items()
        ]
    }
