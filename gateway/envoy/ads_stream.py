"""One Envoy's delta xDS stream as a state machine without I/O: what it subscribed to, what it holds, what comes next.

Driven by `gateway.envoy.ads`, which owns the sockets. It is level-triggered: nothing is queued, every response is the
difference between what is served now and what this Envoy holds, so that a slow Envoy skips versions instead of
falling behind.

Protocol: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol (incremental xDS).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from sys import intern
from typing import Any

from envoy.service.discovery.v3 import discovery_pb2

from gateway.envoy.snapshot import Resource, TypeUrl

BATCH = 500
"""Resources in one response: 10,000 models in a few messages, none of them over a few MB."""

Wire = Callable[[Resource], Any]


@dataclass(frozen=True, slots=True)
class Served:
    """What every Envoy should hold. `generation` rises by one with each publication.

    `changed` names what differs from the generation before, so that a change among thousands of models costs no Envoy
    a look at all of them; None: unknown, look at all.
    """

    resources: Mapping[TypeUrl, Mapping[str, Resource]]
    generation: int
    changed: Mapping[TypeUrl, frozenset[str]] | None = None

    def next(self, resources: Mapping[TypeUrl, Mapping[str, Resource]]) -> Served:
        """The generation after this one."""
        changed = {
            type_url: _differing(self.resources.get(type_url, {}), named) for type_url, named in resources.items()
        }
        return Served(resources, self.generation + 1, changed)


def _differing(old: Mapping[str, Resource], new: Mapping[str, Resource]) -> frozenset[str]:
    others = (name for name, resource in new.items() if old.get(name) is not resource)
    changed = {name for name in others if name not in old or old[name].version != new[name].version}
    return frozenset(changed | (old.keys() - new.keys()))


@dataclass(frozen=True, slots=True)
class ServedRuntime:
    """The runtime layer as it goes onto the stream now. `sequence` changes with each renewal of the lease.

    `resource` is the same for every Envoy; `ttl_s` is what is left of the lease when it is sent, None without a lease.
    `leased`: whether a lease was given since this control plane started. Before that it has no say over weights that an
    Envoy still holds from the one before: they live or lapse by their own time.
    """

    resource: Any
    version: str
    sequence: int
    ttl_s: float | None = None
    leased: bool = True


@dataclass(frozen=True, slots=True)
class Rejection:
    """An Envoy's refusal of one version of one resource, in its own words."""

    version: str
    message: str


@dataclass(slots=True)
class _Sent:
    """A response that the Envoy has not answered yet."""

    nonce: str
    versions: Mapping[str, str]
    removed: frozenset[str] = frozenset()
    sequence: int = 0


@dataclass(slots=True)
class _Subscription:
    """One resource type on the stream. `held` is name -> version as the Envoy has acknowledged; "" is told absent."""

    wildcard: bool = False
    names: set[str] = field(default_factory=set)
    held: dict[str, str] = field(default_factory=dict)
    rejected: dict[str, Rejection] = field(default_factory=dict)
    suspects: set[str] = field(default_factory=set)
    """Names of a refused response with several resources: each is sent again alone, to find the bad one."""
    sent: _Sent | None = None
    sequence: int = 0
    """Last acknowledged renewal of the runtime layer."""
    open: set[str] = field(default_factory=set)
    """Names that may need a response; every other one is known to be as it is served."""
    generation: int = -1
    """Generation that `open` has caught up with."""

    def catch_up(self, type_url: TypeUrl, served: Served) -> None:
        """Open what a publication changed."""
        if self.generation == served.generation:
            return
        if served.changed is not None and self.generation == served.generation - 1:
            self.open |= served.changed[type_url]
        else:
            wanted = served.resources[type_url]
            outdated = {name for name, resource in wanted.items() if self.held.get(name) != resource.version}
            self.open = outdated | (self.names - wanted.keys()) | (self.held.keys() - wanted.keys())
        self.generation = served.generation

    def wants(self, name: str) -> bool:
        return self.wildcard or name in self.names


_REMOVALS = (TypeUrl.SCOPE, TypeUrl.ROUTES, TypeUrl.CLUSTER)
_ADDITIONS = (TypeUrl.CLUSTER, TypeUrl.ROUTES, TypeUrl.SCOPE)


class EnvoyStream:
    """The state of one stream."""

    def __init__(self) -> None:
        self.node_id = ""
        self._subscriptions: dict[TypeUrl, _Subscription] = {}
        self._nonce = 0
        self._idle_at = -1
        """Generation at which nothing was left to send."""

    def receive(self, request: Any) -> None:
        """Take a DeltaDiscoveryRequest: a subscription, an ACK or a NACK. Types that are not served are ignored."""
        self.node_id = request.node.id or self.node_id
        try:
            type_url = TypeUrl(request.type_url)
        except ValueError:
            return
        if type_url is not TypeUrl.RUNTIME:  # renewals are acknowledged each second, and change nothing else
            self._idle_at = -1
        first = type_url not in self._subscriptions
        subscription = self._subscriptions.setdefault(type_url, _Subscription())
        self._subscribe(subscription, request, first=first)
        sent = subscription.sent
        if sent is None or request.response_nonce != sent.nonce:
            return
        subscription.sent = None
        if request.HasField("error_detail"):
            self._rejected(subscription, sent, request.error_detail.message)
        else:
            self._acknowledged(subscription, sent)

    def respond(self, served: Served, runtime: ServedRuntime, wire: Wire) -> Any | None:
        """The next DeltaDiscoveryResponse, or None when the Envoy's next word is awaited or it holds everything."""
        return self._respond_runtime(runtime) or self._respond_resources(served, wire)

    def settled(self, served: Served) -> bool:
        """Whether the Envoy holds, or has refused, everything that is served, and nothing else."""
        for type_url in _ADDITIONS:
            subscription = self._subscriptions.get(type_url)
            if subscription is None or subscription.sent is not None:
                return False
            # An Envoy asks for each model's routes by itself, some time after it has taken the model's scope.
            if _unsettled(subscription, type_url, served):
                return False
        return True

    def renewed(self, sequence: int) -> bool:
        """Whether this renewal of the lease has arrived. An Envoy that is still starting takes it on its way."""
        subscription = self._subscriptions.get(TypeUrl.RUNTIME)
        return subscription is None or subscription.sequence >= sequence

    def rejections(self, served: Served) -> dict[tuple[TypeUrl, str], Rejection]:
        """What this Envoy has refused of what is served now."""
        return {
            (type_url, name): rejection
            for type_url in _ADDITIONS
            for name, rejection in self._rejected_of(type_url).items()
            if name in served.resources[type_url] and served.resources[type_url][name].version == rejection.version
        }

    def runtime_rejection(self, version: str) -> Rejection | None:
        rejection = next(iter(self._rejected_of(TypeUrl.RUNTIME).values()), None)
        return rejection if rejection is not None and rejection.version == version else None

    def _rejected_of(self, type_url: TypeUrl) -> Mapping[str, Rejection]:
        subscription = self._subscriptions.get(type_url)
        return subscription.rejected if subscription else {}

    def _subscribe(self, subscription: _Subscription, request: Any, *, first: bool) -> None:
        # Interned, so that a fleet's streams share the names of thousands of models instead of each having its own.
        subscribe = set(map(intern, request.resource_names_subscribe))
        if first:
            subscription.wildcard = not subscribe or "*" in subscribe
            # What it holds from before a reconnect, or from another control plane.
            held = request.initial_resource_versions
            subscription.held.update((intern(name), intern(version)) for name, version in held.items())
            subscription.generation = -1
        elif "*" in subscribe:
            subscription.wildcard = True
        subscribe.discard("*")
        for name in subscribe:
            # Asking again means wanting an answer, whatever was sent before.
            if name not in request.initial_resource_versions:
                subscription.held.pop(name, None)
                subscription.rejected.pop(name, None)
        subscription.names |= subscribe
        subscription.open.update(subscribe, request.resource_names_unsubscribe, request.initial_resource_versions)
        for name in request.resource_names_unsubscribe:
            subscription.names.discard(name)
            if name == "*":
                subscription.wildcard = False
            if not subscription.wants(name):
                subscription.held.pop(name, None)

    def _acknowledged(self, subscription: _Subscription, sent: _Sent) -> None:
        for name in sent.removed:
            # Absence is remembered while the Envoy keeps asking for the name, so that it is told once.
            if name in subscription.names:
                subscription.held[name] = ""
            else:
                subscription.held.pop(name, None)
        for name, version in sent.versions.items():
            subscription.rejected.pop(name, None)
            subscription.suspects.discard(name)
            if subscription.wants(name):
                subscription.held[name] = version
        subscription.sequence = max(subscription.sequence, sent.sequence)

    def _rejected(self, subscription: _Subscription, sent: _Sent, message: str) -> None:
        if len(sent.versions) == 1:
            ((name, version),) = sent.versions.items()
            subscription.suspects.discard(name)
            subscription.rejected[name] = Rejection(version, message)
            # Not to be sent again by itself: the next renewal is another chance.
            subscription.sequence = max(subscription.sequence, sent.sequence)
        else:
            subscription.suspects.update(sent.versions)
        for name in sent.removed:
            subscription.held.pop(name, None)

    def _respond_runtime(self, runtime: ServedRuntime) -> Any | None:
        subscription = self._subscriptions.get(TypeUrl.RUNTIME)
        if subscription is None or subscription.sent is not None or subscription.sequence >= runtime.sequence:
            return None
        if not runtime.leased and runtime.resource.name in subscription.held:
            return None
        # Always the whole resource: a heartbeat without it is refused for ever once the resource has lapsed.
        response = self._response(TypeUrl.RUNTIME, [runtime.resource])
        if runtime.ttl_s is not None:
            response.resources[0].ttl.FromNanoseconds(int(runtime.ttl_s * 1e9))
        versions = {runtime.resource.name: runtime.version}
        subscription.sent = _Sent(response.nonce, versions, sequence=runtime.sequence)
        return response

    def _respond_resources(self, served: Served, wire: Wire) -> Any | None:
        """Make before break: additions in the order of dependence, then removals in reverse, each type only when
        everything before it is acknowledged."""
        if self._idle_at == served.generation:
            return None
        for type_url in _ADDITIONS:
            subscription = self._subscriptions.get(type_url)
            if subscription is None:
                continue
            if subscription.sent is not None:
                return None
            wanted = served.resources[type_url]
            unsettled = _unsettled(subscription, type_url, served)
            changed = self._changed(subscription, [wanted[name] for name in unsettled if name in wanted])
            absent = [name for name in unsettled if name not in wanted and name not in subscription.held]
            if changed or absent:
                return self._send(type_url, subscription, changed, absent, wire)
        for type_url in _REMOVALS:
            subscription = self._subscriptions.get(type_url)
            if subscription is None:
                continue
            gone = [n for n in _unsettled(subscription, type_url, served) if n not in served.resources[type_url]]
            if gone:
                return self._send(type_url, subscription, [], gone, wire)
        self._idle_at = served.generation
        return None

    def _changed(self, subscription: _Subscription, resources: Iterable[Resource]) -> list[Resource]:
        changed = [r for r in resources if subscription.wants(r.name)]
        alone = [r for r in changed if r.name in subscription.suspects]
        return alone[:1] or changed[:BATCH]

    def _send(
        self,
        type_url: TypeUrl,
        subscription: _Subscription,
        resources: list[Resource],
        removed: list[str],
        wire: Wire,
    ) -> Any:
        response = self._response(type_url, [wire(resource) for resource in resources], removed)
        subscription.sent = _Sent(response.nonce, {r.name: r.version for r in resources}, frozenset(removed))
        return response

    def _response(self, type_url: TypeUrl, resources: list[Any], removed: Iterable[str] = ()) -> Any:
        self._nonce += 1
        return discovery_pb2.DeltaDiscoveryResponse(
            type_url=type_url.value, resources=resources, removed_resources=removed, nonce=str(self._nonce)
        )


def _unsettled(subscription: _Subscription, type_url: TypeUrl, served: Served) -> list[str]:
    """Names that the Envoy does not hold as they are served, in order; closes those that it does."""
    subscription.catch_up(type_url, served)
    wanted = served.resources[type_url]

    def unsettled(name: str) -> bool:
        resource = wanted.get(name)
        if resource is not None:
            return _outdated(subscription, resource)
        if name in subscription.held:
            return bool(subscription.held[name])  # "" is told absent
        return name in subscription.names

    subscription.open = {name for name in subscription.open if unsettled(name)}
    return sorted(subscription.open)


def _outdated(subscription: _Subscription, resource: Resource) -> bool:
    """Whether the Envoy neither holds nor has refused this version."""
    rejection = subscription.rejected.get(resource.name)
    refused = rejection is not None and rejection.version == resource.version
    return not refused and subscription.held.get(resource.name) != resource.version
