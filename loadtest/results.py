"""Totals of a load test by version and protocol, written every second while it runs and read live by others.

The Locust side (`loadtest.tally`) and the readers (the demo) share only the JSON file, which is replaced whole, so that
nobody meets half of one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

UNKNOWN_VERSION = 0
"""Requests whose answer named no version: refused before a version was chosen, or never answered."""


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
