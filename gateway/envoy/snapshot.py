"""The compiled configuration: Envoy resources by type and name, each with a version that is the hash of its content.

Made by `gateway.envoy.compile`, served by `gateway.envoy.ads`, printed by `gateway.envoy.yaml_config`. Bodies are
protobuf JSON as plain dicts, so that a configuration can be compared, dumped and diffed without Envoy's protobufs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from rollout.ports import FULL_WEIGHT, NOTHING

Json = dict[str, Any]


class TypeUrl(StrEnum):
    """The resource types that Penstock serves. The order is the one in which additions must reach Envoy: a route
    may name a cluster only after the cluster, a scope a route configuration only after that."""

    CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
    SCOPE = "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration"
    RUNTIME = "type.googleapis.com/envoy.service.runtime.v3.Runtime"


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource. Equal content has equal `version`, also across restarts of the control plane: Envoy tells a new
    control plane which versions it holds, and a counter would lie."""

    type_url: TypeUrl
    name: str
    body: Json = field(hash=False)
    version: str

    @classmethod
    def of(cls, type_url: TypeUrl, body: Json) -> Resource:
        return cls(type_url, str(body["name"]), body, content_hash(body))


@dataclass(frozen=True, slots=True)
class LeaseKeys:
    """Runtime keys of one model's weighted clusters, per protocol of its backend.

    The keys carry the pair of versions, so that a weight meant for one candidate can never apply to the next.
    `routes` is the name of the route configuration that reads them; `mirror` is the key of the mirrored share.
    """

    routes: str
    stable: tuple[str, ...]
    canary: tuple[str, ...]
    mirror: str = ""

    def runtime(self, weight: int) -> dict[str, int]:
        """All keys of the model for a canary weight in basis points; the sum stays 10,000, or sticky callers move."""
        return dict.fromkeys(self.canary, weight) | dict.fromkeys(self.stable, FULL_WEIGHT - weight)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A whole configuration.

    `leases` maps the models that have a canary to their runtime keys.
    """

    resources: Mapping[TypeUrl, Mapping[str, Resource]]
    leases: Mapping[str, LeaseKeys]

    @classmethod
    def of(cls, resources: Iterable[Resource], leases: Mapping[str, LeaseKeys]) -> Snapshot:
        by_type: dict[TypeUrl, dict[str, Resource]] = {type_url: {} for type_url in TypeUrl}
        for resource in sorted(resources, key=lambda r: (r.type_url, r.name)):
            by_type[resource.type_url][resource.name] = resource
        return cls(
            MappingProxyType({t: MappingProxyType(named) for t, named in by_type.items()}),
            MappingProxyType(dict(sorted(leases.items()))),
        )

    @property
    def version(self) -> str:
        """Hash of the whole; equal snapshots configure Envoy equally."""
        return content_hash(
            [[r.type_url, r.name, r.version] for named in self.resources.values() for r in named.values()]
        )

    def runtime(self, weights: Mapping[str, int], mirrors: Mapping[str, int] = NOTHING) -> Json:
        """The runtime layer for canary weights and mirrored shares in basis points by model name.

        A model that is left out gets no keys: its routes' default is all traffic to stable, and nothing mirrored.
        Raises ValueError for a model without a canary and for a weight or share outside 0..10,000.
        """
        layer: Json = {}
        for model, weight in sorted(weights.items()):
            layer |= self._lease("weight", model, weight).runtime(weight)
        for model, share in sorted(mirrors.items()):
            layer |= {self._lease("mirrored share", model, share).mirror: basis_points(share)}
        return layer

    def _lease(self, what: str, model: str, share: int) -> LeaseKeys:
        if model not in self.leases:
            raise ValueError(f"{what} for model {model!r}: it has no canary in the published configuration")
        if not 0 <= share <= FULL_WEIGHT:
            raise ValueError(f"{what} for model {model!r}: expected 0 to {FULL_WEIGHT} basis points, got {share}")
        return self.leases[model]


def basis_points(share: int) -> Json:
    """A share as Envoy's `FractionalPercent`, in a route or as a runtime value (where a bare number is percent)."""
    return {"numerator": share, "denominator": "TEN_THOUSAND"}


def content_hash(value: object) -> str:
    """64 bits of SHA-256 over canonical JSON: enough to tell configurations apart, short enough to read in a dump."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
