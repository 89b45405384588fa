"""The delta xDS protocol towards one Envoy, without sockets: order, refusals, reconnects, leases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from envoy.service.discovery.v3 import discovery_pb2 as xds

from gateway.envoy.ads_stream import EnvoyStream, Served, ServedRuntime
from gateway.envoy.snapshot import Resource, TypeUrl
from gateway.envoy.wire import to_wire

CLUSTER, ROUTES, SCOPE, RUNTIME = TypeUrl.CLUSTER, TypeUrl.ROUTES, TypeUrl.SCOPE, TypeUrl.RUNTIME


def served(generation: int, **names: list[str]) -> Served:
    """Resources "name" or "name=content" by type; other content is another version."""
    bodies: dict[TypeUrl, dict[str, Resource]] = {type_url: {} for type_url in TypeUrl}
    for type_name, items in names.items():
        type_url = TypeUrl[type_name.upper()]
        for item in items:
            name, _, content = item.partition("=")
            body: dict[str, Any] = {"name": name}
            if type_url is ROUTES:
                body["request_headers_to_remove"] = [content] if content else []
            bodies[type_url][name] = Resource.of(type_url, body)
    return Served(bodies, generation)


def runtime(sequence: int, **layer: int) -> ServedRuntime:
    resource = Resource.of(RUNTIME, {"name": "penstock", "layer": layer})
    return ServedRuntime(to_wire(resource), resource.version, sequence, ttl_s=3.0)


class FakeEnvoy:
    """The Envoy side of a stream, as a script: subscribes, takes what comes, refuses what it is told to refuse."""

    def __init__(self) -> None:
        self.stream = EnvoyStream()
        self.refuses: set[str] = set()
        self.log: list[str] = []

    def subscribe(self, type_url: TypeUrl, *names: str, **held: str) -> None:
        self.stream.receive(
            xds.DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=names, initial_resource_versions=held)
        )

    def take(self, now: Served, lease: ServedRuntime | None = None) -> list[str]:
        """Take and answer everything that the server has; what came, as "+CLUSTER a b" or "-SCOPE c"."""
        self.log = []
        while response := self.stream.respond(now, lease or runtime(0), to_wire):
            type_url = TypeUrl(response.type_url)
            if response.resources:
                self.log.append(f"+{type_url.name} {' '.join(r.name for r in response.resources)}")
            if response.removed_resources:
                self.log.append(f"-{type_url.name} {' '.join(response.removed_resources)}")
            self.answer(response)
        return self.log

    def answer(self, response: Any) -> None:
        request = xds.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
        offered = {f"{TypeUrl(response.type_url).name} {r.name}" for r in response.resources}
        if bad := sorted(self.refuses & offered):
            request.error_detail.message = f"cannot use {bad[0]}"
        self.stream.receive(request)


def connected(*routes: str) -> FakeEnvoy:
    envoy = FakeEnvoy()
    envoy.subscribe(CLUSTER)
    envoy.subscribe(SCOPE)
    envoy.subscribe(ROUTES, *routes)
    return envoy


def test_additions_come_before_what_names_them_and_removals_after() -> None:
    envoy = connected("a", "b")
    first = served(1, cluster=["c1"], routes=["a"], scope=["a"])
    assert envoy.take(first) == ["+CLUSTER c1", "+ROUTES a", "-ROUTES b", "+SCOPE a"]
    assert envoy.stream.settled(first)
    second = served(2, cluster=["c2"], routes=["b"], scope=["b"])
    assert not envoy.stream.settled(second)
    assert envoy.take(second) == ["+CLUSTER c2", "+ROUTES b", "+SCOPE b", "-SCOPE a", "-ROUTES a", "-CLUSTER c1"]
    assert envoy.stream.settled(second)


def test_nothing_follows_an_unanswered_response() -> None:
    envoy = connected("a")
    now = served(1, cluster=["c"], routes=["a"], scope=["a"])
    response = envoy.stream.respond(now, runtime(0), to_wire)
    assert response is not None
    assert response.type_url == CLUSTER
    assert envoy.stream.respond(now, runtime(0), to_wire) is None


def test_an_answer_to_an_older_response_means_nothing() -> None:
    envoy = connected("a")
    now = served(1, cluster=["c"])
    response = envoy.stream.respond(now, runtime(0), to_wire)
    envoy.stream.receive(xds.DeltaDiscoveryRequest(type_url=CLUSTER, response_nonce="old"))
    assert envoy.stream.respond(now, runtime(0), to_wire) is None
    envoy.answer(response)
    assert envoy.stream.respond(now, runtime(0), to_wire) is not None


def test_one_bad_resource_is_found_among_many() -> None:
    names = [f"m{number}" for number in range(5)]
    envoy = connected(*names)
    envoy.refuses = {"ROUTES m3"}
    now = served(1, routes=names, scope=names)
    assert envoy.take(now)[:2] == ["+ROUTES m0 m1 m2 m3 m4", "+ROUTES m0"]
    assert envoy.stream.settled(now), "refused is settled too"
    rejections = envoy.stream.rejections(now)
    assert {name: r.message for (_, name), r in rejections.items()} == {"m3": "cannot use ROUTES m3"}
    assert envoy.take(now) == [], "what was refused is not sent again"
    mended = served(2, routes=[*names[:3], "m3=mended", "m4"], scope=names)
    envoy.refuses = set()
    assert envoy.take(mended) == ["+ROUTES m3"]
    assert not envoy.stream.rejections(mended)


def test_an_envoy_that_reconnects_gets_only_what_changed() -> None:
    now = served(1, cluster=["c1", "c2"], routes=["a"], scope=["a"])

    def version(type_url: TypeUrl, name: str) -> str:
        return now.resources[type_url][name].version

    envoy = FakeEnvoy()
    envoy.subscribe(CLUSTER, c1=version(CLUSTER, "c1"), c2="of another control plane", gone="1")
    envoy.subscribe(SCOPE, a=version(SCOPE, "a"))
    envoy.subscribe(ROUTES, "a", a=version(ROUTES, "a"))
    assert envoy.take(now) == ["+CLUSTER c2", "-CLUSTER gone"]
    assert envoy.stream.settled(now)


def test_routes_are_awaited_until_envoy_asks_for_them() -> None:
    envoy = connected()
    now = served(1, routes=["a"], scope=["a"])
    envoy.stream.receive(xds.DeltaDiscoveryRequest(type_url=ROUTES, resource_names_unsubscribe=["*"]))
    assert envoy.take(now) == ["+SCOPE a"]
    assert not envoy.stream.settled(now)
    envoy.subscribe(ROUTES, "a")
    assert envoy.take(now) == ["+ROUTES a"]
    assert envoy.stream.settled(now)


def test_asking_again_is_answered_again() -> None:
    envoy = connected("a")
    now = served(1, routes=["a"])
    assert envoy.take(now) == ["+ROUTES a"]
    envoy.subscribe(ROUTES, "a")
    assert envoy.take(now) == ["+ROUTES a"]


def test_every_renewal_is_sent_whole_even_if_nothing_changed() -> None:
    envoy = FakeEnvoy()
    envoy.subscribe(RUNTIME, "penstock")
    for sequence in (1, 2):
        assert envoy.take(served(0), runtime(sequence, key=30)) == ["+RUNTIME penstock"]
        assert envoy.stream.renewed(sequence)
    assert envoy.take(served(0), runtime(2, key=30)) == []
    assert not envoy.stream.renewed(3)


def test_a_control_plane_that_has_given_no_lease_yet_leaves_the_one_alone_that_an_envoy_still_holds() -> None:
    nothing_yet = replace(runtime(1), ttl_s=None, leased=False)
    back = FakeEnvoy()
    back.subscribe(RUNTIME, "penstock", penstock="of the control plane before")
    assert back.take(served(0), nothing_yet) == []
    assert back.take(served(0), runtime(2, key=30)) == ["+RUNTIME penstock"]
    fresh = FakeEnvoy()
    fresh.subscribe(RUNTIME, "penstock")
    assert fresh.take(served(0), nothing_yet) == ["+RUNTIME penstock"], "an Envoy that starts waits for its first"


def test_a_slow_envoy_skips_renewals_instead_of_queueing_them() -> None:
    envoy = FakeEnvoy()
    envoy.subscribe(RUNTIME, "penstock")
    unanswered = envoy.stream.respond(served(0), runtime(1, key=10), to_wire)
    for sequence in range(2, 50):
        assert envoy.stream.respond(served(0), runtime(sequence, key=sequence), to_wire) is None
    envoy.answer(unanswered)
    assert envoy.take(served(0), runtime(50, key=50)) == ["+RUNTIME penstock"]
    assert envoy.stream.renewed(50)


def test_a_refused_renewal_is_told_and_the_next_one_is_tried() -> None:
    envoy = FakeEnvoy()
    envoy.subscribe(RUNTIME, "penstock")
    envoy.refuses = {"RUNTIME penstock"}
    lease = runtime(1, key=10)
    envoy.take(served(0), lease)
    rejection = envoy.stream.runtime_rejection(lease.version)
    assert rejection is not None
    assert rejection.message == "cannot use RUNTIME penstock"
    envoy.refuses = set()
    assert envoy.take(served(0), runtime(2, key=10)) == ["+RUNTIME penstock"]
    assert envoy.stream.runtime_rejection(lease.version) is None


def test_types_that_are_not_served_are_ignored() -> None:
    envoy = connected()
    envoy.stream.receive(xds.DeltaDiscoveryRequest(type_url="type.googleapis.com/envoy.config.listener.v3.Listener"))
    assert envoy.take(served(1, cluster=["c"])) == ["+CLUSTER c"]
