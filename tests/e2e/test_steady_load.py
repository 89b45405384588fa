"""Locust's users against the real stack: both protocols, the version of every answer, labels that arrive."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import loadtest
from loadtest.demo import digits
from loadtest.demo.digits import Version
from loadtest.results import Results
from tests.e2e.running import Penstock

pytestmark = pytest.mark.e2e

SECONDS = 5


def run_load(penstock: Penstock, folder: Path, model: str) -> subprocess.CompletedProcess[str]:
    digits.write_examples(folder / "examples.jsonl", digits.load())
    # Imported here, Locust would patch the sockets of all tests.
    locustfile = Path(loadtest.__file__).with_name("steady.py")
    command = [
        *(sys.executable, "-m", "locust", "-f", str(locustfile), "--headless", "--run-time", f"{SECONDS}s"),
        *("--users", "4", "--spawn-rate", "4", "--stop-timeout", "5"),
        *("--host", penstock.url, "--model", model, "--examples", str(folder / "examples.jsonl")),
        *("--results", str(folder / "results.json"), "--rate", "40", "--callers", "50"),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def onnx(version: Version) -> bytes:
    return digits.export(version, digits.train(version, digits.load())).SerializeToString()


def feedback(penstock: Penstock) -> int:
    """Labels that the control plane has taken so far, joined to their prediction or waiting for it."""
    text = httpx.get(f"{penstock.operators}/metrics", timeout=30).text
    counts = re.findall(r'^penstock_feedback(?:_total\{outcome="joined"\}|_pending) (\S+)$', text, re.MULTILINE)
    return int(sum(map(float, counts)))


def test_both_protocols_are_answered_and_every_label_arrives(penstock: Penstock, tmp_path: Path) -> None:
    penstock.deploy_live("steady-digits", onnx(Version.FIRST))
    before = feedback(penstock)
    ended = run_load(penstock, tmp_path, "steady-digits")
    assert ended.returncode == 0, ended.stderr
    results = Results.read(tmp_path / "results.json")
    assert {(row.protocol, row.version) for row in results.rows} == {("json", 1), ("grpc", 1)}
    assert results.requests > SECONDS * 20
    assert (results.failed_except([]), results.failures) == (0, ())
    assert results.feedback_sent == results.requests
    assert feedback(penstock) - before == results.feedback_sent
    assert 1 < results.users <= 50
    assert all(0 < row.p50_ms <= row.p99_ms for row in results.rows)


def test_failures_are_counted_for_their_version_with_the_servers_reason(penstock: Penstock, tmp_path: Path) -> None:
    penstock.deploy_live("faulty-digits", onnx(Version.FAULTY))
    run_load(penstock, tmp_path, "faulty-digits")
    results = Results.read(tmp_path / "results.json")
    assert 0 < results.failed_of(1) < results.requests / 2
    assert results.failed_except([1]) == 0
    assert {failure.protocol for failure in results.failures} == {"json", "grpc"}
    for failure in results.failures:
        assert failure.version == 1
        assert "out of data bounds" in failure.example


def test_an_unknown_model_ends_the_load_with_the_known_ones(penstock: Penstock, tmp_path: Path) -> None:
    penstock.deploy_live("steady-digits", onnx(Version.FIRST))
    ended = run_load(penstock, tmp_path, "no-such-model")
    assert ended.returncode != 0
    assert "expected a model the gateway serves" in ended.stderr
    assert "steady_digits" in ended.stderr
