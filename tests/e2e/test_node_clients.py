"""Connect and gRPC-Web clients from npm, in Node, made from what reflection serves."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests import models
from tests.e2e.running import Penstock

pytestmark = [pytest.mark.e2e, pytest.mark.nightly]

FOLDER = Path(__file__).parents[1] / "clients_node"
SERVICE = "penstock.models.blossom.v1.Blossom"
GOOD = {"instances": [{"X": [1, 2, 3, 4]}, {"X": [-4, 3, -2, 1]}]}
BAD = {"instances": [{"X": [1, 2, 3]}]}


def descriptor_set(target: str, service: str) -> bytes:
    """The service's file and all that it imports, by server reflection."""
    described = descriptor_pb2.FileDescriptorSet()

    def add(file: Any) -> None:
        if file.name not in {known.name for known in described.file}:
            for dependency in file.dependencies:
                add(dependency)
            file.CopyToProto(described.file.add())

    with grpc.insecure_channel(target) as channel:
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        add(pool.FindServiceByName(service).file)
    return bytes(described.SerializeToString())


@pytest.fixture(scope="module")
def seen(penstock: Penstock, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What every transport gave, by its name."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("no node and npm on PATH: install Node 20 to run the Connect and gRPC-Web clients")
    if not (FOLDER / "node_modules").exists():
        subprocess.run([npm, "ci", "--no-audit", "--no-fund", "--silent"], cwd=FOLDER, check=True, timeout=300)
    penstock.deploy_live("blossom", models.classifier())
    descriptors = tmp_path_factory.mktemp("node") / "descriptors.pb"
    descriptors.write_bytes(descriptor_set(penstock.authority, SERVICE))
    command = [node, "predict.mjs", penstock.url, SERVICE, str(descriptors), json.dumps(GOOD), json.dumps(BAD)]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return {each["name"]: each for each in map(json.loads, done.stdout.splitlines())}


def in_single_precision(value: Any) -> Any:
    """JSON has the shortest digits that name a float32, JavaScript has the double that a float32 is."""
    if isinstance(value, dict):
        return {name: in_single_precision(each) for name, each in value.items()}
    if isinstance(value, list):
        return [in_single_precision(each) for each in value]
    return float(np.float32(value)) if isinstance(value, float) else value


def test_every_transport_gives_the_same_prediction(seen: dict[str, dict[str, Any]]) -> None:
    assert len(seen) == 9
    answers = {name: in_single_precision(each["answer"]) for name, each in seen.items()}
    for name, answer in answers.items():
        assert answer == answers["grpc http2"], name
        assert seen[name]["version"] == "1", name
    assert [set(row) for row in answers["grpc http2"]["predictions"]] == [{"label", "probabilities"}] * 2


def test_every_transport_gives_the_same_error_with_details(seen: dict[str, dict[str, Any]]) -> None:
    for name, each in seen.items():
        error = each["error"]
        assert error["code"] == "InvalidArgument", name
        assert error["message"] == "instances[0].X: expected 4 values, received 3", name
        assert error["details"] == ["google.rpc.ErrorInfo"], name
