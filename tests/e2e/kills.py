"""Rollouts under load while the control plane is killed at random moments, again and again.

`python -m tests.e2e.kills --kills 100` prints the report; the nightly test asserts what does not depend on this
machine's speed. Each kill is SIGKILL to `penstock up` alone, at a moment drawn from a seed; it is started again at
once. Rollouts follow one another, each to the next version: one after the other judged by errors and latency, which
has to be promoted, and with a shadow step that asks for stable's answers, which this version does not give, so that
it has to be rolled back.

Of the evidence: what the journal had before a kill it has after it, line for line; each tick covers a second in which
somebody watched; and no answer of a candidate is in it that Envoy, which outlives the kills, did not count. No weight
rises without a verdict, and no caller meets a candidate before the journal granted it one or after it was withdrawn.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
import statistics
import tempfile
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from rollout.dump import parse
from rollout.evidence.exposition import parse as parse_exposition
from rollout.journal import Kind
from rollout.replay import replay
from tests import models
from tests.e2e.load import Load, load
from tests.e2e.running import Penstock, running
from tests.e2e.test_changes_under_load import ROW, in_thread
from tests.rollout.promises import answers_counted, transitions, unfounded_rises

MODEL, SERVICE = "stormy", "penstock.models.stormy.v1.Stormy"
LEASE_TTL_S = 30.0
SPEC = """
steps: [20, 50, 100]
holdback: 40
min_step: 3s
warmup: {start: 1s, step: 1s}
tolerance: {latency: 300%}
margins: {errors: 20%, latency_p50: 900%, latency_p99: none, accuracy: 5}
rollback_window: 1s
"""
"""Short and coarse, with a large control group: every kill should meet a rollout in another state."""

SHADOW = SPEC + "shadow: {share: 100, requests: 200, max_disagreement: 2%}\n"
KINDS = {"plain": (SPEC, "promoted"), "shadowed": (SHADOW, "rolled_back")}
"""The spec, and how its rollout has to end."""

LONGEST_S = 180.0
FINAL = ("promoted", "rolled_back", "aborted", "failed")


@dataclass
class Report:
    """What the kills did.

    `killed_at`: epoch seconds. `ready_s`: from the start of the new process to its "ready", and `ready_cpu_s` its
    processor time until then; `answers_s`: until the rollout's state was told; `weight_s`: until the weight was led
    again, where the rollout had one. `met`: the state that each kill met. `ends`: how each kind of rollout ended.
    `candidate_answers` came while nobody led, from a death until the weight was led again; `candidate_expected` is what
    the weight of before would have given. `counted` are the candidates' answers in the journals, of `answered` that
    Envoy counted. `broken` are promises that were not kept, in words; `failures` are failed requests.
    """

    killed_at: list[float] = field(default_factory=list)
    ready_s: list[float] = field(default_factory=list)
    ready_cpu_s: list[float] = field(default_factory=list)
    answers_s: list[float] = field(default_factory=list)
    weight_s: list[float] = field(default_factory=list)
    met: Counter[str] = field(default_factory=Counter)
    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    verdicts: int = 0
    differing: list[str] = field(default_factory=list)
    requests: int = 0
    candidate_answers: int = 0
    candidate_expected: float = 0.0
    counted: int = 0
    answered: int = 0
    broken: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        ends = ", ".join(f"{count} {kind} {state}" for (kind, state), count in sorted(self.ends.items()))
        met = ", ".join(f"{state} {count}" for state, count in self.met.most_common())
        return [
            f"{sum(self.met.values())} kills; they met: {met}",
            f"{self.requests:,} requests, {len(self.failures)} failed",
            f"rollouts that ended: {ends}",
            f"verdicts judged again from the journals: {self.verdicts:,}, of which {len(self.differing)} differ",
            f"promises broken: {len(self.broken)}",
            f"answers of candidates in the journals: {self.counted:,} of {self.answered:,} that Envoy counted",
            f"the candidate's answers while nobody led: {self.candidate_answers:,} of {self.candidate_expected:,.0f} "
            "expected by the lease that Envoy still held",
            f"from start to ready: {_spread(self.ready_s)}",
            f"processor time until then: {_spread(self.ready_cpu_s)}",
            f"from start to the rollout's state: {_spread(self.answers_s)}",
            f"from start to its weight, or to the first answer where that came later: {_spread(self.weight_s)}",
        ]


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "never measured"
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]
    return f"median {statistics.median(ordered):.2f} s, p95 {p95:.2f} s, longest {ordered[-1]:.2f} s, n {len(ordered)}"


async def storm(stack: Penstock, *, kills: int, seed: int, tell: Callable[[str], object] = lambda line: None) -> Report:
    """Kill and restart `kills` times, then let the last rollout end. `tell` hears the report so far."""
    chance, report = random.Random(seed), Report()
    await in_thread(stack.deploy_live, MODEL, models.add(1))
    async with load(stack, MODEL, SERVICE, ROW, workers=3) as seen:
        await seen.answered(50)
        rollout, kind = await _next_rollout(stack, "plain"), "plain"
        for _ in range(kills):
            await asyncio.sleep(chance.uniform(0.0, 6.0))
            status = await in_thread(stack.rollout, MODEL)
            if status["state"] in FINAL:
                await _ended(stack, kind, status, report, seen)
                kind = "shadowed" if kind == "plain" else "plain"
                rollout = await _next_rollout(stack, kind)
                await asyncio.sleep(chance.uniform(0.0, 3.0))
                status = await in_thread(stack.rollout, MODEL)
            report.met[status["state"]] += 1
            await _kill_and_restart(stack, status, report, seen)
            _count(seen, report)
            tell("\n".join([*report.lines(), ""]))
        await _ended(stack, kind, await _decided(stack, rollout), report, seen)
        _count(seen, report)
    return report


def _count(seen: Load, report: Report) -> None:
    report.requests = len(seen.answers) + len(seen.failures)
    report.failures = list(seen.failures)


async def _next_rollout(stack: Penstock, kind: str) -> int:
    versions = (await in_thread(httpx.get, f"{stack.operators}/api/v1/models/{MODEL}", timeout=30)).json()["versions"]
    artefact = models.add(len(versions) + 1)
    await in_thread(stack.deploy, MODEL, artefact, spec=KINDS[kind][0])
    return int((await in_thread(stack.rollout, MODEL))["rollout_id"])


async def _kill_and_restart(stack: Penstock, before: dict[str, Any], report: Report, seen: Load) -> None:
    await in_thread(stack.kill)
    report.killed_at.append(time.time())
    killed, first = time.monotonic(), len(seen.answers)
    written = _written(stack, before["rollout_id"])
    started = time.monotonic()
    await in_thread(stack.start)
    report.ready_s.append(time.monotonic() - started)
    report.ready_cpu_s.append(_processor_s(stack.pid))
    if _written(stack, before["rollout_id"])[: len(written)] != written:
        report.broken.append(f"the journal of rollout {before['rollout_id']} is another after a kill")
    status = await in_thread(stack.rollout, MODEL)
    report.answers_s.append(time.monotonic() - started)
    assert status["rollout_id"] == before["rollout_id"], "the rollout is the one that was under way"
    assert status["granted_bp"] >= 0
    leads = bool(status["granted_bp"]) and status["state"] in ("step", "baking")
    while leads and not status["weight_bp"] and status["state"] in ("step", "baking"):
        await asyncio.sleep(0.02)
        status = await in_thread(stack.rollout, MODEL)
    if leads and status["weight_bp"]:
        report.weight_s.append(time.monotonic() - started)
    if before["weight_bp"] and time.monotonic() - killed < LEASE_TTL_S - 1.0:
        answers = Counter(version for _, version in seen.answers[first:])
        report.candidate_answers += answers[str(before["candidate"])]
        report.candidate_expected += answers.total() * before["weight_bp"] / 10_000


async def _decided(stack: Penstock, rollout: int) -> dict[str, Any]:
    deadline = time.monotonic() + LONGEST_S
    while True:
        status: dict[str, Any] = await in_thread(stack.rollout, MODEL)
        if status["rollout_id"] == rollout and status["state"] in FINAL:
            return status
        assert time.monotonic() < deadline, status
        await asyncio.sleep(0.1)


async def _ended(stack: Penstock, kind: str, status: dict[str, Any], report: Report, seen: Load) -> None:
    """Count how it ended, judge it again from its journal, and hold the journal and the callers against each other."""
    report.ends[kind, status["state"]] += 1
    name, candidate = f"rollout {status['rollout_id']} ({kind})", str(status["candidate"])
    response = await in_thread(httpx.get, f"{stack.operators}/api/v1/rollouts/{status['rollout_id']}/journal")
    row, records = parse(response.raise_for_status().text.splitlines())
    again = await in_thread(replay, row, records)
    report.verdicts += again.verdicts
    report.differing += [f"{name}: {difference}" for difference in again.differences]
    report.broken += [f"{name}: {rise}" for rise in unfounded_rises(records)]
    spans = [(r.body["at"] - r.body["s"], r.body["at"]) for r in records if r.kind is Kind.TICK]
    over = [killed for killed in report.killed_at for since, until in spans if since < killed < until]
    report.broken += [f"{name}: a tick spans the kill at {killed:.3f}" for killed in over]

    grants = [record.at for record, progress in transitions(records) if progress.weight_bp]
    epoch = time.time() - time.monotonic()
    met = [at + epoch for at, version in seen.answers if version == candidate]
    if met and (not grants or min(met) < grants[0]):
        report.broken.append(f"{name}: callers met version {candidate} before it was granted any traffic")
    now = await seen.next_versions(50)
    if (candidate in now) != (status["state"] == "promoted"):
        report.broken.append(f"{name} is {status['state']}, and callers meet {now}")

    counted, answered = answers_counted(records, status["candidate"]), await in_thread(_answered, stack, candidate)
    report.counted += counted
    report.answered += answered
    if counted > answered:
        report.broken.append(f"{name}: the journal has {counted} answers of version {candidate}, Envoy {answered}")


def _written(stack: Penstock, rollout: int) -> list[tuple[Any, ...]]:
    """The journal as it lies in the database, whoever is alive."""
    with closing(sqlite3.connect(stack.data_dir / "penstock.db")) as db:
        return db.execute("SELECT * FROM journal WHERE rollout_id = ? ORDER BY seq", (rollout,)).fetchall()


def _answered(stack: Penstock, version: str) -> int:
    """Envoy's own count of a version's answers. It is not restarted, so the count is since the first one."""
    ports = json.loads((stack.data_dir / "run" / "ports.json").read_text())
    wanted = rf"^penstock\.requests\.model\.{MODEL}\.version\.{version}\."
    url = f"http://127.0.0.1:{ports['envoy_admin']}/stats/prometheus"
    text = httpx.get(url, params={"filter": wanted}, timeout=30).raise_for_status().text
    return round(sum(sample.value for sample in parse_exposition(text)))


def _processor_s(pid: int) -> float:
    """What a process has used so far, user and system, seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    options = ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=100)
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as directory, running(Path(directory), lease_ttl_s=LEASE_TTL_S) as stack:
        report = asyncio.run(storm(stack, kills=chosen.kills, seed=chosen.seed, tell=print))
    print("\n".join([*report.lines(), *report.broken, *report.failures[:10], *report.differing[:3]]))  # noqa: T201


if __name__ == "__main__":
    main()
