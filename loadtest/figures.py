"""Figures of a finished load test: series over time, percentiles, failures, the generator's own limit, the knee.

Pure: reads a `loadtest.record.Record`; `loadtest.report` and `loadtest.tables` show them, `loadtest.conclusion` judges.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from loadtest.histogram import Histogram, merged
from loadtest.record import Event, Record
from loadtest.results import UNKNOWN_VERSION
from loadtest.scenarios import RAMP_STEPS, Knee, Plateau, Scenario, find_knee
from loadtest.tally import Cell, GeneratorSecond

POINTS = 240
"""A chart's most points: about what a screen can tell apart."""

NICE_INTERVALS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)

LATE_MS = 25.0
"""A generator whose p99 of lateness is above this does not get the CPU that it needs from its machine."""

BUSY = 0.9
"""A process whose sending thread uses this share of a core has nothing left."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart: a value at each second, None where there was nothing to measure."""

    name: str
    points: tuple[tuple[float, float | None], ...]


@dataclass(frozen=True, slots=True)
class Group:
    """All requests of one protocol and version, or of one of them. Latencies are of successful requests."""

    name: str
    requests: int
    failed: int
    latencies: Histogram


@dataclass(frozen=True, slots=True)
class Lost:
    """Failed requests of one kind over the whole test; `version` 0 is none."""

    protocol: str
    version: int
    reason: str
    count: int
    first_second: int
    example: str


@dataclass(frozen=True, slots=True)
class Generator:
    """What the load generator itself could do.

    `cost_us` is CPU per request of the sending thread, `limit` the requests per second that all processes could send
    by it. `busiest` is the largest share of a core that one of them used in a second; `lag` says how late requests
    were sent by the generator's own fault, `queued` because every user still waited for an answer.
    """

    sent: int
    cost_us: float | None
    limit: float | None
    busiest: float
    busy_seconds: int
    lag: Histogram
    queued: Histogram

    @property
    def at_its_limit(self) -> bool:
        return self.busy_seconds > 0


class Figures:
    """Everything that a report says of one record."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.tally = record.tally
        self.requests = sum(cell.requests for cell in self.tally.cells.values())
        self.failed = sum(cell.failed for cell in self.tally.cells.values())
        self.latencies = merged(cell.latencies for cell in self.tally.cells.values())
        self.versions = sorted({version for _, _, version in self.tally.cells})
        self.interval_s = next((s for s in NICE_INTERVALS_S if record.seconds / s <= POINTS), NICE_INTERVALS_S[-1])

    @property
    def lost(self) -> int:
        """Failures that are nobody's own: of every version but the canary's candidate."""
        return sum(
            cell.failed for (_, _, version), cell in self.tally.cells.items() if version != self.record.candidate
        )

    @property
    def answered_per_s(self) -> float:
        return (self.requests - self.failed) / self.record.seconds if self.record.seconds else 0.0

    def latency_over_time(self, quantile: float) -> tuple[Series, ...]:
        """Milliseconds by version."""
        return self._by_version(lambda cell: cell.latencies.quantile_ms(quantile))

    def answers_over_time(self) -> tuple[Series, ...]:
        """Successful answers per second by version."""
        counts: defaultdict[int, defaultdict[float, int]] = defaultdict(lambda: defaultdict(int))
        for (second, version), count in self.tally.answers.items():
            counts[version][self._interval(second)] += count
        return tuple(
            Series(version_name(version), tuple((at, found[at] / self.interval_s) for at in self._instants()))
            for version, found in sorted(counts.items())
        )

    def due_over_time(self) -> Series:
        """What the schedule asked for, per second, in the middle of each interval. Users, of a closed loop."""
        schedule = self.record.plan.schedule
        return Series("due", tuple((at, schedule.rate_at(at + self.interval_s / 2)) for at in self._instants()))

    def failures_over_time(self) -> tuple[Series, ...]:
        """Failures per second by reason."""
        counts: defaultdict[str, defaultdict[float, int]] = defaultdict(lambda: defaultdict(int))
        for (second, _, _, reason), count in self.tally.failures.items():
            counts[reason][self._interval(second)] += count
        return tuple(
            Series(reason, tuple((at, found.get(at, 0) / self.interval_s) for at in self._instants()))
            for reason, found in sorted(counts.items())
        )

    def lag_over_time(self) -> Series:
        """p99 of the generator's own lateness, milliseconds."""
        lags: defaultdict[float, Histogram] = defaultdict(Histogram)
        for second, told in self.tally.generator.items():
            lags[self._interval(second)].merge(told.lag)
        return Series(
            "sent late, p99", tuple((at, lags[at].quantile_ms(0.99) if at in lags else None) for at in self._instants())
        )

    def cpu_over_time(self) -> Series:
        """Percent of one core of the busiest process' sending thread."""
        shares: defaultdict[float, float] = defaultdict(float)
        for second, told in self.tally.generator.items():
            shares[self._interval(second)] = max(shares[self._interval(second)], told.cpu * 100)
        return Series("CPU", tuple((at, shares.get(at)) for at in self._instants()))

    def by_version(self) -> tuple[Group, ...]:
        return self._groups(lambda _protocol, version: version_name(version))

    def by_protocol_and_version(self) -> tuple[Group, ...]:
        return self._groups(lambda protocol, version: f"{protocol} · {version_name(version)}")

    def failures(self) -> tuple[Lost, ...]:
        """Every kind of failure, the most frequent first."""
        counts: defaultdict[tuple[str, int, str], list[int]] = defaultdict(lambda: [0, 1 << 60])
        for (second, protocol, version, reason), count in self.tally.failures.items():
            kind = counts[protocol, version, reason]
            kind[0] += count
            kind[1] = min(kind[1], second)
        found = [Lost(*kind, count, first, self.tally.examples[kind]) for kind, (count, first) in counts.items()]
        return tuple(sorted(found, key=lambda lost: (-lost.count, lost.protocol, lost.version, lost.reason)))

    def generator(self) -> Generator:
        told = self.tally.generator.values()
        cost_us = self.tally.cpu_s / self.requests * 1e6 if self.requests and self.tally.cpu_s else None
        return Generator(
            sent=self.requests,
            cost_us=cost_us,
            limit=None if cost_us is None else self.record.surroundings.processes * 1e6 / cost_us,
            busiest=max((second.cpu for second in told), default=0.0),
            busy_seconds=sum(second.cpu >= BUSY for second in told),
            lag=merged(second.lag for second in told),
            queued=merged(second.queued for second in told),
        )

    def plateaus(self) -> tuple[Plateau, ...]:
        """The steps of a ramp as far as they were played; () of another scenario."""
        plan = self.record.plan
        if plan.scenario is not Scenario.RAMP:
            return ()
        return plateaus(self.record, min(RAMP_STEPS, round(self.record.seconds / (plan.seconds / RAMP_STEPS))))

    def events(self) -> tuple[Event, ...]:
        """What happened meanwhile: steps of a rollout; the end of a ramp's last step that was carried."""
        steps, closed = self.plateaus(), self.record.plan.closed
        for index in range(len(steps)):
            if (knee := find_knee(steps[: index + 1], closed=closed)).gave_way:
                end = index * self.record.plan.seconds / RAMP_STEPS
                return (*self.record.events, Event(end, f"from here on not carried: {knee.why}"))
        return self.record.events

    def knee(self) -> Knee | None:
        """Of a ramp; None of another scenario."""
        if self.record.plan.scenario is not Scenario.RAMP:
            return None
        return find_knee(self.plateaus(), closed=self.record.plan.closed)

    def _by_version(self, value: Callable[[Cell], float | None]) -> tuple[Series, ...]:
        cells: defaultdict[int, defaultdict[float, Cell]] = defaultdict(lambda: defaultdict(Cell))
        for (second, _, version), cell in self.tally.cells.items():
            cells[version][self._interval(second)].merge(cell)
        return tuple(
            Series(
                version_name(version),
                tuple((at, value(cells[version][at]) if at in cells[version] else None) for at in self._instants()),
            )
            for version in self.versions
        )

    def _groups(self, name: Callable[[str, int], str]) -> tuple[Group, ...]:
        groups: dict[str, Cell] = {}
        for (_, protocol, version), cell in sorted(self.tally.cells.items(), key=lambda item: item[0][:0:-1]):
            groups.setdefault(name(protocol, version), Cell()).merge(cell)
        return tuple(Group(title, cell.requests, cell.failed, cell.latencies) for title, cell in groups.items())

    def _interval(self, second: float) -> float:
        return float(second // self.interval_s * self.interval_s)

    def _instants(self) -> Iterable[float]:
        """The beginnings of the intervals, without a last one that was cut off."""
        last = max((second for second, _, _ in self.tally.cells), default=0)
        instants = [float(at) for at in range(0, last + 1, self.interval_s)]
        whole = [at for at in instants if at + self.interval_s <= self.record.seconds + 0.01]
        return whole or instants


def plateaus(record: Record, count: int) -> tuple[Plateau, ...]:
    """The first `count` steps of a ramp. The first fifth of each is left out: it still answers the step before."""
    step = record.plan.seconds / RAMP_STEPS
    schedule = record.plan.schedule
    found = []
    for index in range(count):
        begin, end = index * step + step / 5, (index + 1) * step
        seconds = [second for second in range(int(begin), int(end)) if second >= begin] or [int(begin)]
        cells = [cell for (second, _, _), cell in record.tally.cells.items() if second in seconds]
        told = [record.tally.generator[second] for second in seconds if second in record.tally.generator]
        found.append(
            Plateau(
                offered=schedule.rate_at((begin + end) / 2),
                answered=sum(count for (second, _), count in record.tally.answers.items() if second in seconds)
                / len(seconds),
                failed=sum(cell.failed for cell in cells),
                p99_ms=merged(cell.latencies for cell in cells).quantile_ms(0.99),
                generator_bound=_could_not_keep_up(told),
            )
        )
    return tuple(found)


def _could_not_keep_up(told: Sequence[GeneratorSecond]) -> bool:
    """Whether the generator was out of CPU, or was woken so late that its own delay is what its latencies show."""
    lag = merged(second.lag for second in told).quantile_ms(0.99) or 0.0
    return any(second.cpu >= BUSY for second in told) or lag > LATE_MS


def version_name(version: int) -> str:
    return "no version" if version == UNKNOWN_VERSION else f"version {version}"
