"""What a load test saw, by version and protocol: counted while it runs, written every second, read live by others.

The Locust side (`Tally`) and the reading side (`Results`) share only the JSON file, which is replaced whole, so that a
reader never meets half of one.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

UNKNOWN_VERSION = 0
"""Requests whose answer named no version: refused before a version was chosen, or never answered."""

BUCKETS_PER_DOUBLING = 8
"""Latencies are counted in buckets about 9 % wide."""


@dataclass(frozen=True, slots=True)
class Row:
    """Requests of one protocol answered by one version. Latencies are of successful requests, in milliseconds."""

    protocol: str
    version: int
    requests: int
    failed: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Failure:
    """Failures of one kind; `example` is the message of the first."""

    protocol: str
    version: int
    reason: str
    count: int
    example: str


@dataclass(frozen=True, slots=True)
class Results:
    """Totals since the start of the load.

    `users` counts the callers seen, `users_by_version` those whom each version answered at least once.
    """

    seconds: float = 0.0
    rows: tuple[Row, ...] = ()
    failures: tuple[Failure, ...] = ()
    users: int = 0
    users_by_version: Mapping[int, int] = field(default_factory=dict)
    feedback_sent: int = 0
    feedback_failed: int = 0

    @property
    def requests(self) -> int:
        return sum(row.requests for row in self.rows)

    def requests_of(self, version: int) -> int:
        return sum(row.requests for row in self.rows if row.version == version)

    def failed_of(self, version: int) -> int:
        return sum(row.failed for row in self.rows if row.version == version)

    def failed_except(self, versions: Iterable[int]) -> int:
        """Failures that are not the fault of the given versions, failed feedback among them."""
        at_fault = set(versions)
        return sum(row.failed for row in self.rows if row.version not in at_fault) + self.feedback_failed

    def share_of_users(self, version: int) -> float:
        """The share (0..1) of callers whom the version answered at least once."""
        return self.users_by_version.get(version, 0) / self.users if self.users else 0.0

    def write(self, path: Path) -> None:
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")
        os.replace(temporary, path)

    @classmethod
    def read(cls, path: Path) -> Results:
        """The latest results; empty ones as long as nothing was written."""
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls()
        return cls(
            seconds=value["seconds"],
            rows=tuple(Row(**row) for row in value["rows"]),
            failures=tuple(Failure(**failure) for failure in value["failures"]),
            users=value["users"],
            users_by_version={int(version): count for version, count in value["users_by_version"].items()},
            feedback_sent=value["feedback_sent"],
            feedback_failed=value["feedback_failed"],
        )


@dataclass(slots=True)
class _Cell:
    requests: int = 0
    failed: int = 0
    latencies: Counter[int] = field(default_factory=Counter)

    def quantile_ms(self, q: float) -> float:
        """The upper edge of the bucket that holds quantile `q`; 0 without any latency."""
        rank = math.ceil(q * self.latencies.total())
        for bucket, count in sorted(self.latencies.items()):
            rank -= count
            if rank <= 0:
                return math.exp2(bucket / BUCKETS_PER_DOUBLING) / 1000
        return 0.0


class Tally:
    """Counts outcomes as they come. Owned by the Locust process, whose greenlets never interleave inside a call."""

    def __init__(self) -> None:
        self._cells: dict[tuple[str, int], _Cell] = {}
        self._failures: Counter[tuple[str, int, str]] = Counter()
        self._examples: dict[tuple[str, int, str], str] = {}
        self._users: dict[int, set[str]] = {}
        self._feedback_sent = 0
        self._feedback_failed = 0

    def success(self, protocol: str, version: int, user: str, latency_us: float) -> None:
        cell = self._cell(protocol, version, user)
        cell.latencies[math.ceil(BUCKETS_PER_DOUBLING * math.log2(max(latency_us, 1.0)))] += 1

    def failure(self, protocol: str, version: int, user: str, reason: str, message: str) -> None:
        self._cell(protocol, version, user).failed += 1
        self._count_failure(protocol, version, reason, message)

    def feedback(self, failure: str = "") -> None:
        """One feedback call; `failure` says why it was not taken."""
        self._feedback_sent += 1
        if failure:
            self._feedback_failed += 1
            self._count_failure("feedback", UNKNOWN_VERSION, "FEEDBACK", failure)

    def results(self, seconds: float) -> Results:
        return Results(
            seconds=seconds,
            rows=tuple(
                Row(protocol, version, cell.requests, cell.failed, cell.quantile_ms(0.5), cell.quantile_ms(0.99))
                for (protocol, version), cell in sorted(self._cells.items())
            ),
            failures=tuple(
                Failure(*kind, count=count, example=self._examples[kind]) for kind, count in self._failures.items()
            ),
            users=len(set().union(*self._users.values())),
            users_by_version={version: len(users) for version, users in sorted(self._users.items())},
            feedback_sent=self._feedback_sent,
            feedback_failed=self._feedback_failed,
        )

    def _cell(self, protocol: str, version: int, user: str) -> _Cell:
        cell = self._cells.setdefault((protocol, version), _Cell())
        cell.requests += 1
        self._users.setdefault(version, set()).add(user)
        return cell

    def _count_failure(self, protocol: str, version: int, reason: str, message: str) -> None:
        kind = (protocol, version, reason)
        self._failures[kind] += 1
        self._examples.setdefault(kind, message)
