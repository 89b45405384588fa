"""Simulated Envoys: each a gRPC connection of its own with one delta ADS stream, which takes what comes as Envoy does.

Started by `fleet` as a process of its own, `python -m loadtest.bench.capacity.envoys PORT`. Each line on its standard
input is the number of Envoys that there should be from then on, and is repeated on its output when all have been
answered. The first Envoy starts empty and takes everything. Those after it say that they hold what it holds, as Envoys
do after a restart of their control plane.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2 as xds

from gateway.envoy.bootstrap import RUNTIME_LAYER
from gateway.envoy.snapshot import TypeUrl

Held = Mapping[TypeUrl, Mapping[str, str]]
"""Versions by type and name."""

_METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))
"""A connection per channel, and configurations of any size."""


def subscriptions(node_id: str, held: Held) -> Iterator[Any]:
    """What an Envoy sends when its stream opens, holding this from before."""
    node = base_pb2.Node(id=node_id)
    for type_url in (TypeUrl.CLUSTER, TypeUrl.SCOPE, TypeUrl.ROUTES, TypeUrl.RUNTIME):
        versions = held.get(type_url, {})
        names = {TypeUrl.ROUTES: tuple(versions), TypeUrl.RUNTIME: (RUNTIME_LAYER,)}.get(type_url, ())
        if type_url is TypeUrl.ROUTES and not names:
            continue  # routes are asked for by name, when a scope has named them
        yield xds.DeltaDiscoveryRequest(
            node=node, type_url=type_url.value, resource_names_subscribe=names, initial_resource_versions=versions
        )


def answers(response: Any) -> Iterator[Any]:
    """The acknowledgement of a response, and what follows from it: a scope's routes have its name."""
    yield xds.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
    if response.type_url == TypeUrl.SCOPE:
        yield xds.DeltaDiscoveryRequest(
            type_url=TypeUrl.ROUTES.value,
            resource_names_subscribe=[resource.name for resource in response.resources],
            resource_names_unsubscribe=response.removed_resources,
        )


def record(held: dict[TypeUrl, dict[str, str]], response: Any) -> None:
    """Note what an Envoy holds after a response. The runtime layer is never held over a reconnect: it is a lease."""
    type_url = TypeUrl(response.type_url)
    if type_url is TypeUrl.RUNTIME:
        return
    named = held.setdefault(type_url, {})
    named.update((resource.name, resource.version) for resource in response.resources)
    for name in response.removed_resources:
        named.pop(name, None)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Any]:
    """A stream to the control plane on a connection of its own."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=_OPTIONS) as channel:
        stream: Any = channel.stream_stream(
            _METHOD,
            request_serializer=xds.DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=xds.DeltaDiscoveryResponse.FromString,
        )
        yield stream()


async def live(
    port: int, node_id: str, held: dict[TypeUrl, dict[str, str]], served: asyncio.Event, *, recording: bool
) -> None:
    """One Envoy until the control plane ends. `served` is set by its first response."""
    async with connected(port) as stream:
        for request in subscriptions(node_id, held):
            await stream.write(request)
        while (response := await stream.read()) is not grpc.aio.EOF:
            served.set()
            if recording:
                record(held, response)
            for request in answers(response):
                await stream.write(request)


async def serve(port: int) -> None:
    """As many Envoys as the last line of standard input says, until it ends."""
    held: dict[TypeUrl, dict[str, str]] = {}
    async with asyncio.TaskGroup() as group:
        envoys: list[asyncio.Task[None]] = []
        while line := await asyncio.to_thread(sys.stdin.readline):
            events = [asyncio.Event() for _ in range(int(line) - len(envoys))]
            for served in events:
                first = not envoys
                envoy = live(port, f"envoy-{len(envoys):04d}", held, served, recording=first)
                envoys.append(group.create_task(envoy))
            for served in events:
                await served.wait()
            print(len(envoys), flush=True)
        for task in envoys:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
