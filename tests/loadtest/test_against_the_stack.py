"""Load tests against the real Envoy and Triton: every protocol, every scenario, several processes, a canary."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.signature import Datatype
from loadtest.protocols import Protocol
from tests import models
from tests.e2e.running import Penstock, running
from tests.loadtest.running import load

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SPEC = """
steps: [30, 100]
min_step: 4s
margins: {errors: 10%, latency_p50: none, latency_p99: none}
limits: {error_rate: 20%}
required: [errors]
warmup: {start: 1s, step: 1s}
"""


@pytest.fixture(scope="module")
def penstock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Penstock]:
    with running(tmp_path_factory.mktemp("penstock")) as started:
        started.deploy_live("digits", models.identity(Datatype.FP32, (8,)))
        yield started


def test_every_protocol_is_answered_and_the_report_is_written(penstock: Penstock, tmp_path: Path) -> None:
    protocols = ",".join(Protocol)
    ended = load(
        penstock, tmp_path, "digits", "--rate", "40", "--duration", "2s", "--protocol", protocols, "--errors", "0"
    )
    assert ended.status == 0, ended.said
    figures = ended.figures
    assert (figures.requests, figures.failed) == (80, 0)
    assert {group.name for group in figures.by_protocol_and_version()} == {f"{p} · version 1" for p in Protocol}
    assert figures.generator().lag.total == 80
    assert (tmp_path / "report.html").read_text(encoding="utf-8").count("<svg") == 5
    assert "Met: errors 0.000%" in ended.said
    assert ended.said.rstrip().endswith(str(tmp_path / "report.html"))


@pytest.mark.nightly
def test_an_objective_that_is_not_met_is_exit_status_1(penstock: Penstock, tmp_path: Path) -> None:
    ended = load(penstock, tmp_path, "digits", "--closed", "--users", "2", "--duration", "1s", "--p50", "1us")
    assert ended.status == 1
    assert "Not met: p50" in ended.said


@pytest.mark.nightly
def test_a_wrong_version_fails_every_request_with_its_reason(penstock: Penstock, tmp_path: Path) -> None:
    ended = load(penstock, tmp_path, "digits", "--rate", "20", "--duration", "1s", "--version", "7", "--errors", "50%")
    assert ended.status == 1
    assert ended.figures.failed == 20
    assert {lost.reason for lost in ended.figures.failures()} == {"NOT_FOUND"}


@pytest.mark.nightly
def test_nothing_to_test_is_exit_status_2(penstock: Penstock, tmp_path: Path) -> None:
    unknown = load(penstock, tmp_path, "nothing")
    assert (unknown.status, "no model is called nothing" in unknown.said) == (2, True)


@pytest.mark.nightly
def test_two_workers_send_what_one_process_would(penstock: Penstock, tmp_path: Path) -> None:
    ended = load(penstock, tmp_path, "digits", "--rate", "50", "--duration", "3s", "--workers", "2", "--errors", "0")
    assert ended.status == 0, ended.said
    assert ended.figures.requests == 150
    assert ended.figures.record.surroundings.processes == 2


@pytest.mark.nightly
@pytest.mark.parametrize("scenario", ["ramp", "spike", "soak"])
def test_every_scenario_plays(scenario: str, penstock: Penstock, tmp_path: Path) -> None:
    ended = load(penstock, tmp_path, "digits", "--scenario", scenario, "--rate", "30", "--duration", "10s")
    assert ended.status == 0, ended.said
    assert ended.figures.failed == 0
    assert (ended.figures.knee() is not None) == (scenario == "ramp")


@pytest.mark.nightly
def test_a_rollout_under_load_loses_no_request(penstock: Penstock, tmp_path: Path) -> None:
    candidate, spec = tmp_path / "candidate.onnx", tmp_path / "spec.yaml"
    candidate.write_bytes(models.add_one(Datatype.FP32, (8,)))
    spec.write_text(SPEC, encoding="utf-8")
    canary = ("--scenario", "canary", "--deploy", str(candidate), "--rollout", str(spec))
    ended = load(penstock, tmp_path / "out", "digits", "--rate", "80", "--duration", "150s", *canary)
    assert ended.status == 0, ended.said
    figures = ended.figures
    assert figures.failed == 0
    assert figures.record.outcome == "ended as promoted"
    assert figures.versions == [1, 2]
    assert json.loads(figures.record.to_json())["candidate"] == 2
