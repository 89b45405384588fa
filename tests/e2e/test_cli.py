"""The command line against a running stack, as a release engineer uses it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import httpx
import pytest
import yaml

from gateway.stack.envoy import find_envoy
from tests import models
from tests.e2e.running import Penstock
from tests.triton_server import free_ports

pytestmark = pytest.mark.e2e


def yaml_port(text: str, section: str) -> int:
    return int(yaml.safe_load(text)[section]["address"]["socket_address"]["port_value"])


@pytest.fixture(scope="module")
def model(penstock: Penstock, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("models") / "handy.onnx"
    path.write_bytes(models.add_one())
    done = penstock.cli("deploy", str(path), "--name", "handy", "--wait")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "answers all callers" in done.stdout
    return "handy"


def test_predict_models_and_api(penstock: Penstock, model: str) -> None:
    done = penstock.cli("predict", model, '{"x": [1, 2, 3, 4]}', json_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5.0" in done.stdout
    assert model in penstock.cli("models").stdout
    listed = json.loads(penstock.cli("models", json_output=True).stdout)
    assert model in json.dumps(listed)
    assert "package penstock.models.handy.v1;" in penstock.cli("api", model, "--format", "proto").stdout


def test_envoy_yaml_is_accepted_by_envoy_and_the_static_one_runs_by_itself(
    penstock: Penstock, model: str, tmp_path: Path
) -> None:
    for flags in ((), ("--bootstrap",), ("--static",)):
        path = tmp_path / "envoy.yaml"
        path.write_text(penstock.cli("envoy", *flags).stdout)
        checked = subprocess.run(
            [find_envoy(), "--mode", "validate", "-c", path], capture_output=True, text=True, check=False, timeout=60
        )
        assert checked.returncode == 0, checked.stderr
    port, admin = free_ports(2)
    # As text: Envoy's YAML reader takes a plain `y` for true, and pyyaml would write the tensor's name so.
    text = path.read_text()
    for old, new in ((yaml_port(text, "admin"), admin), (penstock.port, port)):
        text = text.replace(f"port_value: {old}", f"port_value: {new}")
    path.write_text(text)
    log = (tmp_path / "envoy.log").open("wb")
    with log, subprocess.Popen([find_envoy(), "-c", path, "--disable-hot-restart"], stdout=log, stderr=log) as envoy:
        try:
            transport = httpx.HTTPTransport(retries=50)
            with httpx.Client(transport=transport, timeout=30) as client:
                response = client.post(
                    f"http://127.0.0.1:{port}/v1/models/{model}:predict", json={"instances": [{"x": [1, 2, 3, 4]}]}
                )
            assert response.status_code == 200, response.text
            assert response.json() == {"predictions": [{"y": [2.0, 3.0, 4.0, 5.0]}]}
        finally:
            envoy.terminate()


def test_rollout_verbs(penstock: Penstock, model: str, tmp_path: Path) -> None:
    path, spec = tmp_path / "v2.onnx", tmp_path / "spec.yaml"
    path.write_bytes(models.add(2))
    spec.write_text("min_step: 10m\n")
    assert penstock.cli("deploy", str(path), "--name", model, "--rollout", str(spec)).returncode == 0

    def say(*words: str) -> str:
        done = penstock.cli("rollout", *words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    say("pause", model)
    assert "paused" in say("status", model)
    say("resume", model)
    say("abort", model)
    assert "aborted" in say("history", model)
    assert "aborted" in say("explain", model)
    refused = penstock.cli("rollout", "resume", model)
    assert refused.returncode == 1
    assert "aborted" in refused.stdout + refused.stderr


def test_wrong_usage_exits_with_2_and_no_server_with_1(penstock: Penstock, tmp_path: Path) -> None:
    assert penstock.cli("deploy").returncode == 2
    assert penstock.cli("nonsense").returncode == 2
    (port,) = free_ports(1)
    done = penstock.cli("--server", f"http://127.0.0.1:{port}", "models")
    assert done.returncode == 1
    assert "penstock up" in done.stdout + done.stderr
