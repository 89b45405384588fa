"""Open Inference Protocol's ready calls and repository index, by Triton's clients: ready means that it answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from tests import models
from tests.e2e.running import Penstock

pytestmark = pytest.mark.e2e

LIMIT_S = 30.0

FICKLE = """
import os
import triton_python_backend_utils as pb_utils

BROKEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "broken")

class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            if os.path.exists(BROKEN):
                answers.append(pb_utils.InferenceResponse([], pb_utils.TritonError("the fickle one will not")))
                continue
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", x)]))
        return answers
"""

CONFIG = """
backend: "python"
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: 4 }
output { name: "y" data_type: TYPE_FP32 dims: 4 }
"""


@pytest.fixture(scope="module")
def fickle(penstock: Penstock) -> Path:
    """The file that makes the model "fickle" fail; "robust" stands beside it."""
    penstock.deploy_live("robust", models.add_one())
    folder = penstock.data_dir / "repository" / "fickle"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(FICKLE, encoding="utf-8")
    (folder / "config.pbtxt").write_text(CONFIG, encoding="utf-8")
    done = penstock.cli("adopt", "fickle")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "1" / "broken"


@pytest.fixture
def clients(penstock: Penstock) -> Iterator[tuple[Any, Any]]:
    with (
        triton_grpc.InferenceServerClient(penstock.authority) as over_grpc,
        triton_http.InferenceServerClient(penstock.authority) as over_http,
    ):
        yield over_grpc, over_http


def soon(condition: Callable[[], bool]) -> None:
    """Upkeep looks at every version every two seconds."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.05)


def indexed(client: Any) -> dict[tuple[str, str], tuple[str, str]]:
    answer = client.get_model_repository_index()
    if isinstance(answer, list):
        return {(each["name"], each["version"]): (each["state"], each.get("reason", "")) for each in answer}
    return {(each.name, each.version): (each.state, each.reason) for each in answer.models}


def test_a_version_whose_inference_fails_is_not_ready_until_it_answers_again(
    penstock: Penstock, fickle: Path, clients: tuple[Any, Any]
) -> None:
    names = (("fickle",), ("fickle", "1"))
    assert all(client.is_model_ready(*name) for client in clients for name in names)
    fickle.touch()
    soon(lambda: not clients[1].is_model_ready("fickle"))
    assert not any(client.is_model_ready(*name) for client in clients for name in names)
    said = httpx.get(f"{penstock.url}/v2/models/fickle/versions/1/ready")
    assert (said.status_code, said.json()["details"][0]["reason"]) == (503, "NOT_READY")
    assert "test inference" in said.json()["error"]
    for client in clients:
        assert client.is_server_ready()
        assert client.is_model_ready("robust")
        state, reason = indexed(client)["fickle", "1"]
        assert state == "UNAVAILABLE"
        assert "the fickle one will not" in reason
    fickle.unlink()
    soon(lambda: bool(clients[1].is_model_ready("fickle")))
    assert all(client.is_model_ready(*name) for client in clients for name in names)


def test_the_index_has_the_versions_that_callers_reach_by_their_public_names(
    penstock: Penstock, fickle: Path, clients: tuple[Any, Any]
) -> None:
    over_grpc, over_http = (indexed(client) for client in clients)
    assert over_grpc == over_http
    assert over_http["robust", "1"] == over_http["fickle", "1"] == ("READY", "")
    assert not any("." in name for name, _ in over_http), "Triton's own name of a version is robust.1"
    for name, version in over_http:
        assert all(client.is_model_ready(name, version) for client in clients)


def test_the_index_of_ready_versions_leaves_the_others_out(
    penstock: Penstock, fickle: Path, clients: tuple[Any, Any]
) -> None:
    def ready() -> set[str]:
        answer = httpx.post(f"{penstock.url}/v2/repository/index", json={"ready": True}).raise_for_status()
        return {each["name"] for each in answer.json()}

    fickle.touch()
    soon(lambda: "fickle" not in ready())
    assert "robust" in ready()
    fickle.unlink()
    soon(lambda: "fickle" in ready())


@pytest.mark.parametrize("body", [b"[1]", b"{", b'{"ready": 1}'])
def test_an_index_request_that_is_none_is_refused(penstock: Penstock, body: bytes) -> None:
    answer = httpx.post(f"{penstock.url}/v2/repository/index", content=body)
    assert (answer.status_code, answer.json()["status"]) == (400, "INVALID_ARGUMENT")


def test_the_repository_is_not_for_callers_to_change(
    penstock: Penstock, fickle: Path, clients: tuple[Any, Any]
) -> None:
    over_grpc, over_http = clients
    for client in (over_grpc, over_http):
        for change in (client.load_model, client.unload_model):
            with pytest.raises(InferenceServerException):
                change("robust.1")
    assert httpx.get(f"{penstock.url}/v2/repository/index").status_code == 405
    assert httpx.post(f"{penstock.url}/v2/repository/models/robust.1/unload").status_code == 404
    with grpc.insecure_channel(penstock.authority) as channel:
        unload = channel.unary_unary("/inference.GRPCInferenceService/RepositoryModelUnload")
        with pytest.raises(grpc.RpcError) as caught:
            unload(b"\n\0\x12\x08robust.1", timeout=30)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert clients[0].is_model_ready("robust")
