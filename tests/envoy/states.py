"""Gateway states for tests: models that answer `y = x`, so that the answer tells the request."""

from __future__ import annotations

from adapters.server import Address
from adapters.signature import Datatype, Signature, TensorSpec
from gateway.contract.derive import derive
from gateway.envoy.settings import EnvoySettings
from gateway.envoy.state import Backend, GatewayState, ModelLimits, ModelRoutes, ServedVersion

ECHO = Signature((TensorSpec("x", Datatype.FP32, (1,)),), (TensorSpec("y", Datatype.FP32, (1,)),), max_batch_size=8)


def loopback(port: int) -> Address:
    return Address("127.0.0.1", port)


def backend(grpc: int = 8001, http: int = 8000, name: str = "triton") -> Backend:
    return Backend(name=name, grpc=loopback(grpc), http=loopback(http))


def model(
    name: str,
    *versions: int,
    stable: int,
    canary: int | None = None,
    signature: Signature = ECHO,
    server: str = "triton",
    limits: ModelLimits | None = None,
) -> ModelRoutes:
    contract = derive(name, signature)
    return ModelRoutes(
        model=name,
        key=contract.key,
        versions=tuple(
            ServedVersion(v, backend=server, served_name=f"{name}.{v}", served_version="1", contract=contract)
            for v in versions
        ),
        stable=stable,
        canary=canary,
        limits=limits or ModelLimits(),
    )


def state(*models: ModelRoutes, server: Backend | None = None) -> GatewayState:
    return GatewayState(backends=(server or backend(),), models=models)


def settings(
    *, listen: int = 8080, admin: int = 9901, control_grpc: int = 18000, control_http: int = 18001, ttl_s: float = 30.0
) -> EnvoySettings:
    return EnvoySettings(
        listen=loopback(listen),
        admin=loopback(admin),
        control_grpc=loopback(control_grpc),
        control_http=loopback(control_http),
        lease_ttl_s=ttl_s,
        als_flush_s=0.1,
    )
