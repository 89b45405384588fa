"""What a load test saw: every outcome by second, protocol and version, while the load runs.

Owned by one process, whose greenlets never interleave inside a call. A worker of a distributed test drains its tally
and the master merges what it gets, so that the whole is the same wherever a request was sent from. Read out as
`loadtest.results.Results` (totals, for those who watch) and as `loadtest.record.Record` (everything, for the report).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loadtest.histogram import Histogram, merged
from loadtest.results import UNKNOWN_VERSION, Failure, Results, Row


@dataclass(slots=True)
class Cell:
    """One second of one protocol and version. Latencies are of successful requests."""

    requests: int = 0
    failed: int = 0
    latencies: Histogram = field(default_factory=Histogram)

    def merge(self, other: Cell) -> None:
        self.requests += other.requests
        self.failed += other.failed
        self.latencies.merge(other.latencies)


@dataclass(slots=True)
class GeneratorSecond:
    """How the load generator itself fared in one second.

    `lag` is how late due requests were sent by the generator's own fault, `queued` how late because all users were
    waiting for answers; `cpu` the share (0..1) of one core that the sending thread used, of the busiest process.
    """

    lag: Histogram = field(default_factory=Histogram)
    queued: Histogram = field(default_factory=Histogram)
    cpu: float = 0.0

    def merge(self, other: GeneratorSecond) -> None:
        self.lag.merge(other.lag)
        self.queued.merge(other.queued)
        self.cpu = max(self.cpu, other.cpu)


class Tally:
    """Counts outcomes as they come."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.cells: defaultdict[tuple[int, str, int], Cell] = defaultdict(Cell)
        self.answers: Counter[tuple[int, int]] = Counter()
        """Successful answers by the second in which they came, and version; `cells` are by when requests were due."""
        self.failures: Counter[tuple[int, str, int, str]] = Counter()
        self.examples: dict[tuple[str, int, str], str] = {}
        self.generator: defaultdict[int, GeneratorSecond] = defaultdict(GeneratorSecond)
        self.cpu_s = 0.0
        self.feedback_sent = 0
        self.feedback_failed = 0
        self._users: defaultdict[int, set[str]] = defaultdict(set)

    def success(
        self, protocol: str, version: int, user: str, latency_us: float, *, second: int = 0, came: int = 0
    ) -> None:
        """A request that was due in `second` was answered in the second `came`."""
        self._users[version].add(user)
        self.answers[came, version] += 1
        cell = self.cells[second, protocol, version]
        cell.requests += 1
        cell.latencies.record(latency_us)

    def failure(self, protocol: str, version: int, user: str, reason: str, message: str, *, second: int = 0) -> None:
        self._users[version].add(user)
        cell = self.cells[second, protocol, version]
        cell.requests += 1
        cell.failed += 1
        self._count_failure(second, protocol, version, reason, message)

    def feedback(self, failure: str = "", *, second: int = 0) -> None:
        """One feedback call; `failure` says why it was not taken."""
        self.feedback_sent += 1
        if failure:
            self.feedback_failed += 1
            self._count_failure(second, "feedback", UNKNOWN_VERSION, "FEEDBACK", failure)

    def turn(self, second: int, *, lag_us: float, queued_us: float) -> None:
        """One request of an open loop was sent so late."""
        self.generator[second].lag.record(lag_us)
        self.generator[second].queued.record(queued_us)

    def used_cpu(self, second: int, *, cpu_s: float, share: float) -> None:
        """CPU seconds that the sending thread used since it last told, and what share of a core that was."""
        self.cpu_s += cpu_s
        self.generator[second].cpu = max(self.generator[second].cpu, share)

    def results(self, seconds: float) -> Results:
        whole: defaultdict[tuple[str, int], Cell] = defaultdict(Cell)
        for (_, protocol, version), cell in self.cells.items():
            whole[protocol, version].merge(cell)
        failures: Counter[tuple[str, int, str]] = Counter()
        for (_, protocol, version, reason), count in self.failures.items():
            failures[protocol, version, reason] += count
        return Results(
            seconds=seconds,
            rows=tuple(
                Row(
                    protocol,
                    version,
                    cell.requests,
                    cell.failed,
                    cell.latencies.quantile_ms(0.5) or 0.0,
                    cell.latencies.quantile_ms(0.99) or 0.0,
                )
                for (protocol, version), cell in sorted(whole.items())
            ),
            failures=tuple(
                Failure(*kind, count=count, example=self.examples[kind]) for kind, count in failures.items()
            ),
            users=len(set().union(*self._users.values())),
            users_by_version={version: len(users) for version, users in sorted(self._users.items())},
            feedback_sent=self.feedback_sent,
            feedback_failed=self.feedback_failed,
        )

    def latencies(self) -> Histogram:
        """Of all successful requests."""
        return merged(cell.latencies for cell in self.cells.values())

    def drain(self) -> dict[str, Any]:
        """Everything counted since the last drain as plain lists and dicts, and count from nothing again."""
        content = self.to_json()
        self._clear()
        return content

    def to_json(self) -> dict[str, Any]:
        return {
            "cells": [
                [*where, cell.requests, cell.failed, cell.latencies.pairs()] for where, cell in self.cells.items()
            ],
            "answers": [[*when, count] for when, count in self.answers.items()],
            "failures": [[*kind, count] for kind, count in self.failures.items()],
            "examples": [[*kind, example] for kind, example in self.examples.items()],
            "generator": [
                [second, told.lag.pairs(), told.queued.pairs(), told.cpu] for second, told in self.generator.items()
            ],
            "cpu_s": self.cpu_s,
            "feedback": [self.feedback_sent, self.feedback_failed],
            "users": [[version, sorted(users)] for version, users in self._users.items()],
        }

    def merge(self, content: Mapping[str, Any]) -> None:
        """Add what another tally's `to_json` or `drain` gave."""
        for second, protocol, version, requests, failed, pairs in content["cells"]:
            self.cells[second, protocol, version].merge(Cell(requests, failed, Histogram(pairs)))
        for second, version, count in content["answers"]:
            self.answers[second, version] += count
        for second, protocol, version, reason, count in content["failures"]:
            self.failures[second, protocol, version, reason] += count
        for protocol, version, reason, example in content["examples"]:
            self.examples.setdefault((protocol, version, reason), example)
        for second, lag, queued, cpu in content["generator"]:
            self.generator[second].merge(GeneratorSecond(Histogram(lag), Histogram(queued), cpu))
        self.cpu_s += content["cpu_s"]
        self.feedback_sent += content["feedback"][0]
        self.feedback_failed += content["feedback"][1]
        for version, users in content["users"]:
            self._users[version].update(users)

    def _count_failure(self, second: int, protocol: str, version: int, reason: str, message: str) -> None:
        self.failures[second, protocol, version, reason] += 1
        self.examples.setdefault((protocol, version, reason), message)
