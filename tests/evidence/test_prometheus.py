"""Counts from Prometheus are differences of counters; whatever else it answers is missing, with a reason."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, start_http_server

from rollout.clock import SystemClock
from rollout.evidence.chosen import Chosen, without_prometheus
from rollout.evidence.combine import Combined
from rollout.evidence.prometheus import NoReading, PrometheusEvidence, _one_number, filled
from rollout.evidence.subject import Subject
from rollout.ports import ArmCounts, Tick
from rollout.spec import RolloutSpec
from rollout.spec_parts import PrometheusSpec, QueryPair
from tests.evidence.prometheus_server import needs_prometheus, prometheus

REQUESTS = QueryPair('sum(r{model="{{model}}",v="{{stable}}"})', 'sum(r{model="{{model}}",v="{{candidate}}"})')
ERRORS = QueryPair('sum(e{v="{{stable}}"}) or vector(0)', 'sum(e{v="{{candidate}}"}) or vector(0)')


def subject_of(spec: PrometheusSpec | None, model: str = "digits") -> Subject:
    return Subject(model, 1, 2, replace(RolloutSpec.default(), prometheus=spec))


class Scripted:
    """An HTTP server in Prometheus' place, for answers that a healthy one never gives. `answers` is asked per query."""

    def __init__(self) -> None:
        self.answers: Callable[[str], Any] = lambda query: vector(0)
        self.status = 200
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        query = parse_qs((await reader.readexactly(length)).decode())["query"][0]
        answer = self.answers(query)
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (self.status, len(body)))
        writer.write(body)
        await writer.drain()
        writer.close()


def vector(*values: Any) -> dict[str, Any]:
    return {
        "status": "success",
        "data": {"resultType": "vector", "result": [{"metric": {}, "value": [0, str(v)]} for v in values]},
    }


@asynccontextmanager
async def scripted(**more: Any) -> AsyncIterator[tuple[Scripted, PrometheusEvidence]]:
    script = Scripted()
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    script.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    subject = subject_of(PrometheusSpec(script.url, REQUESTS, ERRORS, **more))
    evidence = PrometheusEvidence(subject=lambda _: subject, clock=SystemClock())
    async with server:
        yield script, evidence
    await evidence.aclose()


async def one(evidence: PrometheusEvidence) -> Tick:
    return (await evidence.read(["digits"]))["digits"]


def counters(**totals: float) -> Callable[[str], Any]:
    """`r1`: requests of version 1, `e2`: errors of version 2."""

    def answer(query: str) -> Any:
        version = ('"1"' in query and "1") or "2"
        return vector(totals.get(("r" if "(r{" in query else "e") + version, 0))

    return answer


def test_templates_name_the_model_of_a_line_and_both_versions() -> None:
    subject = subject_of(None, model="digits@2")
    assert filled("{{model}} {{stable}} {{candidate}} {{other}}", subject) == "digits 1 2 {{other}}"


async def test_counts_are_differences_since_the_last_reading() -> None:
    async with scripted() as (script, evidence):
        script.answers = counters(r1=100, e1=5, r2=10)
        assert (await one(evidence)).missing == "Prometheus: first reading; counting starts here"
        script.answers = counters(r1=190, e1=15, r2=20, e2=1)
        tick = await one(evidence)
        assert (tick.missing, tick.arms) == ("", {1: ArmCounts(ok=80, bad=10), 2: ArmCounts(ok=9, bad=1)})


async def test_a_missed_reading_loses_nothing() -> None:
    async with scripted() as (script, evidence):
        script.answers = counters(r1=100, r2=10)
        await one(evidence)
        script.answers = lambda query: vector()
        assert "no series" in (await one(evidence)).missing
        script.answers = counters(r1=110, r2=20)
        assert (await one(evidence)).arms == {1: ArmCounts(ok=10), 2: ArmCounts(ok=10)}


async def test_a_counter_that_fell_is_missing_once() -> None:
    async with scripted() as (script, evidence):
        script.answers = counters(r1=100, r2=10)
        await one(evidence)
        script.answers = counters(r1=3, r2=12)
        assert (await one(evidence)).missing == "Prometheus: requests of version 1 fell, so its counter began anew"
        script.answers = counters(r1=5, r2=13)
        assert (await one(evidence)).arms == {1: ArmCounts(ok=2), 2: ArmCounts(ok=1)}


async def test_errors_that_are_ahead_of_requests_wait_for_them() -> None:
    async with scripted() as (script, evidence):
        script.answers = counters(r1=100, r2=10)
        await one(evidence)
        script.answers = counters(r1=100, e1=2, r2=10)
        assert "more bad answers than answers" in (await one(evidence)).missing
        script.answers = counters(r1=105, e1=2, r2=10)
        assert (await one(evidence)).arms[1] == ArmCounts(ok=3, bad=2)


@pytest.mark.parametrize(
    ("answer", "status", "why"),
    [
        (vector(), 200, "no series"),
        (vector(1, 2), 200, "2 series"),
        (vector("NaN"), 200, "gives NaN"),
        (vector("+Inf"), 200, r"gives \+Inf"),
        (vector(-1), 200, "is -1, expected a count"),
        ({"status": "success", "data": {"resultType": "matrix", "result": []}}, 200, "gives a matrix"),
        ({"status": "success", "data": {"resultType": "string", "result": [0, "a"]}}, 200, "gives a string"),
        ({"status": "error", "errorType": "bad_data", "error": "parse error"}, 400, "parse error"),
        ({"status": "success"}, 200, "cannot be read"),
        ([], 200, "HTTP 200 without a result"),
        (b"<html>", 502, "answered 502, not JSON"),
        (b"", 200, "not JSON"),
    ],
)
async def test_what_is_no_count_is_missing_with_a_reason(answer: Any, status: int, why: str) -> None:
    async with scripted() as (script, evidence):
        script.answers = lambda query: answer
        script.status = status
        tick = await one(evidence)
    assert tick.missing.startswith("Prometheus: ")
    assert not tick.arms
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(tick.missing)


async def test_old_samples_are_missing() -> None:
    async with scripted(age="time() - age", max_age_s=30.0) as (script, evidence):
        script.answers = lambda query: vector(31) if "age" in query else vector(1)
        assert (await one(evidence)).missing == "Prometheus: the newest sample is 31 s old, 30 allowed"


async def test_a_prometheus_that_is_away_is_missing() -> None:
    subject = subject_of(PrometheusSpec("http://127.0.0.1:1", REQUESTS, ERRORS))
    evidence = PrometheusEvidence(subject=lambda _: subject, clock=SystemClock())
    assert "does not answer" in (await one(evidence)).missing
    await evidence.aclose()


async def test_rollouts_without_prometheus_are_left_to_others() -> None:
    subjects = {
        "with": subject_of(PrometheusSpec("http://127.0.0.1:1", REQUESTS, ERRORS), "with"),
        "bare": subject_of(None),
    }

    class Counts:
        async def read(self, models: Any) -> dict[str, Tick]:
            return {model: Tick(at=1.0, seconds=1.0, arms={1: ArmCounts(ok=7)}) for model in models}

    evidence = PrometheusEvidence(subject=subjects.get, clock=SystemClock())
    both = Combined(Chosen(Counts(), subject=subjects.get, listens=without_prometheus), evidence)
    ticks = await both.read(["with", "bare"])
    assert ticks["bare"].arms == {1: ArmCounts(ok=7)}
    assert "does not answer" in ticks["with"].missing
    await evidence.aclose()


KEYS = st.sampled_from(["status", "data", "resultType", "result", "value", "error"])
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["status", "data", "resultType", "result", "value", "error"]), inner)
    ),
    max_leaves=10,
)


@given(JSON | st.builds(lambda result: {"status": "success", "data": {"resultType": "vector", "result": result}}, JSON))
def test_any_answer_is_a_finite_number_or_missing(answer: Any) -> None:
    with suppress(NoReading):
        assert math.isfinite(_one_number("requests", answer, 200))


@pytest.fixture
def exporter() -> Iterator[tuple[Counter, Counter, str]]:
    registry = CollectorRegistry()
    requests = Counter("penstock_test_requests", "Requests.", ["model", "version"], registry=registry)
    errors = Counter("penstock_test_errors", "Errors.", ["model", "version"], registry=registry)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    yield requests, errors, f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@needs_prometheus
@pytest.mark.nightly
async def test_the_real_prometheus_counts_what_was_exported(
    tmp_path: Path, exporter: tuple[Counter, Counter, str]
) -> None:
    requests, errors, target = exporter
    requests.labels("digits", "1").inc(100)
    with prometheus(tmp_path, target) as url:

        def query(name: str, version: str) -> str:
            return f'sum(penstock_test_{name}_total{{model="{{{{model}}}}",version="{{{{{version}}}}}"}}) or vector(0)'

        spec = PrometheusSpec(
            url,
            QueryPair(query("requests", "stable"), query("requests", "candidate")),
            QueryPair(query("errors", "stable"), query("errors", "candidate")),
            age="time() - max(timestamp(penstock_test_requests_total))",
            max_age_s=10.0,
        )
        subject = subject_of(spec)
        evidence = PrometheusEvidence(subject=lambda _: subject, clock=SystemClock())
        await _until(evidence, lambda tick: "first reading" in tick.missing)
        requests.labels("digits", "1").inc(50)
        requests.labels("digits", "2").inc(20)
        errors.labels("digits", "2").inc(3)
        stable = candidate = failed = 0
        async with asyncio.timeout(30):
            while (stable, candidate, failed) != (50, 17, 3):
                tick = await one(evidence)
                if not tick.missing:
                    stable += tick.arms[1].ok
                    candidate += tick.arms[2].ok
                    failed += tick.arms[2].bad
                await asyncio.sleep(0.1)
        broken = subject_of(replace(spec, requests=QueryPair("sum(", "sum(")))
        refused = PrometheusEvidence(subject=lambda _: broken, clock=SystemClock())
        assert "parse error" in (await one(refused)).missing
        several = subject_of(replace(spec, requests=QueryPair("prometheus_http_requests_total", "up")))
        unclear = PrometheusEvidence(subject=lambda _: several, clock=SystemClock())
        assert "expected one number" in (await one(unclear)).missing
        for source in (evidence, refused, unclear):
            await source.aclose()


async def _until(evidence: PrometheusEvidence, wanted: Callable[[Tick], bool]) -> None:
    async with asyncio.timeout(60):
        while not wanted(await one(evidence)):
            await asyncio.sleep(0.1)
