"""Which pairs of versions the mirror evaluator compares now: those whose share of mirrored requests is above 0.

Pure. The composition root asks it once per tick, for `rollout.evidence.mirror.source`.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.envoy.context import label_output
from gateway.envoy.state import GatewayState, ModelRoutes
from rollout.evidence.mirror.wire import Pair, Side
from rollout.evidence.subject import FindSubject
from rollout.spec_parts import ShadowSpec


def pairs(state: GatewayState, mirrors: Mapping[str, int], subject: FindSubject) -> tuple[Pair, ...]:
    """`mirrors` are the leased shares in basis points, by line."""
    return tuple(
        _pair(routes, subject)
        for routes in state.models
        if routes.canary is not None and mirrors.get(routes.line.name, 0) > 0
    )


def _pair(routes: ModelRoutes, subject: FindSubject) -> Pair:
    assert routes.canary is not None
    line = routes.line.name
    found = subject(line)
    shadow = (found.spec.shadow if found else None) or ShadowSpec()
    contract = routes.served(routes.stable).contract
    return Pair(
        line=line,
        scope=routes.key,
        stable=_side(routes, routes.stable),
        candidate=_side(routes, routes.canary),
        label=label_output(contract.outputs),
        batching=contract.batching,
        relative=shadow.tolerance,
    )


def _side(routes: ModelRoutes, version: int) -> Side:
    served = routes.served(version)
    return Side(version, served.served_name, served.served_version)
