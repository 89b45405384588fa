"""The evaluator killed, frozen, slow and without a disk, under load, in a shadow step: callers notice nothing.

Reports latency of the callers, memory of Envoy and the evaluator, and the counts of what was dropped
(`pytest --log-cli-level=INFO`). Latencies are compared in the report only: a shared machine moves them by more.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from rollout.evidence.exposition import parse
from tests.e2e.running import Penstock, running
from tests.evidence.callers import Calls, calls
from tests.evidence.test_shadow_stack import start
from tests.evidence.versions_onnx import wrong_between

pytestmark = [pytest.mark.e2e, pytest.mark.nightly, pytest.mark.timeout(500)]

_log = logging.getLogger(__name__)

PHASE_S = 20.0
ENVOY_GROWTH_MB = 64.0
"""32 copies of small requests are nothing; this is the noise of the allocator."""


@dataclass(frozen=True)
class Seen:
    """What one phase showed. Latencies are Envoy's own, from a request's last byte to its answer's first."""

    name: str
    requests: int
    p50_ms: float
    p99_ms: float
    envoy_mb: float
    evaluator_mb: float
    not_delivered: int


async def test_callers_notice_nothing_of_a_dead_frozen_slow_or_diskless_evaluator(
    tmp_path: Path,
) -> None:
    with running(tmp_path / "data") as penstock:
        start(penstock, "faulty", wrong_between(0.0, 0.0799999), {"shadow": {"share": 100, "requests": 1_000_000}})
        async with calls(penstock, "faulty", per_s=40, labels=False) as seen:
            await asyncio.sleep(5)
            phases = [
                await phase(name, penstock, seen, fault)
                for name, fault in (
                    ("working", None),
                    ("killed again and again", killed),
                    ("working", None),
                    ("frozen", frozen),
                    ("working", None),
                    ("slow (half of each second frozen)", slow),
                    ("working", None),
                    ("disk full", disk_full),
                    ("working", None),
                )
            ]
            metrics = await asyncio.to_thread(metrics_of, penstock)
            status = await asyncio.to_thread(penstock.rollout, "faulty")
        for one in phases:
            _log.info("%s", one)
        _log.info("%s", "\n".join(line for line in metrics.splitlines() if line.startswith("penstock_mirror")))
        assert not seen.failures
        assert set(seen.versions) == {"1"}
        assert status["state"] == "shadow"
        by_name = {one.name: one for one in phases}
        assert by_name["killed again and again"].not_delivered > 0
        assert by_name["frozen"].not_delivered > 0
        assert max(one.envoy_mb for one in phases) < phases[0].envoy_mb + ENVOY_GROWTH_MB
        assert _metric(metrics, "penstock_mirror_unanswered_total") > 0
        assert _metric(metrics, 'penstock_mirror_sample_rows_total{outcome="dropped"}') > 0
        assert _metric(metrics, 'penstock_mirror_requests_total{outcome="compared"}') > 0


Fault = Callable[[Penstock], Coroutine[Any, Any, None]]


async def phase(name: str, penstock: Penstock, seen: Calls, fault: Fault | None = None) -> Seen:
    dropped, before, answered = not_delivered(penstock), latencies(penstock), len(seen.met)
    async with injected(penstock, fault):
        await asyncio.sleep(PHASE_S)
        memory = megabytes(pid_of(penstock, "envoy")), megabytes(pid_of(penstock, "evaluator"))
    # Envoy merges its histograms once a second.
    await asyncio.sleep(2)
    during = {edge: count - before.get(edge, 0) for edge, count in latencies(penstock).items()}
    return Seen(
        name,
        len(seen.met) - answered,
        quantile_ms(during, 0.5),
        quantile_ms(during, 0.99),
        *memory,
        not_delivered(penstock) - dropped,
    )


@asynccontextmanager
async def injected(penstock: Penstock, fault: Fault | None) -> AsyncIterator[None]:
    task = None if fault is None else asyncio.create_task(fault(penstock))
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()


async def killed(penstock: Penstock) -> None:
    while True:
        tell(penstock, signal.SIGKILL)
        await asyncio.sleep(1)


async def frozen(penstock: Penstock) -> None:
    """Until the keeper has replaced it, again and again."""
    try:
        while True:
            tell(penstock, signal.SIGSTOP)
            await asyncio.sleep(1)
    finally:
        tell(penstock, signal.SIGCONT)


async def slow(penstock: Penstock) -> None:
    try:
        while True:
            tell(penstock, signal.SIGSTOP)
            await asyncio.sleep(0.5)
            tell(penstock, signal.SIGCONT)
            await asyncio.sleep(0.5)
    finally:
        tell(penstock, signal.SIGCONT)


async def disk_full(penstock: Penstock) -> None:
    """No file of the evaluator may grow beyond 1 KiB: writes fail, its log's too."""
    pid = pid_of(penstock, "evaluator")
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1024, hard))
    await asyncio.Event().wait()


def metrics_of(penstock: Penstock) -> str:
    return httpx.get(f"{penstock.operators}/metrics", timeout=30).text


def pid_of(penstock: Penstock, process: str) -> int:
    try:
        return int(json.loads((penstock.data_dir / "run" / f"{process}.pid").read_text())["pid"])
    except (OSError, ValueError):
        return 0


def tell(penstock: Penstock, number: signal.Signals) -> None:
    pid = pid_of(penstock, "evaluator")
    if pid:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return


def megabytes(pid: int) -> float:
    """Resident memory; 0 for a process that is not there."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def not_delivered(penstock: Penstock) -> int:
    """Copies that Envoy dropped: nobody listened, nobody answered in time, or too many waited."""
    wanted = r"^cluster\.penstock-mirror\.(upstream_rq_5xx|upstream_rq_max_duration_reached|upstream_rq_rx_reset)$"
    lines = stats(penstock, "/stats", wanted).splitlines()
    return sum(int(line.rsplit(": ", 1)[1]) for line in lines)


def latencies(penstock: Penstock) -> dict[float, int]:
    """Envoy's cumulative histogram of predictions that succeeded: how many by upper edge, microseconds."""
    text = stats(penstock, "/stats/prometheus", r"^penstock\.latency\.model\.faulty\.version\.1\.gs\.0$")
    return {
        float(sample.labels["le"]): int(sample.value)
        for sample in parse(text)
        if sample.name.endswith("latency_bucket")
    }


def quantile_ms(cumulative: dict[float, int], q: float) -> float:
    wanted = q * max(cumulative.values(), default=0)
    return next((edge / 1000 for edge in sorted(cumulative) if cumulative[edge] >= wanted), float("nan"))


def stats(penstock: Penstock, path: str, wanted: str) -> str:
    ports = json.loads((penstock.data_dir / "run" / "ports.json").read_text())
    return httpx.get(f"http://127.0.0.1:{ports['envoy_admin']}{path}", params={"filter": wanted}, timeout=30).text


def _metric(text: str, name: str) -> float:
    return next(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(f"{name} "))
