from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import httpx
import pytest
import pytest_asyncio

from adapters.server import Address
from adapters.signature import DYNAMIC, Datatype, TensorSpec
from gateway.envoy.state import Backend, ModelLimits
from tests.lua import gateway, vectors
from tests.lua.gateway import Gateway
from tests.lua.scripts import Scripts
from tests.lua.upstream import Upstream
from tests.lua.vectors import Model

DIGITS = vectors.model(
    [TensorSpec("x", Datatype.FP32, (4,))],
    [TensorSpec("label", Datatype.INT64, ()), TensorSpec("p", Datatype.FP32, (3,))],
    max_batch_size=4,
)
WORDS = vectors.model(
    [TensorSpec("text", Datatype.BYTES, (DYNAMIC,)), TensorSpec("flag", Datatype.BOOL, ())],
    [TensorSpec("y", Datatype.BYTES, (DYNAMIC,))],
    name="two-words",
)
WIDE = vectors.model(
    [TensorSpec("x", Datatype.FP32, (3, 224, 224))], [TensorSpec("y", Datatype.FP32, (3, 224, 224))], name="wide"
)
TALKER = vectors.model(
    [TensorSpec("prompt", Datatype.BYTES, ())],
    [TensorSpec("token", Datatype.BYTES, (DYNAMIC,)), TensorSpec("score", Datatype.FP32, ())],
    max_batch_size=2,
    name="talker",
    decoupled=True,
)
EVERY = vectors.model(
    [TensorSpec("x", Datatype.INT32, ())],
    [TensorSpec(d.lower(), d, (2,)) for d in vectors.CONTENTS],
    name="every",
)
SLOW = vectors.model([TensorSpec("x", Datatype.FP32, ())], [TensorSpec("y", Datatype.FP32, ())], name="slow")
HASTY = vectors.model([TensorSpec("x", Datatype.FP32, ())], [TensorSpec("y", Datatype.FP32, ())], name="hasty")
DEAD = vectors.model([TensorSpec("x", Datatype.FP32, ())], [TensorSpec("y", Datatype.FP32, ())], name="dead")


@pytest.fixture(scope="session")
def scripts() -> Scripts:
    return Scripts()


@pytest_asyncio.fixture(scope="session")
async def started_upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    await upstream.start()
    yield upstream
    await upstream.stop()


@pytest.fixture
def upstream(started_upstream: Upstream) -> Upstream:
    started_upstream.reset()
    return started_upstream


@pytest_asyncio.fixture(scope="session")
async def envoy(started_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    folder: Path = tmp_path_factory.mktemp("envoy")
    nobody = gateway.free_ports(1)[0]
    backends = (
        Backend(
            "stub", Address("127.0.0.1", started_upstream.grpc_port), Address("127.0.0.1", started_upstream.http_port)
        ),
        Backend("nobody", Address("127.0.0.1", nobody), Address("127.0.0.1", nobody)),
    )
    models = (
        gateway.routes(DIGITS, "stub", versions=(3, 4), limits=ModelLimits(request_bytes=20_000)),
        gateway.routes(WORDS, "stub"),
        gateway.routes(WIDE, "stub"),
        gateway.routes(TALKER, "stub"),
        gateway.routes(EVERY, "stub"),
        gateway.routes(SLOW, "stub"),
        gateway.routes(HASTY, "stub", limits=ModelLimits(timeout_s=0.2)),
        gateway.routes(DEAD, "nobody"),
    )
    with gateway.running(models, backends, folder) as running:
        yield running
        faults = [
            line for line in running.log.read_text().splitlines() if "script log" in line or "lua" in line.lower()
        ]
        assert not [f for f in faults if "malformed" not in f], "the scripts had runtime errors"


@pytest_asyncio.fixture(scope="session")
async def http1(envoy: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=envoy.url) as client:
        yield client


@pytest_asyncio.fixture(scope="session")
async def http2(envoy: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=envoy.url, http1=False, http2=True) as client:
        yield client


@pytest.fixture(params=["http1", "http2"])
def http(request: pytest.FixtureRequest, http1: httpx.AsyncClient, http2: httpx.AsyncClient) -> httpx.AsyncClient:
    return http1 if request.param == "http1" else http2


@pytest_asyncio.fixture(scope="session")
async def channel(envoy: Gateway) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(envoy.target) as made:
        yield made


@pytest.fixture
def digits() -> Model:
    return DIGITS


@pytest.fixture
def words() -> Model:
    return WORDS
