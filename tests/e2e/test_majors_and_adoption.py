"""API majors, adopted models, unknown names and body limits through the running stack."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.utils import InferenceServerException

from adapters.signature import Datatype
from tests import models
from tests.e2e.running import Penstock, running
from tests.e2e.typed import from_reflection
from tests.own_models import put_multiplier

pytestmark = pytest.mark.e2e


@pytest.fixture
def channel(penstock: Penstock) -> Iterator[grpc.Channel]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(penstock.authority, options=options) as channel:
        yield channel


def predict(penstock: Penstock, path: str, instance: dict[str, object]) -> httpx.Response:
    return httpx.post(f"{penstock.url}{path}", json={"instances": [instance]}, timeout=30)


def test_a_breaking_version_is_published_beside_the_one_that_goes_on(
    penstock: Penstock, channel: grpc.Channel, tmp_path: Path
) -> None:
    penstock.deploy_live("ledger", models.add(1))
    breaking = tmp_path / "ledger.onnx"
    breaking.write_bytes(models.add(2, Datatype.FP64))

    lock = tmp_path / "lock.yaml"
    assert penstock.cli("api", "lock", "ledger", "-o", str(lock)).returncode == 0
    checked = penstock.cli("api", "check", str(lock), "--onnx", str(breaking))
    assert checked.returncode == 1
    stopped = penstock.cli("deploy", str(breaking), "--name", "ledger")
    for said in (checked.stdout, stopped.stderr):
        assert "inputs.x: datatype was FP32, is FP64" in said
    assert "--new-api-major" in stopped.stderr

    done = penstock.cli("deploy", str(breaking), "--name", "ledger", "--new-api-major")
    assert done.returncode == 0, done.stdout + done.stderr
    for path, expected, version in (("/v1", [2.0], "1"), ("/v2", [3.0], "2")):
        answer = predict(penstock, f"{path}/models/ledger:predict", {"x": [1, 1, 1, 1]})
        assert answer.status_code == 200, answer.text
        assert answer.json()["predictions"][0]["y"] == expected * 4
        assert answer.headers["x-penstock-version"] == version
    for major, sums in ((1, [2.0] * 4), (2, [3.0] * 4)):
        client = from_reflection(channel, f"penstock.models.ledger.v{major}.Ledger")
        assert client.predict([{"x": [1, 1, 1, 1]}]) == [{"y": sums}]
    assert penstock.cli("api", "check", str(lock)).returncode == 0, "callers of major 1 are served as before"
    listed = penstock.cli("models").stdout
    assert "ledger@2" in listed
    for document in ("/v2/models/ledger.proto", "/v2/models/ledger/openapi.json", "/v2/models/ledger/docs"):
        assert httpx.get(f"{penstock.url}{document}").status_code == 200, document
    # Open Inference knows no majors: unversioned calls stay on the first, a pinned version is reached.
    for pin, datatype, total in (("", "FP32", 2.0), ("/versions/2", "FP64", 3.0)):
        tensor = {"name": "x", "shape": [1, 4], "datatype": datatype, "data": [1, 1, 1, 1]}
        answer = httpx.post(f"{penstock.url}/v2/models/ledger{pin}/infer", json={"inputs": [tensor]}, timeout=30)
        assert answer.status_code == 200, answer.text
        assert answer.json()["outputs"][0]["data"] == [total] * 4


def test_a_rollout_of_the_second_major_moves_its_callers_alone(penstock: Penstock, tmp_path: Path) -> None:
    penstock.deploy_live("journal", models.add(1))
    penstock.deploy("journal", models.add(1, Datatype.FP64), new_api_major=True)
    events = penstock.deploy("journal", models.add(5, Datatype.FP64))
    assert events[-1]["stage"] == "rollout", events
    assert penstock.rollout("journal@2")["candidate"] == 3
    promoted = penstock.cli("rollout", "promote", "journal@2")
    assert promoted.returncode == 0, promoted.stderr
    watched = penstock.cli("rollout", "watch", "journal@2")
    assert watched.returncode == 0, watched.stdout + watched.stderr
    assert predict(penstock, "/v2/models/journal:predict", {"x": [1, 1, 1, 1]}).json()["predictions"] == [
        {"y": [6.0] * 4}
    ]
    assert predict(penstock, "/v1/models/journal:predict", {"x": [1, 1, 1, 1]}).json()["predictions"] == [
        {"y": [2.0] * 4}
    ]


def test_a_model_in_the_servers_repository_is_adopted_and_called(penstock: Penstock, channel: grpc.Channel) -> None:
    put_multiplier(penstock.data_dir / "repository", "Own.Thrice", {1: 3, 4: 12})
    done = penstock.cli("adopt", "Own.Thrice", "--as", "thrice", "--served-version", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    answer = predict(penstock, "/v1/models/thrice:predict", {"X": [1, 2, 3]})
    assert (answer.status_code, answer.json()) == (200, {"predictions": [{"Y": [3.0, 6.0, 9.0]}]})
    client = from_reflection(channel, "penstock.models.thrice.v1.Thrice")
    assert client.predict([{"X": [1, 2, 3]}]) == [{"Y": [3.0, 6.0, 9.0]}]
    again = penstock.cli("adopt", "Own.Thrice", "--as", "thrice", "--served-version", "1")
    assert "nothing changed" in again.stdout
    # The next one of its versions is a candidate like any other.
    later = penstock.cli("adopt", "Own.Thrice", "--as", "thrice")
    assert "rollout" in later.stdout, later.stdout + later.stderr
    pinned = predict(penstock, "/v1/models/thrice/versions/4:predict", {"X": [1, 2, 3]})
    assert pinned.status_code in (200, 404), "it is staged when it was loaded and checked"
    assert penstock.verb("thrice", "abort").status_code == 200
    assert "Own.Thrice/1" in penstock.cli("models", "thrice").stdout


def test_an_unknown_model_is_not_found_with_the_nearest_names_on_every_protocol(
    penstock: Penstock, channel: grpc.Channel
) -> None:
    penstock.deploy_live("weather", models.add_one())
    answer = predict(penstock, "/v1/models/whether:predict", {"x": [1, 2, 3, 4]})
    assert answer.status_code == 404
    assert answer.json()["details"][0]["reason"] == "UNKNOWN_MODEL"
    with pytest.raises(grpc.RpcError) as typed:
        channel.unary_unary("/penstock.models.whether.v1.Whether/Predict")(b"", timeout=10)
    assert typed.value.code() is grpc.StatusCode.NOT_FOUND
    tensor = triton.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 4), np.float32))
    with pytest.raises(InferenceServerException) as over_grpc:
        triton.InferenceServerClient(penstock.authority).infer("whether", [tensor])
    plain = triton_http.InferInput("x", [1, 4], "FP32")
    plain.set_data_from_numpy(np.zeros((1, 4), np.float32))
    with pytest.raises(InferenceServerException) as over_http:
        triton_http.InferenceServerClient(penstock.authority).infer("whether", [plain])
    for said in (answer.text, typed.value.details(), str(over_grpc.value), str(over_http.value)):
        assert "weather" in said, said


def test_ready_is_said_per_model_and_version(penstock: Penstock, channel: grpc.Channel) -> None:
    penstock.deploy_live("steady", models.add_one())
    server = triton.InferenceServerClient(penstock.authority)
    http = triton_http.InferenceServerClient(penstock.authority)
    health = health_pb2_grpc.HealthStub(channel)
    assert server.is_server_ready()
    assert http.is_server_ready()
    for client in (server, http):
        assert client.is_model_ready("steady")
        assert client.is_model_ready("steady", "1")
        assert not client.is_model_ready("nothing")
        assert not client.is_model_ready("Not A Name")
        assert not client.is_model_ready("steady", "9")
    request = health_pb2.HealthCheckRequest(service="penstock.models.steady.v1.Steady")
    assert health.Check(request, timeout=10).status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as unknown:
        health.Check(health_pb2.HealthCheckRequest(service="penstock.models.nothing.v1.Nothing"), timeout=10)
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_model_that_fails_to_load_leaves_the_others_and_the_server_ready(penstock: Penstock) -> None:
    penstock.deploy_live("sound", models.add_one())
    put_multiplier(penstock.data_dir / "repository", "Unsound", {1: 1})
    (penstock.data_dir / "repository" / "Unsound" / "1" / "model.py").write_text("raise RuntimeError('no licence')")
    refused = penstock.cli("adopt", "Unsound")
    assert refused.returncode == 1
    assert "no licence" in refused.stderr
    assert httpx.get(f"{penstock.url}/v2/health/ready").status_code == 200
    assert httpx.get(f"{penstock.operators}/readyz").status_code == 200
    assert predict(penstock, "/v1/models/sound:predict", {"x": [1, 2, 3, 4]}).status_code == 200


def test_too_large_says_the_limit_and_where_it_comes_from(penstock: Penstock) -> None:
    penstock.deploy_live("small", models.add_one())
    body = b'{"instances": [' + b" " * 2**20 + b'{"x": [1, 2, 3, 4]}]}'
    for http2 in (False, True):
        with httpx.Client(http1=not http2, http2=http2) as client:
            answer = client.post(f"{penstock.url}/v1/models/small:predict", content=body)
        assert answer.status_code == 413
        said = answer.json()
        assert said["details"][0]["reason"] == "TOO_LARGE"
        assert "1048576" in json.dumps(said).replace(",", ""), said
        assert "penstock up --max-body-bytes" in json.dumps(said), said


@pytest.mark.nightly
def test_what_appears_in_the_repository_is_adopted_by_itself_where_asked_for(tmp_path: Path) -> None:
    with running(tmp_path, more_flags=("--adopt-all",)) as stack:
        put_multiplier(tmp_path / "repository", "Fivefold", {1: 5})
        deadline = time.monotonic() + 30
        while (answer := predict(stack, "/v1/models/fivefold:predict", {"X": [1, 2, 3]})).status_code == 404:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert answer.json() == {"predictions": [{"Y": [5.0, 10.0, 15.0]}]}
