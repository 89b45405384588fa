"""The TypeScript client's offline fake and its retries, in Node; recordings of either client in the other."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from penstock_client import Client, InvalidRequest
from penstock_client.fake import FakeClient, Recorder
from penstock_client.fake_gateway import FakeGateway
from penstock_client.grpc_client import GrpcClient

from adapters.signature import Datatype
from tests import models
from tests.clients.languages.programs import LANGUAGES, MODEL, ROW, build, typescript_project
from tests.e2e.running import running

pytestmark = [pytest.mark.e2e, pytest.mark.nightly, pytest.mark.timeout(600)]


SMALL, LONG = [-1, -128, 127, 0], [2**53 + 1, -(2**63), 2**63 - 1, 0]


def test_what_was_recorded_is_replayed_without_a_gateway(tmp_path: Path) -> None:
    LANGUAGES["node"].skip_unless_possible()
    with running(tmp_path / "penstock") as penstock:
        penstock.deploy_live(MODEL, models.add_one())
        penstock.deploy_live("small", models.identity(Datatype.INT8))
        penstock.deploy_live("long", models.identity(Datatype.INT64))
        penstock.deploy(MODEL, models.add(5, Datatype.FP64), new_api_major=True)
        project = typescript_project(penstock, tmp_path)
        for line, folder in (("small", "small/v1"), ("long", "long/v1"), (f"{MODEL}@2", f"{MODEL}/v2")):
            protos = project / "proto/penstock/models" / folder
            written = penstock.cli("api", line, "--format", "proto", "-o", str(protos))
            assert written.returncode == 0, written.stderr
        build("npm", "run", "generate", cwd=project)
        build("npm", "run", "build", cwd=project)
        shutil.copy(Path(__file__).with_name("fake.mjs"), project)
        with Client(penstock.url) as client, Recorder(client, project / "python.json") as recorder:
            recorder.predict(MODEL, {"x": ROW})
            recorder.predict("small", {"x": SMALL})
            recorder.predict("long", {"x": LONG})
            with pytest.raises(InvalidRequest):
                recorder.predict(MODEL, {"x": [1.0]})
        with GrpcClient(penstock.authority) as over_grpc, Recorder(over_grpc, project / "grpc.json") as recorder:
            recorder.predict("small", {"x": SMALL})
            recorder.predict("long", {"x": LONG})
        done = subprocess.run(
            ["node", "fake.mjs"],
            cwd=project,
            env={**os.environ, "PENSTOCK_ADDRESS": penstock.authority},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.stdout == "held\n", done.stdout + done.stderr
    expected = FakeClient(project / "python.json").predict(MODEL, {"x": ROW})
    replayed = FakeClient(project / "typescript.json").predict(MODEL, {"x": ROW})
    assert (replayed.rows, replayed.model, replayed.version) == (expected.rows, MODEL, expected.version)
    from_typescript = FakeClient(project / "typescript.json")
    assert from_typescript.predict(MODEL, {"x": ROW}, major=2).row["y"] == [x + 5 for x in ROW]
    assert from_typescript.predict("long", {"x": LONG}).row == {"y": LONG}
    assert from_typescript.predict("small", {"x": SMALL}).array("y", np.int8).tolist() == [SMALL]
    with FakeGateway(project / "typescript.json") as gateway:
        serving = threading.Thread(target=gateway.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        try:
            with GrpcClient(gateway.url) as over_grpc:
                assert over_grpc.predict(MODEL, {"x": ROW}).rows == expected.rows
                assert over_grpc.predict("long", {"x": LONG}).row == {"y": LONG}
                assert over_grpc.predict("small", {"x": SMALL}).array("y", np.int8).tolist() == [SMALL]
        finally:
            gateway.shutdown()
            serving.join()
