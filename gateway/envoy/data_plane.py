"""The data plane as the gateway's routing sees it: a state goes in, acknowledged Envoys come out."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.envoy.ads import AdsServer
from gateway.envoy.compile import Compiler
from gateway.envoy.settings import EnvoySettings
from gateway.envoy.state import GatewayState


class EnvoyDataPlane:
    """Compiles and publishes; implements `gateway.routing.DataPlane`."""

    def __init__(self, *, ads: AdsServer, settings: EnvoySettings) -> None:
        self._ads = ads
        self._compiler = Compiler(settings)

    def load(self, state: GatewayState) -> None:
        """Serve the state without waiting: for the start, before Envoy is there. Raises BadState."""
        self._ads.load(self._compiler.compile(state))

    async def publish(self, state: GatewayState) -> None:
        """Replace the configuration and wait for every Envoy. Raises BadState, PublishFailed."""
        await self._ads.publish(self._compiler.compile(state))

    async def lease(self, weights: Mapping[str, int], mirrors: Mapping[str, int]) -> None:
        """Publish and renew the canary weights and mirrored shares. Raises ValueError, PublishFailed."""
        await self._ads.lease(weights, mirrors)
