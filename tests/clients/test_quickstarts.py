"""The quickstarts for callers, command by command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from tests import models
from tests.clients.quickstart import ROOT, blocks, fresh_folder, run_block
from tests.e2e.running import Penstock, running

pytestmark = [pytest.mark.e2e, pytest.mark.nightly, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def penstock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Penstock]:
    with running(tmp_path_factory.mktemp("penstock")) as started:
        started.deploy_live("digits", digits())
        yield started


def digits() -> bytes:
    """With the names of the demo's own model, which readers have."""
    made = onnx.load_from_string(models.classifier(features=64, classes=10))
    made.graph.node[0].input[0] = made.graph.input[0].name = "pixels"
    return bytes(made.SerializeToString())


@pytest.mark.parametrize("name", ["backend", "mobile", "load-testing"])
def test_every_command_of_it_works(name: str, penstock: Penstock, tmp_path: Path) -> None:
    folder = fresh_folder(tmp_path)
    said = "".join(run_block(block, folder, penstock) for block in blocks(ROOT / f"docs/quickstarts/{name}.md"))
    if name == "load-testing":
        assert said.count("Report: ") == 3
        assert said.startswith("digits at ")
        assert "Met: p99" in said
        return
    assert "service Digits {" in said
    if name == "backend":
        assert '"predictions"' in said
        assert "version 1, request id" in said
        assert " by version 1\n" in said
        assert said.rstrip().count("Prediction(label=") == 2, "the example's and the recorded one"
