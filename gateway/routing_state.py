"""Registry -> `GatewayState`: which versions are routable now, as a pure function.

Called by `gateway.routing` before each publication and by the commands that print the compiled configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from adapters.server import Served
from gateway.envoy.state import Backend, GatewayState, ModelRoutes, ServedVersion
from gateway.limits import LimitPolicy
from gateway.registry import RoutingLine, Version, VersionState

SERVED_VERSION = "1"
"""Each version that we loaded is an inference-server model of its own, so the server's own version number is always
the first. An adopted version has the server's names."""


def gateway_state(
    *,
    lines: Iterable[RoutingLine],
    versions: Mapping[str, Sequence[Version]],
    backend: Backend,
    served_name: Callable[[str, int], str],
    limits: LimitPolicy,
    failing: Collection[tuple[str, int]] = (),
) -> GatewayState:
    """What Envoy should serve. `versions` are each model's, by name; `failing` those whose test inference fails.

    A line without a stable version is left out; so is a version that was never proven ready.
    """
    routes = []
    for line in lines:
        if line.stable is None:
            continue
        model = line.line.model
        routed = [
            version
            for version in versions[model]
            if version.number in line.routed and (version.state is VersionState.READY or version.number == line.stable)
        ]
        served = tuple(_served(version, backend, served_name, failing) for version in routed)
        routes.append(
            ModelRoutes(
                model=model,
                key=line.line.key,
                versions=served,
                stable=line.stable,
                canary=line.candidate if line.candidate in {version.number for version in routed} else None,
                limits=limits.of(version.contract for version in routed),
                major=line.line.major,
            )
        )
    return GatewayState(backends=(backend,), models=tuple(routes))


def _served(
    version: Version,
    backend: Backend,
    served_name: Callable[[str, int], str],
    failing: Collection[tuple[str, int]],
) -> ServedVersion:
    own = version.served or Served(served_name(version.model, version.number), SERVED_VERSION)
    return ServedVersion(
        version=version.number,
        backend=backend.name,
        served_name=own.name,
        served_version=own.version,
        contract=version.contract,
        failing=(version.model, version.number) in failing,
    )
