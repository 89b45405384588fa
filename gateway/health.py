"""Whether a prediction could be served now, and what is missing if not.

The one answer behind `/readyz`, gRPC health and `penstock up`'s "ready". It asks the real parts: Envoy, the inference
server, and the completed test inferences of every stable version.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.registry import Registry
from gateway.serving import InferenceServing
from rollout.ports import Clock

REMEMBER_S = 1.0
"""Seconds for which a report is given again, so that callers' health checks cannot load Envoy and the server."""


@dataclass(frozen=True, slots=True)
class HealthReport:
    """`missing` says in words what keeps predictions from being served; `message` sums it up."""

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

    def model_ready(self, model: str) -> bool | None:
        """Whether the model's stable version answered its last test inference; None for a model not served."""
        found = self._registry.find_model(model)
        if found is None or found.stable is None:
            return None
        return self._serving.is_ready(model, found.stable)

    async def _look(self) -> HealthReport:
        missing = []
        if not await self._envoy_live():
            missing.append("Envoy does not answer")
        server = self._serving.server
        if not await server.live():
            missing.append(f"the inference server {server.name!r} at {server.grpc} does not answer")
        stable = [(model.name, model.stable) for model in self._registry.models() if model.stable is not None]
        readiness = self._serving.readiness()
        for name, version in stable:
            seen = readiness.get((name, version))
            if seen is None:
                missing.append(f"{name} version {version} is not loaded yet")
            elif not seen.ready:
                missing.append(f"{name} version {version} does not answer: {seen.reason}")
        if missing:
            return HealthReport(False, "not ready: " + "; ".join(missing), tuple(missing))
        if not stable:
            return HealthReport(True, "ready; no models yet: `penstock deploy model.onnx --name NAME` adds one")
        return HealthReport(True, f"ready; {len(stable)} model{'s' * (len(stable) > 1)} served")
