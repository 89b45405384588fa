"""How long from a model that is loaded in Triton to its live API: typed gRPC, typed JSON and the docs page all answer.

A Triton of its own, as somebody else would run it, and `penstock up --triton ... --adopt-all` before it. Models are
loaded one after another by Triton's own API; the clock starts when Triton says that a model is loaded.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import numpy as np
import tritonclient.grpc as triton

from adapters.signature import Datatype, Signature, TensorSpec
from gateway.contract.derive import derive
from loadtest.bench.gateway.calls import BenchModel
from loadtest.bench.gateway.fronts import free_settings, wait_ready
from loadtest.bench.gateway.measure import p95
from loadtest.bench.gateway.triton import RunningTriton, running_triton, write_model
from loadtest.demo.children import Child, quiet_environment

TARGET_S = 1.0
_STOP_TRYING_S = 30.0
_X = np.array([1.0, 2.0, 3.0, 4.0], dtype=np.float32)

_CODE = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        arrays = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", array)]) for array in arrays]
"""


@dataclass(frozen=True, slots=True)
class Live:
    """Seconds from loaded to live, per model."""

    seconds: tuple[float, ...]

    @property
    def p95_s(self) -> float:
        return p95(self.seconds)


def measure_live(folder: Path, *, models: int, progress: Callable[[str], None]) -> Live:
    """Load `models` models one after another and wait for the API of each."""
    seconds = []
    with (
        _triton(folder / "triton") as server,
        _penstock(folder, server) as port,
        triton.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client,
    ):
        for number in range(models):
            name = f"live{number:02d}"
            write_model(folder / "triton" / "repository" / name, _CODE, [4])
            client.load_model(name)
            seconds.append(_until_live(port, name))
            progress(f"live API of model {number + 1} of {models} after {seconds[-1] * 1000:.0f} ms")
    return Live(tuple(seconds))


def _until_live(port: int, name: str) -> float:
    """Ask all three until each has answered rightly."""
    started = time.monotonic()
    tensors = (TensorSpec("x", Datatype.FP32, (4,)),), (TensorSpec("y", Datatype.FP32, (4,)),)
    model = BenchModel(name, _X, _X)
    contract = derive(name, Signature(*tensors, max_batch_size=8))
    with (
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        call = channel.unary_unary(contract.predict_grpc_path)

        def typed_grpc() -> bool:
            try:
                model.check_typed(call(model.typed_request()[5:], timeout=5))
            except grpc.RpcError:
                return False
            return True

        def typed_json() -> bool:
            headers = {"content-type": "application/json"}
            answer = http.post(contract.predict_http_path, content=model.json_request(), headers=headers)
            if answer.is_success:
                model.check_json(answer.content)
            return answer.is_success

        def docs() -> bool:
            return http.get(f"/v1/models/{name}/docs").is_success

        for answers in (typed_json, typed_grpc, docs):
            while not answers():
                if time.monotonic() - started > _STOP_TRYING_S:
                    raise TimeoutError(f"{name} had no live API after {_STOP_TRYING_S:g} s ({answers.__name__})")
                time.sleep(0.005)
    return time.monotonic() - started


@contextmanager
def _triton(folder: Path) -> Iterator[RunningTriton]:
    (folder / "repository").mkdir(parents=True)
    with running_triton(folder) as server:
        wait_ready(server.child, f"http://127.0.0.1:{server.http}/v2/health/live")
        yield server


@contextmanager
def _penstock(folder: Path, server: RunningTriton) -> Iterator[int]:
    """The callers' port."""
    free = free_settings()
    port, operators = free.listen.port, free.admin.port
    cli = [sys.executable, "-m", "gateway.cli"]
    where = ["--data-dir", str(folder / "data"), "--port", str(port), "--operator-port", str(operators)]
    up = [*cli, "up", *where, "--triton", f"127.0.0.1:{server.grpc}", "--triton-http", f"127.0.0.1:{server.http}"]
    command = [*up, "--triton-backend", "python", "--adopt-all"]
    with Child("penstock up", command, log=folder / "penstock.log", env=quiet_environment()) as child:
        wait_ready(child, f"http://127.0.0.1:{port}/docs")
        yield port


def section(live: Live) -> str:
    """The part of the page about it."""
    verdict = "met" if live.p95_s <= TARGET_S else f"missed by {live.p95_s - TARGET_S:.2f} s"
    return f"""## From a loaded model to its live API

| models | median | p95 | slowest | at most (p95) | |
|---|---|---|---|---|---|
| {len(live.seconds)} | {statistics.median(live.seconds):.2f} s | {live.p95_s:.2f} s | {max(live.seconds):.2f} s \
| {TARGET_S:g} s | {verdict} |

From Triton's word that a model is loaded to the first right answers of typed JSON and typed gRPC and the docs page,
with `penstock up --adopt-all` before a Triton of its own.
"""
