"""The examples of the Python client's README run as they stand, and are as short as they look."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.codegen.formats import Format
from gateway.codegen.project import project
from gateway.contract.snippets import Gateway
from tests.clients.servers import Seen, http_server, status_json
from tests.contract.cases import CONTRACTS

README = Path(__file__).parents[2] / "clients/python/README.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def iris(seen: Seen) -> tuple[int, Any]:
    if seen.path == "/v1/feedback":
        return 200, {}
    if any(len(row["x"]) != 4 for row in seen.body["instances"]):
        told = {"field": "instances[0].x", "expected": "4 values", "received": "2 values"}
        return 400, status_json(3, "instances[0].x: expected 4 values, received 2 values", "WRONG_COUNT", **told)
    return 200, {"predictions": [{"label": 0, "probabilities": [1.0, 0.0, 0.0]} for _ in seen.body["instances"]]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in project(Format.PYTHON, CONTRACTS["iris"], Gateway("127.0.0.1:8080")).items():
        if "/" not in name:
            (tmp_path / name).write_bytes(content)
    return tmp_path


def lines(example: str) -> int:
    return len([line for line in example.splitlines() if line.strip()])


def test_a_prediction_takes_few_lines() -> None:
    plain, typed, *_ = EXAMPLES
    assert "client.predict(" in plain
    assert lines(plain.partition("    client.feedback")[0]) < 10
    assert "IrisModel(client).predict(" in typed
    assert lines(typed) < 20


@pytest.mark.parametrize("place", range(len(EXAMPLES)))
def test_an_example_runs(place: int, folder: Path) -> None:
    with http_server(iris) as server:
        example = EXAMPLES[place].replace("http://127.0.0.1:8080", server.address)
        done = subprocess.run([sys.executable, "-c", example], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == EXPECTED[place]


EXPECTED = (
    "0 by version 7\ninstances[0].x expected 4 values received 2 values\n",
    "0 [1. 0. 0.]\n",
    "",
)
