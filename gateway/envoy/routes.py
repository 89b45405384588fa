"""The route configuration of one model: which version answers which request, over every protocol.

The order within a model's routes is its meaning: the model's documents, pinned versions, unknown pins refused, then the
traffic that is shared by weight, and nothing else. `model.lua` has already chosen the model; its header is the scope.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from gateway.contract.model import Contract
from gateway.envoy.clusters import Arm, Protocol, alias_name, physical_name
from gateway.envoy.context import Kind, context_id, contexts_by_id, no_tensors, tensors_context
from gateway.envoy.cors import cors_policy
from gateway.envoy.mirror import mirror_key, mirror_policy
from gateway.envoy.settings import EnvoySettings
from gateway.envoy.snapshot import Json, LeaseKeys
from gateway.envoy.state import ModelRoutes, ServedVersion
from rollout.ports import FULL_WEIGHT

HASH_HEADER = "x-penstock-hash"
MODEL_HEADER = "x-penstock-model"
VERSION_HEADER = "x-penstock-version"
LOCAL_HEADER = "x-penstock-local"
SERVER_HEADERS = ("grpc-accept-encoding", "grpc-encoding", LOCAL_HEADER)
"""Removed from servers' answers: they speak of the server's connection, or would pass for a mark of Envoy's own."""

CONTROL_HTTP = "penstock-control-http"
"""Cluster of the control plane's HTTP port; in the bootstrap, so that it is there without ADS."""

_PROTOCOL = {
    Kind.JSON: Protocol.GRPC,
    Kind.GRPC: Protocol.GRPC,
    Kind.OIP_GRPC: Protocol.GRPC,
    Kind.OIP_HTTP: Protocol.HTTP,
}
"""Which port of the inference server a protocol ends at; typed JSON becomes gRPC in Envoy."""

_TYPED_KINDS = (Kind.JSON, Kind.GRPC)
_OIP_KINDS = (Kind.OIP_HTTP, Kind.OIP_GRPC)

_ANY_PIN: Json = {"name": VERSION_HEADER, "present_match": True}
_NO_PIN: Json = _ANY_PIN | {"invert_match": True}

_LONGEST_REASON = 800
"""Characters of a refusal's reason: it goes out in gRPC headers, whose size clients bound."""

_OIP_HTTP_METHODS = "infer|ready|config|stats"
# A list of what is allowed: the servers' administrative methods on the same port (repository, shared memory, trace and
# log settings) are not for callers. For gRPC names.lua has that list: no other method comes with a model's scope.
_OIP_GRPC = "/inference.GRPCInferenceService/"
_OIP_GRPC_STREAM = f"{_OIP_GRPC}ModelStreamInfer"
_OIP_GRPC_READY = f"{_OIP_GRPC}ModelReady"


def model_route_configuration(
    model: ModelRoutes,
    settings: EnvoySettings,
    *,
    control_plane: bool = True,
    others: tuple[ServedVersion, ...] = (),
) -> Json:
    """All routes of a line, as one RDS resource named by its scope key.

    Its documents need a `control_plane`; those of major 1 have the same paths for every model and are the system's.
    `others` are versions of the model's other API majors, which Open Inference Protocol can pin here.
    """
    alone = len(model.versions) == 1 and not others
    routes = [
        *(_documents(model, settings) if control_plane and model.major > 1 else ()),
        *_not_ready(model, others),
        *(_only_pin(model) if alone else _pins(model, others, settings)),
        *_shared(model, settings, alone=alone),
        *_untyped(model),
        _refusal(),
    ]
    return {
        "name": model.key,
        "virtual_hosts": [
            {
                "name": model.key,
                "domains": ["*"],
                "routes": routes,
                "retry_policy": _retry_policy(Protocol.GRPC),
                **({"typed_per_filter_config": cors} if (cors := cors_policy(settings)) else {}),
            }
        ],
        "request_headers_to_remove": [HASH_HEADER],
    }


def lease_keys(model: ModelRoutes) -> LeaseKeys | None:
    """The runtime keys of the model's weights; None without a canary."""
    if model.canary is None:
        return None
    prefix = _runtime_prefix(model)

    def keys(version: int, arm: Arm) -> tuple[str, ...]:
        backend = model.served(version).backend
        return tuple(f"{prefix}.{alias_name(backend, protocol, arm)}" for protocol in Protocol)

    return LeaseKeys(
        routes=model.key,
        stable=keys(model.stable, Arm.STABLE),
        canary=keys(model.canary, Arm.CANARY),
        mirror=mirror_key(prefix),
    )


def _runtime_prefix(model: ModelRoutes) -> str:
    """Names the pair of versions: a lease for the last candidate cannot give its weight to the next one."""
    return f"penstock.models.{model.key}.{model.stable}-{model.canary}"


def _documents(model: ModelRoutes, settings: EnvoySettings) -> Iterator[Json]:
    base = f"/v{model.major}/models/{model.model}"
    paths: tuple[Json, ...] = tuple({"path": f"{base}{rest}"} for rest in ("", ".proto", "/openapi.json", "/docs"))
    for match in (*paths, {"path_separated_prefix": f"{base}/clients"}):
        yield {
            "match": match,
            "route": {"cluster": CONTROL_HTTP, "timeout": f"{settings.system_timeout_s:g}s"},
            "typed_per_filter_config": no_tensors(),
        }


def _not_ready(model: ModelRoutes, others: tuple[ServedVersion, ...]) -> Iterator[Json]:
    """Ready calls for versions whose inferences fail: the server would say that it has loaded them.

    ModelReady takes the refusal as a word to ask the control plane (`tensors.lua`), which answers it with "no".
    """
    for version in (*model.versions, *others):
        if version.failing:
            words = f"model {model.model} version {version.version} is loaded and does not answer its test inference"
            in_path = _regex(rf"/v2/models/{re.escape(model.model)}(/versions/{version.version})?/ready")
            for pin in (_pin(version), *((_NO_PIN,) if version.version == model.stable else ())):
                yield _refusal(503, words, headers=[pin], **in_path)
                yield _refusal(503, words, headers=[pin], path=_OIP_GRPC_READY)


def _kinds(version: ServedVersion) -> tuple[Kind, ...]:
    """The protocols a version answers."""
    return tuple(Kind) if version.contract.typed else _OIP_KINDS


def _pins(model: ModelRoutes, others: tuple[ServedVersion, ...], settings: EnvoySettings) -> Iterator[Json]:
    """`model.lua` has copied a version in the path or in an Open Inference message to the header."""
    for version in (*model.versions, *others):
        yield _stream(model, version, settings, headers=[_pin(version)])
    for version in model.versions:
        for kind in _kinds(version):
            yield _pinned(model, version, kind, _pinned_match(version, kind))
    for version in others:
        for kind in _OIP_KINDS:
            yield _pinned(model, version, kind, _pinned_match(version, kind))
    for version in model.versions:
        if not version.contract.typed:
            for kind in _TYPED_KINDS:
                yield _no_typed_api(version.contract, _pinned_match(version, kind))
    known = ", ".join(str(v.version) for v in (*model.versions, *others))
    yield _refusal(404, known, headers=[_ANY_PIN])


def _only_pin(model: ModelRoutes) -> Iterator[Json]:
    """A line with one version needs no routes for its pin: the shared ones answer it, and any other is refused here.

    Most models have one version most of the time, and their routes are most of Envoy's memory.
    """
    (version,) = model.versions
    other = {"name": VERSION_HEADER, "string_match": {"exact": str(version.version)}, "invert_match": True}
    yield _refusal(404, str(version.version), headers=[_ANY_PIN, other])


def _shared(model: ModelRoutes, settings: EnvoySettings, *, alone: bool) -> Iterator[Json]:
    stable = model.served(model.stable)
    # On the stable version: one stream is one choice, too coarse to share by weight.
    yield _stream(model, stable, settings)
    for kind in _kinds(stable):
        match = _path_match(stable, kind) if alone else _match(stable.contract, kind)
        if model.canary is None:
            yield _pinned(model, stable, kind, match)
        else:
            canary = model.served(model.canary)
            yield {
                "match": match,
                "metadata": contexts_by_id(*(tensors_context(v, kind, model.limits) for v in (canary, stable))),
                "route": {
                    "weighted_clusters": {
                        "runtime_key_prefix": _runtime_prefix(model),
                        "use_hash_policy": True,
                        # The canary first: it owns hashes 0..weight, so that who is in it stays in as it rises.
                        "clusters": [
                            _entry(model, canary, kind, Arm.CANARY, 0),
                            _entry(model, stable, kind, Arm.STABLE, FULL_WEIGHT),
                        ],
                    },
                    # Set by model.lua when the user is known; without it the choice is random per request.
                    "hash_policy": [{"header": {"header_name": HASH_HEADER}}],
                    **mirror_policy(mirror_key(_runtime_prefix(model)), kind, settings),
                    **_action(model, kind),
                },
                **_route_common(model),
            }


def _untyped(model: ModelRoutes) -> Iterator[Json]:
    """Typed calls to a model that has no typed API say why, and where to go instead."""
    contract = model.served(model.stable).contract
    if not contract.typed:
        for kind in _TYPED_KINDS:
            yield _no_typed_api(contract, _match(contract, kind))


def _no_typed_api(contract: Contract, match: Json) -> Json:
    why = "; ".join(obstacle.rstrip(".") for obstacle in contract.obstacles)
    if len(why) > _LONGEST_REASON:
        why = why[:_LONGEST_REASON] + "..."
    return _refusal(501, f"model {contract.model} has no typed API: {why}", **match)


def _stream(model: ModelRoutes, version: ServedVersion, settings: EnvoySettings, **match: Any) -> Json:
    """Open Inference streams. They have no time limit, and are not retried: half of one may have been answered."""
    return _pinned(model, version, Kind.OIP_GRPC, {"path": _OIP_GRPC_STREAM, **match}) | {
        "route": {
            "cluster": physical_name(version.backend, Protocol.GRPC),
            "timeout": "0s",
            "idle_timeout": f"{settings.idle_timeout_s:g}s",
            "max_stream_duration": {"grpc_timeout_header_max": "0s"},
            "retry_policy": {},  # none, instead of the virtual host's
        }
    }


def _pinned(model: ModelRoutes, version: ServedVersion, kind: Kind, match: Json) -> Json:
    """A route to one version. No runtime key: a lease cannot move it."""
    tensors = tensors_context(version, kind, model.limits)
    return {
        "match": match,
        "metadata": contexts_by_id(tensors),
        "route": {
            "cluster": physical_name(version.backend, _PROTOCOL[kind]),
            **_action(model, kind),
        },
        "typed_per_filter_config": context_id(tensors),
        "response_headers_to_add": _version_headers(version),
        **_route_common(model),
    }


def _entry(model: ModelRoutes, version: ServedVersion, kind: Kind, arm: Arm, weight: int) -> Json:
    return {
        "name": alias_name(version.backend, _PROTOCOL[kind], arm),
        "weight": weight,
        "typed_per_filter_config": context_id(tensors_context(version, kind, model.limits)),
        "response_headers_to_add": _version_headers(version),
    }


def _version_headers(version: ServedVersion) -> list[Json]:
    values = {MODEL_HEADER: version.contract.model, VERSION_HEADER: str(version.version)}
    return [
        {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        for key, value in values.items()
    ]


def _route_common(model: ModelRoutes) -> Json:
    return {
        # Also the limit for bodies that Lua reads, requests and responses, HTTP/1 and HTTP/2.
        "request_body_buffer_limit": model.limits.request_bytes,
        "response_headers_to_remove": list(SERVER_HEADERS),
    }


def _action(model: ModelRoutes, kind: Kind) -> Json:
    timeout_s = model.limits.timeout_s
    return {
        "timeout": f"{timeout_s:g}s",
        # The timeout starts when the whole request is there; a stalled upload is ended by this one.
        "idle_timeout": f"{timeout_s + 10:g}s",
        # A caller's own deadline in grpc-timeout (gRPC, or JSON with that header), whatever its length. Envoy ignores
        # `timeout` on a route with this field, so the limit for callers without a deadline is said here again.
        "max_stream_duration": {"max_stream_duration": f"{timeout_s:g}s", "grpc_timeout_header_max": "0s"},
        # The virtual host has that of gRPC.
        **({"retry_policy": _retry_policy(Protocol.HTTP)} if _PROTOCOL[kind] is Protocol.HTTP else {}),
    }


def _retry_policy(protocol: Protocol) -> Json:
    """Predictions have no side effects, so a reset may be retried; answers of a working server never are."""
    common = "connect-failure,refused-stream,reset,reset-before-request"
    return {
        "retry_on": f"{common},unavailable" if protocol is Protocol.GRPC else f"{common},retriable-status-codes",
        **({"retriable_status_codes": [503]} if protocol is Protocol.HTTP else {}),
        "num_retries": 3,
        "retry_back_off": {"base_interval": "0.010s", "max_interval": "0.200s"},
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                },
            }
        ],
        "host_selection_retry_max_attempts": 5,
    }


def _match(contract: Contract, kind: Kind) -> Json:
    match kind:
        case Kind.JSON:
            return {"path": contract.predict_http_path}
        case Kind.GRPC:
            return {"path": contract.predict_grpc_path}
        case Kind.OIP_HTTP:
            return _regex(rf"/v2/models/{re.escape(contract.model)}(/({_OIP_HTTP_METHODS}))?")
        case Kind.OIP_GRPC:
            return {"prefix": _OIP_GRPC}


def _pinned_match(version: ServedVersion, kind: Kind) -> Json:
    """As `_match`, for requests that name the version in the header and perhaps in the path."""
    return _path_match(version, kind) | {"headers": [_pin(version)]}


def _pin(version: ServedVersion) -> Json:
    return {"name": VERSION_HEADER, "string_match": {"exact": str(version.version)}}


def _path_match(version: ServedVersion, kind: Kind) -> Json:
    """As `_match`, and the path may name the version too. (Of typed JSON `model.lua` has cut it out.)"""
    if kind is not Kind.OIP_HTTP:
        return _match(version.contract, kind)
    in_path = f"(/versions/{version.version})?"
    return _regex(rf"/v2/models/{re.escape(version.contract.model)}{in_path}(/({_OIP_HTTP_METHODS}))?")


def _regex(pattern: str) -> Json:
    return {"safe_regex": {"regex": pattern}}


def _refusal(status: int = 404, words: str = "", **match: Any) -> Json:
    """A refusal that `model.lua` words in the caller's protocol.

    404 for a version or a method that is not there, with the versions that are in `words`; 501 for a model without a
    typed API and 503 for a version that is not ready, with the reason in `words`.
    """
    anything = {} if {"path", "prefix", "safe_regex"} & match.keys() else {"prefix": "/"}
    return {
        "match": {**anything, **match},
        "direct_response": {"status": status, **({"body": {"inline_string": words}} if words else {})},
    }
