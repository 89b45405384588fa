"""The real Envoy with the production configuration, compiled from a small state, in front of the stub upstream."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import envoy
import yaml

from adapters.server import Address
from gateway.envoy.settings import EnvoySettings
from gateway.envoy.state import Backend, GatewayState, ModelLimits, ModelRoutes, ServedVersion
from gateway.envoy.yaml_config import static_yaml
from tests.lua.vectors import Model


@dataclass(frozen=True)
class Gateway:
    port: int
    admin: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def stats(self, prefix: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/stats?filter={prefix}", timeout=5) as reply:
            return str(reply.read().decode())


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [s.getsockname()[1] for s in sockets]


def routes(
    model: Model, backend: str, *, versions: tuple[int, ...] = (3,), limits: ModelLimits | None = None
) -> ModelRoutes:
    contract = model.contract
    served = tuple(ServedVersion(n, backend, f"{contract.model}.{n}", "1", contract) for n in versions)
    return ModelRoutes(contract.model, contract.key, served, stable=versions[0], limits=limits or ModelLimits())


@contextlib.contextmanager
def running(models: tuple[ModelRoutes, ...], backends: tuple[Backend, ...], folder: Path) -> Iterator[Gateway]:
    """Envoy as a child of this (the main) thread: it ends with the thread that started it."""
    port, admin, control_grpc, control_http = free_ports(4)
    settings = EnvoySettings(
        listen=Address("127.0.0.1", port),
        admin=Address("127.0.0.1", admin),
        control_grpc=Address("127.0.0.1", control_grpc),
        control_http=Address("127.0.0.1", control_http),
        connect_timeout_s=1.0,
    )
    config = folder / "envoy.json"
    # JSON, because Envoy's YAML reader takes the bare word y (a common tensor name) for a boolean.
    config.write_text(json.dumps(yaml.safe_load(static_yaml(GatewayState(backends, models), settings, {}))))
    log = folder / "envoy.log"
    binary = Path(envoy.__file__).parent / "_bin" / "envoy"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [binary, "-c", str(config), "--concurrency", "1", "--use-dynamic-base-id", "-l", "warning"],
            stdout=out,
            stderr=out,
        )
    try:
        wait_until_ready(admin, process, log)
        yield Gateway(port, admin, log)
    finally:
        process.terminate()
        process.wait(20)


def wait_until_ready(admin: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"Envoy ended with {process.returncode}: {log.read_text()[-4000:]}")
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{admin}/ready", timeout=1) as reply,
        ):
            if reply.status == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"Envoy did not become ready: {log.read_text()[-4000:]}")
