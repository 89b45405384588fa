"""GatewayState -> Snapshot: the whole per-model configuration of Envoy, as a pure function.

The same state gives the same bytes, whatever the order of its parts. What does not belong to a model is in
`gateway.envoy.bootstrap`. The control plane publishes the result through `gateway.envoy.ads`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from gateway.envoy.clusters import Protocol, backend_clusters, physical_name
from gateway.envoy.routes import lease_keys, model_route_configuration
from gateway.envoy.settings import EnvoySettings
from gateway.envoy.snapshot import Json, Resource, Snapshot, TypeUrl
from gateway.envoy.state import GatewayState, ModelRoutes
from gateway.envoy.system_routes import SYSTEM_SCOPE, system_route_configuration

_BACKEND_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class BadState(ValueError):
    """The state contradicts itself; nothing was compiled. `problems` lists everything that is wrong."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        super().__init__("the gateway's state cannot be compiled: " + "; ".join(problems))


def compile(state: GatewayState, settings: EnvoySettings) -> Snapshot:
    """Compile the whole state. Raises BadState."""
    state = check(state)
    resources = [
        Resource.of(TypeUrl.CLUSTER, cluster) for b in state.backends for cluster in backend_clusters(b, settings)
    ]
    resources.append(Resource.of(TypeUrl.ROUTES, system_route_configuration(state, settings)))
    resources.append(Resource.of(TypeUrl.SCOPE, scope(SYSTEM_SCOPE)))
    for model in state.models:
        resources.append(Resource.of(TypeUrl.ROUTES, model_route_configuration(model, settings)))
        resources.append(Resource.of(TypeUrl.SCOPE, scope(model.key)))
    leases = {model.model: keys for model in state.models if (keys := lease_keys(model)) is not None}
    return Snapshot.of(resources, leases)


def scope(key: str) -> Json:
    """Requests whose `x-penstock-model` header is `key` use the route configuration of that name."""
    return {"name": key, "route_configuration_name": key, "key": {"fragments": [{"string_key": key}]}}


def check(state: GatewayState) -> GatewayState:
    """The state in canonical order. Envoy would accept most contradictions and answer 503: raise BadState instead."""
    problems = (*_backend_problems(state), *(p for model in state.models for p in _model_problems(model, state)))
    keys = Counter(model.key for model in state.models)
    problems += tuple(f"several models have the key {key!r}" for key, n in sorted(keys.items()) if n > 1)
    if problems:
        raise BadState(problems)
    return GatewayState(
        backends=tuple(sorted(state.backends, key=lambda b: b.name)),
        models=tuple(
            replace(model, versions=tuple(sorted(model.versions, key=lambda v: v.version)))
            for model in sorted(state.models, key=lambda m: m.key)
        ),
    )


def _backend_problems(state: GatewayState) -> Iterator[str]:
    names = Counter(physical_name(b.name, protocol) for b in state.backends for protocol in Protocol)
    yield from (f"several backends make a cluster named {name!r}" for name, n in sorted(names.items()) if n > 1)
    for backend in state.backends:
        if not _BACKEND_NAME.fullmatch(backend.name):
            yield f"backend name {backend.name!r}: expected lower-case words joined by '-'"


def _model_problems(model: ModelRoutes, state: GatewayState) -> Iterator[str]:
    where = f"model {model.model!r}"
    numbers = Counter(v.version for v in model.versions)
    yield from (f"{where}: version {number} is listed {n} times" for number, n in sorted(numbers.items()) if n > 1)
    for role, number in (("stable", model.stable), ("canary", model.canary)):
        if number is not None and number not in numbers:
            yield f"{where}: {role} is version {number}, which is not among its served versions {sorted(numbers)}"
            return
    if model.canary == model.stable:
        yield f"{where}: version {model.stable} is both stable and canary"
    backends = {b.name for b in state.backends}
    for version in model.versions:
        if version.backend not in backends:
            yield f"{where}: version {version.version} is on backend {version.backend!r}, which is not configured"
        if version.contract.model != model.model or version.contract.key != model.key:
            yield f"{where}: version {version.version} has the contract of model {version.contract.model!r}"
    if model.canary is not None:
        stable, canary = model.served(model.stable).contract.major, model.served(model.canary).contract.major
        if stable != canary:
            yield f"{where}: canary has API major {canary}, stable {stable}; traffic cannot be shared between majors"
