"""The fronts that are compared, and the stub behind them, each a process on a core of its own choosing.

- `penstock`: the gateway's compiled configuration, static, with the real Lua.
- `penstock_logged`: the same with the access log to the control plane, as `penstock up` runs it.
- `penstock_no_lua` and `penstock_model_lua`: the same without Lua, and with the first of the two filters alone: where
  the cost comes from. Without the first filter the request must name its model in `x-penstock-model`.
- `plain`: router only.
- `transcoder`: Envoy's own grpc_json_transcoder and the router, for servers that speak the typed messages themselves.
- `transcoder_lua`: the transcoder before Penstock's typed gRPC, which together do the work of `penstock`.
- `fastapi`: no Envoy but a hand-written Python service, for the large model.
"""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import yaml

from adapters.server import Address
from gateway.contract.descriptor import descriptor_set
from gateway.envoy.clusters import plain_cluster
from gateway.envoy.settings import EnvoySettings
from gateway.envoy.snapshot import Json
from gateway.envoy.state import Backend, GatewayState, ModelRoutes, ServedVersion
from gateway.envoy.statistics import access_logs
from gateway.envoy.system_routes import CONTROL_GRPC
from gateway.envoy.yaml_config import static_yaml
from gateway.stack.envoy import envoy_command
from loadtest.bench.gateway.calls import INFER_PATH, BenchModel
from loadtest.bench.gateway.stub import Kind
from loadtest.demo.children import Child, ChildFailed

_FILTERS = "type.googleapis.com/envoy.extensions.filters"
_START_TIMEOUT_S = 30.0


FRONTS = (
    "plain",
    "transcoder",
    "penstock",
    "penstock_logged",
    "penstock_no_lua",
    "penstock_model_lua",
    "transcoder_lua",
    "fastapi",
)


@dataclass(frozen=True, slots=True)
class StubPorts:
    """Where the stub gives which answer of a model, and takes only what belongs there.

    `any` answers as `infer` does and takes anything.
    """

    typed: int
    infer: int
    any: int


@dataclass(frozen=True, slots=True)
class Front:
    """A process that is measured."""

    pid: int
    port: int


@contextmanager
def running(
    folder: Path, models: tuple[BenchModel, ...], *, envoy_cpu: int, load_cpu: int, names: Sequence[str] = FRONTS
) -> Iterator[dict[str, Front]]:
    """The fronts of these names, ready, until the end of the block."""
    with ExitStack() as stack:
        stubs = stack.enter_context(stub(folder, models, load_cpu))
        fronts = {}
        for name in names:
            if name == "fastapi":
                server = stubs[models[-1].name].infer
                fronts[name] = stack.enter_context(_fastapi(folder, models[-1], server, envoy_cpu))
            else:
                settings = free_settings(next(iter(stubs.values())).infer)
                config = config_of(name, models, stubs, settings)
                # JSON, because PyYAML writes text such as y in a way that Envoy reads as true.
                fronts[name] = stack.enter_context(
                    envoy(folder / f"{name}.json", json.dumps(config), settings, envoy_cpu)
                )
        yield fronts


def config_of(name: str, models: tuple[BenchModel, ...], stubs: dict[str, StubPorts], settings: EnvoySettings) -> Json:
    """The whole static configuration of the Envoy of this name."""
    match name:
        case "plain":
            return _plain(models, stubs, settings, [])
        case "transcoder":
            return _plain(models, stubs, settings, [_transcoder(models)])
        case "penstock":
            return _penstock(models, stubs, settings)
        case "penstock_logged":
            config = _penstock(models, stubs, settings)
            _connection_manager(config)["access_log"] = access_logs(CONTROL_GRPC, settings)
            control = plain_cluster(CONTROL_GRPC, settings.control_grpc, http2=True, settings=settings)
            config["static_resources"]["clusters"].append(control)
            return config
        case "penstock_no_lua":
            return _without_lua(_penstock(models, _untranscoded(stubs), settings), first=0)
        case "penstock_model_lua":
            return _without_lua(_penstock(models, _untranscoded(stubs), settings), first=1)
        case _:
            config = _penstock(models, stubs, settings)
            _connection_manager(config)["http_filters"].insert(0, _transcoder(models))
            return config


def _penstock(models: tuple[BenchModel, ...], stubs: dict[str, StubPorts], settings: EnvoySettings) -> Json:
    state = GatewayState(
        backends=tuple(
            Backend(name=m.name, grpc=loopback(stubs[m.name].infer), http=loopback(stubs[m.name].infer)) for m in models
        ),
        models=tuple(
            ModelRoutes(
                model=m.name,
                key=m.contract.key,
                versions=(ServedVersion(1, m.name, m.served_name, "1", m.contract),),
                stable=1,
            )
            for m in models
        ),
    )
    config: Json = yaml.safe_load(static_yaml(state, settings, {}))
    return config


def _plain(
    models: tuple[BenchModel, ...], stubs: dict[str, StubPorts], settings: EnvoySettings, filters: list[Json]
) -> Json:
    """Router only, and whatever `filters` come before it. Everything else as Envoy has it by default."""
    # Open Inference calls name their model inside the body, so one model's server gets them all.
    ways = [(f"{m.name}-typed", m.contract.predict_grpc_path, stubs[m.name].typed) for m in models]
    ways.append((f"{models[0].name}-infer", INFER_PATH, stubs[models[0].name].infer))
    clusters = [plain_cluster(name, loopback(port), http2=True, settings=settings) for name, _, port in ways]
    routes = [{"match": {"path": path}, "route": {"cluster": name}} for name, path, _ in ways]
    return _router(routes, clusters, settings, filters)


def answering(answers: Mapping[str, str], settings: EnvoySettings) -> Json:
    """An Envoy that gives these JSON answers, by path, itself."""
    as_json = {"header": {"key": "content-type", "value": "application/json"}, "append_action": "OVERWRITE_IF_EXISTS"}
    routes = [
        {
            "match": {"path": path},
            "direct_response": {"status": 200, "body": {"inline_string": answer}},
            "response_headers_to_add": [as_json],
        }
        for path, answer in answers.items()
    ]
    return _router(routes, [], settings, [])


def _router(routes: list[Json], clusters: list[Json], settings: EnvoySettings, filters: list[Json]) -> Json:
    manager = {
        "@type": f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "callers",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            *filters,
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_FILTERS}.http.router.v3.Router"}},
        ],
    }
    listener = {
        "name": "callers",
        "address": _socket(settings.listen),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    return {
        "admin": {"address": _socket(settings.admin)},
        "static_resources": {"listeners": [listener], "clusters": clusters},
    }


def _transcoder(models: tuple[BenchModel, ...]) -> Json:
    contracts = [model.contract for model in models]
    descriptor = descriptor_set(contracts).SerializeToString()
    return {
        "name": "envoy.filters.http.grpc_json_transcoder",
        "typed_config": {
            "@type": f"{_FILTERS}.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
            "proto_descriptor_bin": base64.b64encode(descriptor).decode(),
            "services": [contract.full_service for contract in contracts],
            # POST to the method's own path; the descriptor needs no annotations for that.
            "auto_mapping": True,
        },
    }


def _untranscoded(stubs: Mapping[str, StubPorts]) -> dict[str, StubPorts]:
    """For fronts without the filter that transcodes: callers' bodies are what they are measured with."""
    return {name: replace(ports, infer=ports.any) for name, ports in stubs.items()}


def _without_lua(config: Json, *, first: int) -> Json:
    """Without the Lua filters from `first` on, and without what the routes tell them."""
    manager = _connection_manager(config)
    del manager["http_filters"][first:-1]
    for scope in manager["scoped_routes"]["scoped_route_configurations_list"]["scoped_route_configurations"]:
        for host in scope["route_configuration"]["virtual_hosts"]:
            for route in host["routes"]:
                route.pop("typed_per_filter_config", None)
    return config


def _connection_manager(config: Json) -> Any:
    return config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]


@contextmanager
def stub(folder: Path, models: tuple[BenchModel, ...], cpu: int) -> Iterator[dict[str, StubPorts]]:
    """The server behind the fronts, until the end of the block: its ports by model."""
    files = [folder / f"{model.name}.npz" for model in models]
    for file, model in zip(files, models, strict=True):
        np.savez(file, x=model.x, y=model.y, rows=model.rows)
    command = [*_pinned(cpu), sys.executable, "-m", "loadtest.bench.gateway.stub", *map(str, files)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ports = [int(port) for port in process.stdout.readline().split()]
            if len(ports) != len(Kind) * len(models):
                raise ChildFailed("the stub server printed no ports; its error is above")
            yield {m.name: StubPorts(*ports[len(Kind) * i : len(Kind) * (i + 1)]) for i, m in enumerate(models)}
        finally:
            process.terminate()


@contextmanager
def envoy(path: Path, config: str, settings: EnvoySettings, cpu: int) -> Iterator[Front]:
    """An Envoy with one worker on this core, ready, until the end of the block."""
    path.write_text(config)
    command = [*_pinned(cpu), *envoy_command(path, concurrency=1).argv]
    with Child(path.stem, command, log=path.with_suffix(".log")) as child:
        wait_ready(child, f"http://{settings.admin}/ready")
        yield Front(child.pid, settings.listen.port)


@contextmanager
def _fastapi(folder: Path, model: BenchModel, server: int, cpu: int) -> Iterator[Front]:
    """The contract's own path, so that the same request goes to it."""
    port = free_settings(server).listen.port
    module = "loadtest.bench.gateway.fastapi_server"
    where = ["127.0.0.1", str(port), str(server), f"{model.served_name}={model.contract.predict_http_path}"]
    command = [*_pinned(cpu), sys.executable, "-m", module, *where]
    with Child("fastapi", command, log=folder / "fastapi.log") as child:
        wait_ready(child, f"http://127.0.0.1:{port}/openapi.json")
        yield Front(child.pid, port)


def wait_ready(child: Child, url: str) -> None:
    """Until the child answers `url` with 200. Raises ChildFailed with the end of its log."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        child.check()
        try:
            if httpx.get(url).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise ChildFailed(f"{child.name} was not ready after {_START_TIMEOUT_S:g} s:\n{child.tail()}")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def free_settings(control: int | None = None) -> EnvoySettings:
    """Free ports; `control` is that of the control plane, another free one by default."""
    callers, admin, free = (loopback(port) for port in free_ports(3))
    control_plane = free if control is None else loopback(control)
    return EnvoySettings(listen=callers, admin=admin, control_grpc=control_plane, control_http=control_plane)


def _pinned(cpu: int) -> list[str]:
    return ["taskset", "-c", str(cpu)]


def loopback(port: int) -> Address:
    return Address("127.0.0.1", port)


def _socket(address: Address) -> Json:
    return {"socket_address": {"address": address.host, "port_value": address.port}}
