"""Real parts for the data plane's tests: Envoy as a process, an inference server and a control plane in this one.

The inference server is a stub that answers `y = x` over the real protocol, because what is tested here is Envoy's
configuration; the whole way to Triton is tested end to end elsewhere. Envoy is started from the main thread: it dies
with the thread that started it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import envoy
import grpc
import httpx
from tritonclient.grpc import service_pb2 as oip

from gateway.envoy.ads import SERVER_OPTIONS, AdsServer
from gateway.envoy.compile import compile as compile_snapshot
from gateway.envoy.settings import EnvoySettings
from gateway.envoy.snapshot import Snapshot
from gateway.envoy.state import Backend, ModelRoutes
from gateway.envoy.yaml_config import bootstrap_yaml
from tests.envoy.states import backend, settings, state
from tests.triton_server import free_ports

ENVOY = Path(envoy.__path__[0]) / "_bin" / "envoy"
_INFER = "/inference.GRPCInferenceService/ModelInfer"


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask again until it is true; the test's own timeout bounds it."""
    while not await condition():
        await asyncio.sleep(0.02)


@dataclass
class InferenceStub:
    """Answers `y = x` as version-named models; `broken` ones answer INTERNAL."""

    server: Backend
    asked: Counter[str] = field(default_factory=Counter)
    broken: set[str] = field(default_factory=set)
    http_paths: list[str] = field(default_factory=list)

    async def infer(self, request: Any, context: Any) -> Any:
        self.asked[request.model_name] += 1
        if request.model_name in self.broken:
            await context.abort(grpc.StatusCode.INTERNAL, "the model failed")
        outputs = [{"name": "y", "datatype": "FP32", "shape": list(request.inputs[0].shape)}]
        return oip.ModelInferResponse(
            model_name=request.model_name, outputs=outputs, raw_output_contents=list(request.raw_input_contents)
        )

    async def http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split(b" ", 2)[1].decode()
                self.http_paths.append(path)
                body = json.dumps({"path": path}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
                writer.write(b"content-length: %d\r\n\r\n%b" % (len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def inference_stub() -> AsyncIterator[InferenceStub]:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    (http_port,) = free_ports(1)
    stub = InferenceStub(backend(grpc=port, http=http_port))
    infer = grpc.unary_unary_rpc_method_handler(
        stub.infer, oip.ModelInferRequest.FromString, oip.ModelInferResponse.SerializeToString
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": infer}),)
    )
    await server.start()
    http = await asyncio.start_server(stub.http, "127.0.0.1", http_port)
    try:
        yield stub
    finally:
        http.close()
        await server.stop(0)


def _start(command: Iterable[object]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@asynccontextmanager
async def running_envoy(config: str, directory: Path, admin: int, name: str = "envoy") -> AsyncIterator[int]:
    """Envoy with this configuration until the end of the block; its process id."""
    path = directory / f"{name}.yaml"
    path.write_text(config)
    command = [
        ENVOY,
        "-c",
        path,
        "--concurrency",
        "2",
        "--disable-hot-restart",
        "--log-path",
        directory / f"{name}.log",
    ]
    process = _start(command)

    async def answers() -> bool:
        if process.poll() is not None:
            raise AssertionError((directory / f"{name}.log").read_text()[-3000:])
        try:
            async with httpx.AsyncClient() as client:
                return (await client.get(f"http://127.0.0.1:{admin}/ready")).status_code == 200
        except httpx.TransportError:
            return False

    try:
        await until(answers)
        yield process.pid
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)


@dataclass
class ControlPlane:
    """The gRPC server that Envoy takes its configuration from; can be stopped and started on the same port."""

    settings: EnvoySettings
    ads: AdsServer
    extra: Iterable[Any] = ()
    _server: Any = None

    async def start(self) -> None:
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        self.ads.add_to(self._server)
        self._server.add_generic_rpc_handlers(tuple(self.extra))
        self._server.add_insecure_port(str(self.settings.control_grpc))
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(0)


@dataclass
class Plane:
    """A running data plane: Envoy, its control plane, an inference server, and a client."""

    settings: EnvoySettings
    control: ControlPlane
    inference: InferenceStub
    client: httpx.AsyncClient
    directory: Path
    envoy: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def stop_envoy(self) -> None:
        await self.envoy.aclose()

    @property
    def ads(self) -> AdsServer:
        return self.control.ads

    def compile(self, *models: ModelRoutes) -> Snapshot:
        return compile_snapshot(state(*models, server=self.inference.server), self.settings)

    async def publish(self, *models: ModelRoutes) -> None:
        await self.ads.publish(self.compile(*models))

    async def predict(self, name: str, *, user: str = "", pin: str = "", path: str = "") -> httpx.Response:
        headers = ({"x-user-id": user} if user else {}) | ({"x-penstock-version": pin} if pin else {})
        body = {"instances": [{"x": [1.5]}]}
        return await self.client.post(path or f"/v1/models/{name}:predict", json=body, headers=headers)

    async def version_of(self, name: str, user: str = "", **kwargs: str) -> int:
        response = await self.predict(name, user=user, **kwargs)
        assert response.status_code == 200, response.text
        return int(response.headers["x-penstock-version"])

    async def arms(self, name: str, users: Iterable[str]) -> dict[str, int]:
        """Which version answers each user now."""
        return {user: await self.version_of(name, user) for user in users}

    @asynccontextmanager
    async def load(self, *names: str, callers: int = 4) -> AsyncIterator[list[httpx.Response]]:
        """Requests to each model without a pause, in the background; all responses."""
        responses: list[httpx.Response] = []

        async def call(number: int) -> None:
            while True:
                for name in names:
                    response = await self.predict(name, user=f"user-{number}")
                    responses.append(response)

        tasks = [asyncio.create_task(call(number)) for number in range(callers)]
        try:
            yield responses
            seen = len(responses)

            async def more() -> bool:
                return len(responses) > seen + 20 or any(task.done() for task in tasks)

            await until(more)
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(error, asyncio.CancelledError) for error in ended), ended


@asynccontextmanager
async def running_plane(
    directory: Path, *models: ModelRoutes, ttl_s: float = 30.0, extra: Iterable[Any] = ()
) -> AsyncIterator[Plane]:
    listen, admin, control_grpc, control_http = free_ports(4)
    chosen = settings(listen=listen, admin=admin, control_grpc=control_grpc, control_http=control_http, ttl_s=ttl_s)
    async with inference_stub() as stub, httpx.AsyncClient(base_url=f"http://{chosen.listen}", timeout=30) as client:
        control = ControlPlane(chosen, AdsServer(lease_ttl_s=ttl_s), extra)
        plane = Plane(chosen, control, stub, client, directory)
        plane.ads.load(plane.compile(*models))
        await control.start()
        try:
            async with plane.envoy:
                await plane.envoy.enter_async_context(running_envoy(bootstrap_yaml(chosen), directory, admin))
                await plane.ads.wait_settled(timeout_s=30)
                yield plane
        finally:
            await control.stop()
