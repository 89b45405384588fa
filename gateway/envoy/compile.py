"""GatewayState -> Snapshot: the whole per-model configuration of Envoy, as a pure function.

The same state gives the same bytes, whatever the order of its parts. What does not belong to a model is in
`gateway.envoy.bootstrap`. The control plane publishes the result through `gateway.envoy.ads`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from gateway.contract.lines import Line
from gateway.envoy.clusters import Protocol, backend_clusters, physical_name
from gateway.envoy.mirror import mirror_clusters
from gateway.envoy.routes import lease_keys, model_route_configuration
from gateway.envoy.settings import EnvoySettings
from gateway.envoy.snapshot import Json, LeaseKeys, Resource, Snapshot, TypeUrl
from gateway.envoy.state import Backend, GatewayState, ModelRoutes, ServedVersion
from gateway.envoy.system_routes import SYSTEM_SCOPE, system_route_configuration

_BACKEND_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class BadState(ValueError):
    """The state contradicts itself; nothing was compiled. `problems` lists everything that is wrong."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        super().__init__("the gateway's state cannot be compiled: " + "; ".join(problems))


class Compiler:
    """Compiles one state after another; a line that is as it was in the last one is not compiled again."""

    def __init__(self, settings: EnvoySettings) -> None:
        self._settings = settings
        self._backends: tuple[Backend, ...] = ()
        self._lines: dict[str, _Compiled] = {}

    def compile(self, state: GatewayState) -> Snapshot:
        """The whole state. Raises BadState; the next state is then compiled from scratch."""
        kept = self._lines if state.backends == self._backends else {}
        self._lines = {}
        others = other_majors(state)
        lines = {
            model.key: old
            for model in state.models
            if (old := kept.get(model.key)) and old.model == model and old.others == others.get(model.key)
        }
        _refuse_contradictions(state, [model for model in state.models if model.key not in lines])
        for model in state.models:
            if model.key not in lines:
                lines[model.key] = self._compile(model, others)
        self._backends, self._lines = state.backends, lines
        return Snapshot.of(
            [*self._common(state), *(resource for line in lines.values() for resource in line.resources)],
            {line.model.line.name: line.lease for line in lines.values() if line.lease is not None},
        )

    def _common(self, state: GatewayState) -> Iterator[Resource]:
        """What belongs to no model."""
        for backend in sorted(state.backends, key=lambda b: b.name):
            yield from (Resource.of(TypeUrl.CLUSTER, cluster) for cluster in backend_clusters(backend, self._settings))
        yield from (Resource.of(TypeUrl.CLUSTER, cluster) for cluster in mirror_clusters(self._settings))
        yield Resource.of(TypeUrl.ROUTES, system_route_configuration(state, self._settings))
        yield Resource.of(TypeUrl.SCOPE, scope(SYSTEM_SCOPE, SYSTEM_SCOPE))

    def _compile(self, model: ModelRoutes, others: Mapping[str, tuple[ServedVersion, ...]]) -> _Compiled:
        ordered = _ordered(model)
        routes = model_route_configuration(ordered, self._settings, others=others.get(model.key, ()))
        scopes = (Resource.of(TypeUrl.SCOPE, scope(key, model.key)) for key in scope_keys(model, others))
        resources = (Resource.of(TypeUrl.ROUTES, routes), *scopes)
        return _Compiled(model, others.get(model.key), resources, lease_keys(ordered))


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A line, and the other majors' versions that it lets be pinned, with what became of them."""

    model: ModelRoutes
    others: tuple[ServedVersion, ...] | None
    resources: tuple[Resource, ...]
    lease: LeaseKeys | None


def compile(state: GatewayState, settings: EnvoySettings) -> Snapshot:
    """Compile one state. Raises BadState."""
    return Compiler(settings).compile(state)


def scope(key: str, routes: str) -> Json:
    """Requests whose `x-penstock-model` header is `key` use the route configuration `routes`."""
    return {"name": key, "route_configuration_name": routes, "key": {"fragments": [{"string_key": key}]}}


def scope_keys(model: ModelRoutes, others: Mapping[str, tuple[ServedVersion, ...]]) -> tuple[str, ...]:
    """The scope of the line; that of the model's plain key as well when it is the lowest major that is served.

    `others` is `other_majors` of the state. Open Inference Protocol knows no majors: `model.lua` gives its calls the
    plain key.
    """
    plain = Line(model.model).key
    return (model.key,) if model.key == plain or model.key not in others else (model.key, plain)


def other_majors(state: GatewayState) -> dict[str, tuple[ServedVersion, ...]]:
    """By the scope key of a model's lowest served major: the versions of its other majors, to be pinned there.

    Models that serve major 1 alone, nearly all, are left out.
    """
    several = {model.model for model in state.models if model.major > 1}
    lines: dict[str, list[ModelRoutes]] = {}
    for model in sorted((m for m in state.models if m.model in several), key=lambda m: m.major):
        lines.setdefault(model.model, []).append(model)
    return {
        lowest.key: tuple(version for model in more for version in model.versions) for lowest, *more in lines.values()
    }


def check(state: GatewayState) -> GatewayState:
    """The state in canonical order. Raises BadState."""
    _refuse_contradictions(state, state.models)
    return GatewayState(
        backends=tuple(sorted(state.backends, key=lambda b: b.name)),
        models=tuple(_ordered(model) for model in sorted(state.models, key=lambda m: m.key)),
    )


def _ordered(model: ModelRoutes) -> ModelRoutes:
    return replace(model, versions=tuple(sorted(model.versions, key=lambda v: v.version)))


def _refuse_contradictions(state: GatewayState, models: Iterable[ModelRoutes]) -> None:
    """Envoy would accept most contradictions and answer 503. `models` are those to look at one by one."""
    problems = (*_backend_problems(state), *(p for model in models for p in _model_problems(model, state)))
    problems += tuple(_clashes(state))
    if problems:
        raise BadState(problems)


def _clashes(state: GatewayState) -> Iterator[str]:
    lines = Counter(model.key for model in state.models)
    models = Counter(Line(name).key for name in {model.model for model in state.models})
    clashing = {key for key, n in (*lines.items(), *models.items()) if n > 1}
    yield from (f"several models have the key {key!r}" for key in sorted(clashing))


def _backend_problems(state: GatewayState) -> Iterator[str]:
    names = Counter(physical_name(b.name, protocol) for b in state.backends for protocol in Protocol)
    yield from (f"several backends make a cluster named {name!r}" for name, n in sorted(names.items()) if n > 1)
    for backend in state.backends:
        if not _BACKEND_NAME.fullmatch(backend.name):
            yield f"backend name {backend.name!r}: expected lower-case words joined by '-'"


def _model_problems(model: ModelRoutes, state: GatewayState) -> Iterator[str]:
    where = f"model {model.line.name!r}"
    if model.key != model.line.key:
        yield f"{where}: its scope key is {model.key!r}, expected {model.line.key!r}"
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
        of = Line(version.contract.model, version.contract.major)
        if of != model.line:
            yield f"{where}: version {version.version} has the contract of {of.name!r}; lines do not share versions"
