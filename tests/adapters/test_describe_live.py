"""What a live Triton says of models that were in its repository already: hand-written ones, not Penstock's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import httpx
import pytest
import pytest_asyncio

from adapters.open_inference import signature_of_metadata
from adapters.server import Served
from adapters.signature import DYNAMIC, Datatype, Signature, TensorSpec
from adapters.triton.ask_once import SEQUENCE
from adapters.triton.client import Triton
from tests.triton_server import RunningTriton, triton_server

ECHO = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        arrays = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", array.astype(np.float32))]) for array in arrays]
"""

FP32 = Datatype.FP32
X, Y = TensorSpec("x", FP32, (3,)), TensorSpec("y", FP32, (3,))

CONFIGS: Mapping[str, str] = {
    "labels": """
        max_batch_size: 4
        input { name: "x" data_type: TYPE_FP32 dims: 3 }
        input { name: "b" data_type: TYPE_FP32 dims: 3 optional: true }
        output { name: "y" data_type: TYPE_FP32 dims: 3 label_filename: "labels.txt" }
    """,
    "streams": """
        model_transaction_policy { decoupled: true }
        input { name: "x" data_type: TYPE_FP32 dims: 3 } output { name: "y" data_type: TYPE_FP32 dims: 3 }
    """,
    "sequence": """
        max_batch_size: 4 sequence_batching { }
        input { name: "x" data_type: TYPE_FP32 dims: 3 } output { name: "y" data_type: TYPE_FP32 dims: 3 }
    """,
    "shapes": """
        input { name: "x" data_type: TYPE_FP32 dims: [-1, -1, 3] }
        output { name: "y" data_type: TYPE_FP32 dims: [-1, -1, 3] }
    """,
}

EXPECTED: Mapping[str, Signature] = {
    "labels": Signature(
        (X, TensorSpec("b", FP32, (3,), optional=True)), (replace(Y, labels=("cat", "dog: small", "bird")),), 4
    ),
    "streams": Signature((X,), (Y,), decoupled=True),
    "sequence": Signature((X,), (Y,), 4, obstacles=(SEQUENCE,)),
    "shapes": Signature((replace(X, shape=(DYNAMIC, DYNAMIC, 3)),), (replace(Y, shape=(DYNAMIC, DYNAMIC, 3)),)),
}


def write(repository: Path, name: str) -> None:
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(ECHO, encoding="utf-8")
    (folder.parent / "config.pbtxt").write_text(f'backend: "python"\n{dedent(CONFIGS[name])}', encoding="utf-8")
    (folder.parent / "labels.txt").write_text("cat\ndog: small\nbird\n", encoding="utf-8")


@pytest_asyncio.fixture(scope="module")
async def foreign(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningTriton]:
    folder = tmp_path_factory.mktemp("foreign")
    for name in CONFIGS:
        write(folder / "repository", name)
    with triton_server(folder, load_at_start=tuple(CONFIGS)) as running:
        yield running


@pytest.mark.parametrize("name", CONFIGS)
async def test_a_model_of_the_repository_is_described(foreign: RunningTriton, name: str) -> None:
    triton = Triton(name="triton", grpc=foreign.grpc, http=foreign.http, repository=foreign.repository)
    try:
        assert await triton.describe(Served(name, "1")) == EXPECTED[name]
    finally:
        await triton.close()


@pytest.mark.parametrize("name", CONFIGS)
async def test_its_metadata_alone_gives_whole_shapes(foreign: RunningTriton, name: str) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://{foreign.http}/v2/models/{name}")
    signature = signature_of_metadata(answer.json())
    rows = (DYNAMIC,) if EXPECTED[name].batching else ()
    assert signature == Signature(
        tuple(TensorSpec(spec.name, spec.datatype, (*rows, *spec.shape)) for spec in EXPECTED[name].inputs),
        tuple(TensorSpec(spec.name, spec.datatype, (*rows, *spec.shape)) for spec in EXPECTED[name].outputs),
    )
