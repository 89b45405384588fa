"""The part of the control plane that feeds Envoys, in this process: the real registry, routing and ADS server.

For `scale`, which puts an Envoy and thousands of models before it, and for the capacity bench, which puts a fleet.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from adapters.triton.client import Triton
from gateway.contract.derive import derive
from gateway.database import open_database
from gateway.envoy.ads import SERVER_OPTIONS, AdsServer
from gateway.envoy.data_plane import EnvoyDataPlane
from gateway.envoy.settings import EnvoySettings
from gateway.limits import LimitPolicy
from gateway.registry import Registry, VersionState
from gateway.routing import GatewayRouting
from loadtest.bench.gateway.calls import SMALL
from loadtest.bench.gateway.fronts import free_settings, loopback
from rollout.clock import SystemClock

CANARY_OF = "m00000"


@dataclass(slots=True)
class Plane:
    """The control plane's parts between the registry and Envoy."""

    registry: Registry
    routing: GatewayRouting
    data_plane: EnvoyDataPlane
    ads: AdsServer
    settings: EnvoySettings

    def add(self, name: str, versions: int = 1) -> None:
        """A model as a deployment leaves it, ready, without a file: the stub answers for all."""
        signature = SMALL.signature
        for number in range(1, versions + 1):
            contract = derive(name, signature, self.registry.locked_contract(name))
            digest = f"sha256:{name}-{number}"
            self.registry.register(
                model=name, number=number, digest=digest, size=0, signature=signature, contract=contract
            )
            self.registry.set_state(name, number, VersionState.READY)

    def fill(self, models: int) -> None:
        """That many models, each live in version 1; the first, `CANARY_OF`, has a version 2 that is ready."""
        for number in range(models):
            name = f"m{number:05d}"
            self.add(name, versions=2 if name == CANARY_OF else 1)
            self.registry.set_stable(name, 1)


@asynccontextmanager
async def running_plane(folder: Path, server_port: int) -> AsyncIterator[Plane]:
    """A control plane before a server that listens here, serving Envoys until the end of the block."""
    settings = free_settings()
    connection = open_database(folder / "plane.db")
    connection.execute("PRAGMA synchronous=OFF")  # registering thousands at once is not what is measured
    registry = Registry(connection=connection, clock=SystemClock(), artefact_path=lambda digest: folder / digest)
    server = Triton(name="stub", grpc=loopback(server_port), http=loopback(server_port))
    ads = AdsServer(lease_ttl_s=settings.lease_ttl_s)
    data_plane = EnvoyDataPlane(ads=ads, settings=settings)
    routing = GatewayRouting(
        registry=registry,
        server=server,
        data_plane=data_plane,
        limits=LimitPolicy(ceiling_bytes=64 * 1024**2, timeout_s=30.0),
    )
    control = grpc.aio.server(options=SERVER_OPTIONS)
    ads.add_to(control)
    control.add_insecure_port(str(settings.control_grpc))
    await control.start()
    try:
        yield Plane(registry, routing, data_plane, ads, settings)
    finally:
        await control.stop(0)
        connection.close()
