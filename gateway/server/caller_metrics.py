"""What `GET /metrics` says of the access log as evidence: callers that fail, ticks without them, history of stable."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rollout.evidence.callers import CallerLog
from rollout.evidence.history import StableHistory


class CallerMetrics(Collector):
    """Both are asked for at each scrape."""

    def __init__(self, callers: Callable[[], CallerLog], history: Callable[[], StableHistory]) -> None:
        self._callers = callers
        self._history = history

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        callers, history = self._callers(), self._history()
        yield GaugeMetricFamily(
            "penstock_callers_failing",
            "Sticky callers that failed and have not recovered: each counts once.",
            value=len(callers.failing),
        )
        yield CounterMetricFamily(
            "penstock_callers_forgotten",
            "Failing callers that were forgotten because there were too many; each may count once more.",
            value=callers.failing.forgotten,
        )
        yield CounterMetricFamily(
            "penstock_callers_missing",
            "Ticks that were judged by request because the access log did not tell of all callers.",
            value=callers.uncounted,
        )
        stretches = CounterMetricFamily(
            "penstock_history_stretches", "Five minutes of a stable version, for calibration.", labels=["outcome"]
        )
        stretches.add_metric(["written"], history.written)
        stretches.add_metric(["dropped"], history.dropped)
        yield stretches
        yield CounterMetricFamily(
            "penstock_history_uncounted",
            "Requests that are not in the history because too many versions had traffic.",
            value=history.uncounted,
        )
