"""Registry -> `GatewayState`: which versions are routable now, as a pure function.

Called by `gateway.routing` before each publication and by the commands that print the compiled configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from gateway.envoy.state import Backend, GatewayState, ModelLimits, ModelRoutes, ServedVersion
from gateway.registry import Model, Version, VersionState

SERVED_VERSION = "1"
"""Each version is an inference-server model of its own, so the server's own version number is always the first."""


def routed_numbers(model: Model) -> frozenset[int]:
    """The version numbers that must be loaded: stable, candidate, and the previous one while an undo may want it."""
    return frozenset(n for n in (model.stable, model.candidate, model.previous) if n is not None)


def gateway_state(
    *,
    models: Iterable[Model],
    versions: Mapping[str, Sequence[Version]],
    backend: Backend,
    served_name: Callable[[str, int], str],
    limits: ModelLimits,
) -> GatewayState:
    """What Envoy should serve. `versions` are each model's, by name.

    A model without a stable version is left out; so is a version that was never proven ready.
    """
    routes = []
    for model in models:
        if model.stable is None:
            continue
        numbers = routed_numbers(model)
        served = tuple(
            ServedVersion(
                version=version.number,
                backend=backend.name,
                served_name=served_name(model.name, version.number),
                served_version=SERVED_VERSION,
                contract=version.contract,
            )
            for version in versions[model.name]
            if version.number in numbers and (version.state is VersionState.READY or version.number == model.stable)
        )
        routable = {version.version for version in served}
        routes.append(
            ModelRoutes(
                model=model.name,
                key=model.key,
                versions=served,
                stable=model.stable,
                canary=model.candidate if model.candidate in routable else None,
                limits=limits,
            )
        )
    return GatewayState(backends=(backend,), models=tuple(routes))
