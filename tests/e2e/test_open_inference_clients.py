"""Open Inference clients as they are: tritonclient's aio forms and stream, and those of the kserve package."""

from __future__ import annotations

import queue
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http.aio as triton_http_aio

from tests import models
from tests.e2e.running import Penstock

pytestmark = pytest.mark.e2e

MODEL = "openly"
X = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)

KSERVE = Path("build/kserve")
"""Its own environment: kserve's pins are not ours."""

KSERVE_CALLS = """
import asyncio, sys
import numpy as np
from kserve import InferInput, InferRequest, InferenceGRPCClient, InferenceRESTClient, RESTConfig

async def main(target, model):
    x = np.array([[1, 2, 3, 4]], np.float32)
    def request():
        tensor = InferInput(name="x", shape=[1, 4], datatype="FP32")
        tensor.set_data_from_numpy(x, binary_data=False)
        return InferRequest(model_name=model, infer_inputs=[tensor])
    rest = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    # Not is_server_live: it wants a JSON body, which Triton leaves empty; the status says it.
    assert await rest.is_model_ready(f"http://{target}", model_name=model)
    answer = await rest.infer(f"http://{target}", request(), model_name=model)
    assert answer.outputs[0].as_numpy().tolist() == [[2, 3, 4, 5]], answer
    grpc = InferenceGRPCClient(target)
    assert await grpc.is_server_ready()
    assert await grpc.is_model_ready(model_name=model)
    answer = await grpc.infer(request())
    assert answer.outputs[0].as_numpy().tolist() == [[2, 3, 4, 5]], answer
    assert answer.model_name == model
    print("both answered")

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def openly(penstock: Penstock) -> Penstock:
    penstock.deploy_live(MODEL, models.add_one())
    return penstock


def wanted(library: Any) -> Any:
    tensor = library.InferInput("x", list(X.shape), "FP32")
    tensor.set_data_from_numpy(X)
    return tensor


@pytest.mark.parametrize("library", [triton_grpc_aio, triton_http_aio], ids=["grpc", "http"])
async def test_the_asynchronous_clients_of_triton(openly: Penstock, library: Any) -> None:
    client = library.InferenceServerClient(openly.authority)
    try:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready(MODEL)
        metadata: Any = await client.get_model_metadata(MODEL)
        assert (metadata["name"] if isinstance(metadata, dict) else metadata.name) == MODEL
        await client.get_model_config(MODEL)
        await client.get_inference_statistics(MODEL)
        result = await client.infer(MODEL, [wanted(library)])
        assert result.as_numpy("y").tolist() == (X + 1).tolist()
    finally:
        await client.close()


def test_a_stream_is_routed_by_its_metadata(openly: Penstock) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    client = triton_grpc.InferenceServerClient(openly.authority)
    try:
        client.start_stream(
            lambda result, error: answers.put(error or result), headers={"x-penstock-model": MODEL}, stream_timeout=30
        )
        for number in range(5):
            client.async_stream_infer(MODEL, [wanted(triton_grpc)], request_id=str(number))
        seen = [answers.get(timeout=30) for _ in range(5)]
    finally:
        client.stop_stream()
        client.close()
    for number, result in enumerate(seen):
        response = result.get_response()
        assert (response.model_name, response.model_version, response.id) == (MODEL, "1", str(number))
        assert result.as_numpy("y").tolist() == (X + 1).tolist()


@pytest.mark.nightly
def test_the_clients_of_kserve(openly: Penstock) -> None:
    if not (KSERVE / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", KSERVE], check=True)
        subprocess.run([KSERVE / "bin" / "pip", "install", "--quiet", "kserve==0.21.0"], check=True, timeout=300)
    done = subprocess.run(
        [KSERVE / "bin" / "python", "-c", KSERVE_CALLS, openly.authority, MODEL],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "both answered"
