"""The TypeScript client's offline fake and its retries, in Node."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import models
from tests.clients.languages.programs import LANGUAGES, MODEL, build, typescript_project
from tests.e2e.running import running

pytestmark = [pytest.mark.e2e, pytest.mark.nightly, pytest.mark.timeout(600)]


def test_what_was_recorded_is_replayed_without_a_gateway(tmp_path: Path) -> None:
    LANGUAGES["node"].skip_unless_possible()
    with running(tmp_path / "penstock") as penstock:
        penstock.deploy_live(MODEL, models.add_one())
        project = typescript_project(penstock, tmp_path)
        build("npm", "run", "build", cwd=project)
        shutil.copy(Path(__file__).with_name("fake.mjs"), project)
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
