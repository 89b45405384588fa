"""What a load test counted is what its readers get, and every failure is counted with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.results import Failure, Results
from loadtest.tally import Tally


def test_requests_and_failures_are_told_apart_by_protocol_and_version() -> None:
    tally = Tally()
    tally.success("JSON", 1, "anna", 2_000.0)
    tally.success("gRPC", 1, "bert", 1_000.0)
    tally.failure("gRPC", 2, "anna", "INTERNAL", "index out of range")
    tally.failure("gRPC", 2, "anna", "INTERNAL", "index out of range again")
    results = tally.results(4.0)
    assert [(row.protocol, row.version, row.requests, row.failed) for row in results.rows] == [
        ("JSON", 1, 1, 0),
        ("gRPC", 1, 1, 0),
        ("gRPC", 2, 2, 2),
    ]
    assert results.failures == (Failure("gRPC", 2, "INTERNAL", 2, "index out of range"),)
    assert (results.requests, results.requests_of(1), results.failed_of(2)) == (4, 2, 2)


def test_users_are_counted_once_each() -> None:
    tally = Tally()
    for user, version in (("anna", 1), ("anna", 1), ("anna", 2), ("bert", 1), ("carl", 1), ("dora", 1)):
        tally.success("JSON", version, user, 1_000.0)
    results = tally.results(1.0)
    assert results.users == 4
    assert results.share_of_users(2) == 0.25
    assert results.share_of_users(3) == 0.0


def test_failures_of_other_versions_and_of_feedback_are_nobody_elses_fault() -> None:
    tally = Tally()
    tally.failure("JSON", 4, "anna", "INTERNAL", "its own")
    tally.feedback()
    assert tally.results(1.0).failed_except([4]) == 0
    tally.failure("JSON", 0, "anna", "ConnectionRefusedError", "nobody listens")
    tally.feedback("NOT_FOUND: no such request")
    results = tally.results(2.0)
    assert results.failed_except([4]) == 2
    assert (results.feedback_sent, results.feedback_failed) == (2, 1)
    assert {failure.reason for failure in results.failures} == {"INTERNAL", "ConnectionRefusedError", "FEEDBACK"}


def test_results_survive_the_file(tmp_path: Path) -> None:
    tally = Tally()
    tally.success("JSON", 1, "anna", 2_000.0)
    tally.failure("gRPC", 2, "bert", "INTERNAL", "broken")
    results = tally.results(4.0)
    results.write(tmp_path / "results.json")
    assert Results.read(tmp_path / "results.json") == results


def test_nothing_written_yet_reads_as_nothing(tmp_path: Path) -> None:
    results = Results.read(tmp_path / "results.json")
    assert (results.requests, results.users, results.share_of_users(1)) == (0, 0, 0.0)


@given(st.lists(st.floats(min_value=10.0, max_value=1e7), min_size=1, max_size=200))
def test_quantiles_are_within_a_bucket_of_the_exact_ones(latencies_us: list[float]) -> None:
    tally = Tally()
    for latency in latencies_us:
        tally.success("JSON", 1, "anna", latency)
    row = tally.results(1.0).rows[0]
    exact = sorted(latencies_us)[-(-len(latencies_us) // 2) - 1] / 1000
    assert exact <= row.p50_ms * (1 + 1e-9)
    assert row.p50_ms <= exact * 1.1


def test_a_version_that_only_failed_has_no_latency() -> None:
    tally = Tally()
    tally.failure("JSON", 2, "anna", "INTERNAL", "broken")
    assert tally.results(1.0).rows[0].p99_ms == pytest.approx(0.0)
