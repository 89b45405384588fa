"""Every mistake a caller or an operator can make gets a clear error of the right code, and nothing else changes."""

from __future__ import annotations

import json
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2, status_pb2

from tests import models
from tests.e2e.running import COMMAND, Penstock
from tests.e2e.typed import from_reflection

pytestmark = pytest.mark.e2e

MODEL = "strict"
SERVICE = "penstock.models.strict.v1.Strict"
GOOD = {"instances": [{"x": [1, 2, 3, 4]}]}


@pytest.fixture(scope="module")
def strict(penstock: Penstock) -> Penstock:
    penstock.deploy_live(MODEL, models.add_one())
    return penstock


@dataclass(frozen=True)
class Mistake:
    name: str
    body: str
    http: int
    code: str
    field: str
    """Part of the message: where the mistake is."""


MISTAKES = [
    Mistake("wrong field", '{"instances":[{"x":[1,2,3,4],"z":[1]}]}', 400, "INVALID_ARGUMENT", "instances[0].z"),
    Mistake("missing field", '{"instances":[{}]}', 400, "INVALID_ARGUMENT", "instances[0].x"),
    Mistake("too few", '{"instances":[{"x":[1,2,3]}]}', 400, "INVALID_ARGUMENT", "instances[0].x"),
    Mistake("too many", '{"instances":[{"x":[1,2,3,4]},{"x":[1,2,3,4,5]}]}', 400, "INVALID_ARGUMENT", "instances[1].x"),
    Mistake("wrong type", '{"instances":[{"x":[1,"two",3,4]}]}', 400, "INVALID_ARGUMENT", "instances[0].x"),
    Mistake("out of range", '{"instances":[{"x":[1,1e39,3,4]}]}', 400, "INVALID_ARGUMENT", "instances[0].x"),
    Mistake("not JSON", '{"instances":[{"x":[1,2,3,4]}', 400, "INVALID_ARGUMENT", ""),
    Mistake("empty body", "", 400, "INVALID_ARGUMENT", ""),
    Mistake("no instances", '{"instances":[]}', 400, "INVALID_ARGUMENT", "instances"),
    Mistake("not an object", "[1,2,3]", 400, "INVALID_ARGUMENT", ""),
    Mistake(
        "too many rows",
        json.dumps({"instances": [{"x": [1, 2, 3, 4]}] * 65}),
        400,
        "INVALID_ARGUMENT",
        "instances",
    ),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=[m.name for m in MISTAKES])
def test_a_wrong_body_names_field_expected_and_received(strict: Penstock, mistake: Mistake) -> None:
    with httpx.Client() as client:
        response = client.post(
            f"{strict.url}/v1/models/{MODEL}:predict",
            content=mistake.body,
            headers={"content-type": "application/json"},
        )
        assert_problem(response, mistake.http, mistake.code, mistake.field)
        again = client.post(f"{strict.url}/v1/models/{MODEL}:predict", json=GOOD)
    assert again.status_code == 200, "the next request, on the same connection, is answered"


def assert_problem(response: httpx.Response, http: int, code: str, words: str) -> dict[str, Any]:
    """The one error shape."""
    assert response.status_code == http, response.text
    assert response.headers["content-type"].startswith("application/json")
    body: dict[str, Any] = response.json()
    assert body["status"] == code, body
    assert words in body["message"], body
    detail = body["details"][0]
    assert detail["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert detail["domain"] == "penstock"
    assert detail["reason"]
    return body


def test_an_unknown_model_is_not_found_on_every_protocol(strict: Penstock) -> None:
    assert_problem(httpx.post(f"{strict.url}/v1/models/nobody:predict", json=GOOD), 404, "NOT_FOUND", "nobody")
    with grpc.insecure_channel(strict.authority) as channel:
        call = channel.unary_unary("/penstock.models.nobody.v1.Nobody/Predict")
        error = failure(call, b"")
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "nobody" in error.details()


def test_an_unknown_version_is_not_found(strict: Penstock) -> None:
    for path, headers in (
        (f"/v1/models/{MODEL}:predict", {"x-penstock-version": "99"}),
        (f"/v1/models/{MODEL}/versions/99:predict", {}),
    ):
        response = httpx.post(f"{strict.url}{path}", json=GOOD, headers=headers)
        assert_problem(response, 404, "NOT_FOUND", "99")


def test_a_wrong_method_and_an_unknown_path(strict: Penstock) -> None:
    assert httpx.get(f"{strict.url}/v1/models/{MODEL}:predict").status_code == 405
    assert_problem(httpx.get(f"{strict.url}/nowhere"), 404, "NOT_FOUND", "")


def failure(call: Any, request: Any) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=30)
    return caught.value


def error_info(error: Any) -> error_details_pb2.ErrorInfo:
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(details)
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    return info


def test_typed_grpc_mistakes_carry_the_same_details(strict: Penstock) -> None:
    with grpc.insecure_channel(strict.authority) as channel:
        client = from_reflection(channel, SERVICE)
        for request, reason, where in (
            (client.request([{"x": [1, 2, 3]}]), "WRONG_COUNT", "instances[0].x"),
            (client.request([{"x": [1, 2, 3, 4]}, {"x": []}]), "", "instances[1].x"),
            (client.request([]), "", "instances"),
        ):
            error = failure(client.call, request)
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert where in error.details()
            info = error_info(error)
            assert info.domain == "penstock"
            assert where in info.metadata["field"]
            assert not reason or info.reason == reason
        raw = channel.unary_unary(f"/{SERVICE}/Predict")
        assert failure(raw, b"\xff\xff\xff").code() is grpc.StatusCode.INVALID_ARGUMENT
        missing = channel.unary_unary(f"/{SERVICE}/Nothing")
        assert failure(missing, b"").code() in {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED}
        assert client.predict([{"x": [1, 2, 3, 4]}]) == [{"y": [2, 3, 4, 5]}]


def snapshot(penstock: Penstock) -> Any:
    """Everything that a refused operation must leave as it was."""
    found = httpx.get(f"{penstock.operators}/api/v1/models").json()
    return found, httpx.get(f"{penstock.operators}/api/v1/envoy", params={"form": "static"}).text


def deploy_refused(penstock: Penstock, name: str, content: bytes, **params: Any) -> httpx.Response:
    return httpx.post(
        f"{penstock.operators}/api/v1/models/{name}/versions", content=content, params=params, timeout=120
    )


def test_refused_deployments_change_nothing(strict: Penstock) -> None:
    before = snapshot(strict)
    good = models.add(5)
    for response, http, words in (
        (deploy_refused(strict, MODEL, b"not a model"), 400, ""),
        (deploy_refused(strict, MODEL, b""), 400, "empty"),
        (deploy_refused(strict, MODEL, good[:-20]), 400, ""),
        (deploy_refused(strict, "Bad Name", good), 400, "Bad Name"),
        (deploy_refused(strict, MODEL, good, version=1), 409, "version 1 exists"),
        (deploy_refused(strict, MODEL, good, version=0), 400, "version"),
        (deploy_refused(strict, MODEL, good, spec="stepz: [10]"), 400, "steps"),
        (deploy_refused(strict, MODEL, models.add_one(shape=(5,))), 409, "x"),
    ):
        assert response.status_code == http, (response.status_code, response.text)
        body = response.json()
        assert words in body["message"], body
        assert body["details"][0]["domain"] == "penstock"
    assert snapshot(strict) == before


def test_the_same_file_again_is_a_no_op_that_says_so(strict: Penstock) -> None:
    before = snapshot(strict)
    (event,) = strict.deploy(MODEL, models.add_one())
    assert event["stage"] == "unchanged"
    assert "nothing changed" in event["message"]
    assert snapshot(strict) == before


def test_wrong_rollout_specs_name_the_field(strict: Penstock, tmp_path: Path) -> None:
    artefact, spec = tmp_path / "model.onnx", tmp_path / "spec.yaml"
    artefact.write_bytes(models.add(9))
    for text, words in (
        ("steps: [30, 10]\n", "steps"),
        ("steps: [10, 130]\n", "steps"),
        ("min_step: soon\n", "min_step"),
        ("stepz: [10]\n", "steps"),
        ("steps: [10\n", "line"),
    ):
        spec.write_text(text)
        done = strict.cli("deploy", str(artefact), "--name", MODEL, "--rollout", str(spec))
        assert done.returncode in {1, 2}
        assert words in done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr


def test_wrong_feedback_is_refused(strict: Penstock) -> None:
    for body, words in (
        ({"request_id": "a"}, "label"),
        ({"request_id": "a", "label": 1, "reward": 1}, "label"),
        ({"label": 1}, "request_id"),
        ({"request_id": "a", "labell": 1}, "labell"),
    ):
        assert_problem(httpx.post(f"{strict.url}/v1/feedback", json=body), 400, "INVALID_ARGUMENT", words)


def test_a_port_in_use_is_named_with_the_flag_that_changes_it(strict: Penstock, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*COMMAND, "up", "--data-dir", str(tmp_path), "--port", port, "--operator-port", "0"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert port in done.stdout
    assert "--port" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_second_stack_on_the_same_data_directory_is_refused(strict: Penstock) -> None:
    done = subprocess.run(
        [*COMMAND, "up", "--data-dir", str(strict.data_dir)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert f"pid {strict.pid}" in done.stdout.replace("\n", " ")


def test_administrative_methods_of_the_server_are_out_of_reach(strict: Penstock) -> None:
    for path in (f"/v2/repository/models/{MODEL}.1/unload", f"/v2/models/{MODEL}/trace/setting"):
        assert httpx.post(f"{strict.url}{path}").status_code in {404, 405}
    with grpc.insecure_channel(strict.authority) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/RepositoryModelUnload")
        assert failure(call, b"").code() in {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED}
    assert httpx.post(f"{strict.url}/v1/models/{MODEL}:predict", json=GOOD).status_code == 200
