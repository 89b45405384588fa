"""The ADS server: gives every connected Envoy the published configuration, and the canary weights as a lease.

Part of the control plane's gRPC server. `publish` and `lease` return when every connected Envoy has acknowledged.
Nothing is served before the first snapshot: an empty configuration would wipe every cluster of an Envoy that is
carrying traffic.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import grpc
from envoy.service.discovery.v3 import discovery_pb2

from gateway.envoy.ads_stream import EnvoyStream, Rejection, Served, ServedRuntime
from gateway.envoy.bootstrap import RUNTIME_LAYER
from gateway.envoy.snapshot import Json, LeaseKeys, Resource, Snapshot, TypeUrl
from gateway.envoy.wire import to_wire
from rollout.ports import NOTHING

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
)
"""Options that the gRPC server should be made with: a configuration of thousands of models is more than 4 MB, and an
Envoy whose machine vanished must not hold up publications."""


class PublishFailed(Exception):
    """Not every Envoy has what was published; the message says which and why."""


class Rejected(PublishFailed):
    """An Envoy refused resources. The rest of the snapshot is in force; the refused ones keep their last good
    version, or stay out if they are new. `reasons` maps resource names to Envoy's own words."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        words = "; ".join(f"{name}: {reason}" for name, reason in sorted(reasons.items()))
        super().__init__(f"Envoy refused {len(reasons)} resource(s): {words}")


class NotAcknowledged(PublishFailed):
    """Envoys are connected and did not answer in time. What was published stays and reaches them when they do."""


class NotConnected(PublishFailed):
    """No Envoy is connected. What was published is kept for the first that connects."""


class AdsServer:
    """Delta ADS for a fleet of Envoys.

    `lease_ttl_s`: a weight that is not renewed for this long lapses inside Envoy. `monotonic` is the clock, seconds.
    """

    def __init__(self, *, lease_ttl_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._lease_ttl_s = lease_ttl_s
        self._monotonic = monotonic
        self._snapshot: Snapshot | None = None
        self._served = Served({}, 0)
        self._weights: dict[str, int] = {}
        self._mirrors: dict[str, int] = {}
        self._lingering: Json = {}
        self._lease_end = 0.0
        self._lease_sequence = 1
        self._leased = False
        self._runtime_made: Resource | None = None
        self._wired: dict[tuple[TypeUrl, str], Any] = {}
        self._streams: dict[EnvoyStream, asyncio.Event] = {}
        self._news = asyncio.Condition()
        self._publishing = asyncio.Lock()

    def add_to(self, server: Any) -> None:
        """Add the service to a `grpc.aio` server, which may carry others."""
        handler = grpc.stream_stream_rpc_method_handler(
            self._delta,
            request_deserializer=discovery_pb2.DeltaDiscoveryRequest.FromString,
            response_serializer=discovery_pb2.DeltaDiscoveryResponse.SerializeToString,
        )
        service = "envoy.service.discovery.v3.AggregatedDiscoveryService"
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {"DeltaAggregatedResources": handler}),)
        )

    @property
    def connected(self) -> tuple[str, ...]:
        """Node ids of the connected Envoys."""
        return tuple(sorted(stream.node_id for stream in self._streams if stream.node_id))

    @property
    def snapshot(self) -> Snapshot | None:
        """What was published last, accepted or not."""
        return self._snapshot

    def load(self, snapshot: Snapshot) -> None:
        """Serve a snapshot without waiting for anybody: for the start, before an Envoy is there.

        Everything is written for the wire at once, so that no Envoy waits for it.
        """
        self._serve(snapshot, snapshot.resources)
        for named in snapshot.resources.values():
            for resource in named.values():
                self._wire(resource)

    async def publish(self, snapshot: Snapshot, *, timeout_s: float = 10.0) -> None:
        """Serve a snapshot and wait until every connected Envoy holds it.

        Weights of models whose pair of versions stays the same stay. Raises Rejected, NotAcknowledged, NotConnected.
        """
        async with self._publishing:
            previous = self._snapshot
            good = self._served.resources
            # The old routes go on reading their weights until the new ones are there: no caller changes versions
            # because a key was gone a millisecond before its route.
            self._lingering = self._lingering | self._layer() if self._snapshot else {}
            self._serve(snapshot, snapshot.resources)
            try:
                await self._settle(timeout_s)
                rejected = self._rejections()
                if rejected:
                    kept = _leases(rejected, snapshot, previous)
                    self._serve(replace(snapshot, leases=kept), _without(rejected, snapshot.resources, good))
                    await self._settle(timeout_s)
                    raise Rejected({f"{type_url.name} {name}": r.message for (type_url, name), r in rejected.items()})
            finally:
                self._lingering = {}
                self._set_weights(self._weights, self._mirrors, self._lease_end)

    async def lease(
        self, weights: Mapping[str, int], mirrors: Mapping[str, int] = NOTHING, *, timeout_s: float = 5.0
    ) -> None:
        """Publish and renew canary weights and mirrored shares: model -> basis points. A model left out has none from
        now on.

        Call it at least every third of the lease time, from the loop that judges and from nowhere else: weights that
        are renewed while nobody judges are no lease. Raises ValueError for a model without a canary or a weight out of
        range, Rejected, NotAcknowledged, and at once NotConnected (an Envoy that connects in time gets the weights).
        """
        if self._snapshot is None:
            raise NotConnected("weights were published before any configuration; publish a snapshot first")
        self._snapshot.runtime(weights, mirrors)
        self._leased = True
        self._set_weights(weights, mirrors, self._monotonic() + self._lease_ttl_s, renew=True)
        sequence, version = self._lease_sequence, self._runtime_resource().version
        if not self.connected:
            raise NotConnected("no Envoy is connected to take the canary weights; is Envoy running?")
        await self._wait_until(self._of_all(lambda stream: stream.renewed(sequence)), timeout_s)
        for stream in self._streams:
            rejection = stream.runtime_rejection(version)
            if rejection is not None:
                raise Rejected({RUNTIME_LAYER: rejection.message})

    async def wait_settled(self, *, timeout_s: float) -> None:
        """Wait until an Envoy is connected and every connected one holds what is served. For the start.

        Raises NotAcknowledged, NotConnected.
        """
        await self._settle(timeout_s)

    def _serve(self, snapshot: Snapshot, resources: Mapping[TypeUrl, Mapping[str, Resource]]) -> None:
        unchanged = {m for m, keys in snapshot.leases.items() if self._lease_keys(m) == keys}
        weights = {m: w for m, w in self._weights.items() if m in unchanged}
        mirrors = {m: w for m, w in self._mirrors.items() if m in unchanged}
        self._snapshot = snapshot
        self._served = self._served.next(resources)
        for type_url, names in (self._served.changed or {}).items():
            for name in names:
                self._wired.pop((type_url, name), None)
        self._set_weights(weights, mirrors, self._lease_end)

    def _lease_keys(self, model: str) -> object:
        return self._snapshot.leases.get(model) if self._snapshot else None

    def _layer(self) -> Json:
        return self._snapshot.runtime(self._weights, self._mirrors) if self._snapshot else {}

    def _set_weights(
        self, weights: Mapping[str, int], mirrors: Mapping[str, int], lease_end: float, *, renew: bool = False
    ) -> None:
        """Renewed or other than before, the runtime layer goes to every Envoy; a publication mostly leaves it alone."""
        before = self._runtime_made
        self._weights, self._mirrors = dict(weights), dict(mirrors)
        self._lease_end = lease_end
        self._runtime_made = None
        if renew or before is None or self._runtime_resource().version != before.version:
            self._lease_sequence += 1
        for wake in self._streams.values():
            wake.set()

    def _runtime_resource(self) -> Resource:
        """The runtime layer; made once per renewal, not once per Envoy."""
        if self._runtime_made is None:
            layer = self._lingering | self._layer()
            self._runtime_made = Resource.of(TypeUrl.RUNTIME, {"name": RUNTIME_LAYER, "layer": layer})
        return self._runtime_made

    def _runtime(self) -> ServedRuntime:
        """The runtime layer with what is left of the lease. A control plane that was frozen past it sends none."""
        left_s = self._lease_end - self._monotonic()
        if left_s <= 0 and self._runtime_resource().body["layer"]:
            self._weights, self._mirrors, self._lingering = {}, {}, {}
            self._runtime_made = None
        resource = self._runtime_resource()
        ttl_s = left_s if resource.body["layer"] else None
        return ServedRuntime(self._wire(resource), resource.version, self._lease_sequence, ttl_s, self._leased)

    def _wire(self, resource: Resource) -> Any:
        key = resource.type_url, resource.name
        wired = self._wired.get(key)
        if wired is None or wired.version != resource.version:
            wired = self._wired[key] = to_wire(resource)
        return wired

    def _rejections(self) -> dict[tuple[TypeUrl, str], Rejection]:
        return {
            key: rejection for stream in self._streams for key, rejection in stream.rejections(self._served).items()
        }

    async def _settle(self, timeout_s: float) -> None:
        settled = self._of_all(lambda stream: stream.settled(self._served))
        await self._wait_until(lambda: bool(self._streams) and settled(), timeout_s)

    def _of_all(self, condition: Callable[[EnvoyStream], bool]) -> Callable[[], bool]:
        """Whether it is true of every connected Envoy; asked at each news, which must not cost a look at all of them.

        So one is waited for at a time, and when none is left, all are looked at again.
        """
        waiting: list[EnvoyStream] = []

        def met() -> bool:
            while waiting and (waiting[-1] not in self._streams or condition(waiting[-1])):
                waiting.pop()
            if not waiting:
                waiting.extend(stream for stream in self._streams if not condition(stream))
            return not waiting

        return met

    async def _wait_until(self, condition: Callable[[], bool], timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s), self._news:
                await self._news.wait_for(condition)
        except TimeoutError as error:
            if not self._streams:
                raise NotConnected(
                    f"no Envoy connected within {timeout_s:g} s to take the configuration; is Envoy running, and does "
                    "its bootstrap name this control plane's port?"
                ) from error
            late = sorted(s.node_id or "(unnamed)" for s in self._streams if not s.settled(self._served))
            raise NotAcknowledged(
                f"not acknowledged within {timeout_s:g} s by Envoy {', '.join(late) or 'nodes'}; it gets the "
                "configuration as soon as it answers. Look into its log"
            ) from error

    async def _delta(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        stream, wake = EnvoyStream(), asyncio.Event()
        self._streams[stream] = wake
        reader = asyncio.create_task(self._read(stream, wake, requests))
        try:
            while not reader.done():
                wake.clear()
                response = None
                if self._snapshot is not None:
                    response = stream.respond(self._served, self._runtime(), self._wire)
                if response is None:
                    await wake.wait()
                else:
                    yield response
        finally:
            reader.cancel()
            del self._streams[stream]
            await self._tell()

    async def _read(self, stream: EnvoyStream, wake: asyncio.Event, requests: AsyncIterator[Any]) -> None:
        try:
            async for request in requests:
                stream.receive(request)
                wake.set()
                await self._tell()
        finally:
            wake.set()

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()


def _leases(
    rejected: Iterable[tuple[TypeUrl, str]], snapshot: Snapshot, previous: Snapshot | None
) -> Mapping[str, LeaseKeys]:
    """The runtime keys that are read after a refusal: a model whose routes were refused still reads the old ones."""
    refused = {name for type_url, name in rejected if type_url is TypeUrl.ROUTES}
    old = {m: keys for m, keys in (previous.leases if previous else {}).items() if keys.routes in refused}
    return {m: keys for m, keys in snapshot.leases.items() if keys.routes not in refused} | old


def _without(
    rejected: Mapping[tuple[TypeUrl, str], Rejection],
    wanted: Mapping[TypeUrl, Mapping[str, Resource]],
    previous: Mapping[TypeUrl, Mapping[str, Resource]],
) -> Mapping[TypeUrl, Mapping[str, Resource]]:
    """What is wanted, with the last good version of what was refused; a scope goes with routes that are not there."""
    served = {type_url: dict(named) for type_url, named in wanted.items()}
    for type_url, name in rejected:
        good = previous.get(type_url, {}).get(name)
        if good is not None:
            served[type_url][name] = good
            continue
        del served[type_url][name]
        if type_url is TypeUrl.ROUTES:
            served[TypeUrl.SCOPE].pop(name, None)
    return served
