"""The TypeScript client's offline fake and its retries, in Node; recordings of either client in the other."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from penstock_client import Client, InvalidRequest
from penstock_client.fake import FakeClient, Recorder
from penstock_client.fake_gateway import FakeGateway
from penstock_client.grpc_client import GrpcClient

from tests import models
from tests.clients.languages.programs import LANGUAGES, MODEL, ROW, build, typescript_project
from tests.e2e.running import running

pytestmark = [pytest.mark.e2e, pytest.mark.nightly, pytest.mark.timeout(600)]


def test_what_was_recorded_is_replayed_without_a_gateway(tmp_path: Path) -> None:
    LANGUAGES["node"].skip_unless_possible()
    with running(tmp_path / "penstock") as penstock:
        penstock.deploy_live(MODEL, models.add_one())
        project = typescript_project(penstock, tmp_path)
        build("npm", "run", "build", cwd=project)
        shutil.copy(Path(__file__).with_name("fake.mjs"), project)
        with Client(penstock.url) as client, Recorder(client, project / "python.json") as recorder:
            recorder.predict(MODEL, {"x": ROW})
            with pytest.raises(InvalidRequest):
                recorder.predict(MODEL, {"x": [1.0]})
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
    with FakeGateway(project / "typescript.json") as gateway:
        serving = threading.Thread(target=gateway.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        try:
            with GrpcClient(gateway.url) as over_grpc:
                assert over_grpc.predict(MODEL, {"x": ROW}).rows == expected.rows
        finally:
            gateway.shutdown()
            serving.join()
