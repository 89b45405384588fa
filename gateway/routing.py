"""Where requests go: the registry's routing state, published to Envoy, with the canary weights as a lease.

Implements `rollout.ports.Routing` for the controller, whose "model" is a routing line's name (`digits`, `digits@2`);
the deploy use case sends a line's first version live through it. Each change is recorded in the registry first and
published second: a crash in between is healed by the publication at the next start, and a change that Envoy refuses is
taken back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from adapters.server import InferenceServer
from gateway.contract.compare import Outcome, compare
from gateway.contract.derive import derive
from gateway.contract.lines import Line
from gateway.envoy.ads import Rejected
from gateway.envoy.compile import BadState
from gateway.envoy.state import Backend, GatewayState
from gateway.limits import LimitPolicy
from gateway.registry import Registry, RoutingLine, VersionState
from gateway.routing_state import gateway_state
from rollout.ports import FULL_WEIGHT, NOTHING, RouteRefused


class RoutingRefused(RouteRefused):
    """The change cannot be made; nothing changed. The message says why."""


class DataPlane(Protocol):
    """Envoy, as the routing needs it (`gateway.envoy.data_plane`). Both calls return when every Envoy has acknowledged.

    Both raise `gateway.envoy.ads.PublishFailed` when an Envoy refuses, does not answer, or is not there.
    """

    async def publish(self, state: GatewayState) -> None:
        """Replace the configuration; refused resources stay as they were. Raises BadState too."""
        ...

    async def lease(self, weights: Mapping[str, int], mirrors: Mapping[str, int]) -> None:
        """Publish and renew canary weights and mirrored shares, model name -> basis points; a model left out has
        none."""
        ...


class GatewayRouting:
    """The routes of all models, changed one at a time. `failing`: versions whose test inference fails now."""

    def __init__(
        self,
        *,
        registry: Registry,
        server: InferenceServer,
        data_plane: DataPlane,
        limits: LimitPolicy,
        failing: Callable[[], Collection[tuple[str, int]]] = tuple,
        max_mirror_bp: int = FULL_WEIGHT,
    ) -> None:
        self._registry = registry
        self._server = server
        self._data_plane = data_plane
        self._limits = limits
        self._failing = failing
        self._max_mirror_bp = max_mirror_bp
        self._lock = asyncio.Lock()
        self._weights: dict[str, int] = {}
        self._mirrors: dict[str, int] = {}
        self._published: GatewayState | None = None

    def state(self) -> GatewayState:
        """What the registry says Envoy should serve now."""
        return self._state(self._registry.lines())

    def _state(self, lines: Sequence[RoutingLine]) -> GatewayState:
        return gateway_state(
            lines=lines,
            versions={line.line.model: self._registry.versions(line.line.model) for line in lines},
            backend=Backend(name=self._server.name, grpc=self._server.grpc, http=self._server.http),
            served_name=self._server.served_name,
            limits=self._limits,
            failing=self._failing(),
        )

    def _state_after(self, model: str) -> GatewayState:
        """The published state with one model as the registry says now: among thousands, the others are not read."""
        if self._published is None:
            return self.state()
        others = tuple(routes for routes in self._published.models if routes.model != model)
        changed = self._state(self._registry.model(model).lines)
        return GatewayState(backends=changed.backends, models=(*others, *changed.models))

    def weights(self) -> Mapping[str, int]:
        """The canary weights of the last lease, model -> basis points; models at 0 included while staged."""
        return dict(self._weights)

    def mirrors(self) -> Mapping[str, int]:
        """The mirrored shares of the last lease, model -> basis points, as far as the ceiling lets them."""
        return dict(self._mirrors)

    async def publish(self) -> None:
        """Publish what the registry says; cheap when nothing changed. For the start and for upkeep."""
        async with self._lock:
            await self._publish(self.state())

    # rollout.ports.Routing

    async def stage(self, model: str, candidate: int) -> None:
        async with self._lock:
            before = self._registry.line(model)
            line = before.line
            version = self._registry.version(line.model, candidate)
            if version.state is not VersionState.READY:
                raise RoutingRefused(
                    f"{line.model} version {candidate} cannot be staged: it is {version.state}"
                    + (f" ({version.reason})" if version.reason else "")
                )
            if version.line != line:
                raise RoutingRefused(
                    f"{line.model} version {candidate} has API major {version.line.major}, and the callers of "
                    f"{line.name} use major {line.major}: traffic cannot be shared between majors"
                )
            locked = self._registry.locked_contract(line.model, line.major)
            if locked is not None:
                verdict = compare(locked, version.signature)
                if verdict.outcome is Outcome.BREAKING:
                    raise RoutingRefused(str(verdict))
            contract = derive(line.model, version.signature, locked, line.major)
            self._registry.set_candidate(line, candidate, contract)
            await self._publish_or_restore(before)

    async def lease(self, weights: Mapping[str, int], mirrors: Mapping[str, int] = NOTHING) -> None:
        for what, shares in (("weight", weights), ("mirrored share", mirrors)):
            for model, share in shares.items():
                if not 0 <= share <= FULL_WEIGHT:
                    raise RoutingRefused(
                        f"{what} of {model}: expected 0 to {FULL_WEIGHT} basis points, received {share}"
                    )
        async with self._lock:
            # A weight without a staged candidate would wait in Envoy for the next one.
            staged = {line.line.name for line in self._registry.staged()}
            self._weights = {model: weight for model, weight in weights.items() if model in staged}
            self._mirrors = {
                model: min(share, self._max_mirror_bp) for model, share in mirrors.items() if model in staged
            }
            await self._data_plane.lease(self._weights, self._mirrors)

    async def promote(self, model: str, candidate: int) -> None:
        """Make the version stable, be it the candidate, the previous one, or a line's first."""
        async with self._lock:
            before = self._registry.line(model)
            self._registry.set_stable(before.line.model, candidate)
            await self._publish_or_restore(before)
            # Only now: until the routes name the candidate alone, its share must not fall back to the old version.
            await self._drop_weight(before.line)

    async def withdraw(self, model: str, candidate: int) -> None:
        async with self._lock:
            # First, because it takes effect within a millisecond and needs no acknowledgement of routes.
            before = self._registry.line(model)
            await self._drop_weight(before.line)
            if before.candidate == candidate:
                self._registry.set_candidate(before.line, None)
            self._registry.forget_previous(before.line.model, candidate)
            await self._publish_or_restore(before)

    async def _drop_weight(self, line: Line) -> None:
        weight, mirrored = self._weights.pop(line.name, None), self._mirrors.pop(line.name, None)
        if weight is not None or mirrored is not None:
            await self._data_plane.lease(self._weights, self._mirrors)

    async def _publish(self, state: GatewayState) -> None:
        if state != self._published:
            self._published = None
            await self._data_plane.publish(state)
            self._published = state

    async def _publish_or_restore(self, before: RoutingLine) -> None:
        try:
            await self._publish(self._state_after(before.line.model))
        except (Rejected, BadState):
            self._registry.restore(before)
            raise
        # Any other failure leaves the change in place: Envoy gets it when it answers, and the caller may try again.
