"""The data plane as the gateway's routing sees it: a state goes in, acknowledged Envoys come out."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.envoy.ads import AdsServer
from gateway.envoy.compile import compile as compile_snapshot
from gateway.envoy.settings import EnvoySettings
from gateway.envoy.state import GatewayState


class EnvoyDataPlane:
    """Compiles and publishes; implements `gateway.routing.DataPlane`."""

    def __init__(self, *, ads: AdsServer, settings: EnvoySettings) -> None:
        self._ads = ads
        self._settings = settings

    def load(self, state: GatewayState) -> None:
        """Serve the state without waiting: for the start, before Envoy is there. Raises BadState."""
        self._ads.load(compile_snapshot(state, self._settings))

    async def publish(self, state: GatewayState) -> None:
        """Replace the configuration and wait for every Envoy. Raises BadState, PublishFailed."""
        await self._ads.publish(compile_snapshot(state, self._settings))

    async def lease(self, weights: Mapping[str, int]) -> None:
        """Publish and renew the canary weights. Raises ValueError, PublishFailed."""
        await self._ads.lease(weights)
