"""What the ADS server refuses, and what it does with a lease whose time has passed; virtual time, no Envoy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2 as xds
from envoy.service.runtime.v3 import rtds_pb2

from gateway.envoy.ads import AdsServer, NotAcknowledged, NotConnected
from gateway.envoy.compile import compile
from gateway.envoy.snapshot import TypeUrl
from tests.envoy.states import model, settings, state

STAGED = compile(state(model("digits", 1, 2, stable=1, canary=2)), settings())
CANARY = "penstock.models.digits.1-2.triton.canary"


async def test_without_an_envoy_says_so() -> None:
    ads = AdsServer(lease_ttl_s=30.0)
    with pytest.raises(NotConnected, match="before any configuration"):
        await ads.lease({})
    with pytest.raises(NotConnected, match="no Envoy connected within"):
        await ads.publish(STAGED, timeout_s=0.01)
    with pytest.raises(NotConnected, match="is Envoy running"):
        await ads.lease({"digits": 100})
    with pytest.raises(ValueError, match="has no canary"):
        await ads.lease({"iris": 100})


async def test_nothing_is_served_before_the_first_snapshot() -> None:
    ads = AdsServer(lease_ttl_s=30.0)
    async with _stream(ads) as stream:
        await stream.write(xds.DeltaDiscoveryRequest(type_url=TypeUrl.CLUSTER))
        ads.load(STAGED)
        response = await stream.read()
        assert {resource.name for resource in response.resources} == set(STAGED.resources[TypeUrl.CLUSTER])


async def test_an_envoy_that_does_not_answer_is_named() -> None:
    ads = AdsServer(lease_ttl_s=30.0)
    ads.load(STAGED)
    async with _stream(ads) as stream:
        await stream.write(xds.DeltaDiscoveryRequest(type_url=TypeUrl.CLUSTER, node={"id": "edge-7"}))
        await stream.read()
        with pytest.raises(NotAcknowledged, match="edge-7"):
            await ads.publish(STAGED, timeout_s=0.05)
        assert ads.connected == ("edge-7",)


async def test_a_late_envoy_gets_what_is_left_of_a_lease_and_nothing_of_a_lapsed_one() -> None:
    clock_s = 0.0
    ads = AdsServer(lease_ttl_s=30.0, monotonic=lambda: clock_s)
    ads.load(STAGED)
    with pytest.raises(NotConnected):
        await ads.lease({"digits": 3000})
    for passed_s, left_s, layer in ((10.0, 20, {CANARY: 3000}), (31.0, 0, {})):
        clock_s = passed_s
        async with _stream(ads) as stream:
            await stream.write(
                xds.DeltaDiscoveryRequest(type_url=TypeUrl.RUNTIME, resource_names_subscribe=["penstock"])
            )
            (resource,) = (await stream.read()).resources
            runtime = rtds_pb2.Runtime.FromString(resource.resource.value)
            assert resource.ttl.seconds == left_s
            assert {key: runtime.layer[key] for key in runtime.layer if key == CANARY} == layer


@asynccontextmanager
async def _stream(ads: AdsServer) -> AsyncIterator[Any]:
    server = grpc.aio.server()
    ads.add_to(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.stream_stream(
                "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
                request_serializer=xds.DeltaDiscoveryRequest.SerializeToString,
                response_deserializer=xds.DeltaDiscoveryResponse.FromString,
            )
            yield call()
    finally:
        await server.stop(0)
