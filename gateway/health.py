"""Whether predictions could be served now, and what is missing.

The one answer behind `/readyz`, gRPC health and `penstock up`'s "ready". It asks the real parts: Envoy, the inference
server, and the completed test inferences of every stable version. One model that does not answer is no reason to take
the others' gateway out of service: it is named in `missing`, and its own service's health says so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from adapters.server import Listed, Served
from gateway.contract.lines import Line
from gateway.registry import Registry
from gateway.serving import InferenceServing
from rollout.ports import Clock

REMEMBER_S = 1.0
"""Seconds for which a report is given again, so that callers' health checks cannot load Envoy and the server."""


@dataclass(frozen=True, slots=True)
class HealthReport:
    """`ready`: Envoy and the server answer, and so does at least one model if there is any.

    `missing` says in words what does not answer; `message` sums it up.
    """

    ready: bool
    message: str
    missing: tuple[str, ...] = ()


class GatewayHealth:
    """`envoy_live` tells whether Envoy takes requests; it never raises."""

    def __init__(
        self,
        *,
        registry: Registry,
        serving: InferenceServing,
        envoy_live: Callable[[], Awaitable[bool]],
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._serving = serving
        self._envoy_live = envoy_live
        self._clock = clock
        self._last: tuple[float, HealthReport] | None = None

    async def report(self) -> HealthReport:
        now = self._clock.monotonic()
        if self._last is not None and now - self._last[0] < REMEMBER_S:
            return self._last[1]
        report = await self._look()
        self._last = (now, report)
        return report

    def versions(self) -> tuple[Listed, ...]:
        """Every version that callers can reach, by its public name, and whether its last test inference completed."""
        readiness = self._serving.readiness()
        listed = []
        for name, number in self._reachable():
            seen = readiness.get((name, number))
            ready = seen is not None and seen.ready
            reason = "" if ready else seen.reason if seen else "it is not loaded yet"
            listed.append(Listed(Served(name, str(number)), ready, reason))
        return tuple(listed)

    def version_ready(self, name: str, version: str = "") -> bool:
        """Whether callers of the version get predictions; without one, callers who leave the choice to the gateway.

        False for what no caller can reach.
        """
        if version:
            reached = version.isdecimal() and (name, int(version)) in self._reachable()
            return reached and self._serving.is_ready(name, int(version))
        model = self._registry.find_model(name)
        stable = [line.stable for line in model.lines if line.stable is not None] if model else []
        return bool(stable) and self._serving.is_ready(name, stable[0])

    def _reachable(self) -> list[tuple[str, int]]:
        lines = (line for line in self._registry.lines() if line.stable is not None)
        return sorted((line.line.model, number) for line in lines for number in line.routed)

    def line_ready(self, line: Line) -> bool | None:
        """Whether the line's stable version completed its last test inference; None for a line not served."""
        model = self._registry.find_model(line.model)
        found = next((each for each in model.lines if each.line == line), None) if model else None
        if found is None or found.stable is None:
            return None
        return self._serving.is_ready(line.model, found.stable)

    async def _look(self) -> HealthReport:
        parts = []
        if not await self._envoy_live():
            parts.append("Envoy does not answer")
        server = self._serving.server
        if not await server.live():
            parts.append(f"the inference server {server.name!r} at {server.grpc} does not answer")
        stable = [(line.line.model, line.stable) for line in self._registry.lines() if line.stable is not None]
        readiness = self._serving.readiness()
        models = []
        for name, version in stable:
            seen = readiness.get((name, version))
            if seen is None:
                models.append(f"{name} version {version} is not loaded yet")
            elif not seen.ready:
                models.append(f"{name} version {version} does not answer: {seen.reason}")
        missing = (*parts, *models)
        if parts or (stable and len(models) == len(stable)):
            return HealthReport(False, "not ready: " + "; ".join(missing), missing)
        if not stable:
            return HealthReport(True, "ready; no models yet: `penstock deploy model.onnx --name NAME` adds one")
        if missing:
            return HealthReport(True, f"ready, but {'; '.join(missing)}", missing)
        return HealthReport(True, f"ready; {len(stable)} model{'s' * (len(stable) > 1)} served")
