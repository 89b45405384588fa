"""Whole rollouts under steady load with an evaluator that works, is slow, frozen, dead or has no room on its disk.

`python -m tests.evidence.faults` prints the table of docs/evidence.md; the nightly test asserts what does not depend
on this machine's speed. One stack, one model, one rollout after the other, each from its shadow step to its end: where
the fault leaves no evidence, that is the deadline of the spec. Latency is Envoy's own, from a request's last byte to
its answer's first. Rollouts with a working evaluator are first and last: their difference is the noise.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from rollout.dump import parse as parse_journal
from rollout.evidence.exposition import parse
from rollout.journal import Kind, Record
from tests.e2e.running import Penstock, running
from tests.evidence.callers import Calls, calls
from tests.evidence.versions_onnx import wrong_between

MODEL = "faulty"
PER_S = 40.0
SPEC = {
    "shadow": {"share": 100, "requests": 1000},
    "steps": [30, 100],
    "holdback": 40,
    "min_step": 5,
    "warmup": {"start": 1, "step": 1},
    "tolerance": {"latency": "300%"},
    "margins": {"errors": "20%", "latency_p50": "900%", "latency_p99": "none"},
    "rollback_window": 1,
}
"""Long enough in the shadow step for the sample's files, which are written every 15 s; short and coarse after it."""

PATIENT, IMPATIENT = ({"deadline": {"after": after_s, "action": "roll_back"}} for after_s in (900, 60))
"""Where evidence comes, however slowly on a busy machine, and where it does not."""

LONGEST_S = 1000.0
FINAL = ("promoted", "rolled_back", "aborted", "failed")

Fault = Callable[[Penstock], Coroutine[Any, Any, None]]


async def killed(penstock: Penstock) -> None:
    """Again and again, faster than it starts."""
    while True:
        tell(penstock, signal.SIGKILL)
        await asyncio.sleep(0.5)


async def frozen(penstock: Penstock) -> None:
    """Also each one that the keeper puts in its place."""
    try:
        while True:
            tell(penstock, signal.SIGSTOP)
            await asyncio.sleep(0.5)
    finally:
        tell(penstock, signal.SIGCONT)


async def slow(penstock: Penstock) -> None:
    """Frozen for half of each second."""
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
    try:
        while True:
            limit_files(penstock, 1024)
            await asyncio.sleep(0.2)
    finally:
        # The next one has no limit, and its counts begin anew.
        tell(penstock, signal.SIGKILL)


FAULTS: Sequence[tuple[str, Fault | None, str]] = (
    ("works", None, "promoted"),
    ("slow: frozen for half of each second", slow, "promoted"),
    ("dead: killed twice a second", killed, "rolled_back"),
    ("frozen, and so is each that replaces it", frozen, "rolled_back"),
    ("disk full", disk_full, "promoted"),
    ("works again", None, "promoted"),
)
"""What is wrong with the evaluator for a whole rollout, and how that has to end."""


@dataclass(frozen=True)
class Lived:
    """One rollout. `envoy_us`: Envoy's processor time per request; `*_mb` the most resident memory seen; `met`: the
    versions that answered callers; `decided`: the last event that evidence or the deadline caused."""

    name: str
    wanted: str
    state: str
    decided: str
    reason: str
    seconds: float
    requests: int
    p50_ms: float
    p99_ms: float
    envoy_us: float
    envoy_mb: float
    evaluator_mb: float
    met: Counter[str]
    candidate: str
    compared: int
    not_delivered: int
    unanswered: int
    rows_dropped: int
    missing_ticks: int


@dataclass
class Outcome:
    lived: list[Lived] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)

    def lines(self) -> list[str]:
        head = (
            "evaluator, all through the rollout|how it ended|requests|p50|p99|Envoy's time per request|Envoy's memory|"
            "evaluator's memory|pairs compared|copies dropped by Envoy|ticks without the evaluator|rows dropped"
        )
        rows = [
            f"{o.name}|{o.state.replace('_', ' ')} after {o.seconds:.0f} s|{o.requests:,}|{o.p50_ms:.1f} ms|"
            f"{o.p99_ms:.0f} ms|{o.envoy_us:.0f} us|{o.envoy_mb:.1f} MB|{o.evaluator_mb:.0f} MB|{o.compared:,}|"
            f"{o.not_delivered:,}|{o.missing_ticks:,}|{o.rows_dropped:,}"
            for o in self.lived
        ]
        columns = head.count("|") + 1
        return [f"| {' | '.join(row.split('|'))} |" for row in (head, "|".join(["---"] * columns), *rows)]


async def rollouts(penstock: Penstock, *, tell: Callable[[str], object] = lambda line: None) -> Outcome:
    """A rollout under each fault. `tell` hears of each as it ends."""
    outcome = Outcome()
    await asyncio.to_thread(penstock.deploy_live, MODEL, _version(1))
    async with calls(penstock, MODEL, per_s=PER_S, labels=False) as seen:
        await asyncio.sleep(5)  # The first requests open connections and warm everything up.
        for number, (name, fault, wanted) in enumerate(FAULTS, start=2):
            lived = await _live(penstock, seen, name, fault, wanted, number)
            outcome.lived.append(lived)
            tell(str(lived))
    outcome.failures = list(seen.failures)
    return outcome


def _version(number: int) -> bytes:
    """All alike; the bytes differ, which versions must."""
    return wrong_between(0.0, 0.08 - number * 1e-6)


async def _live(penstock: Penstock, seen: Calls, name: str, fault: Fault | None, wanted: str, number: int) -> Lived:
    staged = await asyncio.to_thread(penstock.deploy, MODEL, _version(number), rollout="none")
    assert staged[-1]["stage"] == "unrouted", staged
    answered, before = len(seen.met), await asyncio.to_thread(Reading.of, penstock)
    peaks = Peaks(penstock)
    async with injected(penstock, fault), peaks.watched():
        begun = await asyncio.to_thread(
            httpx.post,
            f"{penstock.operators}/api/v1/models/{MODEL}/rollouts",
            json={"candidate": number, "spec": SPEC | (PATIENT if wanted == "promoted" else IMPATIENT)},
            timeout=30,
        )
        assert begun.status_code == 201, begun.text
        status = await _decided(penstock, number)
        requests = len(seen.met) - answered
    # Envoy merges its histograms once a second.
    await asyncio.sleep(2)
    after = await asyncio.to_thread(Reading.of, penstock)
    during = {edge: count - before.latencies.get(edge, 0) for edge, count in after.latencies.items()}
    url = f"{penstock.operators}/api/v1/rollouts/{status['rollout_id']}/journal"
    dump = (await asyncio.to_thread(httpx.get, url, timeout=30)).raise_for_status()
    _, records = parse_journal(dump.text.splitlines())
    events = [r.body["event"] for r in records if r.kind is Kind.TRANSITION]
    return Lived(
        name=name,
        wanted=wanted,
        state=status["state"],
        decided=[event for event in events if event in ("advance", "harm", "deadline")][-1],
        reason=status["reason"],
        seconds=records[-1].at - records[0].at,
        requests=requests,
        p50_ms=quantile_ms(during, 0.5),
        p99_ms=quantile_ms(during, 0.99),
        envoy_us=(after.envoy_s - before.envoy_s) / max(during.values()) * 1e6,
        envoy_mb=peaks.envoy_mb,
        evaluator_mb=peaks.evaluator_mb,
        met=Counter(version for _, version in seen.met[answered:]),
        candidate=str(number),
        compared=_pairs(records),
        not_delivered=after.not_delivered - before.not_delivered,
        unanswered=after.grown(before, "penstock_mirror_unanswered_total"),
        rows_dropped=after.grown(before, 'penstock_mirror_sample_rows_total{outcome="dropped"}'),
        missing_ticks=sum(bool((r.body.get("paired") or {}).get("missing")) for r in records if r.kind is Kind.TICK),
    )


def _pairs(records: Sequence[Record]) -> int:
    counts = [r.body.get("paired") or {} for r in records if r.kind is Kind.TICK]
    return sum(c.get(k, 0) for c in counts for k in ("both_ok", "both_bad", "candidate_only_bad", "stable_only_bad"))


@dataclass(frozen=True)
class Reading:
    """Everything that counts up, at one moment. `envoy_s` is Envoy's processor time."""

    latencies: dict[float, int]
    metrics: dict[str, float]
    not_delivered: int
    envoy_s: float

    @classmethod
    def of(cls, penstock: Penstock) -> Reading:
        envoy_s = processor_s(pid_of(penstock, "envoy"))
        return cls(latencies(penstock), counters(penstock), not_delivered(penstock), envoy_s)

    def grown(self, before: Reading, name: str) -> int:
        """By how much, also when the counter began anew in between."""
        now, then = self.metrics[name], before.metrics[name]
        return round(now - then if now >= then else now)


async def _decided(penstock: Penstock, candidate: int) -> dict[str, Any]:
    deadline = time.monotonic() + LONGEST_S
    while True:
        status: dict[str, Any] = await asyncio.to_thread(penstock.rollout, MODEL)
        if status["candidate"] == candidate and status["state"] in FINAL:
            return status
        assert time.monotonic() < deadline, status
        await asyncio.sleep(0.2)


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


@dataclass
class Peaks:
    """The most memory that two processes held while they were watched."""

    penstock: Penstock
    envoy_mb: float = 0.0
    evaluator_mb: float = 0.0

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _watch(self) -> None:
        while True:
            self.envoy_mb = max(self.envoy_mb, megabytes(pid_of(self.penstock, "envoy")))
            self.evaluator_mb = max(self.evaluator_mb, megabytes(pid_of(self.penstock, "evaluator")))
            await asyncio.sleep(0.2)


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


def limit_files(penstock: Penstock, size: int) -> None:
    pid = pid_of(penstock, "evaluator")
    if pid:
        try:
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
        except ProcessLookupError:
            return


def megabytes(pid: int) -> float:
    """Resident memory; 0 for a process that is not there."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def processor_s(pid: int) -> float:
    """What a process has used so far, user and system, seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def not_delivered(penstock: Penstock) -> int:
    """Copies that Envoy dropped: nobody listened, nobody answered in time, or too many waited."""
    wanted = r"^cluster\.penstock-mirror\.(upstream_rq_5xx|upstream_rq_max_duration_reached|upstream_rq_rx_reset)$"
    lines = stats(penstock, "/stats", wanted).splitlines()
    return sum(int(line.rsplit(": ", 1)[1]) for line in lines)


def latencies(penstock: Penstock) -> dict[float, int]:
    """Envoy's cumulative histogram of predictions that succeeded, of all versions: how many by upper edge, us."""
    text = stats(penstock, "/stats/prometheus", rf"^penstock\.latency\.model\.{MODEL}\.version\.[0-9]+\.gs\.0$")
    by_edge: Counter[float] = Counter()
    for sample in parse(text):
        if sample.name.endswith("latency_bucket"):
            by_edge[float(sample.labels["le"])] += int(sample.value)
    return dict(by_edge)


def quantile_ms(cumulative: dict[float, int], q: float) -> float:
    wanted = q * max(cumulative.values(), default=0)
    return next((edge / 1000 for edge in sorted(cumulative) if cumulative[edge] >= wanted), float("nan"))


def stats(penstock: Penstock, path: str, wanted: str) -> str:
    ports = json.loads((penstock.data_dir / "run" / "ports.json").read_text())
    return httpx.get(f"http://127.0.0.1:{ports['envoy_admin']}{path}", params={"filter": wanted}, timeout=30).text


def counters(penstock: Penstock) -> dict[str, float]:
    """The control plane's counters by name and labels, as /metrics spells them."""
    text = httpx.get(f"{penstock.operators}/metrics", timeout=30).raise_for_status().text
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in lines if "_total" in name}


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, running(Path(directory)) as penstock:
        outcome = asyncio.run(rollouts(penstock, tell=print))
    print("\n".join([*outcome.lines(), f"failed requests: {len(outcome.failures)}"]))  # noqa: T201


if __name__ == "__main__":
    main()
